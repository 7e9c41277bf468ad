//! Answers of pods that mean harm: each costs a bounded number of bytes and a bounded time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What a socket takes in before anybody reads it, on both sides of a loopback connection.
const BUFFERED: usize = 16 << 20;

/// A pod that answers as `answer` does, and counts in the bytes that it got rid of.
async fn pod<F>(answer: impl Fn(TcpStream, Arc<AtomicUsize>) -> F + Send + 'static) -> (Endpoint, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            tokio::spawn(answer(stream, Arc::clone(&counter)));
        }
    });
    let token = AdminToken::read(&[b't'; 64]).unwrap();
    (Endpoint { address, token }, sent)
}

/// Sends a head and then the same bytes for as long as they are taken.
async fn endless(mut stream: TcpStream, sent: Arc<AtomicUsize>, head: &'static str, chunk: Vec<u8>) {
    let mut outcome = stream.write_all(head.as_bytes()).await;
    while outcome.is_ok() {
        sent.fetch_add(chunk.len(), Ordering::Relaxed);
        outcome = stream.write_all(&chunk).await;
    }
}

fn client() -> HttpRuntimeClient {
    HttpRuntimeClient::new().unwrap()
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off_whatever_length_it_announces() {
    let heads = [
        "HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1099511627776\r\n\r\n",
    ];
    for head in heads {
        let (endpoint, sent) = pod(move |stream, sent| endless(stream, sent, head, vec![b'['; 1 << 16])).await;
        let failed = client().state(&endpoint).await.unwrap_err();
        assert!(matches!(failed, RuntimeError::TooLarge { most: LARGEST_STATE, .. }), "{head}: {failed}");
        let failed = client().recorded_map(&endpoint).await.unwrap_err();
        assert!(matches!(failed, RuntimeError::TooLarge { most: LARGEST_RECORDED, .. }), "{head}: {failed}");
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < LARGEST_STATE + LARGEST_RECORDED + 2 * BUFFERED, "{head}: {sent} bytes were taken");
    }
}

#[tokio::test]
async fn chunks_without_end_are_cut_off() {
    let mut chunk = b"10000\r\n".to_vec();
    chunk.extend(vec![b' '; 0x10000]);
    chunk.extend(b"\r\n");
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let (endpoint, _) = pod(move |stream, sent| endless(stream, sent, head, chunk.clone())).await;
    let failed = client().state(&endpoint).await.unwrap_err();
    assert!(matches!(failed, RuntimeError::TooLarge { .. }), "{failed}");
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let header = format!("x-{}: {}\r\n", "n".repeat(100), "v".repeat(10_000)).into_bytes();
    let (endpoint, sent) = pod(move |stream, sent| endless(stream, sent, "HTTP/1.1 200 OK\r\n", header.clone())).await;
    let failed = client().state(&endpoint).await.unwrap_err();
    assert!(matches!(failed, RuntimeError::Unreachable { .. }), "{failed}");
    assert!(sent.load(Ordering::Relaxed) < BUFFERED);
}

#[tokio::test]
async fn an_answer_that_drips_or_does_not_come_ends_in_time() {
    let silent = |_stream: TcpStream, _sent| std::future::pending();
    let drips = |mut stream: TcpStream, _sent| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while stream.write_all(b" ").await.is_ok() {
            ticks.tick().await;
        }
    };
    let (silent, _) = pod(silent).await;
    let (drips, _) = pod(drips).await;
    let (client, began) = (client(), Instant::now());
    let (first, second) = futures::join!(client.state(&silent), client.state(&drips));
    for failed in [first.unwrap_err(), second.unwrap_err()] {
        assert!(matches!(failed, RuntimeError::Unreachable { .. }), "{failed}");
    }
    assert!(began.elapsed() < 10 * TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, asked) = pod(|_stream, sent: Arc<AtomicUsize>| async move {
        sent.fetch_add(1, Ordering::Relaxed);
    })
    .await;
    for status in [301, 302, 303, 307, 308] {
        let head = format!(
            "HTTP/1.1 {status} Away\r\nlocation: http://{}/admin/v1/state\r\ncontent-length: 0\r\n\r\n",
            elsewhere.address
        );
        let (endpoint, _) = pod(move |mut stream, _sent| {
            let head = head.clone();
            async move { drop(stream.write_all(head.as_bytes()).await) }
        })
        .await;
        let failed = client().state(&endpoint).await.unwrap_err();
        assert!(matches!(failed, RuntimeError::Status { status: found, .. } if found == status), "{failed}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_is_packed_is_not_unpacked() {
    // 1 MiB of zeros would come of it.
    let packed = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 10\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\x03";
    let (endpoint, _) = pod(move |mut stream, _sent| async move { drop(stream.write_all(packed).await) }).await;
    let failed = client().state(&endpoint).await.unwrap_err();
    assert!(matches!(failed, RuntimeError::Document { .. }), "{failed}");
}

#[tokio::test]
async fn the_token_is_sent_and_told_nobody() {
    let (asked, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap();
        asked.send(String::from_utf8(head[..read].to_vec()).unwrap()).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
    });
    let token = "t".repeat(64);
    let endpoint = Endpoint { address, token: AdminToken::read(token.as_bytes()).unwrap() };
    let failed = client().state(&endpoint).await.unwrap_err();
    assert!(heads.recv().await.unwrap().contains(&format!("authorization: Bearer {token}\r\n")));
    let told = format!("{failed} {failed:?} {endpoint:?}");
    assert!(matches!(failed, RuntimeError::Status { status: 401, .. }) && !told.contains("tttt"), "{told}");
}
