//! Answers that are sent as they grow, as server-sent events.

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::generation::{Generation, Growth};

/// How a route writes what comes in.
pub trait Chunks: Send + 'static {
    /// What is sent before the first growth: whoever times the first event times the first token.
    fn begin(&mut self) -> Vec<String>;
    /// What is sent for one growth; something for each token, so that whoever times events times tokens.
    fn grow(&mut self, growth: Growth) -> Option<String>;
    /// What is sent after `given` tokens, when all choices have ended.
    fn end(&mut self, given: usize) -> Option<String>;
}

/// A chunk as it is sent.
///
/// # Panics
/// Never: chunks are plain data.
pub fn json(chunk: &impl Serialize) -> String {
    serde_json::to_string(chunk).expect("a chunk is plain data")
}

enum Progress<C> {
    Waiting(Box<Generation>, C),
    Growing(Box<Generation>, C),
    Ended,
}

/// The events of an answer. Dropping the response cancels what has not ended.
pub fn stream<C: Chunks>(generation: Generation, chunks: C) -> Response {
    let events = stream::unfold(Progress::Waiting(Box::new(generation), chunks), |progress| async {
        let (mut generation, mut chunks, begins) = match progress {
            Progress::Waiting(generation, chunks) => (generation, chunks, true),
            Progress::Growing(generation, chunks) => (generation, chunks, false),
            Progress::Ended => return None,
        };
        let next = generation.next().await;
        let mut events = if begins && next.is_ok() { chunks.begin() } else { Vec::new() };
        match next {
            Ok(Some(growth)) => {
                events.extend(chunks.grow(growth));
                Some((events, Progress::Growing(generation, chunks)))
            }
            Ok(None) => {
                events.extend(chunks.end(generation.given()));
                events.push("[DONE]".to_owned());
                Some((events, Progress::Ended))
            }
            Err(error) => {
                generation.failed_in_stream(&error);
                Some((vec![json(&error.body())], Progress::Ended))
            }
        }
    });
    let events = events.flat_map(stream::iter).map(|chunk| Ok::<_, Infallible>(Event::default().data(chunk)));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
