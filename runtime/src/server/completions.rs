//! `/v1/completions`.

mod convert;
mod types;
mod validate;

pub use convert::{answer, read};
