//! An answer that is sent as it grows. What is known of a prompt is known once, and shown in each of its choices, before
//! anything of the choice itself.

use std::sync::Arc;

use super::convert::{Writer, top_of};
use super::types::{Completion, CompletionChoice, Logprobs};
use super::validate::Prompt;
use crate::protocol::TokenScore;
use crate::server::generation::Growth;
use crate::server::options::StreamUsage;
use crate::server::scores::Score;
use crate::server::stream::Chunks;
use crate::server::text::Piece;
use crate::server::usage::{Usage, UsageField};
use crate::server::written::json;

/// Writes the choices of one request as they grow.
pub struct StreamWriter {
    writer: Writer,
    usage: StreamUsage,
    /// Of each prompt: tokens that are scored, the first counted as one, or all if none is to be.
    scored: Vec<usize>,
    /// Of each choice: what it gave before its prompt was scored, by a rank that was ahead of the other.
    early: Vec<Vec<Chunk>>,
}

/// What one event shows.
pub struct Chunk {
    choice: usize,
    part: Part,
    finish: Option<&'static str>,
    /// Tokens that the choice has given so far.
    given: usize,
}

enum Part {
    /// The text of the prompt, and its first token.
    Prompt,
    /// Further tokens of the prompt, of which the first is that at a place.
    Scores(Arc<[TokenScore]>, usize),
    /// What the choice gave.
    Piece(Piece),
}

impl StreamWriter {
    pub fn new(writer: Writer, usage: StreamUsage) -> Self {
        let begin = |prompt: &Prompt| if writer.request.scores_prompts() { 1 } else { prompt.tokens.len() };
        let scored = writer.request.prompts.iter().map(begin).collect();
        let early = (0..writer.choices()).map(|_| Vec::new()).collect();
        Self { writer, usage, scored, early }
    }

    /// What each choice of a prompt shows of these scores, and what its choices gave before.
    fn scores(&mut self, prompt: usize, scores: Vec<TokenScore>) -> Vec<Chunk> {
        let (from, each) = (self.scored[prompt], self.writer.choices_of_each());
        self.scored[prompt] += scores.len();
        let (scores, choices): (Arc<[_]>, _) = (scores.into(), prompt * each..(prompt + 1) * each);
        let part = || Part::Scores(Arc::clone(&scores), from);
        let mut chunks: Vec<Chunk> =
            choices.clone().map(|choice| Chunk { choice, part: part(), finish: None, given: 0 }).collect();
        if self.is_scored(prompt) {
            choices.for_each(|choice| chunks.append(&mut self.early[choice]));
        }
        chunks
    }

    fn is_scored(&self, prompt: usize) -> bool {
        self.scored[prompt] >= self.writer.request.prompts[prompt].tokens.len()
    }

    fn completion(&self, choices: Vec<CompletionChoice>, usage: UsageField) -> String {
        let Writer { id, created, model, .. } = &self.writer;
        let object = "text_completion";
        json(&Completion { id, object, created: *created, model: &model.name, choices, usage })
    }
}

impl Chunks for StreamWriter {
    type Chunk = Chunk;

    fn begin(&mut self) -> Vec<Chunk> {
        let choices = if self.writer.request.echo { self.writer.choices() } else { 0 };
        let first = |choice| Chunk { choice, part: Part::Prompt, finish: None, given: 0 };
        (0..choices).map(first).collect()
    }

    fn grow(&mut self, growth: Growth) -> Vec<Chunk> {
        let Growth { choice, prompt_scores, piece, finish, of_token, given } = growth;
        let prompt = choice / self.writer.choices_of_each();
        let mut chunks = if prompt_scores.is_empty() { Vec::new() } else { self.scores(prompt, prompt_scores) };
        if of_token || finish.is_some() {
            let chunk = Chunk { choice, part: Part::Piece(piece), finish, given };
            if self.is_scored(prompt) { &mut chunks } else { &mut self.early[choice] }.push(chunk);
        }
        chunks
    }

