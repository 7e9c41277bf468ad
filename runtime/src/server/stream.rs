//! Answers that are sent as they grow, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;

use super::generation::{Generation, Growth};
use super::written::json;

/// How a route writes what comes in.
pub trait Chunks: Send + 'static {
    /// What one event shows, before it is written.
    type Chunk: Send;
    /// What is shown before the first growth: whoever times the first event times the first token.
    fn begin(&mut self) -> Vec<Self::Chunk>;
    /// What is shown for one growth; something for each token, so that whoever times events times tokens.
    fn grow(&mut self, growth: Growth) -> Vec<Self::Chunk>;
    /// Writes it, when the one before has gone.
    fn write(&self, chunk: Self::Chunk) -> String;
    /// Whether log-probabilities of prompts are still to come; what is left of prompts after that is not worth counting.
    fn keeps_scores(&self) -> bool;
    /// What is sent after `given` tokens, when all choices have ended.
    fn end(&mut self, given: usize) -> Option<String>;
}

struct Growing<C: Chunks> {
    generation: Generation,
    chunks: C,
    begun: bool,
    ready: VecDeque<C::Chunk>,
    /// What is sent at the end, when it has come.
    last: Option<VecDeque<String>>,
}

/// The events of an answer. Dropping the response cancels what has not ended.
pub fn stream<C: Chunks>(mut generation: Generation, chunks: C) -> Response {
    generation.in_flight().is_sent();
    let growing = Growing { generation, chunks, begun: false, ready: VecDeque::new(), last: None };
    let events = stream::unfold(growing, |mut growing| async {
        let event = growing.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(event)), growing))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

impl<C: Chunks> Growing<C> {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(self.chunks.write(chunk));
            }
            if let Some(last) = &mut self.last {
                return last.pop_front();
            }
            if self.begun && !self.chunks.keeps_scores() {
                self.generation.in_flight().keep_nothing();
            }
            self.grow().await;
        }
    }

    async fn grow(&mut self) {
        match self.generation.next().await {
            Ok(Some(growth)) => {
                if !std::mem::replace(&mut self.begun, true) {
                    self.ready.extend(self.chunks.begin());
                }
                self.ready.extend(self.chunks.grow(growth));
            }
            Ok(None) => {
                self.generation.in_flight().complete();
                let usage = self.chunks.end(self.generation.given());
                self.last = Some(usage.into_iter().chain(["[DONE]".to_owned()]).collect());
            }
            Err(error) => {
                self.generation.failed_in_stream(&error);
                self.last = Some([json(&error.body())].into());
            }
        }
    }
}
