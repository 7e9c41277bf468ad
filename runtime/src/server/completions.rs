//! `/v1/completions`.

mod convert;
mod prompts;
mod types;
mod validate;

pub use convert::{answer, read};
#[cfg(test)]
pub use prompts::PROMPTS_AT_MOST;
