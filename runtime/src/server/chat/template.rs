//! The checkpoint's chat template, and what transformers gives to it beside the messages.

mod source;

use std::path::Path;

use jiff::Zoned;
use serde::Serialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::model::folder::FileError;
use crate::quoted::Quoted;
use crate::server::jinja::{IsLate, JinjaError, Template};

/// Names under which a message has what an assistant thought; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Why there is no rendered chat.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// The checkpoint has none.
    #[error("it has no chat template")]
    None,
    /// A file cannot be had.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is no text.
    #[error("{file} is no UTF-8")]
    NoText {
        /// The file.
        file: Quoted,
    },
    /// There are several and none is called `default`.
    #[error("it has several chat templates and none of them is named \"default\"")]
    NoDefault,
    /// The template is wrong.
    #[error("its chat template cannot be used: {}", Quoted::<160>::new(.0))]
    Template(JinjaError),
    /// The template fails, or refuses the messages.
    #[error("the chat template fails: {}", Quoted::<160>::new(.0))]
    Render(JinjaError),
    /// The messages are not what a template is given.
    #[error("the messages are no list of objects")]
    Messages,
}

impl TemplateError {
    /// Whether there is more text than the context can hold.
    #[must_use]
    pub const fn is_too_long(&self) -> bool {
        matches!(self, Self::Render(JinjaError::TooLong))
    }
}

/// The template of one checkpoint.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Template,
    tokens: Vec<(String, String)>,
    longest: usize,
}

impl ChatTemplate {
    /// Finds the template of a checkpoint. `in_config` is what `tokenizer_config.json` has, `tokens` are the special
    /// tokens that templates name; chats may get `longest` bytes.
    ///
    /// # Errors
    /// If there is none, or one that cannot be read or compiled.
    pub fn load(
        directory: &Path,
        in_config: Option<&Value>,
        tokens: &[(String, String)],
        longest: usize,
    ) -> Result<Self, TemplateError> {
        Self::new(&source::find(directory, in_config)?, tokens.to_vec(), longest)
    }

    fn new(source: &str, tokens: Vec<(String, String)>, longest: usize) -> Result<Self, TemplateError> {
        let template = Template::parse(source).map_err(TemplateError::Template)?;
        Ok(Self { template, tokens, longest })
    }

    /// The prompt of messages, ready for the answer. `arguments` are further variables of the template; `now` is what it
    /// may tell of the time, and `is_late` ends it.
    ///
    /// # Errors
    /// If the template fails or refuses the messages, or takes too long for them.
    pub fn render(
        &self,
        messages: &impl Serialize,
        arguments: &Map<String, Value>,
        now: &Zoned,
        is_late: IsLate<'_>,
    ) -> Result<String, TemplateError> {
        let Ok(Value::Array(messages)) = serde_json::to_value(messages) else { return Err(TemplateError::Messages) };
        let messages = messages.into_iter().map(as_given).collect::<Option<Vec<Value>>>();
        let mut variables: Map<String, Value> =
            self.tokens.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
        variables.insert("tools".to_owned(), Value::Null);
        variables.insert("documents".to_owned(), Value::Null);
        variables.extend(arguments.clone());
        variables.insert("messages".to_owned(), Value::Array(messages.ok_or(TemplateError::Messages)?));
        variables.insert("add_generation_prompt".to_owned(), json!(true));
        self.template.render(&variables, self.longest, now, is_late).map_err(TemplateError::Render)
    }
}

/// A message as transformers gives it to a template: without members that are null, and with what was thought under each
/// of the names that templates look for.
fn as_given(message: Value) -> Option<Value> {
    let Value::Object(message) = message else { return None };
    let message: Map<String, Value> = message.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let Some(thought) = REASONING.iter().find_map(|name| message.get(*name)).cloned() else {
        return Some(Value::Object(message));
    };
    let mut given = Map::new();
    given.insert("thinking".to_owned(), thought.clone());
    given.extend(message);
    given.insert("reasoning_content".to_owned(), thought);
    Some(Value::Object(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &Value) -> Result<String, TemplateError> {
        let tokens = vec![("bos_token".to_owned(), "<s>".to_owned())];
        ChatTemplate::new(source, tokens, 1 << 20)?.render(messages, &Map::new(), &Zoned::default(), &|| false)
    }

    #[test]
    fn a_template_sees_messages_and_special_tokens_and_may_refuse() {
        let source = "{{ bos_token }}{%- for m in messages %}\n\
            {%- if m.content.startswith('/') %}{{ raise_exception('no commands: ' + m.content) }}{% endif %}\n\
            {{- '<' + m.role + '>' + m.content.strip() }}\n\
            {%- endfor %}\n\
            {%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";
        let text = render(source, &json!([{"role": "user", "content": " hi "}])).unwrap();
        assert_eq!(text, "<s><user>hi<assistant>");
        let error = render(source, &json!([{"role": "user", "content": "/x"}])).unwrap_err();
        assert_eq!(error.to_string(), "the chat template fails: no commands: /x");
    }

    #[test]
    fn what_a_refusal_quotes_is_short() {
        let error = render("{{ raise_exception('x\\n' * 500) }}", &json!([{"role": "user"}])).unwrap_err().to_string();
        assert!(error.chars().count() < 200 && !error.contains('\n'), "{error}");
        let error = render(&format!("{{% {} %}}", "x".repeat(5000)), &json!([])).unwrap_err().to_string();
        assert!(error.chars().count() < 300, "{error}");
    }

    #[test]
    fn messages_that_are_longer_than_the_context_are_told_from_a_template_that_runs_away() {
        let long = json!([{"role": "user", "content": "x".repeat(2 << 20)}]);
        assert!(render("{{ messages[0].content }}", &long).unwrap_err().is_too_long());
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let error = render(endless, &json!([])).unwrap_err();
        assert!(!error.is_too_long() && error.to_string().contains("runs away"), "{error}");
    }
}
