//! Values as Python writes them: `str` and `repr`, numbers, and JSON as `json.dumps` writes it.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::JinjaError;
use super::budget::Budget;
use super::comparison::order;
use super::sorting::sort;
use super::value::{Value, View};

/// `str(value)`.
pub(super) fn text_of(value: &Value, budget: &mut Budget) -> Result<String, JinjaError> {
    let text = match value {
        Value::Undefined(_) => String::new(),
        Value::Text(text) | Value::Markup(text) => text.to_string(),
        value => {
            let mut text = String::new();
            write_repr(value, &mut text, budget)?;
            return Ok(text);
        }
    };
    budget.text(text.len())?;
    Ok(text)
}

/// `repr(value)`.
pub(super) fn repr(value: &Value, budget: &mut Budget) -> Result<String, JinjaError> {
    let mut text = String::new();
    write_repr(value, &mut text, budget)?;
    Ok(text)
}

fn write_repr(value: &Value, out: &mut String, budget: &mut Budget) -> Result<(), JinjaError> {
    budget.step()?;
    budget.fits(out.len())?;
    let before = out.len();
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Value::Integer(value) => write!(out, "{}", value.get()).expect("writing to a string does not fail"),
        Value::Float(value) => out.push_str(&float(*value)),
        Value::Text(text) => quote(text, out),
        Value::Markup(text) => {
            out.push_str("Markup(");
            quote(text, out);
            out.push(')');
        }
        Value::List(items) => write_all(&items.values, ["[", "]"], out, budget)?,
        Value::Tuple(items) | Value::Group(items) => {
            let end = if items.values.len() == 1 { ",)" } else { ")" };
            write_all(&items.values, ["(", end], out, budget)?;
        }
        Value::Dict(dict) => {
            out.push('{');
            for (index, (key, value)) in dict.entries().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(key, out, budget)?;
                out.push_str(": ");
                write_repr(value, out, budget)?;
            }
            out.push('}');
        }
        Value::View(view, items) => {
            let name = match view {
                View::Items => "dict_items([",
                View::Keys => "dict_keys([",
                View::Values => "dict_values([",
            };
            write_all(&items.values, [name, "])"], out, budget)?;
        }
        Value::Range(range) => {
            let step = if range.step == 1 { String::new() } else { format!(", {}", range.step) };
            write!(out, "range({}, {}{step})", range.start, range.stop).expect("writing to a string does not fail");
        }
        // Python writes an address, another each time.
        Value::Generator(_)
        | Value::Namespace(_)
        | Value::Loop(_)
        | Value::Macro(_)
        | Value::Function(_)
        | Value::Method(_) => return Err(JinjaError::unsupported(format!("to write out a {}", value.type_name()))),
    }
    if value.as_items().is_none() && !matches!(value, Value::Dict(_) | Value::View(..)) {
        budget.text(out.len() - before)?;
    }
    Ok(())
}

fn write_all(values: &[Value], ends: [&str; 2], out: &mut String, budget: &mut Budget) -> Result<(), JinjaError> {
    out.push_str(ends[0]);
    for (index, value) in values.iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        write_repr(value, out, budget)?;
    }
    out.push_str(ends[1]);
    Ok(())
}

/// Text in quotes, what cannot be seen escaped.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            char if char == mark => out.extend(['\\', char]),
            char if is_printable(char) => out.push(char),
            char => out.push_str(&escaped(char)),
        }
    }
    out.push(mark);
}

/// A character by its number, as Python writes one that cannot be seen.
pub(super) fn escaped(char: char) -> String {
    let code = u32::from(char);
    match code {
        0..=0xff => format!("\\x{code:02x}"),
        0x100..=0xffff => format!("\\u{code:04x}"),
        _ => format!("\\U{code:08x}"),
    }
}

/// Python's `str.isprintable` of one character.
pub(super) fn is_printable(char: char) -> bool {
    // Alone, a mark that joins another character would be escaped too.
    matches!(char, '"' | '\'' | '\\')
        || char.escape_debug().len() == 1
        || format!("a{char}").escape_debug().count() == 2
}

