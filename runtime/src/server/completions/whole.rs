//! An answer that is sent when it is complete: what is kept of it while it grows, and how it is written.

use std::iter::once;
use std::sync::Arc;

use super::convert::{Writer, top_of};
use crate::server::generation::Growth;
use crate::server::kept::Kept;
use crate::server::scores::{Score, Scores};
use crate::server::usage::Usage;
use crate::server::written::{json, list, text};

/// See the module's documentation.
pub struct Whole {
    writer: Writer,
    /// Of each prompt, whichever of its choices they are shown in: those of its tokens but the first.
    prompts: Vec<Scores>,
    choices: Vec<Kept>,
}

impl Whole {
    /// Nothing yet.
    pub fn new(writer: Writer) -> Self {
        let prompts = writer.request.prompts.iter().map(|_| Scores::default()).collect();
        let choices = (0..writer.choices()).map(|_| Kept::default()).collect();
        Self { writer, prompts, choices }
    }

    /// Adds what a choice gave; gives the bytes that are kept of it beside those of prompts.
    pub fn grow(&mut self, growth: Growth) -> usize {
        let Growth { choice: index, prompt_scores, piece, finish, .. } = growth;
        let (prompt, kept) = (self.writer.prompt(index), &mut self.prompts[index / self.writer.choices_of_each()]);
        for score in &prompt_scores {
            let offset = prompt.offsets[kept.len() + 1] as usize;
            kept.push(Score::new(offset, score));
        }
        self.choices[index].grow(&piece, finish, self.writer.request.logprobs.is_some())
    }

    /// Of answers that have so many tokens.
    pub fn usage(&self, given: usize) -> Usage {
        self.writer.usage(given)
    }

    /// The JSON of it all.
    pub fn written(self, usage: Usage) -> impl Iterator<Item = String> + Send + 'static {
        let Writer { id, created, model, .. } = &self.writer;
        let (id, name) = (json(id), json(&model.name));
        let object = "text_completion";
        let head = format!(r#"{{"id":{id},"object":"{object}","created":{created},"model":{name},"choices":["#);
        let tail = format!(r#"],"usage":{}}}"#, json(&usage));
        let (choices, whole) = (self.choices.len(), Arc::new(self));
        once(head).chain((0..choices).flat_map(move |index| choice(&whole, index))).chain(once(tail))
    }

    /// Tokens with log-probabilities that a choice shows.
    fn shown(&self, index: usize) -> usize {
        let Writer { request, .. } = &self.writer;
        self.choices[index].scores.len() + if request.echo { self.writer.prompt(index).tokens.len() } else { 0 }
    }

    /// One of these; `None` for the first token of a prompt, which nothing predicts.
    fn score(&self, index: usize, shown: usize) -> Option<Score<'_>> {
        let scores = &self.choices[index].scores;
        if !self.writer.request.echo {
            return Some(scores.at(shown));
        }
        let prompt = &self.prompts[index / self.writer.choices_of_each()];
        let shown = shown.checked_sub(1)?;
        Some(shown.checked_sub(prompt.len()).map_or_else(|| prompt.at(shown), |given| scores.at(given)))
    }

    fn name(&self, index: usize, shown: usize) -> String {
        let token = self.score(index, shown).map_or_else(|| self.writer.prompt(index).tokens[0], |score| score.token);
        self.writer.model.tokenizer.name(token)
    }
}

fn choice(whole: &Arc<Whole>, index: usize) -> impl Iterator<Item = String> + Send + use<> {
    let head = format!(r#"{}{{"index":{index},"text":"#, if index == 0 { "" } else { "," });
    let tail = format!(r#","finish_reason":{}}}"#, json(&whole.choices[index].finish));
    once(head)
        .chain(text([Text::Prompt(Arc::clone(whole), index), Text::Given(Arc::clone(whole), index)]))
        .chain(once(r#","logprobs":"#.to_owned()))
        .chain(logprobs(whole, index))
        .chain(once(tail))
}

/// Parallel lists, an entry of each for each token.
fn logprobs(whole: &Arc<Whole>, index: usize) -> Box<dyn Iterator<Item = String> + Send> {
    if whole.writer.request.logprobs.is_none() {
        return Box::new(once("null".to_owned()));
    }
    let count = whole.shown(index);
    let of_each = |entry: fn(&Whole, usize, usize) -> String| {
        let whole = Arc::clone(whole);
        list(count, move |shown| entry(&whole, index, shown))
    };
    let word = |word: &str| once(word.to_owned());
    let offset = |whole: &Whole, index, shown| whole.score(index, shown).map_or(0, |score| score.offset).to_string();
    let logprob = |whole: &Whole, index, shown| json(&whole.score(index, shown).map(|score| score.logprob));
    let name = |whole: &Whole, index, shown| json(&whole.name(index, shown));
    let top = |whole: &Whole, index, shown| {
        json(&whole.score(index, shown).map(|score| top_of(&whole.writer.model.tokenizer, score)))
    };
    Box::new(
        word(r#"{"text_offset":"#)
            .chain(of_each(offset))
            .chain(word(r#","token_logprobs":"#))
            .chain(of_each(logprob))
            .chain(word(r#","tokens":"#))
            .chain(of_each(name))
            .chain(word(r#","top_logprobs":"#))
            .chain(of_each(top))
            .chain(word("}")),
    )
}

/// A part of a choice's text, wherever it is kept.
enum Text {
    Prompt(Arc<Whole>, usize),
    Given(Arc<Whole>, usize),
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        match self {
            // Empty unless it is to be echoed.
            Self::Prompt(whole, index) => &whole.writer.prompt(*index).text,
            Self::Given(whole, index) => &whole.choices[*index].text,
        }
    }
}
