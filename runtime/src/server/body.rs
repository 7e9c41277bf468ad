//! The bodies of requests: taken within bounds of size, time and memory, before anything is made of them.

mod pace;
mod room;

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, EXPECT, HeaderName, TRANSFER_ENCODING};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use plan::words::with_causes;
use tokio::time::{Instant, timeout_at};

use self::pace::{Pace, Times};
use self::room::{NoRoom, Room, Share};
use super::bounds::RequestBounds;
use super::error::{ApiError, Code};
use crate::quoted::Quoted;

/// Bytes that are thrown away of a body that is too long, so that its sender comes to read the answer.
const THROWN_AWAY: usize = 64 << 20;

/// Bodies that find room at the same time, if each is as long as it may be.
const LONGEST_AT_ONCE: usize = 4;

/// Room there is at least: bodies are short as a rule.
const LEAST_ROOM: usize = 16 << 20;

/// A body is slow that has not gone on by 40 KiB for so long: others take its room if they need it.
const SLOW: Duration = Duration::from_secs(1);

/// How bodies are taken. Clones share their room.
#[derive(Clone, Debug)]
pub struct Bodies {
    most: usize,
    /// Whether that is as long as the context asks for.
    of_context: bool,
    room: Room,
    times: Times,
}

/// A body, with its share of the room until it is dropped.
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
    _share: Share,
}

