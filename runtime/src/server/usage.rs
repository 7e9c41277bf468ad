//! Tokens that a request used.

use serde::Serialize;

use super::options::StreamUsage;

/// OpenAI's `usage`.
#[expect(clippy::struct_field_names, reason = "the names are the API's")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompts, each counted once however many choices it has.
    pub prompt_tokens: usize,
    /// Tokens given.
    pub completion_tokens: usize,
    /// Tokens of prompt and answers together.
    pub total_tokens: usize,
}

impl Usage {
    /// The sum is made here.
    #[must_use]
    pub const fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// `usage` where it may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum UsageField {
    /// Nobody asked for it: the field is left out.
    Absent,
    /// It comes in a later chunk.
    Null,
    /// Here it is.
    Given(Usage),
}

impl UsageField {
    /// Whether the field is left out.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Of a chunk that is not the last, whose choice has used `so_far`.
    #[must_use]
    pub const fn of_chunk(asked: StreamUsage, so_far: Usage) -> Self {
        match asked {
            StreamUsage::No => Self::Absent,
            StreamUsage::AtEnd => Self::Null,
            StreamUsage::InEachChunk => Self::Given(so_far),
        }
    }
}
