//! An answer that is sent as it grows.

use super::convert::Writer;
use super::types::{ChatChunk, ChunkChoice, Delta, Logprobs};
use crate::server::generation::Growth;
use crate::server::options::StreamUsage;
use crate::server::scores::Score;
use crate::server::stream::Chunks;
use crate::server::usage::UsageField;
use crate::server::written::json;

/// Writes the choices of one request as they grow.
pub struct StreamWriter {
    writer: Writer,
    usage: StreamUsage,
}

/// What one event shows.
pub enum Chunk {
    /// Who speaks in a choice.
    Role(usize),
    /// What a choice gave.
    Grown(Growth),
}

impl StreamWriter {
    pub const fn new(writer: Writer, usage: StreamUsage) -> Self {
        Self { writer, usage }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: UsageField) -> String {
        let Writer { id, created, model, .. } = &self.writer;
        let object = "chat.completion.chunk";
        json(&ChatChunk { id, object, created: *created, model: &model.name, choices, usage })
    }

    /// Of a chunk of a choice that has given so many tokens.
    fn usage(&self, given: usize) -> UsageField {
        UsageField::of_chunk(self.usage, self.writer.usage(given))
    }
}

impl Chunks for StreamWriter {
    type Chunk = Chunk;

    fn begin(&mut self) -> Vec<Chunk> {
        (0..self.writer.choices()).map(Chunk::Role).collect()
    }

    fn grow(&mut self, growth: Growth) -> Vec<Chunk> {
        let shows = growth.of_token || growth.finish.is_some();
        if shows { vec![Chunk::Grown(growth)] } else { Vec::new() }
    }

    fn write(&self, chunk: Chunk) -> String {
        match chunk {
            Chunk::Role(index) => {
                let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
                let first = ChunkChoice { index, delta, logprobs: None, finish_reason: None };
                self.chunk(vec![first], self.usage(0))
            }
            Chunk::Grown(Growth { choice: index, piece, finish, given, .. }) => {
                let named = || piece.tokens.iter().map(|token| Score::new(token.offset, &token.score));
                let logprobs = self.writer.request.logprobs.filter(|_| !piece.tokens.is_empty());
                let logprobs = logprobs.map(|_| Logprobs {
                    content: named().map(|score| self.writer.named(score)).collect(),
                    refusal: None,
                });
                let content = (finish.is_none() || !piece.text.is_empty()).then_some(piece.text);
                let delta = Delta { role: None, content };
                let choice = ChunkChoice { index, delta, logprobs, finish_reason: finish };
                self.chunk(vec![choice], self.usage(given))
            }
        }
    }

    fn keeps_scores(&self) -> bool {
        false
    }

    fn end(&mut self, given: usize) -> Option<String> {
        let usage = self.writer.usage(given);
        (self.usage != StreamUsage::No).then(|| self.chunk(Vec::new(), UsageField::Given(usage)))
    }
}
