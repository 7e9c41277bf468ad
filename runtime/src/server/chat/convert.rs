//! From a checked request to sequences, and from what they give to OpenAI's JSON.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse as _, Response};

use super::types::{
    Answer, ChatChoice, ChatChunk, ChatCompletion, ChunkChoice, Delta, Logprobs, NamedToken, TokenLogprob,
};
use super::validate::ChatRequest;
use crate::scheduler::NewSequence;
use crate::server::bounds::Bounds;
use crate::server::error::ApiError;
use crate::server::generation::{Generation, Growth, new_id};
use crate::server::options::{Stream, StreamUsage};
use crate::server::served::ServedModel;
use crate::server::stream::{self, Chunks};
use crate::server::text::{PieceToken, Tokenizer};
use crate::server::usage::{Usage, UsageField};
use crate::server::{App, Asked, new_seed, now};

/// Checks a body and makes tokens of its text: all that takes long and never waits.
///
/// # Errors
/// If it is refused.
pub fn read(body: &[u8], model: &ServedModel, bounds: Bounds) -> Result<ChatRequest, ApiError> {
    ChatRequest::parse(body, model, bounds, new_seed())
}

/// Serves a request.
///
/// # Errors
/// If it cannot be served.
pub async fn answer(app: &App, asked: &Asked, request: ChatRequest) -> Result<Response, ApiError> {
    let mut generation = Generation::start(app, asked, sequences(&request, &app.model), &request.options.stops).await?;
    let stream = request.options.stream;
    let id = new_id("chatcmpl", request.options.request_id.as_deref());
    let writer = Writer { model: Arc::clone(&app.model), id, created: now(), request };
    if let Stream::Yes(usage) = stream {
        return Ok(stream::stream(generation, StreamWriter { writer, usage }));
    }
    let mut choices: Vec<ChatChoice> = (0..writer.choices()).map(|index| writer.begin(index)).collect();
    while let Some(growth) = generation.next().await? {
        let choice = &mut choices[growth.choice];
        choice.message.content.push_str(&growth.piece.text);
        if let Some(logprobs) = &mut choice.logprobs {
            logprobs.content.extend(writer.named(&growth.piece.tokens));
        }
        choice.finish_reason = growth.finish.unwrap_or(choice.finish_reason);
    }
    let usage = writer.usage(generation.given());
    let Writer { model, id, created, .. } = &writer;
    let object = "chat.completion";
    Ok(Json(ChatCompletion { id, object, created: *created, model: &model.name, choices, usage }).into_response())
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

struct Writer {
    model: Arc<ServedModel>,
    id: String,
    created: i64,
    request: ChatRequest,
}

impl Writer {
    const fn choices(&self) -> usize {
        self.request.options.choices as usize
    }

    fn begin(&self, index: usize) -> ChatChoice {
        ChatChoice {
            index,
            message: Answer { role: "assistant", content: String::new(), refusal: None },
            logprobs: self.request.logprobs.map(|_| Logprobs { content: Vec::new(), refusal: None }),
            finish_reason: "length",
        }
    }

    fn named(&self, tokens: &[PieceToken]) -> Vec<TokenLogprob> {
        let named = |token, logprob| named(&self.model.tokenizer, token, logprob);
        let entry = |PieceToken { score, .. }: &PieceToken| TokenLogprob {
            token: named(score.token, score.logprob),
            top_logprobs: score.top.iter().map(|&(token, logprob)| named(token, logprob)).collect(),
        };
        tokens.iter().map(entry).collect()
    }

    fn usage(&self, given: usize) -> Usage {
        Usage::new(self.request.prompt.len(), given)
    }
}

fn named(tokenizer: &Tokenizer, token: u32, logprob: f32) -> NamedToken {
    NamedToken { token: tokenizer.name(token), logprob, bytes: tokenizer.bytes(token).to_vec() }
}

struct StreamWriter {
    writer: Writer,
    usage: StreamUsage,
}

impl StreamWriter {
    fn chunk(&self, choices: Vec<ChunkChoice>, usage: UsageField) -> String {
        let Writer { id, created, model, .. } = &self.writer;
        stream::json(&ChatChunk {
            id,
            object: "chat.completion.chunk",
            created: *created,
            model: &model.name,
            choices,
            usage,
        })
    }

    /// Of a chunk of a choice that has given so many tokens.
    fn usage(&self, given: usize) -> UsageField {
        UsageField::of_chunk(self.usage, self.writer.usage(given))
    }
}

impl Chunks for StreamWriter {
    fn begin(&mut self) -> Vec<String> {
        let first = |index| ChunkChoice {
            index,
            delta: Delta { role: Some("assistant"), content: Some(String::new()) },
            logprobs: None,
            finish_reason: None,
        };
        (0..self.writer.choices()).map(|index| self.chunk(vec![first(index)], self.usage(0))).collect()
    }

    fn grow(&mut self, growth: Growth) -> Option<String> {
        let Growth { choice: index, piece, finish, of_token, given, .. } = growth;
        if !of_token && finish.is_none() {
            return None;
        }
        let logprobs = self.writer.request.logprobs.filter(|_| !piece.tokens.is_empty());
        let logprobs = logprobs.map(|_| Logprobs { content: self.writer.named(&piece.tokens), refusal: None });
        let content = (finish.is_none() || !piece.text.is_empty()).then_some(piece.text);
        let choice = ChunkChoice { index, delta: Delta { role: None, content }, logprobs, finish_reason: finish };
        Some(self.chunk(vec![choice], self.usage(given)))
    }

    fn end(&mut self, given: usize) -> Option<String> {
        let usage = self.writer.usage(given);
        (self.usage != StreamUsage::No).then(|| self.chunk(Vec::new(), UsageField::Given(usage)))
    }
}
