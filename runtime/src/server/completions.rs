//! `/v1/completions`.

mod chunks;
mod convert;
mod prompts;
mod types;
mod validate;
mod whole;

pub use convert::{answer, read};
#[cfg(test)]
pub use prompts::PROMPTS_AT_MOST;
