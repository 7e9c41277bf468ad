//! The messages of a chat, as a template sees them.

use std::borrow::Cow;
use std::marker::PhantomData;

use serde_json::value::RawValue;

use super::conversation::Conversation;
use crate::quoted::Quoted;
use crate::server::bounds::RequestBounds;
use crate::server::error::{ApiError, Code};
use crate::server::fields::known::{OF_MESSAGES, OF_PARTS};
use crate::server::fields::list::each;
use crate::server::fields::{Fields, mismatch, read};
use crate::server::jinja::Given;

/// Takes the messages of a request.
///
/// # Errors
/// If there is none, or one is wrong.
pub fn take_messages(fields: &mut Fields<'_>, bounds: &RequestBounds) -> Result<Conversation, ApiError> {
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
    let mut conversation = Conversation::with_capacity(count);
    each("messages", written, expected, |index, message| {
        add_message(&mut conversation, &format!("messages[{index}]"), message)
    })?;
    Ok(conversation)
}

fn add_message(conversation: &mut Conversation, path: &str, message: &RawValue) -> Result<(), ApiError> {
    let mut fields = Fields::of(path, message, "an object")?;
    let role = take_role(&mut fields)?;
    refuse_tool_calls(&mut fields)?;
    let content = take_content(&mut fields, role)?;
    let name = fields.take::<String>("name", "a string")?;
    let reasoning_content: Option<String> = fields.take("reasoning_content", "a string")?;
    let reasoning = match (fields.take::<String>("reasoning", "a string")?, reasoning_content) {
        // Servers that know both names leave the one that they do not use empty.
        (Some(empty), Some(other)) if empty.is_empty() => Some(other),
        (reasoning, other) => reasoning.or(other),
    };
    fields.finish_part(OF_MESSAGES)?;
    let role = Given::text(conversation.shared(role));
    let content = Given::text(if content.is_empty() { conversation.shared("") } else { content.into() });
    let mut members = vec![("role", role), ("content", content)];
    members.extend(name.map(|name| ("name", Given::text(name))));
    members.extend(reasoning.map(|reasoning| ("reasoning", Given::text(reasoning))));
    conversation.push(members);
    Ok(())
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
                // Names of places are only made where they are needed: there may be a million of these.
                match serde_json::from_str::<Cow<'_, str>>(part.get()) {
                    Ok(text) => whole.push_str(&text),
                    Err(_) => whole.push_str(&text_of(&format!("{field}[{index}]"), part)?),
                }
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
    use crate::server::jinja::Template;

    fn seen(messages: &Value) -> Value {
        let body = json!({"messages": messages}).to_string();
        let bounds = RequestBounds { context: 100, sequences: 1 };
        let conversation = take_messages(&mut Fields::parse(body.as_bytes()).unwrap(), &bounds).unwrap();
        let template = Template::parse("{{ messages|tojson }}").unwrap();
        let variables = vec![("messages".to_owned(), conversation.given())];
        let written = template.render(variables, 1 << 20, &jiff::Zoned::default(), &|| false).unwrap();
        serde_json::from_str(&written).unwrap()
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
        let thought = |content: &str, thought: &str| {
            json!({
                "role": "assistant",
                "content": content,
                "thinking": thought,
                "reasoning": thought,
                "reasoning_content": thought,
            })
        };
        let expected = json!([
            {"role": "system", "content": "A\nB", "name": "n"},
            thought("C", "because"),
            thought("", "so"),
            thought("", "still"),
            thought("", "kept"),
            {"role": "user", "content": "D"},
        ]);
        assert_eq!(seen(&messages), expected);
    }
}
