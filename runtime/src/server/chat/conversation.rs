//! The messages of a chat as transformers gives them to a template. What many messages say in the same words, such as the
//! names of their members, is in memory once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::server::jinja::{Given, Names};

/// Names under which a message has what an assistant thought; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Messages, one after another.
#[derive(Debug, Default)]
pub struct Conversation {
    messages: Vec<Given>,
    shared: HashSet<Arc<str>>,
    /// Of messages: there are few that differ.
    names: Vec<Names>,
}

impl Conversation {
    /// Room for so many.
    pub fn with_capacity(messages: usize) -> Self {
        Self { messages: Vec::with_capacity(messages), ..Self::default() }
    }

    /// A text that is the same in many messages.
    pub fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.shared.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.shared.insert(Arc::clone(&text));
        text
    }

    /// Adds a message: without members that are null, and with what was thought under each of the names that templates
    /// look for.
    pub fn push(&mut self, mut members: Vec<(&str, Given)>) {
        members.retain(|(_, value)| !value.is_none());
        let thought = REASONING.iter().find_map(|name| members.iter().find(|(known, _)| known == name));
        if let Some((_, thought)) = thought.cloned() {
            let known = |name| members.iter().position(|(known, _)| *known == name);
            let first = known("thinking").map(|place| members.remove(place));
            members.insert(0, first.unwrap_or_else(|| ("thinking", thought.clone())));
            if members.iter().all(|(known, _)| *known != "reasoning_content") {
                members.push(("reasoning_content", thought));
            }
        }
        let names = self.names(&members);
        // With room for them and no more: there may be very many messages.
        let mut values = Vec::with_capacity(members.len());
        values.extend(members.into_iter().map(|(_, value)| value));
        let message = Given::object_of(&names, values).expect("JSON is not read as deep as a template can write");
        let message = match self.messages.last() {
            Some(last) if last.is_same_as(&message) => last.clone(),
            _ => message,
        };
        self.messages.push(message);
    }

    fn names(&mut self, members: &[(&str, Given)]) -> Names {
        let names = members.iter().map(|&(name, _)| name);
        if let Some(known) = self.names.iter().find(|known| known.are(names.clone())) {
            return known.clone();
        }
        self.names.push(Names::of(names.map(Into::into)));
        self.names[self.names.len() - 1].clone()
    }

    /// All of them, for a template.
    pub fn given(self) -> Given {
        Given::list(self.messages).expect("JSON is not read as deep as a template can write")
    }
}

/// Messages in JSON, for tests.
#[cfg(test)]
pub fn given_of_json(messages: &serde_json::Value) -> Given {
    let mut conversation = Conversation::default();
    for message in messages.as_array().expect("a list") {
        let given = |value: &serde_json::Value| serde_json::from_value(value.clone()).expect("JSON");
        let members = message.as_object().expect("an object").iter();
        conversation.push(members.map(|(name, value)| (name.as_str(), given(value))).collect());
    }
    conversation.given()
}
