//! Connections that behave badly, on real sockets.

use std::net::TcpListener as StdListener;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, watch};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that are told that there is no place for them.
const REFUSED: usize = 8;

/// A server of `/livez`, of `/body`, which answers with the length of what it is sent, of `/slow`, which waits for a word,
/// and of `/endless`, which sends without end.
struct Server {
    address: SocketAddr,
    go: Arc<Notify>,
    /// One for each request that waits for the word.
    waiting: Arc<Semaphore>,
    stop: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<io::Result<()>>,
    given_up: Arc<std::sync::Mutex<Option<Reader>>>,
}

impl Server {
    fn start(bounds: ConnectionBounds) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (go, given_up) = (Arc::new(Notify::new()), Arc::new(std::sync::Mutex::new(None)));
        let (wait, reader) = (Arc::clone(&go), Arc::clone(&given_up));
        let waiting = Arc::new(Semaphore::new(0));
        let begun = Arc::clone(&waiting);
        let slow = async move || {
            begun.add_permits(1);
            wait.notified().await;
        };
        let endless = async move |axum::Extension(found): axum::Extension<Reader>| {
            *reader.lock().unwrap() = Some(found);
            Body::from_stream(futures::stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 1 << 16])))
        };
        let router = Router::new()
            .route("/livez", get(async || "ok"))
            .route("/body", post(async |body: bytes::Bytes| body.len().to_string()))
            .route("/endless", get(endless))
            .route("/slow", get(slow));
        let (stop, stopped) = watch::channel(false);
        let ended = tokio::spawn(serve(router, listener, bounds, stopped));
        Self { address, go, waiting, stop, ended, given_up }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Sends as many requests that wait for a word, and sees that they wait.
    async fn wait_for<const N: usize>(&self, request: &str) -> [TcpStream; N] {
        let mut streams = Vec::new();
        for _ in 0..N {
            streams.push(self.send(request).await);
        }
        let waiting = self.waiting.acquire_many(N as u32);
        tokio::time::timeout(PATIENCE, waiting).await.expect("they wait").unwrap().forget();
        streams.try_into().unwrap()
    }

    async fn is_alive(&self) -> bool {
        let mut stream = self.send("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        all(&mut stream).await.ends_with("ok")
    }
}

/// What comes until the connection ends, however it ends.
async fn all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = async {
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut bytes).await;
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the connection ends");
    String::from_utf8(bytes).unwrap()
}

fn bounds(connections: usize) -> ConnectionBounds {
    ConnectionBounds {
        head: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        ..ConnectionBounds::of(connections, REFUSED)
    }
}

#[tokio::test]
async fn who_sends_no_whole_head_is_closed_and_so_is_who_says_nothing_more() {
    let server = Server::start(bounds(8));
    let mut silent = server.connect().await;
    let mut half = server.send("GET /livez HTTP/1.1\r\nho").await;
    let mut idle = server.send("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(all(&mut silent).await, "");
    assert_eq!(all(&mut half).await, "");
    assert!(all(&mut idle).await.ends_with("ok"), "answered, and closed later");
    assert!(server.is_alive().await);
}

#[tokio::test]
async fn many_who_wait_keep_nobody_out() {
    let server = Server::start(ConnectionBounds::of(4, REFUSED));
    let mut waiting = Vec::new();
    for number in 0..40 {
        let part = ["", "GET /livez HTTP/1.1\r\n", "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"];
        waiting.push(server.send(part[number % part.len()]).await);
        assert!(server.is_alive().await, "after {number}");
    }
    assert_eq!(all(&mut waiting[0]).await, "", "the first ones were closed");
}

#[tokio::test]
async fn where_all_are_being_answered_the_next_one_is_told_so_and_they_are_answered() {
    let server = Server::start(ConnectionBounds::of(2, REFUSED));
    let slow = "GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut two: [_; 2] = server.wait_for(slow).await;
    let next = "GET /livez HTTP/1.1\r\nhost: x\r\nx-request-id: trace-9\r\nconnection: close\r\n\r\n";
    let refused = all(&mut server.send(next).await).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("x-request-id: trace-9\r\n"), "{refused}");
    assert!(refused.contains("retry-after: 1") && refused.contains("\"code\":\"service_unavailable\""), "{refused}");
    for stream in &mut two {
        server.go.notify_one();
        assert!(all(stream).await.starts_with("HTTP/1.1 200"));
    }
    assert!(server.is_alive().await);
}

