//! Where a checkpoint's chat template is, in the order that transformers looks.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::TemplateError;
use crate::model::folder;

const FILE: &str = "chat_template.jinja";
const FOLDER: &str = "additional_chat_templates";
/// The one that is taken where there are several.
const DEFAULT: &str = "default";

/// The template, of `chat_template.jinja`, of the folder `additional_chat_templates` or, if there is neither, of
/// `tokenizer_config.json`.
pub(super) fn find(directory: &Path, in_config: Option<&Value>) -> Result<String, TemplateError> {
    let mut templates = BTreeMap::new();
    if let Some(template) = read(directory, FILE)? {
        templates.insert(DEFAULT.to_owned(), template);
    }
    // A folder that cannot be listed is one that transformers does not see either.
    for entry in std::fs::read_dir(directory.join(FOLDER)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".jinja")
            && let Some(template) = read(directory, &format!("{FOLDER}/{name}.jinja"))?
        {
            templates.insert(name.to_owned(), template);
        }
    }
    if templates.is_empty() {
        match in_config {
            None => return Err(TemplateError::None),
            Some(Value::String(template)) => return Ok(template.clone()),
            Some(several) => templates = named(several)?,
        }
    }
    templates.remove(DEFAULT).ok_or(TemplateError::NoDefault)
}

fn read(directory: &Path, file: &str) -> Result<Option<String>, TemplateError> {
    let bytes = folder::read_if_there(directory, file, folder::LARGEST_TEXT)?;
    bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| TemplateError::NoText { file: file.into() })).transpose()
}

/// Several templates: a list of objects with name and template, or an object of templates by name.
fn named(several: &Value) -> Result<BTreeMap<String, String>, TemplateError> {
    let entry = |name: Option<&str>, template: &Value| Some((name?.to_owned(), template.as_str()?.to_owned()));
    let entries: Option<BTreeMap<_, _>> = match several {
        Value::Array(list) if list.is_empty() => None,
        Value::Object(map) if map.is_empty() => None,
        Value::Array(list) => list.iter().map(|item| entry(item["name"].as_str(), &item["template"])).collect(),
        Value::Object(map) => map.iter().map(|(name, template)| entry(Some(name), template)).collect(),
        _ => None,
    };
    entries.ok_or_else(|| TemplateError::NoTemplate { found: several.to_string().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_come_before_the_configuration_and_the_default_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let found = |config: Value| find(directory.path(), Some(&config));
        assert!(matches!(find(directory.path(), None), Err(TemplateError::None)));
        assert_eq!(found(json!("own")).unwrap(), "own");
        let several = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        assert_eq!(found(several).unwrap(), "d");
        assert_eq!(found(json!({"default": "d"})).unwrap(), "d");
        assert!(matches!(found(json!([{"name": "tool_use", "template": "t"}])), Err(TemplateError::NoDefault)));
        for none in [json!([{"name": "default"}]), json!({"default": 5}), json!(["t"]), json!([]), json!({}), json!(3)]
        {
            let error = found(none.clone()).unwrap_err().to_string();
            assert!(error.ends_with(&format!("must be a text or a list of named texts, not {none}")), "{error}");
        }
        let folder = directory.path().join(FOLDER);
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(found(json!("own")).unwrap(), "own");
        std::fs::write(folder.join("rag.jinja"), "r").unwrap();
        assert!(matches!(found(json!("own")), Err(TemplateError::NoDefault)));
        std::fs::write(directory.path().join(FILE), "file").unwrap();
        assert_eq!(found(json!("own")).unwrap(), "file");
        std::fs::write(directory.path().join(FILE), [0xff]).unwrap();
        assert!(found(json!("own")).unwrap_err().to_string().contains("no UTF-8"));
    }
}
