//! The checkpoint's chat template: a Jinja template, rendered as the transformers library does.

use std::path::{Path, PathBuf};

use minijinja::{Environment, ErrorKind, Value, context};
use minijinja_contrib::pycompat;
use serde::Serialize;
use serde_json::ser::Formatter;
use thiserror::Error;

use crate::server::served::TokenizerConfig;

/// Special tokens that templates name.
const TOKENS: [&str; 3] = ["bos_token", "eos_token", "pad_token"];

/// Why there is no rendered chat.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `chat_template` of `tokenizer_config.json` is neither a template nor a list with one named `default`.
    #[error("chat_template of tokenizer_config.json is no template and has none named \"default\"")]
    NoDefault,
    /// The template is wrong, or refuses the messages.
    #[error("the chat template fails: {}", render_error(.0))]
    Template(#[from] minijinja::Error),
}

/// The template of one checkpoint.
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, or else what `tokenizer_config.json` has; `None` if the checkpoint has neither.
    ///
    /// # Errors
    /// If there is one that cannot be read or compiled.
    pub(in crate::server) fn load(directory: &Path, config: &TokenizerConfig) -> Result<Option<Self>, TemplateError> {
        let path = directory.join("chat_template.jinja");
        let source = match std::fs::read_to_string(&path) {
            Ok(source) => Some(source),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => source_in(config)?,
            Err(source) => return Err(TemplateError::Read { path, source }),
        };
        let tokens = TOKENS.into_iter().filter_map(|name| Some((name, config.text_of(name)?.to_owned()))).collect();
        source.map(|source| Self::new(source, tokens)).transpose()
    }

    fn new(source: String, tokens: Vec<(&'static str, String)>) -> Result<Self, TemplateError> {
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
        let tokens: Value = self.tokens.iter().map(|(name, text)| (*name, Value::from(text.as_str()))).collect();
        let own = context! { messages, add_generation_prompt => true };
        let values = context! { ..Value::from_serialize(arguments), ..own, ..tokens };
        Ok(self.environment.get_template("chat")?.render(values)?)
    }
}

fn source_in(config: &TokenizerConfig) -> Result<Option<String>, TemplateError> {
    match &config.chat_template {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(source)) => Ok(Some(source.clone())),
        Some(several) => {
            let named_default = |entry: &&serde_json::Value| entry["name"] == "default";
            let default = several.as_array().and_then(|list| list.iter().find(named_default));
            let source = default.and_then(|entry| entry["template"].as_str()).ok_or(TemplateError::NoDefault)?;
            Ok(Some(source.to_owned()))
        }
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
        let tokens = vec![("bos_token", "<s>".to_owned())];
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

    #[test]
    fn a_list_of_templates_is_searched_for_the_default_one() {
        let config = |json: serde_json::Value| serde_json::from_value::<TokenizerConfig>(json).unwrap();
        let named =
            config(json!({"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]}));
        assert_eq!(source_in(&named).unwrap().as_deref(), Some("d"));
        let other = config(json!({"chat_template": [{"name": "tool", "template": "t"}]}));
        assert!(matches!(source_in(&other), Err(TemplateError::NoDefault)));
        assert_eq!(source_in(&config(json!({}))).unwrap(), None);
    }
}
