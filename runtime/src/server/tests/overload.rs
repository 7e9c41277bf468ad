use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::coordinator::fake::Fake;
use crate::scheduler::Limits;
use crate::server::fixture::Server;

const PATIENCE: Duration = Duration::from_secs(20);

/// One sequence runs, one may wait, and steps wait for permits.
fn narrow() -> Fake {
    Fake {
        gated: true,
        ranks: 1,
        limits: Limits { queued: 1, running_per_rank: 1, step_tokens: 64 },
        ..Fake::default()
    }
}

fn long(stream: bool) -> String {
    json!({"prompt": "a", "max_tokens": 500, "ignore_eos": true, "stream": stream}).to_string()
}

/// Sends a request over a real connection and does not read the answer.
async fn send(server: &Server, body: &str) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = crate::server::public(server.app.clone(), 1 << 20);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    stream
}

async fn until(server: &Server, metric: &str, value: f64) {
    let reached = async {
        while (server.metric(metric).await - value).abs() > f64::EPSILON {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{metric} does not become {value}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_frees_its_blocks_whether_it_streams_or_not() {
    for stream in [false, true] {
        let server = Server::start(narrow());
        let permits = server.remote.permits.as_ref().unwrap();
        let client = send(&server, &long(stream)).await;
        permits.send(()).unwrap();
        until(&server, "swiftbalancer_sequences_running", 1.0).await;
        assert!(server.metric("swiftbalancer_kv_blocks_used{rank=\"0\"}").await > 0.0);
        drop(client);
        let cancelled = "swiftbalancer_requests_total{outcome=\"cancelled\",route=\"completions\"}";
        let gone = async {
            while server.metric(cancelled).await < 1.0 {
                // The server hears of it when it next looks at the connection or writes to it.
                permits.send(()).unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
        permits.send(()).unwrap();
        until(&server, "swiftbalancer_kv_blocks_used{rank=\"0\"}", 0.0).await;
        until(&server, "swiftbalancer_sequences_running", 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_429_with_when_to_come_back_and_loses_nothing() {
    let server = Server::start(narrow());
    let permits = server.remote.permits.clone().unwrap();
    let mut first = send(&server, &long(false)).await;
    server.remote.begun.recv_timeout(PATIENCE).unwrap();
    let body = json!({"prompt": "a", "max_tokens": 1});
    let mut second = send(&server, &body.to_string()).await;
    // The second is in the queue at the end of the first step that begins after it has arrived.
    let waits = async {
        while server.metric("swiftbalancer_sequences_waiting").await < 1.0 {
            permits.send(()).unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap();
    let refused = tokio::spawn({
        let app = server.app.clone();
        async move {
            let router = crate::server::public(app, 1 << 20);
            let request = axum::http::Request::post("/v1/completions").body(body.to_string().into()).unwrap();
            crate::server::fixture::send(router, request).await
        }
    });
    while !refused.is_finished() {
        permits.send(()).unwrap();
        tokio::task::yield_now().await;
    }
    let refused = refused.await.unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert_eq!(refused.json()["error"]["message"], "1 of at most 1 sequences are waiting");
    (0..600).for_each(|_| permits.send(()).unwrap());
    for stream in [&mut first, &mut second] {
        let mut head = [0; 15];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
}
