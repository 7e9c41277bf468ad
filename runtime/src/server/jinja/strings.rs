//! The methods of Python's strings.

use std::collections::HashSet;

use super::JinjaError;
use super::budget::Budget;
use super::call::{Passed, integer, required, string};
use super::items::{iterate, slice_of};
use super::lexer::is_space;
use super::spec::Spec;
use super::value::Value;

type Made = Result<Value, JinjaError>;

/// Whether strings have this method. Those with `false` are not done.
pub(super) fn method(name: &str) -> Option<bool> {
    Some(match name {
        "capitalize" | "casefold" | "center" | "count" | "endswith" | "expandtabs" | "find" | "format"
        | "format_map" | "index" | "isalnum" | "isalpha" | "isascii" | "isdecimal" | "isdigit" | "islower"
        | "isnumeric" | "isprintable" | "isspace" | "istitle" | "isupper" | "join" | "ljust" | "lower" | "lstrip"
        | "partition" | "removeprefix" | "removesuffix" | "replace" | "rfind" | "rindex" | "rjust" | "rpartition"
        | "rsplit" | "rstrip" | "split" | "splitlines" | "startswith" | "strip" | "swapcase" | "title" | "upper"
        | "zfill" => true,
        "encode" | "isidentifier" | "maketrans" | "translate" => false,
        _ => return None,
    })
}

/// Calls a method.
pub(super) fn call(text: &str, name: &str, passed: Passed, budget: &mut Budget) -> Made {
    budget.scratch(text.len())?;
    match name {
        "format" => return super::format::format(text, &passed, budget),
        "format_map" => {
            let [map] = passed.positional(name)?;
            let Some(Value::Dict(dict)) = map else { return Err(JinjaError::failed("format_map needs a mapping")) };
            budget.items(dict.len())?;
            for text in dict.entries().filter_map(|(key, _)| key.as_text()) {
                budget.text(text.len())?;
            }
            let named = dict.entries().filter_map(|(key, value)| Some((key.as_text()?.to_string(), value.clone())));
            let passed = Passed { positional: Vec::new(), named: named.collect() };
            return super::format::format(text, &passed, budget);
        }
        "split" | "rsplit" => return split(text, name, passed, budget),
        "splitlines" => {
            let [keep] = passed.take(name, ["keepends"])?;
            let lines = lines(text, keep.is_some_and(|keep| keep.is_true()));
            budget.items(lines.len())?;
            return Value::list(lines.into_iter().map(Value::text).collect());
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = passed.positional(name)?;
            return strip(text, name, chars.as_ref(), budget);
        }
        "startswith" | "endswith" | "find" | "rfind" | "index" | "rindex" | "count" => {
            return search(text, name, passed, budget);
        }
        "replace" => {
            let [old, new, count] = passed.positional(name)?;
            return replace(
                text,
                &required(old, name, "what is replaced")?,
                &required(new, name, "what replaces it")?,
                count.as_ref(),
                budget,
            );
        }
        "join" => {
            let [values] = passed.positional(name)?;
            return join(text, &required(values, name, "a list")?, budget);
        }
        "partition" | "rpartition" => {
            let [separator] = passed.positional(name)?;
            let separator = required(separator, name, "a separator")?;
            let separator = string(&separator, "a separator")?;
            budget.scratch(separator.len())?;
            return partition(text, separator, name == "rpartition");
        }
        "removeprefix" | "removesuffix" => {
            let [part] = passed.positional(name)?;
            let part = required(part, name, "a string")?;
            let part = string(&part, "what is removed")?;
            budget.look(part.len())?;
            let rest = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            return Ok(Value::text(rest.unwrap_or(text)));
        }
        "center" | "ljust" | "rjust" | "zfill" => return fill(text, name, passed, budget),
        "expandtabs" => {
            let [size] = passed.take(name, ["tabsize"])?;
            let size = size.map_or(Ok(8), |size| integer(&size, "tabsize"))?;
            return expand_tabs(text, usize::try_from(size).unwrap_or(0), budget);
        }
        _ => {}
    }
    let [] = passed.positional(name)?;
    budget.scratch(text.len().saturating_mul(3))?;
    Ok(match name {
        "lower" => Value::text(text.to_lowercase()),
        "upper" => Value::text(text.to_uppercase()),
        "casefold" if text.is_ascii() => Value::text(text.to_ascii_lowercase()),
        "casefold" => return Err(JinjaError::unsupported("casefold of text that is not ASCII")),
        "capitalize" => Value::text(capitalize(text)?),
        "title" => Value::text(title(text)?),
        "swapcase" => Value::text(swap_case(text)),
        _ => Value::Bool(is(text, name)?),
    })
}