#[tokio::test]
async fn those_who_were_refused_and_say_nothing_keep_nobody_from_a_place_that_is_free() {
    let server = Server::start(ConnectionBounds { head: Duration::from_hours(1), ..ConnectionBounds::of(2, REFUSED) });
    let slow = "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut two: [_; 2] = server.wait_for(slow).await;
    let live = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut silent = Vec::new();
    for _ in 0..REFUSED {
        silent.push(server.connect().await);
    }
    let mut next = server.send(live).await;
    server.go.notify_one();
    // The first stays open and is idle, so its place is free for whoever comes.
    assert!(all(&mut next).await.ends_with("ok"));
    server.go.notify_one();
    for stream in &mut two {
        let mut word = [0; 15];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut word)).await.expect("it is answered").unwrap();
    }
}

#[tokio::test]
async fn a_stop_waits_for_answers_and_for_nobody_who_has_not_asked() {
    let server = Server::start(ConnectionBounds::of(8, REFUSED));
    let mut slow = server.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let _others = [
        server.connect().await,
        server.send("GET /livez HTTP/1.1\r\n").await,
        server.send("POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc").await,
    ];
    assert!(server.is_alive().await);
    server.stop.send_replace(true);
    server.go.notify_one();
    assert!(all(&mut slow).await.starts_with("HTTP/1.1 200"));
    let started = Instant::now();
    tokio::time::timeout(PATIENCE, server.ended).await.expect("it ends").unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_given_up() {
    let server =
        Server::start(ConnectionBounds { unread: Duration::from_millis(300), ..ConnectionBounds::of(8, REFUSED) });
    let mut stream = server.send("GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    let given_up = async {
        while !server.given_up.lock().unwrap().as_ref().unwrap().is_given_up() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, given_up).await.expect("it is given up");
}

#[tokio::test]
async fn several_requests_share_a_connection_and_bytes_that_are_no_http_are_refused() {
    let server = Server::start(ConnectionBounds::of(8, REFUSED));
    let request = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
    let last = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = all(&mut server.send(&format!("{request}{request}{last}")).await).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    assert!(all(&mut server.send("\x16\x03\x01\r\n\r\n").await).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn what_follows_a_request_whose_end_others_may_see_elsewhere_is_no_request() {
    let server = Server::start(ConnectionBounds::of(8, REFUSED));
    let (chunked, length) = ("transfer-encoding: chunked\r\n", "content-length: 3\r\n");
    for headers in [
        format!("{chunked}{length}"),
        format!("{length}{chunked}"),
        format!("connection: keep-alive\r\n{length}{chunked}{length}"),
        chunked.to_owned(),
    ] {
        let hidden = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
        let request = format!("POST /body HTTP/1.1\r\nhost: x\r\n{headers}\r\n3\r\nabc\r\n0\r\n\r\n{hidden}");
        let answers = all(&mut server.send(&request).await).await;
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{headers:?}: {answers}");
        assert!(answers.starts_with("HTTP/1.1 200") && answers.contains("connection: close\r\n"), "{answers}");
    }
    for headers in ["transfer-encoding: chunked, identity\r\n", "content-length: 3\r\ncontent-length: 4\r\n"] {
        let request = format!("POST /body HTTP/1.1\r\nhost: x\r\n{headers}\r\n3\r\nabc\r\n0\r\n\r\n");
        let answers = all(&mut server.send(&request).await).await;
        assert!(answers.starts_with("HTTP/1.1 400") && answers.matches("HTTP/1.1 ").count() == 1, "{answers}");
    }
}

#[tokio::test]
async fn a_head_is_taken_up_to_its_bound_and_not_a_byte_beyond_it_however_it_comes() {
    let server = Server::start(ConnectionBounds::of(8, REFUSED));
    let head = |bytes: usize| {
        let (before, after) = ("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ", "\r\n\r\n");
        format!("{before}{}{after}", "y".repeat(bytes - before.len() - after.len()))
    };
    for (bytes, status) in [(HEAD_BYTES, "200"), (HEAD_BYTES + 1, "431"), (50_000, "431"), (2 * HEAD_BYTES, "431")] {
        for part in [HEAD_BYTES / 3, bytes] {
            let mut stream = server.connect().await;
            for part in head(bytes).as_bytes().chunks(part) {
                // It may be answered before all is sent.
                let _ = stream.write_all(part).await;
                tokio::task::yield_now().await;
            }
            // What was not read of it can reset the connection before the answer is there.
            let answer = all(&mut stream).await;
            let words = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&words) || status == "431" && answer.is_empty(), "{bytes} by {part}: {answer}");
        }
    }
}
