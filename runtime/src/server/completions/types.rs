//! The route's JSON. Field names are OpenAI's.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::server::usage::UsageField;

#[derive(Debug, Serialize)]
pub struct Completion<'a> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: i64,
    pub model: &'a str,
    pub choices: Vec<CompletionChoice>,
    /// Absent in a stream unless it was asked for; then null in every chunk but the last.
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    pub usage: UsageField,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct CompletionChoice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<Logprobs>,
    pub finish_reason: Option<&'static str>,
}

/// Parallel lists, an entry for each token.
#[expect(clippy::struct_field_names, reason = "the names are the API's")]
#[derive(Clone, Debug, Default, Serialize)]
pub struct Logprobs {
    pub text_offset: Vec<usize>,
    /// `None` for the first token of an echoed prompt, which nothing predicts.
    pub token_logprobs: Vec<Option<f32>>,
    pub tokens: Vec<String>,
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
}

impl Logprobs {
    pub fn append(&mut self, mut other: Self) {
        self.text_offset.append(&mut other.text_offset);
        self.token_logprobs.append(&mut other.token_logprobs);
        self.tokens.append(&mut other.tokens);
        self.top_logprobs.append(&mut other.top_logprobs);
    }
}
