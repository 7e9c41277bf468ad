//! `'{} and {name}'.format(...)`.

use super::JinjaError;
use super::budget::Budget;
use super::call::Passed;
use super::operators::number;
use super::percent::ascii;
use super::render::{attribute, item};
use super::spec::Spec;
use super::value::Value;
use super::writing::{repr, text_of};

/// Formats of formats that may lie in one another, as in Python.
const DEEPEST: usize = 2;

struct Formatter<'p> {
    passed: &'p Passed,
    next: usize,
    /// Whether fields are numbered by hand, once one tells.
    by_hand: Option<bool>,
}

/// `text.format(...)`.
pub(super) fn format(text: &str, passed: &Passed, budget: &mut Budget) -> Result<Value, JinjaError> {
    let mut formatter = Formatter { passed, next: 0, by_hand: None };
    let out = formatter.all(text, DEEPEST, budget)?;
    Ok(Value::text(out))
}

impl Formatter<'_> {
    fn all(&mut self, text: &str, depth: usize, budget: &mut Budget) -> Result<String, JinjaError> {
        if depth == 0 {
            return Err(JinjaError::failed("Max string recursion exceeded"));
        }
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            budget.step()?;
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(JinjaError::failed("Single '}' encountered in format string"));
            }
            let mut open = 1;
            let end = rest.find(|char| {
                open += i32::from(char == '{') - i32::from(char == '}');
                open == 0
            });
            let end = end.ok_or_else(|| JinjaError::failed("expected '}' before end of string"))?;
            let field = self.field(&rest[..end], depth, budget)?;
            budget.text(out.len() + field.len())?;
            out.push_str(&field);
            rest = &rest[end + 1..];
        }
        budget.text(out.len() + rest.len())?;
        out.push_str(rest);
        Ok(out)
    }

    fn field(&mut self, field: &str, depth: usize, budget: &mut Budget) -> Result<String, JinjaError> {
        let mut brackets = 0;
        let end = field.find(|char| {
            brackets += i32::from(char == '[') - i32::from(char == ']');
            brackets == 0 && (char == '!' || char == ':')
        });
        let (name, rest) = field.split_at(end.unwrap_or(field.len()));
        let value = self.value(name, budget)?;
        let (conversion, spec) = match rest.strip_prefix('!') {
            Some(rest) => {
                let conversion = rest.chars().next();
                let rest = &rest[conversion.map_or(0, char::len_utf8)..];
                (conversion, rest.strip_prefix(':').unwrap_or(rest))
            }
            None => (None, rest.strip_prefix(':').unwrap_or(rest)),
        };
        let value = match conversion {
            None => value,
            Some('s') => Value::text(text_of(&value, budget)?),
            Some('r') => Value::text(repr(&value, budget)?),
            Some('a') => Value::text(ascii(&repr(&value, budget)?)),
            Some(other) => return Err(JinjaError::failed(format!("Unknown conversion specifier {other:?}"))),
        };
        let spec = if spec.contains(['{', '}']) { self.all(spec, depth - 1, budget)? } else { spec.to_owned() };
        write(&value, &spec, budget)
    }

    /// The value of a field's name, such as `0.name[key]`.
    fn value(&mut self, name: &str, budget: &mut Budget) -> Result<Value, JinjaError> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
        let index = if first.is_empty() || is_number {
            if *self.by_hand.get_or_insert(is_number) != is_number {
                return Err(JinjaError::failed("fields are numbered by hand or not at all"));
            }
            let index = if is_number { first.parse().unwrap_or(usize::MAX) } else { self.next };
            self.next += 1;
            Some(index)
        } else {
            None
        };
        let found = if let Some(index) = index {
            self.passed.positional.get(index).cloned()
        } else {
            budget.names(self.passed.named.len())?;
            self.passed.named.iter().find(|(known, _)| known == first).map(|(_, value)| value.clone())
        };
        let missing = || JinjaError::failed(format!("there is no {name:?} to format"));
        let mut value = found.ok_or_else(missing)?;
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let (key, after) = inner.split_once(']').ok_or_else(missing)?;
                rest = after;
                value = item(&value, &key.parse().map_or_else(|_| Value::text(key), Value::integer), budget)?;
            } else {
                let inner = rest.strip_prefix('.').ok_or_else(missing)?;
                let end = inner.find(['.', '[']).unwrap_or(inner.len());
                rest = &inner[end..];
                value = attribute(&value, &inner[..end])?;
            }
        }
        Ok(value)
    }
}

