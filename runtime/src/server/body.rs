//! The bodies of requests: taken within bounds of size, time and memory, before anything is made of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, Code};

/// Silence in the middle of a body.
const SILENCE: Duration = Duration::from_secs(10);

/// Time of a body, however short.
const LEAST_TIME: Duration = Duration::from_secs(30);

/// Bytes for which a body gets another second.
const BYTES_A_SECOND: usize = 4 << 10;

/// Bytes that are thrown away of a body that is too long, so that its sender comes to read the answer.
const THROWN_AWAY: usize = 64 << 20;

/// Bodies that find room at the same time, if each is as long as it may be.
const LONGEST_AT_ONCE: usize = 4;

/// Room there is at least: bodies are short as a rule.
const LEAST_ROOM: usize = 16 << 20;

/// How bodies are taken. Clones share their room.
#[derive(Clone, Debug)]
pub struct Bodies {
    most: usize,
    room: Arc<Semaphore>,
    silence: Duration,
}

/// A body, with its share of the room until it is dropped.
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// The longest body whose text could fit a context: every token the longest of all, every byte written as JSON's
    /// `\u0000`, and a mebibyte for all else. Tokens are a few bytes long as a rule, so a list of some hundred prompts
    /// has room as well. No longer than 64 MiB.
    #[must_use]
    pub fn longest(context: usize, longest_token: usize) -> usize {
        const ESCAPED: usize = 6;
        const ELSE: usize = 1 << 20;
        const MOST: usize = 64 << 20;
        context.saturating_mul(longest_token).saturating_mul(ESCAPED).saturating_add(ELSE).min(MOST)
    }

    /// Bodies of at most so many bytes.
    #[must_use]
    pub fn of_at_most(most: usize) -> Self {
        let room = most.saturating_mul(LONGEST_AT_ONCE).clamp(LEAST_ROOM, Semaphore::MAX_PERMITS);
        Self { most, room: Arc::new(Semaphore::new(room)), silence: SILENCE }
    }

    /// Takes a request's body.
    ///
    /// # Errors
    /// If it is too long, comes too slowly or finds no room.
    pub async fn take(&self, request: Request) -> Result<Received, ApiError> {
        let waits_to_send = request.headers().contains_key(EXPECT);
        let mut body = request.into_body();
        let announced = body.size_hint().lower();
        if announced > self.most as u64 {
            return Err(if waits_to_send { self.too_long() } else { self.throw_away(body).await });
        }
        let mut received = Received { bytes: Vec::new(), room: None };
        let started = Instant::now();
        while let Some(bytes) = self.next(&mut body, started, received.bytes.len()).await? {
            if received.bytes.len() + bytes.len() > self.most {
                drop(received);
                return Err(self.throw_away(body).await);
            }
            self.make_room(&mut received, bytes.len())?;
            received.bytes.extend_from_slice(&bytes);
        }
        Ok(received)
    }

    fn make_room(&self, received: &mut Received, bytes: usize) -> Result<(), ApiError> {
        let full = || {
            let message = "the bodies of other requests take all the room there is; try again in a moment".to_owned();
            let full = ApiError::other(StatusCode::SERVICE_UNAVAILABLE, Code::ServiceUnavailable, message);
            ApiError { retry_after: Some(1), ..full }
        };
        let more = u32::try_from(bytes).map_err(|_| full())?;
        let more = Arc::clone(&self.room).try_acquire_many_owned(more).map_err(|_| full())?;
        match &mut received.room {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// The next bytes of a body of which so many are there.
    async fn next(&self, body: &mut Body, started: Instant, there: usize) -> Result<Option<bytes::Bytes>, ApiError> {
        let whole = started + LEAST_TIME + Duration::from_secs((there / BYTES_A_SECOND) as u64);
        loop {
            let next = timeout_at(whole.min(Instant::now() + self.silence), body.frame()).await;
            match next.map_err(|_| too_slow(there))? {
                None => return Ok(None),
                Some(Err(error)) => {
                    let message = format!("the request body ended early: {error}");
                    return Err(ApiError::other(StatusCode::BAD_REQUEST, Code::InvalidJson, message));
                }
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// A sender that is answered before it has sent everything may never read the answer.
    async fn throw_away(&self, mut body: Body) -> ApiError {
        let (started, mut thrown) = (Instant::now(), 0);
        while thrown < THROWN_AWAY {
            match self.next(&mut body, started, thrown).await {
                Ok(Some(bytes)) => thrown += bytes.len(),
                Ok(None) | Err(_) => break,
            }
        }
        self.too_long()
    }

    fn too_long(&self) -> ApiError {
        let message = format!("the request body is longer than the {} bytes that this server takes", self.most);
        ApiError::other(StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge, message)
    }
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
        assert_eq!(bodies.take(request(vec![60, 40])).await.unwrap().len(), 100);
        let error = bodies.take(request(vec![60, 41])).await.unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge));
        let announced = Request::new(Body::from(vec![b' '; 101]));
        assert_eq!(bodies.take(announced).await.unwrap_err().code, Code::RequestTooLarge);
    }

    #[tokio::test]
    async fn bodies_share_their_room_and_give_it_back() {
        let bodies = Bodies::of_at_most(LEAST_ROOM);
        let held: Vec<Received> = futures::future::join_all((0..4).map(|_| bodies.take(request(vec![LEAST_ROOM]))))
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let error = bodies.take(request(vec![1])).await.unwrap_err();
        assert_eq!((error.status, error.retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(1)));
        drop(held);
        assert_eq!(bodies.take(request(vec![1])).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_body_that_does_not_go_on_is_refused() {
        let bodies = Bodies { silence: Duration::from_millis(50), ..Bodies::of_at_most(100) };
        let parts = stream::iter([Ok::<_, std::convert::Infallible>("ab")]);
        let endless = futures::StreamExt::chain(parts, stream::pending());
        let error = bodies.take(Request::new(Body::from_stream(endless))).await.unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout));
        assert!(error.message.contains("2 bytes are there"), "{error}");
    }

    #[test]
    fn the_longest_body_follows_the_context() {
        assert_eq!(Bodies::longest(1024, 16), 1024 * 16 * 6 + (1 << 20));
        assert_eq!(Bodies::longest(1 << 20, 256), 64 << 20);
    }
}
