//! A template as what is laid over pods: a pod that Kubernetes takes, with none of the fields that are not for templates.

use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::error::{TemplateError, shorten};
use super::fields::{self, Field};
use super::{Overlay, Own, metadata, restrict};
use crate::api::pod_template::PodTemplate;

pub(super) fn read(template: &PodTemplate, own: &Own<'_>) -> Result<Overlay, TemplateError> {
    let PodTemplate { metadata: added, spec } = template;
    metadata::check_metadata(&format!("{}.metadata", own.at), &added.labels, &added.annotations)?;
    let at = format!("{}.spec", own.at);
    let spec = match spec {
        None | Some(Value::Null) => PodSpec::default(),
        Some(Value::Object(fields)) => typed(fields, &at, own)?,
        Some(_) => return Err(TemplateError::unreadable(at, "it is no object")),
    };
    restrict::restrict(&spec, own)?;
    Ok(Overlay { labels: added.labels.clone(), annotations: added.annotations.clone(), spec })
}

fn typed(given: &Map<String, Value>, at: &str, own: &Own<'_>) -> Result<PodSpec, TemplateError> {
    allowed(given, fields::POD, at)?;
    let containers = given.get("containers").and_then(Value::as_array).into_iter().flatten();
    for container in containers.filter_map(Value::as_object) {
        if container.get("name").and_then(Value::as_str) == Some(own.container()) {
            allowed(container, fields::CONTAINER, &format!("{at}.containers[{}]", own.container()))?;
        }
    }
    let whole = Value::Object(given.clone());
    if let Some(at) = first_null(&whole, at) {
        return Err(TemplateError::Null { at });
    }
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(&whole, &mut track);
    let spec = PodSpec::deserialize(deserializer)
        .map_err(|error| (error, track.path().to_string()))
        .map_err(|(error, path)| TemplateError::unreadable(shorten_path(at, &path), &error.to_string()))?;
    let known = serde_json::to_value(&spec).expect("a pod is plain data");
    match first_unknown(&whole, &known, at) {
        None => Ok(spec),
        Some(at) => Err(TemplateError::Unknown { at }),
    }
}

fn shorten_path(at: &str, path: &str) -> String {
    if path == "." { at.to_owned() } else { format!("{at}.{}", shorten(path)) }
}

/// Refuses fields that a list says are not for templates. Those that it does not have are unknown of pods, too.
fn allowed(given: &Map<String, Value>, list: &[(&str, Field)], at: &str) -> Result<(), TemplateError> {
    let field = |name: &String| format!("{at}.{}", shorten(name));
    given.keys().try_for_each(|name| match fields::find(list, name) {
        Some(Field::Free) => Ok(()),
        Some(Field::Owned(instead)) => Err(TemplateError::owned(field(name), instead)),
        None => Err(TemplateError::Unknown { at: field(name) }),
    })
}

/// Where a value has its first null.
fn first_null(value: &Value, at: &str) -> Option<String> {
    match value {
        Value::Null => Some(at.to_owned()),
        Value::Object(fields) => {
            fields.iter().find_map(|(name, value)| first_null(value, &format!("{at}.{}", shorten(name))))
        }
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| first_null(item, &entry(at, index, item)))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Where a value has its first field that was not understood.
fn first_unknown(given: &Value, known: &Value, at: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let at = format!("{at}.{}", shorten(name));
            known.get(name).map_or_else(|| Some(at.clone()), |known| first_unknown(value, known, &at))
        }),
        (Value::Array(given), Value::Array(known)) => {
            let pairs = given.iter().zip(known).enumerate();
            pairs.into_iter().find_map(|(index, (given, known))| first_unknown(given, known, &entry(at, index, given)))
        }
        _ => None,
    }
}

/// An entry of a list, by its name if it has one.
fn entry(at: &str, index: usize, item: &Value) -> String {
    match item.get("name").and_then(Value::as_str) {
        Some(name) => format!("{at}[{}]", shorten(name)),
        None => format!("{at}[{index}]"),
    }
}