    fn write(&self, chunk: Chunk) -> String {
        let Chunk { choice: index, part, finish, given } = chunk;
        let (prompt, tokenizer) = (self.writer.prompt(index), &self.writer.model.tokenizer);
        let mut logprobs = self.writer.request.logprobs.map(|_| Logprobs::default());
        let mut add = |score: Score<'_>| {
            let Some(logprobs) = &mut logprobs else { return };
            logprobs.text_offset.push(score.offset);
            logprobs.token_logprobs.push(Some(score.logprob));
            logprobs.tokens.push(tokenizer.name(score.token));
            logprobs.top_logprobs.push(Some(top_of(tokenizer, score)));
        };
        let text = match part {
            Part::Prompt => {
                logprobs = logprobs.map(|_| Logprobs::unpredicted(tokenizer.name(prompt.tokens[0])));
                prompt.text.clone()
            }
            Part::Scores(scores, from) => {
                let offsets = &prompt.offsets[from..];
                offsets.iter().zip(&*scores).for_each(|(&offset, score)| add(Score::new(offset as usize, score)));
                String::new()
            }
            Part::Piece(piece) => {
                piece.tokens.iter().for_each(|token| add(Score::new(token.offset, &token.score)));
                piece.text
            }
        };
        let choice = CompletionChoice { index, text, logprobs, finish_reason: finish };
        let so_far = Usage::new(prompt.tokens.len(), given);
        self.completion(vec![choice], UsageField::of_chunk(self.usage, so_far))
    }

    fn keeps_scores(&self) -> bool {
        !(0..self.scored.len()).all(|prompt| self.is_scored(prompt))
    }

    fn end(&mut self, given: usize) -> Option<String> {
        let usage = UsageField::Given(self.writer.usage(given));
        (self.usage != StreamUsage::No).then(|| self.completion(Vec::new(), usage))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::validate::CompletionRequest;
    use super::*;
    use crate::server::bounds::RequestBounds;
    use crate::server::fixture::model;

    fn score(token: u32) -> TokenScore {
        TokenScore { token, logprob: -0.5, top: Vec::new() }
    }

    #[test]
    fn a_choice_that_is_ahead_of_the_scores_of_its_prompt_waits_for_them() {
        let (model, bounds) = (Arc::new(model()), RequestBounds { context: 100, sequences: 100 });
        let body = br#"{"prompt": [[5, 6, 7], [8]], "n": 2, "max_tokens": 9, "echo": true, "logprobs": 0}"#;
        let request = CompletionRequest::parse(body, &model, bounds, 1).unwrap();
        let writer = Writer { model, id: "cmpl-1".to_owned(), created: 1, request };
        let mut writer = StreamWriter::new(writer, StreamUsage::No);
        let growth = |choice, prompt: &[u32], finish| Growth {
            choice,
            prompt_scores: prompt.iter().copied().map(score).collect(),
            piece: Piece::default(),
            finish,
            of_token: prompt.is_empty(),
            given: 1,
        };
        let shown = |writer: &mut StreamWriter, growth| -> Vec<(u64, usize)> {
            let chunks = writer.grow(growth).into_iter().map(|chunk| writer.write(chunk)).collect::<Vec<_>>();
            let choices =
                chunks.iter().map(|chunk| serde_json::from_str::<Value>(chunk).unwrap()["choices"][0].clone());
            let tokens = |choice: &Value| choice["logprobs"]["tokens"].as_array().unwrap().len();
            choices.map(|choice| (choice["index"].as_u64().unwrap(), tokens(&choice))).collect()
        };
        assert_eq!(writer.begin().len(), 4);
        assert_eq!(shown(&mut writer, growth(3, &[], None)), [(3, 0)], "a prompt of one token has nothing to score");
        assert_eq!(shown(&mut writer, growth(1, &[], None)), []);
        assert_eq!(shown(&mut writer, growth(0, &[6], None)), [(0, 1), (1, 1)]);
        assert_eq!(shown(&mut writer, growth(1, &[], Some("stop"))), []);
        assert!(writer.keeps_scores());
        assert_eq!(shown(&mut writer, growth(0, &[7], None)), [(0, 1), (1, 1), (1, 0), (1, 0)]);
        assert!(!writer.keeps_scores());
        assert_eq!(shown(&mut writer, growth(0, &[], None)), [(0, 0)]);
    }
}
