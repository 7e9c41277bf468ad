//! `/v1/completions`.

mod convert;
mod prompts;
mod types;
mod validate;

pub use convert::{answer, read};
