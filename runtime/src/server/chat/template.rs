//! The checkpoint's chat template: a Jinja template, rendered as the transformers library does.

mod source;

use std::path::Path;

use minijinja::{Environment, ErrorKind, Value, context};
use minijinja_contrib::pycompat;
use serde::Serialize;
use serde_json::ser::Formatter;
use thiserror::Error;

use crate::model::folder::FileError;
use crate::quoted::Quoted;

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
    /// The template is wrong, or refuses the messages.
    #[error("the chat template fails: {}", render_error(.0))]
    Template(#[from] minijinja::Error),
}

/// The template of one checkpoint.
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Finds the template of a checkpoint. `in_config` is what `tokenizer_config.json` has, `tokens` are the special
    /// tokens that templates name.
    ///
    /// # Errors
    /// If there is none, or one that cannot be read or compiled.
    pub fn load(
        directory: &Path,
        in_config: Option<&serde_json::Value>,
        tokens: &[(String, String)],
    ) -> Result<Self, TemplateError> {
        Self::new(source::find(directory, in_config)?, tokens.to_vec())
    }

    fn new(source: String, tokens: Vec<(String, String)>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| -> Result<String, minijinja::Error> {
            jiff::fmt::strtime::format(format, &jiff::Zoned::now())
                .map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string()))
        });
        environment.add_filter("tojson", |value: Value| python_json(&value));
        environment.add_template_owned("chat", source)?;
        Ok(Self { environment, tokens })
    }

    /// The prompt of messages, ready for the answer. `arguments` are further variables of the template.
    ///
    /// # Errors
    /// If the template fails or refuses the messages.
    pub fn render(
        &self,
        messages: &impl Serialize,
        arguments: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, TemplateError> {
        let tokens: Value =
            self.tokens.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))).collect();
        let own = context! { messages, add_generation_prompt => true };
        let values = context! { ..Value::from_serialize(arguments), ..own, ..tokens };
        Ok(self.environment.get_template("chat")?.render(values)?)
    }
}

/// What the template says, and where it came from if it is not the template's own words.
fn render_error(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.to_string(), str::to_owned)
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it.
fn python_json(value: &Value) -> Result<Value, minijinja::Error> {
    struct Python;
    impl Formatter for Python {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            if first { Ok(()) } else { writer.write_all(b", ") }
        }
        fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
            if first { Ok(()) } else { writer.write_all(b", ") }
        }
        fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
            writer.write_all(b": ")
        }
    }
    let mut json = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut json, Python))
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(String::from_utf8_lossy(&json).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: &serde_json::Value) -> Result<String, TemplateError> {
        let tokens = vec![("bos_token".to_owned(), "<s>".to_owned())];
        ChatTemplate::new(source.to_owned(), tokens)?.render(messages, &serde_json::Map::new())
    }

    #[test]
    fn a_template_that_uses_python_methods_and_special_tokens_renders_as_in_transformers() {
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
    fn json_in_a_template_is_pythons() {
        let text = render("{{ messages | tojson }}", &json!([{"a": [1, "<é>"], "b": {}}])).unwrap();
        assert_eq!(text, r#"[{"a": [1, "<é>"], "b": {}}]"#);
    }
}
