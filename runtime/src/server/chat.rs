//! `/v1/chat/completions`.

mod chunks;
mod convert;
mod messages;
mod template;
mod types;
mod validate;
mod whole;

pub use convert::{answer, read};
pub use template::{ChatTemplate, TemplateError};
#[cfg(test)]
pub use validate::TEMPLATE_ARGUMENT_BYTES_AT_MOST;