/// A number with a point, as `repr` writes it: the fewest digits that tell it from every other.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".to_owned() } else { "-inf".to_owned() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// How JSON is written.
#[derive(Clone, Debug)]
pub(super) struct JsonStyle {
    pub ascii: bool,
    /// What a level is indented by; all on one line without.
    pub indent: Option<String>,
    /// Between items, and after keys.
    pub separators: [String; 2],
    pub sorted: bool,
}

impl Default for JsonStyle {
    fn default() -> Self {
        Self { ascii: false, indent: None, separators: [", ".to_owned(), ": ".to_owned()], sorted: false }
    }
}

impl JsonStyle {
    /// `json.dumps(value, ...)`.
    pub fn write(&self, value: &Value, budget: &mut Budget) -> Result<String, JinjaError> {
        let mut out = String::new();
        self.value(value, 0, &mut out, budget)?;
        budget.text(out.len())?;
        Ok(out)
    }

    fn value(&self, value: &Value, level: usize, out: &mut String, budget: &mut Budget) -> Result<(), JinjaError> {
        budget.step()?;
        budget.fits(out.len())?;
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Integer(value) => write!(out, "{}", value.get()).expect("writing to a string does not fail"),
            Value::Float(value) => out.push_str(&json_float(*value)),
            Value::Text(text) | Value::Markup(text) => self.string(text, out, budget)?,
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
                let write = |index: usize, out: &mut String, budget: &mut Budget| {
                    self.value(&items.values[index], level + 1, out, budget)
                };
                self.all(items.values.len(), ['[', ']'], level, out, budget, write)?;
            }
            Value::Dict(dict) => {
                let mut entries: Vec<(&Value, &Value)> = dict.entries().collect();
                if self.sorted {
                    // Keys that have no order are an error.
                    entries = sort(entries, &mut |left, right| {
                        Ok(order(left.0, right.0, "<", budget)? == Some(Ordering::Less))
                    })?;
                }
                let write = |index: usize, out: &mut String, budget: &mut Budget| {
                    let (key, value) = entries[index];
                    self.key(key, out, budget)?;
                    out.push_str(&self.separators[1]);
                    self.value(value, level + 1, out, budget)
                };
                self.all(entries.len(), ['{', '}'], level, out, budget, write)?;
            }
            _ => {
                return Err(JinjaError::failed(format!(
                    "Object of type {} is not JSON serializable",
                    value.type_name()
                )));
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "one place for both kinds of brackets")]
    fn all(
        &self,
        length: usize,
        brackets: [char; 2],
        level: usize,
        out: &mut String,
        budget: &mut Budget,
        write: impl Fn(usize, &mut String, &mut Budget) -> Result<(), JinjaError>,
    ) -> Result<(), JinjaError> {
        out.push(brackets[0]);
        for index in 0..length {
            out.push_str(if index > 0 { &self.separators[0] } else { "" });
            budget.fits(out.len())?;
            self.new_line(level + 1, out, budget)?;
            write(index, out, budget)?;
        }
        if length > 0 {
            self.new_line(level, out, budget)?;
        }
        out.push(brackets[1]);
        Ok(())
    }

    fn new_line(&self, level: usize, out: &mut String, budget: &mut Budget) -> Result<(), JinjaError> {
        if let Some(indent) = &self.indent {
            budget.text(indent.len().saturating_mul(level))?;
            budget.fits(out.len())?;
            out.push('\n');
            out.push_str(&indent.repeat(level));
        }
        Ok(())
    }

    fn key(&self, key: &Value, out: &mut String, budget: &mut Budget) -> Result<(), JinjaError> {
        let text = match key {
            Value::Text(text) | Value::Markup(text) => return self.string(text, out, budget),
            Value::None => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.get().to_string(),
            Value::Float(value) => json_float(*value),
            _ => {
                return Err(JinjaError::failed(format!(
                    "keys must be str, int, float, bool or None, not {}",
                    key.type_name()
                )));
            }
        };
        self.string(&text, out, budget)
    }

    fn string(&self, text: &str, out: &mut String, budget: &mut Budget) -> Result<(), JinjaError> {
        budget.text(text.len())?;
        out.push('"');
        for char in text.chars() {
            match char {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                char if char < ' ' || (self.ascii && !(' '..='~').contains(&char)) => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").expect("writing to a string does not fail");
                    }
                }
                char => out.push(char),
            }
        }
        out.push('"');
        Ok(())
    }
}

fn json_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() };
    }
    float(value)
}
