//! HTTP connections: accepted within a bound, and closed when they keep the server waiting. Knows nothing of routes.
//!
//! Whoever connects beyond the bound takes the place of the connection that has kept the server waiting longest for the
//! bytes of a request, so idle connections never keep others out. Where every connection is being answered, further ones
//! get status 503.

mod body;
mod bounds;
mod stream;
mod watch;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::map_response;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower::ServiceExt as _;

use crate::seldom::Seldom;
use crate::server;
use body::{AnsweredBody, ReceivedBody};
pub use bounds::ConnectionBounds;
use stream::WatchedStream;
pub use watch::Reader;
use watch::{Open, Overdue, Watch};

/// Bytes of a request's line and headers.
const HEAD_BYTES: usize = 32 << 10;

/// Pause after the system has given no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a connection is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Silence after which the system asks whether the other end is there, and between its questions.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// Serves until `stop` says true; then answers what is being answered, and nothing else.
///
/// # Errors
/// If the listener cannot be used.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    bounds: ConnectionBounds,
    mut stop: Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let refusal = full();
    let (open, refused) = (Open::new(bounds.connections), Open::new(bounds.refused));
    let (watched, logged) = (stop.clone(), Logged::default());
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = told(&mut stop) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            // An answer that ends frees a place, and nobody says so.
            () = sleep(LOOK), if !(open.has_place() || refused.has_room()) => {}
            accepted = listener.accept(), if open.has_place() || refused.has_room() => match accepted {
                Ok((stream, peer)) => {
                    let (watch, router) = match open.enter(Instant::now()) {
                        Some(watch) => (Some(watch), &router),
                        None => (refused.enter(Instant::now()), &refusal),
                    };
                    if let Some(watch) = watch {
                        let (stop, logged) = (watched.clone(), Arc::clone(&logged));
                        tasks.spawn(Connection { watch, peer, bounds, stop, logged }.serve(stream, router.clone()));
                    }
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if let Some(more) = is_due(&logged, Kind::NotAccepted) {
                        let words = "a connection cannot be accepted; the one that has waited longest is closed";
                        tracing::warn!(%error, more, "{words}");
                    }
                    open.close_one();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Done when the server is to stop.
async fn told(stop: &mut Receiver<bool>) {
    // An error means that whoever could say so is gone.
    let _ = stop.wait_for(|&stop| stop).await;
}

/// Whether only the connection that was to be accepted is affected.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// The answer to whoever has no place.
fn full() -> Router {
    let refusal = server::full("the server answers as many connections as it can; try again in a moment");
    refusal.layer(map_response(async |mut response: Response| {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }))
}

/// What strangers can bring about as often as they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    NotAccepted,
    NoRequest,
}

/// What was logged of it lately.
type Logged = Arc<Mutex<Seldom<Kind>>>;

fn is_due(logged: &Logged, kind: Kind) -> Option<u64> {
    logged.lock().unwrap_or_else(PoisonError::into_inner).is_due(kind, Instant::now())
}

/// A connection of which the system knows the other end.
struct Connection {
    watch: watch::Entered,
    peer: SocketAddr,
    bounds: ConnectionBounds,
    stop: Receiver<bool>,
    logged: Logged,
}

impl Connection {
    async fn serve(self, stream: TcpStream, router: Router) {
        let Self { watch: entered, peer, bounds, mut stop, logged } = self;
        prepare(&stream);
        let watch = entered.watch();
        let stream = TokioIo::new(WatchedStream::new(stream, Arc::clone(watch)));
        let service = service_fn(|request| answer(router.clone(), Arc::clone(watch), request));
        let mut http = http1::Builder::new();
        // Its own timeout cannot tell an idle connection from half a head.
        http.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(HEAD_BYTES).max_buf_size(HEAD_BYTES);
        let mut connection = pin!(http.serve_connection(stream, service));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended && error.is_parse() && let Some(more) = is_due(&logged, Kind::NoRequest) {
                        tracing::info!(%peer, %error, more, "no HTTP request");
                    }
                    return;
                }
                () = entered.closed() => return,
                () = told(&mut stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = look.tick() => {
                    let bounds = if stopping { bounds.when_stopping() } else { bounds };
                    match watch.overdue(Instant::now(), &bounds) {
                        None => {}
                        Some(Overdue::Silent) => return,
                        Some(Overdue::Unread) => {
                            watch.give_up();
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// Small chunks go out at once, and a peer that is gone without a word is noticed.
fn prepare(stream: &TcpStream) {
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    let set = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keep_alive));
    if let Err(error) = set {
        // The connection is served all the same, as far as it is still there.
        tracing::debug!(%error, "a connection's options cannot be set");
    }
}

/// Whether a request may have said in two ways where it ends, by its chunks and by a length: then somebody between its
/// sender and this server may take what follows for a part of it, or the other way round. hyper goes by the chunks and
/// forgets that there was a length, so all that come in chunks count.
fn may_have_two_ends(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
}

async fn answer(
    router: Router,
    watch: Arc<Watch>,
    request: hyper::Request<Incoming>,
) -> Result<Response<AnsweredBody>, Infallible> {
    let mut request: Request = request.map(|body| Body::new(ReceivedBody::new(body, Arc::clone(&watch))));
    request.extensions_mut().insert(Reader::new(Arc::clone(&watch)));
    let is_last = may_have_two_ends(request.headers());
    let mut response = router.oneshot(request).await?;
    if is_last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    watch.answering();
    Ok(response.map(|body| AnsweredBody::new(body, watch)))
}

#[cfg(test)]
mod tests;
