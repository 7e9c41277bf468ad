//! The route's JSON. Field names are OpenAI's.

use serde::Serialize;

use crate::server::usage::UsageField;

#[derive(Debug, Serialize)]
pub struct ChatChunk<'a> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: i64,
    pub model: &'a str,
    pub choices: Vec<ChunkChoice>,
    /// Absent unless usage was asked for; then null in every chunk but the last.
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    pub usage: UsageField,
}

#[derive(Debug, Serialize)]
pub struct ChunkChoice {
    pub index: usize,
    pub delta: Delta,
    pub logprobs: Option<Logprobs>,
    pub finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Logprobs {
    pub content: Vec<TokenLogprob>,
    pub refusal: Option<Vec<TokenLogprob>>,
}

#[derive(Debug, Serialize)]
pub struct TokenLogprob {
    #[serde(flatten)]
    pub token: NamedToken,
    pub top_logprobs: Vec<NamedToken>,
}

#[derive(Debug, Serialize)]
pub struct NamedToken {
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
}