/// What a method whose name begins with `is` says.
pub(super) fn is(text: &str, name: &str) -> Result<bool, JinjaError> {
    let all = |holds: fn(char) -> bool| !text.is_empty() && text.chars().all(holds);
    // Which characters outside of ASCII are letters or digits to Python is in tables of its own.
    let ascii = |holds: fn(char) -> bool| {
        if text.is_ascii() {
            return Ok(all(holds));
        }
        Err(JinjaError::unsupported(format!("{name} of text that is not ASCII")))
    };
    Ok(match name {
        "isascii" => text.is_ascii(),
        "isspace" => all(is_space),
        "isprintable" => text.chars().all(super::writing::is_printable),
        "isalpha" => ascii(|char| char.is_ascii_alphabetic())?,
        "isalnum" => ascii(|char| char.is_ascii_alphanumeric())?,
        "isdigit" | "isdecimal" | "isnumeric" => ascii(|char| char.is_ascii_digit())?,
        "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(begins_upper),
        "isupper" => {
            text.chars().any(char::is_uppercase) && !text.chars().any(|char| char.is_lowercase() || is_title(char))
        }
        "istitle" => {
            let (mut found, mut inside) = (false, false);
            for char in text.chars() {
                if is_cased(char) && begins_upper(char) == inside {
                    return Ok(false);
                }
                found |= is_cased(char);
                inside = is_cased(char);
            }
            found
        }
        _ => return Err(JinjaError::failed(format!("'str' object has no attribute '{name}'"))),
    })
}

