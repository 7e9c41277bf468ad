//! Filters of text.

use super::super::JinjaError;
use super::super::budget::Budget;
use super::super::call::{Passed, integer, required, string};
use super::super::lexer::is_space;
use super::super::value::{Dict, Value};
use super::super::writing::text_of;
use super::super::{percent, strings};
use super::{Made, is_set, none, wrong};

/// Filters of text.
pub(super) fn apply(name: &str, value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    if let ("safe", Value::Text(text)) = (name, value) {
        return Ok(Value::Markup(text.clone()));
    }
    if matches!(value, Value::Markup(_)) && !matches!(name, "safe" | "e" | "escape" | "forceescape") {
        return Err(JinjaError::unsupported(format!("the filter {name} on text that is marked as safe")));
    }
    let text = match value {
        Value::Text(text) => text.to_string(),
        value if name == "indent" => return Err(wrong("indent", value)),
        value if name == "truncate" => return Err(wrong("truncate", value)),
        value => text_of(value, budget)?,
    };
    budget.scratch(text.len().saturating_mul(3))?;
    match name {
        "safe" => Ok(if matches!(value, Value::Markup(_)) { value.clone() } else { Value::Markup(text.into()) }),
        "e" | "escape" if matches!(value, Value::Markup(_)) => Ok(value.clone()),
        "e" | "escape" | "forceescape" => {
            budget.scratch(text.len().saturating_mul(5))?;
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            Ok(Value::Markup(escaped.replace('\'', "&#39;").replace('"', "&#34;").into()))
        }
        "lower" => none(passed, name).map(|()| Value::text(text.to_lowercase())),
        "upper" => none(passed, name).map(|()| Value::text(text.to_uppercase())),
        "capitalize" => none(passed, name).and_then(|()| strings::capitalize(&text)).map(Value::text),
        "title" => none(passed, name).map(|()| Value::text(title(&text))),
        "wordcount" => none(passed, name).map(|()| Value::integer(words(&text) as i128)),
        "trim" => {
            let [chars] = passed.take(name, ["chars"])?;
            strings::strip(&text, "strip", chars.as_ref(), budget)
        }
        "replace" => {
            let [old, new, count] = passed.take(name, ["old", "new", "count"])?;
            let old = text_of(&required(old, name, "what is replaced")?, budget)?;
            let new = text_of(&required(new, name, "what replaces it")?, budget)?;
            strings::replace(&text, &Value::text(old), &Value::text(new), count.as_ref(), budget)
        }
        "center" => {
            let [width] = passed.take(name, ["width"])?;
            let width = width.map_or(Ok(80), |width| integer(&width, "width"))?;
            strings::center(&text, usize::try_from(width.max(0)).unwrap_or(usize::MAX), ' ', budget).map(Value::text)
        }
        "format" => {
            let Passed { positional, named } = passed;
            let values = match (positional.is_empty(), named.is_empty()) {
                (false, false) => return Err(JinjaError::failed("format takes values or names, not both")),
                (_, true) => Value::tuple(positional)?,
                (true, false) => Value::Dict(Dict::of_names(named)?),
            };
            percent::format(&text, &values, budget)
        }
        "indent" => indent(&text, passed, budget),
        "truncate" => truncate(&text, passed, budget),
        "urlencode" => match value {
            Value::Text(_) | Value::Integer(_) | Value::Bool(_) | Value::Float(_) | Value::None => {
                none(passed, name).map(|()| Value::text(url_quote(&text)))
            }
            _ => Err(JinjaError::unsupported("urlencode of anything but text")),
        },
        _ => Err(JinjaError::failed(format!("there is no filter {name}"))),
    }
}

/// Jinja's own way of writing titles, which lets a word go on after an apostrophe.
fn title(text: &str) -> String {
    let begins = |char: char| is_space(char) || matches!(char, '-' | '(' | '{' | '[' | '<');
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if begins(first) {
            rest.find(|char| !begins(char)).unwrap_or(rest.len())
        } else {
            rest.find(begins).unwrap_or(rest.len())
        };
        let (head, tail) = rest[..end].split_at(first.len_utf8());
        out.push_str(&head.to_uppercase());
        out.push_str(&tail.to_lowercase());
        rest = &rest[end..];
    }
    out
}

/// Runs of letters, digits and underscores.
fn words(text: &str) -> usize {
    text.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty()).count()
}

fn indent(text: &str, passed: Passed, budget: &mut Budget) -> Made {
    let [width, first, blank] = passed.take("indent", ["width", "first", "blank"])?;
    let indent = match width {
        Some(Value::Text(text)) => text.to_string(),
        width => {
            let width = width.map_or(Ok(4), |width| integer(&width, "width"))?;
            let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
            budget.text(width)?;
            " ".repeat(width)
        }
    };
    let text = format!("{text}\n");
    let lines = strings::lines(&text, false);
    budget.text(text.len().saturating_add(indent.len().saturating_mul(lines.len())))?;
    let mut out = if is_set(first.as_ref()) { indent.clone() } else { String::new() };
    for (index, line) in lines.into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
            out.push_str(if line.is_empty() && !is_set(blank.as_ref()) { "" } else { &indent });
        }
        out.push_str(line);
    }
    Ok(Value::text(out))
}

fn truncate(text: &str, passed: Passed, budget: &mut Budget) -> Made {
    let [length, kill_words, end, leeway] = passed.take("truncate", ["length", "killwords", "end", "leeway"])?;
    let length = length.map_or(Ok(255), |length| integer(&length, "length"))?;
    let leeway = match leeway {
        None | Some(Value::None) => 5,
        Some(leeway) => integer(&leeway, "leeway")?,
    };
    let end = end.unwrap_or_else(|| Value::text("..."));
    let end = string(&end, "end")?;
    budget.scratch(end.len())?;
    let kept = length.saturating_sub(end.chars().count() as i128);
    if kept < 0 || leeway < 0 {
        return Err(JinjaError::failed("truncate leaves no room for its end"));
    }
    if text.chars().count() as i128 <= length.saturating_add(leeway) {
        return Ok(Value::text(text));
    }
    let kept: String = text.chars().take(usize::try_from(kept).unwrap_or(usize::MAX)).collect();
    let kept =
        if is_set(kill_words.as_ref()) { &kept } else { kept.rsplit_once(' ').map_or(kept.as_str(), |(kept, _)| kept) };
    Ok(Value::text(format!("{kept}{end}")))
}

/// Text as a part of an address.
fn url_quote(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    out
}
