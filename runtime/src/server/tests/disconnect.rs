//! Clients that go away, on real connections.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::coordinator::fake::Fake;
use crate::server::fixture::Server;

const PATIENCE: Duration = Duration::from_mins(1);

/// Sends a request and does not read the answer.
async fn send(server: &Server, body: &str) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = crate::server::public(server.app.clone(), None);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    client
}

async fn until(server: &Server, metric: &str, value: f64) {
    let reached = async {
        while (server.metric(metric).await - value).abs() > f64::EPSILON {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{metric} does not become {value}"));
}

/// Steps are permitted one by one, so that the request cannot come to its end before its client is gone.
#[tokio::test]
async fn a_client_that_goes_away_frees_its_blocks_whether_it_streams_or_not() {
    let blocks = "swiftbalancer_kv_blocks_used{rank=\"0\"}";
    for stream in [false, true] {
        let server = Server::start(Fake { gated: true, ranks: 1, ..Fake::default() });
        let permits = server.remote.permits.as_ref().unwrap();
        let body = json!({"prompt": "a", "max_tokens": 500, "ignore_eos": true, "stream": stream});
        let mut client = send(&server, &body.to_string()).await;
        permits.send(()).unwrap();
        until(&server, "swiftbalancer_sequences_running", 1.0).await;
        assert!(server.metric(blocks).await > 0.0);
        if stream {
            let mut head = [0; 15];
            client.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200 OK");
        }
        drop(client);
        // No step ends meanwhile: the connection itself tells that nobody reads any more.
        until(&server, "swiftbalancer_requests_total{outcome=\"cancelled\",route=\"completions\"}", 1.0).await;
        permits.send(()).unwrap();
        until(&server, blocks, 0.0).await;
        until(&server, "swiftbalancer_sequences_running", 0.0).await;
        assert_eq!(server.remote.steps.load(std::sync::atomic::Ordering::SeqCst), 2);
    }
}
