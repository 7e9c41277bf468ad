//! Answers that are sent as they grow, as server-sent events.

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::generation::{Generation, Growth};

/// How a route writes what comes in.
pub trait Chunks: Send + 'static {
    /// What is sent before anything has come in.
    fn begin(&mut self) -> Vec<String>;
    /// What is sent for one growth.
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
    Growing(Box<Generation>, C),
    Ended,
}

/// The events of an answer. Dropping the response cancels what has not ended.
pub fn stream<C: Chunks>(generation: Generation, mut chunks: C) -> Response {
    let first = chunks.begin();
    let rest = stream::unfold(Progress::Growing(Box::new(generation), chunks), |progress| async {
        let Progress::Growing(mut generation, mut chunks) = progress else { return None };
        match generation.next().await {
            Ok(Some(growth)) => {
                let chunk = chunks.grow(growth);
                Some((chunk.into_iter().collect(), Progress::Growing(generation, chunks)))
            }
            Ok(None) => {
                let last = chunks.end(generation.given()).into_iter().chain(["[DONE]".to_owned()]);
                Some((last.collect(), Progress::Ended))
            }
            Err(error) => {
                generation.failed_in_stream(&error);
                Some((vec![json(&error.body())], Progress::Ended))
            }
        }
    });
    let chunks = stream::iter([first]).chain(rest).flat_map(stream::iter);
    let events = chunks.map(|chunk| Ok::<_, Infallible>(Event::default().data(chunk)));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
