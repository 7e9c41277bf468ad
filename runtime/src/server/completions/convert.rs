//! From a checked request to sequences, and from what they give to the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;

use super::chunks::StreamWriter;
use super::validate::{CompletionRequest, Prompt};
use super::whole::Whole;
use crate::scheduler::NewSequence;
use crate::server::bounds::RequestBounds;
use crate::server::error::ApiError;
use crate::server::generation::{Generation, new_id};
use crate::server::options::Stream;
use crate::server::scores::{Score, Scores};
use crate::server::served::ServedModel;
use crate::server::text::Tokenizer;
use crate::server::usage::Usage;
use crate::server::{App, Asker, new_seed, now, stream, written};

/// Checks a body and makes tokens of its text: all that takes long and never waits.
///
/// # Errors
/// If it is refused.
pub fn read(body: &[u8], model: &ServedModel, bounds: RequestBounds) -> Result<CompletionRequest, ApiError> {
    CompletionRequest::parse(body, model, bounds, new_seed())
}

/// Serves a request.
///
/// # Errors
/// If it cannot be served.
pub async fn answer(app: &App, asker: &Asker, request: CompletionRequest) -> Result<Response, ApiError> {
    let kept = app.answers.share(bytes_of_prompts(&request))?;
    let sequences = sequences(&request, &app.model);
    let mut generation = Generation::start(app, asker, (sequences, kept), &request.options.stops).await?;
    let stream = request.options.stream;
    let writer = Writer::new(Arc::clone(&app.model), request, now());
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

/// Bytes that are kept of the prompts, and will be of their log-probabilities.
fn bytes_of_prompts(request: &CompletionRequest) -> usize {
    let best = request.logprobs.unwrap_or(0) as usize;
    let bytes = |Prompt { tokens, text, offsets, .. }: &Prompt| {
        size_of_val(&**tokens) + text.len() + size_of_val(&**offsets) + Scores::bytes_of(offsets.len(), best)
    };
    request.prompts.iter().map(bytes).sum()
}

/// A sequence for each choice of each prompt, with the characters that are shown before its text. The first of a prompt
/// scores it for all.
fn sequences(request: &CompletionRequest, model: &ServedModel) -> Vec<(NewSequence, usize)> {
    let stop_tokens = if request.options.ignore_eos { Arc::default() } else { Arc::clone(&model.end_tokens) };
    let sequence = |index, prompt: &Prompt, choice| NewSequence {
        prompt: Arc::clone(&prompt.tokens),
        length: prompt.length,
        stop_tokens: Arc::clone(&stop_tokens),
        sampling: request.options.sampling_of(index, choice, request.logprobs.is_some()),
        score_prompt: choice == 0 && request.scores_prompts(),
        top_logprobs: request.logprobs.unwrap_or(0),
    };
    let prompts = (0..).zip(&request.prompts);
    let of_prompt = |(index, prompt): (u32, &Prompt)| {
        let before = if request.echo { prompt.text.chars().count() } else { 0 };
        (0..request.options.choices).map(|choice| (sequence(index, prompt, choice), before)).collect::<Vec<_>>()
    };
    prompts.flat_map(of_prompt).collect()
}

/// What all answers to a request have in common.
pub struct Writer {
    pub model: Arc<ServedModel>,
    pub id: String,
    pub created: i64,
    pub request: CompletionRequest,
}

impl Writer {
    fn new(model: Arc<ServedModel>, request: CompletionRequest, created: i64) -> Self {
        let id = new_id("cmpl", request.options.request_id.as_deref());
        Self { model, id, created, request }
    }

    /// Choices of each prompt.
    pub const fn choices_of_each(&self) -> usize {
        self.request.options.choices as usize
    }

    /// Choices of all prompts.
    pub const fn choices(&self) -> usize {
        self.request.prompts.len() * self.choices_of_each()
    }

    /// That of a choice.
    pub fn prompt(&self, choice: usize) -> &Prompt {
        &self.request.prompts[choice / self.choices_of_each()]
    }

    /// Of answers that have so many tokens.
    pub fn usage(&self, given: usize) -> Usage {
        Usage::new(self.request.prompts.iter().map(|prompt| prompt.tokens.len()).sum(), given)
    }
}

/// The best tokens by name, and with them the token itself.
pub fn top_of(tokenizer: &Tokenizer, score: Score<'_>) -> BTreeMap<String, f32> {
    let named = score.best.iter().copied().chain([(score.token, score.logprob)]);
    named.map(|(token, logprob)| (tokenizer.name(token), logprob)).collect()
}
