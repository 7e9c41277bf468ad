//! `/v1/chat/completions`.

mod convert;
mod template;
mod types;
mod validate;

pub use convert::answer;
pub use template::{ChatTemplate, TemplateError};
