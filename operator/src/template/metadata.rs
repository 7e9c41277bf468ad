//! Labels and annotations that users add: keys that Kubernetes takes, and none of the operator's own.

use std::collections::BTreeMap;

use super::error::TemplateError;
use super::error::shorten;
use crate::api::GROUP;

/// Labels that all objects of a deployment have.
const OWN: [&str; 4] =
    ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component", crate::names::MANAGED_BY];
/// Longest name of a key, and longest domain before it, as Kubernetes has it.
const LONGEST_NAME: usize = 63;
const LONGEST_DOMAIN: usize = 253;
/// All annotations of an object together, as Kubernetes has it.
const ANNOTATION_BYTES: usize = 256 * 1024;

/// Checks labels and annotations that are added to an object; `at` is where they are in a specification.
///
/// # Errors
/// The first that cannot be added.
pub(super) fn check_metadata(
    at: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Result<(), TemplateError> {
    for (kind, texts) in [("labels", labels), ("annotations", annotations)] {
        for key in texts.keys() {
            check_key(|| format!("{at}.{kind}[{}]", shorten(key)), key)?;
        }
    }
    for (key, value) in labels {
        if !is_label_value(value) {
            let problem =
                "a label has at most 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit";
            return Err(TemplateError::value(format!("{at}.labels[{}]", shorten(key)), value, problem));
        }
    }
    if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > ANNOTATION_BYTES {
        return Err(TemplateError::owned(
            format!("{at}.annotations"),
            "Kubernetes takes 262144 bytes of annotations in all",
        ));
    }
    Ok(())
}

fn check_key(at: impl Fn() -> String, key: &str) -> Result<(), TemplateError> {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let is_own_domain = domain.is_some_and(|domain| domain == GROUP || domain.ends_with(&format!(".{GROUP}")));
    if is_own_domain || OWN.contains(&key) {
        return Err(TemplateError::owned(at(), "the operator finds its objects by it: choose a key of your own"));
    }
    let is_domain = |domain: &str| domain.len() <= LONGEST_DOMAIN && domain.split('.').all(is_dns_label);
    if domain.is_some_and(|domain| !is_domain(domain)) || name.is_empty() || !is_label_value(name) {
        let problem =
            "a key is a name of at most 63 letters, digits, '-', '_' and '.', with or without DOMAIN/ before it";
        return Err(TemplateError::value(at(), key, problem));
    }
    Ok(())
}

fn is_label_value(text: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST_NAME
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Whether a text is what Kubernetes calls a DNS label: a name of a container or a volume, or a part of a domain.
pub(super) fn is_dns_label(text: &str) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=LONGEST_NAME).contains(&bytes.len())
        && bytes.first().is_some_and(is_inner)
        && bytes.last().is_some_and(is_inner)
        && bytes.iter().all(|byte| is_inner(byte) || *byte == b'-')
}
