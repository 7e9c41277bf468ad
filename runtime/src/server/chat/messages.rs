//! The messages of a chat, as a template sees them.

use std::marker::PhantomData;

use serde_json::value::RawValue;

use super::types::Message;
use crate::quoted::Quoted;
use crate::server::bounds::RequestBounds;
use crate::server::error::{ApiError, Code};
use crate::server::fields::known::{OF_MESSAGES, OF_PARTS};
use crate::server::fields::list::each;
use crate::server::fields::{Fields, mismatch, read};

/// Takes the messages of a request.
///
/// # Errors
/// If there is none, or one is wrong.
pub fn take_messages(fields: &mut Fields<'_>, bounds: &RequestBounds) -> Result<Vec<Message>, ApiError> {
    let written = fields
        .take_raw("messages")
        .ok_or_else(|| ApiError::field("messages", Code::MissingRequiredParameter, "messages is missing".to_owned()))?;
    let expected = "a list of objects";
    let count = each("messages", written, expected, |_, _| Ok(()))?;
    if count == 0 {
        return Err(ApiError::field("messages", Code::InvalidValue, "messages is empty".to_owned()));
    }
    // What a template makes of a message is a token at least.
    if count > bounds.context {
        return Err(bounds.overflow("messages", &format!("there are {count} messages; send fewer")));
    }
    let mut messages = Vec::with_capacity(count);
    each("messages", written, expected, |index, message| {
        messages.push(message_of(&format!("messages[{index}]"), message)?);
        Ok(())
    })?;
    Ok(messages)
}

fn message_of(path: &str, message: &RawValue) -> Result<Message, ApiError> {
    let mut fields = Fields::of(path, message, "an object")?;
    let role = take_role(&mut fields)?;
    refuse_tool_calls(&mut fields)?;
    let content = take_content(&mut fields, role)?;
    let name = fields.take("name", "a string")?;
    let reasoning_content: Option<String> = fields.take("reasoning_content", "a string")?;
    let reasoning = match (fields.take::<String>("reasoning", "a string")?, reasoning_content) {
        // Servers that know both names leave the one that they do not use empty.
        (Some(empty), Some(other)) if empty.is_empty() => Some(other),
        (reasoning, other) => reasoning.or(other),
    };
    fields.finish_part(OF_MESSAGES)?;
    Ok(Message { role, content, name, reasoning_content: reasoning.clone(), reasoning })
}

fn take_role(fields: &mut Fields<'_>) -> Result<&'static str, ApiError> {
    let field = fields.name("role");
    let Some(role) = fields.take::<String>("role", "a string")? else {
        return Err(ApiError::field(&field, Code::MissingRequiredParameter, format!("{field} is missing")));
    };
    match role.as_str() {
        // `developer` is what newer clients call the system's message; templates know only the old name.
        "system" | "developer" => Ok("system"),
        "user" => Ok("user"),
        "assistant" => Ok("assistant"),
        "tool" | "function" => {
            let message = format!("{field} is {role}, but tools are not supported; leave the messages of tools out");
            Err(ApiError::field(&field, Code::UnsupportedParameter, message))
        }
        _ => {
            let message =
                format!("{field} must be system, developer, user or assistant, not \"{}\"", Quoted::<64>::from(role));
            Err(ApiError::field(&field, Code::InvalidValue, message))
        }
    }
}

/// A message that calls tools often has no content, which is not what is wrong with it.
fn refuse_tool_calls(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    let Some(calls) = fields.take_raw("tool_calls") else { return Ok(()) };
    let field = fields.name("tool_calls");
    if each(&field, calls, "a list", |_, _| Ok(()))? == 0 {
        return Ok(());
    }
    let message = format!("{field} is not supported, since tools are not; leave the messages that call tools out");
    Err(ApiError::field(&field, Code::UnsupportedParameter, message))
}

fn take_content(fields: &mut Fields<'_>, role: &str) -> Result<String, ApiError> {
    let field = fields.name("content");
    match fields.take_raw("content") {
        Some(content) if content.get().starts_with('"') => read(&field, content, "a string", PhantomData),
        Some(content) if content.get().starts_with('[') => {
            let mut whole = String::new();
            each(&field, content, "a list", |index, part| {
                // As vLLM joins them.
                if index > 0 {
                    whole.push('\n');
                }
                whole.push_str(&text_of(&format!("{field}[{index}]"), part)?);
                Ok(())
            })?;
            Ok(whole)
        }
        Some(content) => Err(mismatch(&field, content, "a string or a list of text parts", Code::InvalidType)),
        // An answer may have had none, when its bound was reached while the model still thought.
        None if role == "assistant" => Ok(String::new()),
        None => Err(ApiError::field(&field, Code::MissingRequiredParameter, format!("{field} is missing"))),
    }
}

fn text_of(path: &str, part: &RawValue) -> Result<String, ApiError> {
    if part.get().starts_with('"') {
        return read(path, part, "a string", PhantomData);
    }
    let mut fields = Fields::of(path, part, "a text part")?;
    let (kind_field, text_field) = (fields.name("type"), fields.name("text"));
    match fields.take::<String>("type", "a string")?.as_deref() {
        Some("text" | "input_text" | "output_text") => {}
        Some(kind) => {
            let message = format!("{kind_field} must be text, not \"{}\"", Quoted::<64>::from(kind));
            return Err(ApiError::field(&kind_field, Code::UnsupportedParameter, message));
        }
        None => {
            return Err(ApiError::field(
                &kind_field,
                Code::MissingRequiredParameter,
                format!("{kind_field} is missing"),
            ));
        }
    }
    let text = fields.take("text", "a string")?.ok_or_else(|| {
        ApiError::field(&text_field, Code::MissingRequiredParameter, format!("{text_field} is missing"))
    })?;
    fields.finish_part(OF_PARTS)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(messages: &Value) -> Value {
        let body = json!({"messages": messages}).to_string();
        let bounds = RequestBounds { context: 100, sequences: 1 };
        let messages = take_messages(&mut Fields::parse(body.as_bytes()).unwrap(), &bounds).unwrap();
        serde_json::to_value(messages).unwrap()
    }

    #[test]
    fn what_a_template_reads_reaches_it_and_what_says_nothing_does_not() {
        let messages = json!([
            {"role": "developer", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}], "name": "n"},
            {"role": "assistant", "content": "C", "reasoning_content": "because", "tool_calls": [], "refusal": ""},
            {"role": "assistant", "content": null, "reasoning": "so", "reasoning_content": "not this"},
            {"role": "assistant", "content": "", "reasoning": "", "reasoning_content": "still"},
            {"role": "assistant", "content": "", "reasoning": "kept", "reasoning_content": ""},
            {"role": "user", "content": "D", "type": "text", "reasoning_content": null},
        ]);
        let expected = json!([
            {"role": "system", "content": "A\nB", "name": "n"},
            {"role": "assistant", "content": "C", "reasoning": "because", "reasoning_content": "because"},
            {"role": "assistant", "content": "", "reasoning": "so", "reasoning_content": "so"},
            {"role": "assistant", "content": "", "reasoning": "still", "reasoning_content": "still"},
            {"role": "assistant", "content": "", "reasoning": "kept", "reasoning_content": "kept"},
            {"role": "user", "content": "D"},
        ]);
        assert_eq!(seen(&messages), expected);
    }
}