impl std::ops::Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// Bodies whose text could fit a context: every token the longest of all, every byte written as JSON's `\u0000`, and
    /// a mebibyte for all else. Tokens are a few bytes long as a rule, so a list of some hundred prompts has room as well.
    /// No longer than 64 MiB.
    #[must_use]
    pub fn for_context(context: usize, longest_token: usize) -> Self {
        const ESCAPED: usize = 6;
        const ELSE: usize = 1 << 20;
        const MOST: usize = 64 << 20;
        let longest = context.saturating_mul(longest_token).saturating_mul(ESCAPED).saturating_add(ELSE);
        Self { of_context: longest <= MOST, ..Self::of_at_most(longest.min(MOST)) }
    }

    /// Bodies of at most so many bytes.
    #[must_use]
    pub fn of_at_most(most: usize) -> Self {
        let room = most.saturating_mul(LONGEST_AT_ONCE).max(LEAST_ROOM);
        Self { most, of_context: false, room: Room::of(room, SLOW), times: Times::USUAL }
    }

    /// Takes a request's body; of one that holds prompts, within `bounds`.
    ///
    /// # Errors
    /// If it is too long, comes too slowly or finds no room.
    pub async fn take(&self, request: Request, bounds: Option<RequestBounds>) -> Result<Received, ApiError> {
        let waits_to_send = request.headers().contains_key(EXPECT);
        let packed = check_packing(request.headers());
        let mut body = request.into_body();
        if let Err(refusal) = packed {
            if !waits_to_send {
                self.throw_away(body).await;
            }
            return Err(refusal);
        }
        let announced = body.size_hint().lower();
        if announced > self.most as u64 {
            if !waits_to_send {
                self.throw_away(body).await;
            }
            return Err(self.too_long(bounds));
        }
        let begun = Instant::now();
        let (mut pace, share, mut bytes) = (Pace::new(begun), self.room.share(begun), Vec::new());
        loop {
            let next = tokio::select! {
                biased;
                () = share.lost() => return Err(no_room(NoRoom::Lost)),
                next = self.next(&mut body, &mut pace) => next?,
            };
            let Some(next) = next else { break };
            if pace.there() > self.most {
                drop((bytes, share));
                self.throw_away(body).await;
                return Err(self.too_long(bounds));
            }
            share.take(next.len(), &pace, Instant::now()).map_err(no_room)?;
            bytes.extend_from_slice(&next);
        }
        share.is_whole().map_err(no_room)?;
        Ok(Received { bytes, _share: share })
    }

    /// The next bytes of a body.
    async fn next(&self, body: &mut Body, pace: &mut Pace) -> Result<Option<bytes::Bytes>, ApiError> {
        loop {
            let next = timeout_at(pace.due(&self.times), body.frame()).await;
            match next.map_err(|_| too_slow(pace.there()))? {
                None => return Ok(None),
                Some(Err(error)) => {
                    let reason = with_causes(&error);
                    let message = format!("the request body ended early, or is not sent as its head says: {reason}");
                    return Err(ApiError::other(StatusCode::BAD_REQUEST, Code::InvalidJson, message));
                }
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(bytes) = frame.into_data() {
                        pace.came(bytes.len(), Instant::now());
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// A sender that is answered before it has sent everything may never read the answer.
    async fn throw_away(&self, mut body: Body) {
        let mut pace = Pace::new(Instant::now());
        while pace.there() < THROWN_AWAY {
            match self.next(&mut body, &mut pace).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// Begins as what is longer than the context does where that is the reason: clients that shorten a conversation know
    /// the case by these words.
    fn too_long(&self, bounds: Option<RequestBounds>) -> ApiError {
        let most = self.most;
        let message = match bounds.filter(|_| self.of_context) {
            Some(bounds) => bounds.exceeded(&format!(
                "the request body is longer than the {most} bytes in which so many tokens would fit; shorten it"
            )),
            None => format!("the request body is longer than the {most} bytes that this server takes"),
        };
        ApiError::other(StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge, message)
    }
}

/// Refuses a body to which something has been done for the way.
fn check_packing(headers: &HeaderMap) -> Result<(), ApiError> {
    let other_than = |name: HeaderName, usual: &str| -> Option<Quoted> {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let mut others = values.filter(|value| !value.is_empty() && !value.trim().eq_ignore_ascii_case(usual));
        others.next().map(Quoted::from)
    };
    if let Some(encoding) = other_than(CONTENT_ENCODING, "identity") {
        let message = format!("Content-Encoding {encoding} is not supported; send the request body as it is");
        return Err(ApiError::other(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedMediaType, message));
    }
    if let Some(encoding) = other_than(TRANSFER_ENCODING, "chunked") {
        let message = format!("Transfer-Encoding {encoding} is not supported, only chunked is");
        return Err(ApiError::other(StatusCode::NOT_IMPLEMENTED, Code::UnsupportedMediaType, message));
    }
    Ok(())
}

fn no_room(reason: NoRoom) -> ApiError {
    ApiError::full(match reason {
        NoRoom::Full => "the bodies of other requests take all the room there is; try again in a moment",
        NoRoom::Lost => "the request body came slowly while others needed its room; try again in a moment",
    })
}

fn too_slow(there: usize) -> ApiError {
    let message =
        format!("the request body comes too slowly: {there} bytes are there and the next ones did not come in time");
    ApiError::other(StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn request(parts: Vec<usize>) -> Request {
        let parts = parts.into_iter().map(|bytes| Ok::<_, std::convert::Infallible>(vec![b' '; bytes]));
        Request::new(Body::from_stream(stream::iter(parts)))
    }

    #[tokio::test]
    async fn a_body_is_taken_whole_or_refused_by_its_length() {
        let bodies = Bodies::of_at_most(100);
        assert_eq!(bodies.take(request(vec![60, 40]), None).await.unwrap().len(), 100);
        let error = bodies.take(request(vec![60, 41]), None).await.unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge));
        let announced = Request::new(Body::from(vec![b' '; 101]));
        assert_eq!(bodies.take(announced, None).await.unwrap_err().code, Code::RequestTooLarge);
    }

    #[tokio::test]
    async fn a_body_that_is_packed_is_refused_by_the_name_of_its_encoding() {
        let bodies = Bodies::of_at_most(100);
        let (packed, unknown) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, StatusCode::NOT_IMPLEMENTED);
        for (name, encoding, refused) in [
            ("Content-Encoding", "identity", None),
            ("Content-Encoding", "Identity", None),
            ("Content-Encoding", "", None),
            ("Content-Encoding", "gzip", Some(packed)),
            ("Content-Encoding", "br", Some(packed)),
            ("Transfer-Encoding", "Chunked", None),
            ("Transfer-Encoding", "gzip, chunked", Some(unknown)),
        ] {
            let mut sent = request(vec![10]);
            sent.headers_mut().insert(HeaderName::try_from(name).unwrap(), encoding.parse().unwrap());
            let error = bodies.take(sent, None).await.err();
            assert_eq!(error.as_ref().map(|error| error.status), refused, "{name} {encoding}");
            let Some(error) = error else { continue };
            assert_eq!(error.code, Code::UnsupportedMediaType);
            assert!(error.message.starts_with(&format!("{name} {encoding} is not supported")), "{error}");
        }
    }

    #[tokio::test]
    async fn bodies_share_their_room_and_give_it_back() {
        let bodies = Bodies::of_at_most(LEAST_ROOM);
        let held: Vec<Received> =
            futures::future::join_all((0..4).map(|_| bodies.take(request(vec![LEAST_ROOM]), None)))
                .await
                .into_iter()
                .map(Result::unwrap)
                .collect();
        let error = bodies.take(request(vec![1]), None).await.unwrap_err();
        assert_eq!((error.status, error.retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(1)));
        drop(held);
        assert_eq!(bodies.take(request(vec![1]), None).await.unwrap().len(), 1);
    }

    /// A body that begins with so many bytes and never ends.
    fn endless(bytes: usize) -> Request {
        let parts = stream::iter([Ok::<_, std::convert::Infallible>(vec![b' '; bytes])]);
        Request::new(Body::from_stream(futures::StreamExt::chain(parts, stream::pending())))
    }

    #[tokio::test]
    async fn four_bodies_that_stop_before_their_end_do_not_keep_the_room_from_others() {
        let room = Room::of(4 * LEAST_ROOM, Duration::from_millis(50));
        let bodies = Bodies { room, ..Bodies::of_at_most(LEAST_ROOM) };
        let hold = || Box::pin(bodies.take(endless(LEAST_ROOM), None));
        let mut holders = [hold(), hold(), hold(), hold()];
        for holder in &mut holders {
            assert!(futures::poll!(holder).is_pending());
        }
        let others = async {
            while let Err(error) = bodies.take(request(vec![100]), None).await {
                // As long as the four are not slow yet.
                assert_eq!((error.status, error.retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(1)));
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), others).await.expect("others are served");
        let mut cut = Vec::new();
        for holder in &mut holders {
            if let std::task::Poll::Ready(ended) = futures::poll!(holder) {
                cut.push(ended.unwrap_err());
            }
        }
        assert_eq!(cut.len(), 1, "one gives its room, the others keep theirs");
        assert_eq!((cut[0].status, cut[0].retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(1)));
        assert!(cut[0].message.contains("came slowly"), "{}", cut[0]);
    }

    #[tokio::test]
    async fn a_body_that_does_not_go_on_is_refused() {
        let times = Times { silence: Duration::from_millis(50), ..Times::USUAL };
        let bodies = Bodies { times, ..Bodies::of_at_most(100) };
        let error = bodies.take(endless(2), None).await.unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout));
        assert!(error.message.contains("2 bytes are there"), "{error}");
    }

    #[test]
    fn the_longest_body_follows_the_context_and_what_is_longer_is_told_so_in_the_words_of_the_context() {
        let bounds = Some(RequestBounds { context: 1000, sequences: 1 });
        let words = |bodies: &Bodies, bounds| {
            let error = bodies.too_long(bounds);
            assert_eq!((error.status, error.code), (StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge));
            error.message
        };
        let bodies = Bodies::for_context(1024, 16);
        assert_eq!(bodies.most, 1024 * 16 * 6 + (1 << 20));
        let message = words(&bodies, bounds);
        assert!(message.starts_with("This model's maximum context length is 1000 tokens. However, the "), "{message}");
        // Nothing of these lengths is the context's.
        let bodies = Bodies::for_context(1 << 20, 256);
        assert_eq!(bodies.most, 64 << 20);
        for message in [words(&bodies, bounds), words(&Bodies::of_at_most(100), bounds), words(&bodies, None)] {
            assert!(message.starts_with("the request body is longer than the "), "{message}");
        }
    }
}
