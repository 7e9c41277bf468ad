//! `/v1/completions`.

mod convert;
mod echoed;
mod prompts;
mod types;
mod validate;

pub use convert::{answer, read};
#[cfg(test)]
pub use echoed::{SCORES_AT_MOST, TEXT_AT_MOST};
#[cfg(test)]
pub use prompts::PROMPTS_AT_MOST;