/// `format(value, spec)`.
fn write(value: &Value, spec: &str, budget: &mut Budget) -> Result<String, JinjaError> {
    if spec.is_empty() {
        return text_of(value, budget);
    }
    let (spec, zeros, kind) = parse(spec)?;
    let wrong = || JinjaError::failed(format!("this format is not for {}", value.type_name()));
    match value {
        Value::Text(text) | Value::Markup(text) => {
            let has_sign = spec.sign.is_some() || spec.grouping.is_some() || spec.alternate || spec.align == Some('=');
            if has_sign || !matches!(kind, None | Some('s')) {
                return Err(wrong());
            }
            let text: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            let fill = if zeros && spec.fill.is_none() { Some('0') } else { spec.fill };
            Spec { fill, ..spec }.pad("", &text, '<', budget)
        }
        Value::Float(_) | Value::Integer(_) | Value::Bool(_) => {
            let spec = if zeros && spec.align.is_none() {
                if spec.grouping.is_some() {
                    return Err(JinjaError::unsupported("zeros before a number with separators"));
                }
                Spec { fill: Some('0'), align: Some('='), ..spec }
            } else {
                spec
            };
            let whole = value.as_integer();
            match (kind, whole) {
                (Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%'), _) => {
                    spec.float(number(value).unwrap_or_default(), kind.unwrap_or('f'), budget)
                }
                (None | Some('d' | 'n'), Some(whole)) if spec.precision.is_none() => spec.integer(whole, 'd', budget),
                (Some('b' | 'o' | 'x' | 'X'), Some(whole)) if spec.precision.is_none() => {
                    spec.integer(whole, kind.unwrap_or('d'), budget)
                }
                (Some('c'), Some(whole)) => {
                    let char = u32::try_from(whole).ok().and_then(char::from_u32).ok_or_else(wrong)?;
                    spec.pad("", char.encode_utf8(&mut [0; 4]), '<', budget)
                }
                (None, None) if spec.precision.is_none() && spec.grouping.is_none() => {
                    let text = text_of(value, budget)?;
                    let (sign, body) = text.strip_prefix('-').map_or(("", text.as_str()), |body| ("-", body));
                    let sign = match (sign, spec.sign) {
                        ("", Some(plus @ ('+' | ' '))) => plus.to_string(),
                        (sign, _) => sign.to_owned(),
                    };
                    spec.pad(&sign, body, '>', budget)
                }
                (None, None) => Err(JinjaError::unsupported("a number's format without its kind")),
                _ => Err(wrong()),
            }
        }
        _ => Err(JinjaError::failed(format!("unsupported format string passed to {}.__format__", value.type_name()))),
    }
}

/// A format, whether it has a zero before its width, and its kind.
fn parse(text: &str) -> Result<(Spec, bool, Option<char>), JinjaError> {
    let chars: Vec<char> = text.chars().collect();
    let is_align = |at: usize| chars.get(at).is_some_and(|char| "<>=^".contains(*char));
    let mut spec = Spec::default();
    let mut at = 0;
    if is_align(1) {
        (spec.fill, spec.align, at) = (Some(chars[0]), Some(chars[1]), 2);
    } else if is_align(0) {
        (spec.align, at) = (Some(chars[0]), 1);
    }
    let mut take = |wanted: &str| {
        let found = chars.get(at).copied().filter(|char| wanted.contains(*char));
        at += usize::from(found.is_some());
        found
    };
    spec.sign = take("+- ");
    spec.alternate = take("#").is_some();
    let zeros = take("0").is_some();
    let digits = |take: &mut dyn FnMut(&str) -> Option<char>| {
        let mut text = String::new();
        while let Some(digit) = take("0123456789") {
            text.push(digit);
        }
        text
    };
    let too_large = |_| JinjaError::failed("Too many decimal digits in format string");
    let width = digits(&mut take);
    spec.width = if width.is_empty() { 0 } else { width.parse().map_err(too_large)? };
    spec.grouping = take(",_");
    if take(".").is_some() {
        let precision = digits(&mut take);
        if precision.is_empty() {
            return Err(JinjaError::failed("Format specifier missing precision"));
        }
        spec.precision = Some(precision.parse().map_err(too_large)?);
    }
    let kind = take("bcdeEfFgGnosxX%");
    if at < chars.len() {
        return Err(JinjaError::failed("Invalid format specifier"));
    }
    Ok((spec, zeros, kind))
}
