//! `/v1/chat/completions`.

mod chunks;
mod conversation;
mod convert;
mod messages;
mod template;
mod types;
mod validate;
mod whole;

#[cfg(test)]
pub use conversation::given_of_json;
pub use convert::{answer, read};
pub use template::{ChatTemplate, TemplateError};
#[cfg(test)]
pub use validate::TEMPLATE_ARGUMENT_BYTES_AT_MOST;
