//! Which files of a source are downloaded: those that the runtime reads, and no others. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::error::DownloadError;

/// Says which file holds each tensor, where there are several.
pub const INDEX: &str = "model.safetensors.index.json";
/// Holds every tensor, where there is one file.
const SINGLE: &str = "model.safetensors";
const CONFIG: &str = "config.json";
/// What the runtime reads beside weights, where it is there.
const NAMES: [&str; 8] = [
    CONFIG,
    INDEX,
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];
/// Folder of further chat templates.
const TEMPLATES: &str = "additional_chat_templates/";

/// An index of weights, as far as it is of interest here.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Refuses names that could lead out of a folder: whoever lists such means harm.
///
/// # Errors
/// The first of them.
pub fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), DownloadError> {
    let is_safe = |name: &str| {
        let parts = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        parts && !name.contains(['\\', '\0']) && !name.chars().any(char::is_control)
    };
    let found = names.into_iter().find(|name| !is_safe(name));
    found.map_or(Ok(()), |name| Err(DownloadError::UnsafeName { name: name.to_owned() }))
}

/// What is read beside weights, of the names that there are.
///
/// # Errors
/// If there is no `config.json`.
pub fn beside_weights(source: &str, names: &BTreeSet<&str>) -> Result<Vec<String>, DownloadError> {
    if !names.contains(CONFIG) {
        return Err(DownloadError::NoCheckpoint { source_name: source.to_owned(), missing: CONFIG.to_owned() });
    }
    let is_template = |name: &str| {
        name.strip_prefix(TEMPLATES).is_some_and(|name| {
            !name.contains('/') && Path::new(name).extension().is_some_and(|ending| ending == "jinja")
        })
    };
    Ok(names.iter().filter(|name| NAMES.contains(name) || is_template(name)).map(|&name| name.to_owned()).collect())
}

/// The files that hold the weights: those that the index names, or else `model.safetensors`, or else every file of that form beside
/// `config.json`.
///
/// # Errors
/// If there are none, or the index cannot be read or names one that there is not.
pub fn weights(source: &str, names: &BTreeSet<&str>, index: Option<&[u8]>) -> Result<Vec<String>, DownloadError> {
    let missing = |missing: String| DownloadError::NoCheckpoint { source_name: source.to_owned(), missing };
    let Some(index) = index else {
        if names.contains(SINGLE) {
            return Ok(vec![SINGLE.to_owned()]);
        }
        let is_weights =
            |name: &str| name.ends_with(".safetensors") && !name.contains('/') && !name.starts_with("adapter_model.");
        let found: Vec<String> = names.iter().filter(|name| is_weights(name)).map(|&name| name.to_owned()).collect();
        return if found.is_empty() { Err(missing("file that ends in .safetensors".to_owned())) } else { Ok(found) };
    };
    let index: Index = serde_json::from_slice(index).map_err(|error| DownloadError::Answer {
        what: format!("{INDEX} of {source}"),
        expected: "an index of weights",
        problem: error.to_string(),
    })?;
    let used: BTreeSet<String> = index.weight_map.into_values().collect();
    check_names(used.iter().map(String::as_str))?;
    // An index that names anything else would have it written over what this program and the runtime go by.
    let is_file_of_weights =
        |name: &&String| name.ends_with(".safetensors") && !name.contains('/') && !name.starts_with('.');
    if let Some(name) = used.iter().find(|name| !is_file_of_weights(name)) {
        return Err(DownloadError::Answer {
            what: format!("{INDEX} of {source}"),
            expected: "an index of weights",
            problem: format!("it names {name:?}, and weights are in files beside it that end in .safetensors"),
        });
    }
    match used.iter().find(|name| !names.contains(name.as_str())) {
        Some(name) => Err(missing(format!("file {name:?}, which its {INDEX} names"))),
        None => Ok(used.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(names: &[&'a str]) -> BTreeSet<&'a str> {
        names.iter().copied().collect()
    }

    #[test]
    fn what_the_runtime_reads_is_taken_and_nothing_else() {
        let names = set(&[
            "README.md",
            "additional_chat_templates/tool_use.jinja",
            "additional_chat_templates/deep/x.jinja",
            "config.json",
            "model.safetensors",
            "original/consolidated.00.pth",
            "pytorch_model.bin",
            "run.py",
            "tokenizer.json",
            "tokenizer.model",
        ]);
        let beside = beside_weights("s", &names).unwrap();
        assert_eq!(beside, ["additional_chat_templates/tool_use.jinja", "config.json", "tokenizer.json"]);
        assert_eq!(weights("s", &names, None).unwrap(), ["model.safetensors"]);
        assert_eq!(
            weights("s", &set(&["adapter_model.safetensors", "b.safetensors"]), None).unwrap(),
            ["b.safetensors"]
        );
    }

    #[test]
    fn an_index_says_which_weights_are_read() {
        let names = set(&["config.json", "consolidated.safetensors", "model-1.safetensors", "model-2.safetensors"]);
        let index = br#"{"metadata": {}, "weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}}"#;
        assert_eq!(weights("s", &names, Some(index)).unwrap(), ["model-1.safetensors", "model-2.safetensors"]);
        let gone = weights("s", &names, Some(br#"{"weight_map": {"a": "model-3.safetensors"}}"#)).unwrap_err();
        assert!(gone.to_string().contains("model-3.safetensors"), "{gone}");
        let out = weights("s", &names, Some(br#"{"weight_map": {"a": "../x.safetensors"}}"#)).unwrap_err();
        assert!(matches!(out, DownloadError::UnsafeName { .. }), "{out}");
    }

    #[test]
    fn without_config_or_weights_there_is_no_checkpoint() {
        assert!(beside_weights("s", &set(&["model.safetensors"])).unwrap_err().to_string().contains("config.json"));
        let error = weights("s", &set(&["config.json", "pytorch_model.bin"]), None).unwrap_err();
        assert!(error.to_string().contains(".safetensors"), "{error}");
    }

    #[test]
    fn names_that_lead_out_of_a_folder_are_refused() {
        for name in ["../x", "a/../x", "/etc/x", "a//b", "", ".", "a\\b", "a\0b", "a\nb", "a/"] {
            assert!(check_names(["config.json", name]).is_err(), "{name:?}");
        }
        check_names(["config.json", "a/b.c", "..x", "a..b"]).unwrap();
    }
}
