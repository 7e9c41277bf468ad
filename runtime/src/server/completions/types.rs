//! The route's JSON. Field names are OpenAI's.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::server::usage::UsageField;

/// A chunk of a stream.
#[derive(Debug, Serialize)]
pub struct Completion<'a> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: i64,
    pub model: &'a str,
    pub choices: Vec<CompletionChoice>,
    /// Absent unless it was asked for; then null in every chunk but the last.
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    pub usage: UsageField,
}

#[derive(Debug, Serialize)]
pub struct CompletionChoice {
    pub index: usize,
    pub text: String,
    pub logprobs: Option<Logprobs>,
    pub finish_reason: Option<&'static str>,
}

/// Parallel lists, an entry for each token.
#[expect(clippy::struct_field_names, reason = "the names are the API's")]
#[derive(Debug, Default, Serialize)]
pub struct Logprobs {
    pub text_offset: Vec<u32>,
    /// `None` for the first token of an echoed prompt, which nothing predicts.
    pub token_logprobs: Vec<Option<f32>>,
    pub tokens: Vec<String>,
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
}

impl Logprobs {
    /// Of the first token of an echoed prompt.
    pub fn unpredicted(name: String) -> Self {
        Self { text_offset: vec![0], token_logprobs: vec![None], tokens: vec![name], top_logprobs: vec![None] }
    }
}
