//! From a checked request to sequences, and from what they give to OpenAI's JSON.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse as _, Response};

use super::types::{Completion, CompletionChoice, Logprobs};
use super::validate::{CompletionRequest, Prompt};
use crate::protocol::TokenScore;
use crate::scheduler::NewSequence;
use crate::server::bounds::Bounds;
use crate::server::error::ApiError;
use crate::server::generation::{Generation, Growth, new_id};
use crate::server::options::{Stream, StreamUsage};
use crate::server::served::ServedModel;
use crate::server::stream::{self, Chunks};
use crate::server::text::Tokenizer;
use crate::server::usage::{Usage, UsageField};
use crate::server::{App, Asked, new_seed, now};

/// Checks a body and makes tokens of its text: all that takes long and never waits.
///
/// # Errors
/// If it is refused.
pub fn read(body: &[u8], model: &ServedModel, bounds: Bounds) -> Result<CompletionRequest, ApiError> {
    CompletionRequest::parse(body, model, bounds, new_seed())
}

/// Serves a request.
///
/// # Errors
/// If it cannot be served.
pub async fn answer(app: &App, asked: &Asked, request: CompletionRequest) -> Result<Response, ApiError> {
    let mut generation = Generation::start(app, asked, sequences(&request, &app.model), &request.options.stops).await?;
    let stream = request.options.stream;
    let mut writer = Writer::new(Arc::clone(&app.model), request, now());
    if let Stream::Yes(usage) = stream {
        return Ok(stream::stream(generation, StreamWriter { writer, usage }));
    }
    let mut choices = writer.begin();
    while let Some(growth) = generation.next().await? {
        let index = growth.choice;
        let next = writer.grow(growth);
        let choice = &mut choices[index];
        choice.text.push_str(&next.text);
        choice.finish_reason = next.finish_reason;
        if let (Some(logprobs), Some(next)) = (&mut choice.logprobs, next.logprobs) {
            logprobs.append(next);
        }
    }
    let usage = writer.usage(generation.given());
    Ok(Json(writer.completion(choices, UsageField::Given(usage))).into_response())
}

/// A sequence for each choice of each prompt, with the characters that are shown before its text.
fn sequences(request: &CompletionRequest, model: &ServedModel) -> Vec<(NewSequence, usize)> {
    let stop_tokens = if request.options.ignore_eos { Arc::default() } else { Arc::clone(&model.end_tokens) };
    let sequence = |index, prompt: &Prompt, choice| {
        let sequence = NewSequence {
            prompt: Arc::clone(&prompt.tokens),
            length: prompt.length,
            stop_tokens: Arc::clone(&stop_tokens),
            sampling: request.options.sampling_of(index, choice, request.logprobs.is_some()),
            score_prompt: request.echo && request.logprobs.is_some(),
            top_logprobs: request.logprobs.unwrap_or(0),
        };
        (sequence, if request.echo { prompt.text.chars().count() } else { 0 })
    };
    let choices = 0..request.options.choices;
    let prompts = (0..).zip(&request.prompts);
    prompts.flat_map(|(index, prompt)| choices.clone().map(move |choice| sequence(index, prompt, choice))).collect()
}

/// Writes the choices of one request.
struct Writer {
    model: Arc<ServedModel>,
    id: String,
    created: i64,
    request: CompletionRequest,
    /// Of each choice: tokens of its prompt whose scores were written, the first counted as one.
    scored: Vec<usize>,
}

impl Writer {
    fn new(model: Arc<ServedModel>, request: CompletionRequest, created: i64) -> Self {
        let choices = request.prompts.len() * request.options.choices as usize;
        let id = new_id("cmpl", request.options.request_id.as_deref());
        Self { model, id, created, request, scored: vec![1; choices] }
    }

    fn prompt(&self, choice: usize) -> &Prompt {
        &self.request.prompts[choice / self.request.options.choices as usize]
    }