/// Whether a character is two letters in one of which the first alone is upper case: neither upper nor lower case.
const fn is_title(char: char) -> bool {
    matches!(char, 'ǅ' | 'ǈ' | 'ǋ' | 'ǲ' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}')
        || matches!(char, '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

fn begins_upper(char: char) -> bool {
    char.is_uppercase() || is_title(char)
}

fn is_cased(char: char) -> bool {
    char.is_lowercase() || begins_upper(char)
}

/// The form of a character that begins a word.
fn title_case(char: char) -> Result<String, JinjaError> {
    Ok(match char {
        'Ǆ' | 'ǅ' | 'ǆ' => "ǅ".to_owned(),
        'Ǉ' | 'ǈ' | 'ǉ' => "ǈ".to_owned(),
        'Ǌ' | 'ǋ' | 'ǌ' => "ǋ".to_owned(),
        'Ǳ' | 'ǲ' | 'ǳ' => "ǲ".to_owned(),
        'ŉ' => "ʼN".to_owned(),
        // Greek letters with an iota below keep it there.
        '\u{1f80}'..='\u{1fff}' if char.to_uppercase().len() > 1 => {
            return Err(JinjaError::unsupported(format!("a word that begins with {char}")));
        }
        char => {
            let mut upper = char.to_uppercase();
            let first: String = upper.next().into_iter().collect();
            let rest: String = upper.collect();
            first + &rest.to_lowercase()
        }
    })
}

/// The lower case of each character, in its place: a sigma that ends a word has a form of its own.
fn lower_cases(text: &str) -> Vec<String> {
    let whole = text.to_lowercase();
    let mut lower = whole.chars();
    text.chars().map(|char| lower.by_ref().take(char.to_lowercase().len()).collect()).collect()
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> Result<String, JinjaError> {
    let first = text.chars().next().map_or(Ok(String::new()), title_case)?;
    Ok(lower_cases(text).into_iter().skip(1).fold(first, |text, lower| text + &lower))
}

/// `str.title`.
fn title(text: &str) -> Result<String, JinjaError> {
    let mut out = String::new();
    let mut inside = false;
    for (char, lower) in text.chars().zip(lower_cases(text)) {
        out.push_str(&if inside { lower } else { title_case(char)? });
        inside = is_cased(char);
    }
    Ok(out)
}

fn swap_case(text: &str) -> String {
    let swapped = text.chars().zip(lower_cases(text)).map(|(char, lower)| match char {
        char if char.is_uppercase() => lower,
        char if char.is_lowercase() => char.to_uppercase().collect(),
        char => char.to_string(),
    });
    swapped.collect()
}

fn split(text: &str, name: &str, passed: Passed, budget: &mut Budget) -> Made {
    let [separator, most] = passed.take(name, ["sep", "maxsplit"])?;
    let most = most.map_or(Ok(-1), |most| integer(&most, "maxsplit"))?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let from_right = name == "rsplit";
    let mut parts: Vec<&str> = Vec::new();
    match separator {
        None | Some(Value::None) => {
            let mut rest = if from_right { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
            while !rest.is_empty() && parts.len() < most {
                let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
                let Some(at) = cut else { break };
                if from_right {
                    let width = rest[at..].chars().next().map_or(1, char::len_utf8);
                    parts.push(&rest[at + width..]);
                    rest = rest[..at].trim_end_matches(is_space);
                } else {
                    parts.push(&rest[..at]);
                    rest = rest[at..].trim_start_matches(is_space);
                }
            }
            // What is left after the last cut keeps the spaces at its far end.
            let rest = if parts.len() < most { rest.trim_matches(is_space) } else { rest };
            parts.extend((!rest.is_empty()).then_some(rest));
        }
        Some(separator) => {
            let separator = string(&separator, "a separator")?;
            budget.look(separator.len())?;
            if separator.is_empty() {
                return Err(JinjaError::failed("empty separator"));
            }
            let pieces = most.saturating_add(1);
            if from_right {
                parts.extend(text.rsplitn(pieces, separator));
            } else {
                parts.extend(text.splitn(pieces, separator));
            }
        }
    }
    if from_right {
        parts.reverse();
    }
    budget.items(parts.len())?;
    Value::list(parts.into_iter().map(Value::text).collect())
}

/// `str.splitlines`.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |char: char| {
        matches!(char, '\n' | '\r' | '\u{b}' | '\u{c}' | '\x1c' | '\x1d' | '\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(is_end) {
        let end = &rest[at..];
        let width = if end.starts_with("\r\n") { 2 } else { end.chars().next().map_or(1, char::len_utf8) };
        lines.push(if keep_ends { &rest[..at + width] } else { &rest[..at] });
        rest = &rest[at + width..];
    }
    lines.extend((!rest.is_empty()).then_some(rest));
    lines
}

/// `str.strip` and its halves.
pub(super) fn strip(text: &str, name: &str, chars: Option<&Value>, budget: &mut Budget) -> Made {
    let chars: Option<HashSet<char>> = match chars {
        None | Some(Value::None) => None,
        Some(chars) => {
            let chars = string(chars, "what is stripped")?;
            budget.scratch(chars.len())?;
            Some(chars.chars().collect())
        }
    };
    let goes = |char: char| chars.as_ref().map_or_else(|| is_space(char), |chars| chars.contains(&char));
    Ok(Value::text(match name {
        "lstrip" => text.trim_start_matches(goes),
        "rstrip" => text.trim_end_matches(goes),
        _ => text.trim_matches(goes),
    }))
}

fn search(text: &str, name: &str, passed: Passed, budget: &mut Budget) -> Made {
    let [wanted, start, end] = passed.positional(name)?;
    let wanted = required(wanted, name, "what is searched for")?;
    let place = |value: Option<Value>| match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => integer(&value, "a place").map(Some),
    };
    let (start, end) = (place(start)?, place(end)?);
    // Everything is within bounds where nothing says otherwise.
    let (chars_before, part) = if start.is_none() && end.is_none() {
        (0, Some(text))
    } else {
        let length = text.chars().count();
        let range = slice_of(length, [start, end, None])?;
        let at = |index: i128| text.char_indices().nth(index as usize).map_or(text.len(), |(at, _)| at);
        let beyond = start.is_some_and(|start| start > length as i128) || range.stop < range.start;
        (range.start as usize, (!beyond).then(|| &text[at(range.start)..at(range.stop)]))
    };
    if name == "startswith" || name == "endswith" {
        let parts = match &wanted {
            Value::Tuple(items) => items.values.iter().collect(),
            wanted => vec![wanted],
        };
        let mut found = false;
        for wanted in parts {
            budget.step()?;
            let wanted = string(wanted, "what is searched for")?;
            budget.look(wanted.len())?;
            found |=
                part.is_some_and(
                    |part| if name == "startswith" { part.starts_with(wanted) } else { part.ends_with(wanted) },
                );
        }
        return Ok(Value::Bool(found));
    }
    let wanted = string(&wanted, "what is searched for")?;
    budget.scratch(text.len() + wanted.len())?;
    if name == "count" {
        let count = part
            .map_or(0, |part| if wanted.is_empty() { part.chars().count() + 1 } else { part.matches(wanted).count() });
        return Ok(Value::integer(count as i128));
    }
    let found = part.and_then(|part| {
        let at = if name.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
        at.map(|at| (chars_before + part[..at].chars().count()) as i128)
    });
    match found {
        Some(at) => Ok(Value::integer(at)),
        None if name.ends_with("index") => Err(JinjaError::failed("substring not found")),
        None => Ok(Value::integer(-1)),
    }
}

/// `str.replace`.
pub(super) fn replace(text: &str, old: &Value, new: &Value, count: Option<&Value>, budget: &mut Budget) -> Made {
    let (old, new) = (string(old, "what is replaced")?, string(new, "what replaces it")?);
    let most = match count {
        None | Some(Value::None) => usize::MAX,
        Some(count) => usize::try_from(integer(count, "count")?).unwrap_or(usize::MAX),
    };
    budget.look(text.len() + old.len())?;
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    budget.text(text.len().saturating_add(new.len().saturating_mul(found.min(most))))?;
    Ok(Value::text(text.replacen(old, new, most)))
}

fn join(separator: &str, values: &Value, budget: &mut Budget) -> Made {
    let values = iterate(values, budget)?;
    let parts = values.iter().enumerate().map(|(index, value)| match value {
        Value::Text(text) | Value::Markup(text) => Ok(&**text),
        _ => Err(JinjaError::failed(format!(
            "sequence item {index}: expected str instance, {} found",
            value.type_name()
        ))),
    });
    let parts: Vec<&str> = parts.collect::<Result<_, _>>()?;
    budget.text(parts.iter().map(|part| part.len()).sum::<usize>() + separator.len().saturating_mul(parts.len()))?;
    Ok(Value::text(parts.join(separator)))
}

fn partition(text: &str, separator: &str, from_right: bool) -> Made {
    if separator.is_empty() {
        return Err(JinjaError::failed("empty separator"));
    }
    let found = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Value::tuple(parts.into_iter().map(Value::text).collect())
}

fn fill(text: &str, name: &str, passed: Passed, budget: &mut Budget) -> Made {
    let [width, fill] = passed.positional(name)?;
    let width = integer(&required(width, name, "a width")?, "a width")?;
    let width = usize::try_from(width).unwrap_or(if width < 0 { 0 } else { usize::MAX });
    let fill = fill.as_ref().map_or(Ok(" "), |fill| string(fill, "a fill"))?;
    let mut fills = fill.chars();
    let (Some(char), None) = (fills.next(), fills.next()) else {
        return Err(JinjaError::failed("The fill character must be exactly one character long"));
    };
    if name == "center" {
        return center(text, width, char, budget).map(Value::text);
    }
    let (sign, body) = match text.chars().next() {
        Some('+' | '-') if name == "zfill" => text.split_at(1),
        _ => ("", text),
    };
    let (align, char) = match name {
        "ljust" => ('<', char),
        "rjust" => ('>', char),
        _ => ('=', '0'),
    };
    Spec { fill: Some(char), width, ..Spec::default() }.pad(sign, body, align, budget).map(Value::text)
}

/// `str.center`, which puts an odd place to the left if the width is odd.
pub(super) fn center(text: &str, width: usize, fill: char, budget: &mut Budget) -> Result<String, JinjaError> {
    let missing = width.saturating_sub(text.chars().count());
    budget.text(text.len().saturating_add(missing.saturating_mul(fill.len_utf8())))?;
    let left = missing / 2 + (missing & width & 1);
    let fill = fill.to_string();
    Ok(format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left)))
}

fn expand_tabs(text: &str, size: usize, budget: &mut Budget) -> Made {
    let (mut out, mut column) = (String::new(), 0);
    for char in text.chars() {
        match char {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                budget.text(out.len().saturating_add(spaces))?;
                out.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                out.push(char);
                column = 0;
            }
            char => {
                out.push(char);
                column += 1;
            }
        }
    }
    Ok(Value::text(out))
}
