//! The checkpoint's chat template, and what transformers gives to it beside the messages.

mod source;

use std::path::Path;

use jiff::Zoned;
use serde_json::Value;
use thiserror::Error;

use crate::model::folder::FileError;
use crate::quoted::Quoted;
use crate::server::jinja::{Given, IsLate, JinjaError, Template};

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
    /// What should be a template, or several with their names, is neither.
    #[error("chat_template of tokenizer_config.json must be a text or a list of named texts, not {found}")]
    NoTemplate {
        /// What it is.
        found: Quoted<64>,
    },
    /// The template is wrong.
    #[error("its chat template cannot be used: {}", Quoted::<160>::new(.0))]
    Template(JinjaError),
    /// The template fails, or refuses the messages.
    #[error("the chat template fails: {}", Quoted::<160>::new(.0))]
    Render(JinjaError),
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
        messages: Given,
        arguments: Vec<(String, Given)>,
        now: &Zoned,
        is_late: IsLate<'_>,
    ) -> Result<String, TemplateError> {
        let tokens = self.tokens.iter().map(|(name, text)| (name.clone(), Given::text(text.as_str())));
        let absent = ["tools", "documents"].map(|name| (name.to_owned(), Given::NONE));
        let is_free = |(name, _): &(String, Given)| !arguments.iter().any(|(given, _)| given == name);
        let others: Vec<(String, Given)> = tokens.chain(absent).filter(is_free).collect();
        // Of equal names the first one counts; those that templates look for most often come first.
        let of_chat = [("messages".to_owned(), messages), ("add_generation_prompt".to_owned(), Given::truth(true))];
        let variables = of_chat.into_iter().chain(others).chain(arguments).collect();
        self.template.render(variables, self.longest, now, is_late).map_err(TemplateError::Render)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::chat::given_of_json;

    fn render(source: &str, messages: &Value) -> Result<String, TemplateError> {
        let tokens = vec![("bos_token".to_owned(), "<s>".to_owned())];
        let messages = given_of_json(messages);
        ChatTemplate::new(source, tokens, 1 << 20)?.render(messages, Vec::new(), &Zoned::default(), &|| false)
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
