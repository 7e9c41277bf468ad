//! How servers and coordinators say why they do not do what they are asked for: as OpenAI's API does.

use serde::Deserialize;

/// The body of such an answer.
#[derive(Deserialize)]
pub(crate) struct Refusal {
    error: Reason,
}

/// What the refusal is for.
#[derive(Deserialize)]
pub(crate) struct Reason {
    pub message: String,
}

/// The reason that an answer gives, if it is of this form.
pub(crate) fn reason(body: &[u8]) -> Option<String> {
    serde_json::from_slice(body).ok().map(|Refusal { error }| error.message)
}