    /// Every choice as it is before anything has come in.
    fn begin(&self) -> Vec<CompletionChoice> {
        (0..self.scored.len())
            .map(|index| {
                let prompt = self.prompt(index);
                let echo = self.request.echo;
                let first = || Logprobs {
                    text_offset: vec![0],
                    token_logprobs: vec![None],
                    tokens: vec![self.model.tokenizer.name(prompt.tokens[0])],
                    top_logprobs: vec![None],
                };
                CompletionChoice {
                    index,
                    text: if echo { prompt.text.clone() } else { String::new() },
                    logprobs: self.request.logprobs.map(|_| if echo { first() } else { Logprobs::default() }),
                    finish_reason: None,
                }
            })
            .collect()
    }

    /// What one growth adds to its choice.
    fn grow(&mut self, growth: Growth) -> CompletionChoice {
        let Growth { choice, prompt_scores, piece, finish, .. } = growth;
        let tokenizer = &self.model.tokenizer;
        let logprobs = self.request.logprobs.map(|_| {
            let mut logprobs = Logprobs::default();
            if !prompt_scores.is_empty() {
                let scored = self.scored[choice];
                for (offset, score) in self.prompt(choice).offsets[scored..].iter().zip(&prompt_scores) {
                    add(&mut logprobs, tokenizer, *offset as usize, score);
                }
            }
            for token in &piece.tokens {
                add(&mut logprobs, tokenizer, token.offset, &token.score);
            }
            logprobs
        });
        self.scored[choice] += prompt_scores.len();
        CompletionChoice { index: choice, text: piece.text, logprobs, finish_reason: finish }
    }

    fn completion(&self, choices: Vec<CompletionChoice>, usage: UsageField) -> Completion<'_> {
        let Self { id, created, model, .. } = self;
        Completion { id, object: "text_completion", created: *created, model: &model.name, choices, usage }
    }

    fn usage(&self, given: usize) -> Usage {
        Usage::new(self.request.prompts.iter().map(|prompt| prompt.tokens.len()).sum(), given)
    }
}

fn add(logprobs: &mut Logprobs, tokenizer: &Tokenizer, offset: usize, score: &TokenScore) {
    let named = score.top.iter().copied().chain([(score.token, score.logprob)]);
    logprobs.text_offset.push(offset);
    logprobs.token_logprobs.push(Some(score.logprob));
    logprobs.tokens.push(tokenizer.name(score.token));
    logprobs.top_logprobs.push(Some(named.map(|(token, logprob)| (tokenizer.name(token), logprob)).collect()));
}

struct StreamWriter {
    writer: Writer,
    usage: StreamUsage,
}

impl StreamWriter {
    /// A chunk of a choice that has given so many tokens.
    fn chunk(&self, choice: CompletionChoice, given: usize) -> String {
        let so_far = Usage::new(self.writer.prompt(choice.index).tokens.len(), given);
        stream::json(&self.writer.completion(vec![choice], UsageField::of_chunk(self.usage, so_far)))
    }
}

impl Chunks for StreamWriter {
    fn begin(&mut self) -> Vec<String> {
        let choices = if self.writer.request.echo { self.writer.begin() } else { Vec::new() };
        choices.into_iter().map(|choice| self.chunk(choice, 0)).collect()
    }

    fn grow(&mut self, growth: Growth) -> Option<String> {
        let (given, of_token) = (growth.given, growth.of_token);
        let choice = self.writer.grow(growth);
        let says_something = of_token
            || choice.finish_reason.is_some()
            || choice.logprobs.as_ref().is_some_and(|logprobs| !logprobs.tokens.is_empty());
        says_something.then(|| self.chunk(choice, given))
    }

    fn end(&mut self, given: usize) -> Option<String> {
        let usage = self.writer.usage(given);
        let asked = self.usage != StreamUsage::No;
        asked.then(|| stream::json(&self.writer.completion(Vec::new(), UsageField::Given(usage))))
    }
}
