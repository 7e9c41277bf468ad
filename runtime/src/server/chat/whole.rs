//! An answer that is sent when it is complete: what is kept of it while it grows, and how it is written.

use std::iter::once;
use std::sync::Arc;

use super::convert::Writer;
use crate::server::generation::Growth;
use crate::server::kept::Kept;
use crate::server::usage::Usage;
use crate::server::written::{json, list, text};

/// See the module's documentation.
pub struct Whole {
    writer: Writer,
    choices: Vec<Kept>,
}

impl Whole {
    /// Nothing yet.
    pub fn new(writer: Writer) -> Self {
        let choices = (0..writer.choices()).map(|_| Kept::default()).collect();
        Self { writer, choices }
    }

    /// Adds what a choice gave; gives the bytes that are kept of it.
    pub fn grow(&mut self, growth: Growth) -> usize {
        let Growth { choice, piece, finish, .. } = growth;
        self.choices[choice].grow(&piece, finish, self.writer.request.logprobs.is_some())
    }

    /// Of answers that have so many tokens.
    pub fn usage(&self, given: usize) -> Usage {
        self.writer.usage(given)
    }

    /// The JSON of it all.
    pub fn written(self, usage: Usage) -> impl Iterator<Item = String> + Send + 'static {
        let Writer { id, created, model, .. } = &self.writer;
        let (id, name) = (json(id), json(&model.name));
        let object = "chat.completion";
        let head = format!(r#"{{"id":{id},"object":"{object}","created":{created},"model":{name},"choices":["#);
        let tail = format!(r#"],"usage":{}}}"#, json(&usage));
        let (choices, whole) = (self.choices.len(), Arc::new(self));
        once(head).chain((0..choices).flat_map(move |index| choice(&whole, index))).chain(once(tail))
    }
}

fn choice(whole: &Arc<Whole>, index: usize) -> impl Iterator<Item = String> + Send + use<> {
    let separator = if index == 0 { "" } else { "," };
    let head = format!(r#"{separator}{{"index":{index},"message":{{"role":"assistant","content":"#);
    let tail = format!(r#","finish_reason":{}}}"#, json(&whole.choices[index].finish));
    once(head)
        .chain(text([Content(Arc::clone(whole), index)]))
        .chain(once(r#","refusal":null},"logprobs":"#.to_owned()))
        .chain(logprobs(whole, index))
        .chain(once(tail))
}

fn logprobs(whole: &Arc<Whole>, index: usize) -> Box<dyn Iterator<Item = String> + Send> {
    if whole.writer.request.logprobs.is_none() {
        return Box::new(once("null".to_owned()));
    }
    let (count, whole) = (whole.choices[index].scores.len(), Arc::clone(whole));
    let entries = list(count, move |token| json(&whole.writer.named(whole.choices[index].scores.at(token))));
    Box::new(once(r#"{"content":"#.to_owned()).chain(entries).chain(once(r#","refusal":null}"#.to_owned())))
}

/// What a choice says.
struct Content(Arc<Whole>, usize);

impl AsRef<str> for Content {
    fn as_ref(&self) -> &str {
        let Self(whole, index) = self;
        &whole.choices[*index].text
    }
}
