//! From a checked request to sequences, and from what they give to the answer.

use std::sync::Arc;

use axum::response::Response;

use super::chunks::StreamWriter;
use super::types::{NamedToken, TokenLogprob};
use super::validate::ChatRequest;
use super::whole::Whole;
use crate::scheduler::NewSequence;
use crate::server::bounds::RequestBounds;
use crate::server::error::ApiError;
use crate::server::generation::{Generation, new_id};
use crate::server::options::Stream;
use crate::server::scores::Score;
use crate::server::served::ServedModel;
use crate::server::usage::Usage;
use crate::server::{App, Asker, new_seed, now, stream, written};

/// Checks a body and makes tokens of its text: all that takes long and never waits.
///
/// # Errors
/// If it is refused.
pub fn read(body: &[u8], model: &ServedModel, bounds: RequestBounds) -> Result<ChatRequest, ApiError> {
    ChatRequest::parse(body, model, bounds, new_seed())
}

/// Serves a request.
///
/// # Errors
/// If it cannot be served.
pub async fn answer(app: &App, asker: &Asker, request: ChatRequest) -> Result<Response, ApiError> {
    let share = app.answers.share(size_of_val(&*request.prompt))?;
    let sequences = (sequences(&request, &app.model), share);
    let mut generation = Generation::start(app, asker, sequences, &request.options.stops).await?;
    let stream = request.options.stream;
    let id = new_id("chatcmpl", request.options.request_id.as_deref());
    let writer = Writer { model: Arc::clone(&app.model), id, created: now(), request };
    if let Stream::Yes(usage) = stream {
        return Ok(stream::stream(generation, StreamWriter::new(writer, usage)));
    }
    let mut whole = Whole::new(writer);
    while let Some(growth) = generation.next().await? {
        let bytes = whole.grow(growth);
        generation.keep(bytes)?;
    }
    let usage = whole.usage(generation.given());
    Ok(written::answer(whole.written(usage), generation.ended()))
}

fn sequences(request: &ChatRequest, model: &ServedModel) -> Vec<(NewSequence, usize)> {
    let stop_tokens = if request.options.ignore_eos { Arc::default() } else { Arc::clone(&model.end_tokens) };
    let sequence = |choice| NewSequence {
        prompt: Arc::clone(&request.prompt),
        length: request.length,
        stop_tokens: Arc::clone(&stop_tokens),
        sampling: request.options.sampling_of(0, choice, request.logprobs.is_some()),
        score_prompt: false,
        top_logprobs: request.logprobs.unwrap_or(0),
    };
    (0..request.options.choices).map(|choice| (sequence(choice), 0)).collect()
}

/// What all answers to a request have in common.
pub struct Writer {
    pub model: Arc<ServedModel>,
    pub id: String,
    pub created: i64,
    pub request: ChatRequest,
}

impl Writer {
    pub const fn choices(&self) -> usize {
        self.request.options.choices as usize
    }

    /// A token and the best ones beside it, by name.
    pub fn named(&self, score: Score<'_>) -> TokenLogprob {
        let tokenizer = &self.model.tokenizer;
        let named = |token, logprob| NamedToken {
            token: tokenizer.name(token),
            logprob,
            bytes: tokenizer.bytes(token).to_vec(),
        };
        TokenLogprob {
            token: named(score.token, score.logprob),
            top_logprobs: score.best.iter().map(|&(token, logprob)| named(token, logprob)).collect(),
        }
    }

    /// Of answers that have so many tokens.
    pub fn usage(&self, given: usize) -> Usage {
        Usage::new(self.request.prompt.len(), given)
    }
}
