//! `/v1/chat/completions`.

mod convert;
mod messages;
mod template;
mod types;
mod validate;

pub use convert::{answer, read};
pub use template::{ChatTemplate, TemplateError};
