//! `'%s and %(name)d' % values`.

use super::JinjaError;
use super::budget::Budget;
use super::operators::{number, whole_of};
use super::spec::Spec;
use super::value::Value;
use super::writing::{escaped, is_printable, repr, text_of};

/// Where the values come from.
struct Values<'v> {
    all: Vec<&'v Value>,
    next: usize,
    value: &'v Value,
}

impl<'v> Values<'v> {
    fn next(&mut self) -> Result<&'v Value, JinjaError> {
        let value =
            self.all.get(self.next).ok_or_else(|| JinjaError::failed("not enough arguments for format string"))?;
        self.next += 1;
        Ok(value)
    }

    fn whole(&mut self) -> Result<i128, JinjaError> {
        let value = self.next()?;
        value.as_integer().ok_or_else(|| JinjaError::failed("* wants int"))
    }
}

/// `format % value`.
pub(super) fn format(format: &str, value: &Value, budget: &mut Budget) -> Result<Value, JinjaError> {
    budget.scratch(format.len())?;
    let all = match value {
        Value::Tuple(items) | Value::Group(items) => items.values.iter().collect(),
        value => vec![value],
    };
    let mut values = Values { all, next: 0, value };
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut named = false;
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        budget.step()?;
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let end = || JinjaError::failed("incomplete format");
        let mut name = None;
        if chars.next_if_eq(&'(').is_some() {
            let (mut text, mut open) = (String::new(), 1);
            loop {
                let char = chars.next().ok_or_else(|| JinjaError::failed("incomplete format key"))?;
                open += i32::from(char == '(') - i32::from(char == ')');
                if open == 0 {
                    break;
                }
                text.push(char);
            }
            name = Some(text);
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|char| "#0- +".contains(*char)) {
            match flag {
                '#' => spec.alternate = true,
                '0' if spec.align.is_none() => (spec.align, spec.fill) = (Some('='), Some('0')),
                '-' => (spec.align, spec.fill) = (Some('<'), None),
                '+' => spec.sign = Some('+'),
                ' ' if spec.sign.is_none() => spec.sign = Some(' '),
                _ => {}
            }
        }
        if chars.next_if_eq(&'*').is_some() {
            let width = values.whole()?;
            if width < 0 {
                (spec.align, spec.fill) = (Some('<'), None);
            }
            spec.width = size(width.unsigned_abs())?;
        } else {
            spec.width = digits(&mut chars)?.unwrap_or(0);
        }
        if chars.next_if_eq(&'.').is_some() {
            let precision = if chars.next_if_eq(&'*').is_some() {
                size(values.whole()?.max(0).unsigned_abs())?
            } else {
                digits(&mut chars)?.unwrap_or(0)
            };
            spec.precision = Some(precision);
        }
        while chars.next_if(|char| "hlL".contains(*char)).is_some() {}
        let kind = chars.next().ok_or_else(end)?;
        if kind == '%' {
            return Err(JinjaError::unsupported("a percent sign with a width or a name"));
        }
        let argument = match &name {
            None => values.next()?,
            Some(name) => {
                named = true;
                let Value::Dict(dict) = values.value else {
                    return Err(JinjaError::failed("format requires a mapping"));
                };
                let found = dict.get_text(name);
                found.ok_or_else(|| JinjaError::failed(format!("there is no {name:?} to format")))?
            }
        };
        out.push_str(&convert(kind, &spec, argument, budget)?);
        budget.fits(out.len())?;
    }
    let may_be_left = named || matches!(value, Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_));
    if values.next < values.all.len() && !may_be_left {
        return Err(JinjaError::failed("not all arguments converted during string formatting"));
    }
    budget.text(out.len())?;
    Ok(Value::text(out))
}

fn size(value: u128) -> Result<usize, JinjaError> {
    usize::try_from(value).map_err(|_| JinjaError::failed("a width that is too large"))
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, JinjaError> {
    let mut text = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        text.push(digit);
    }
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| JinjaError::failed("a width that is too large"))
}

fn convert(kind: char, spec: &Spec, value: &Value, budget: &mut Budget) -> Result<String, JinjaError> {
    let wrong =
        |needed: &str| JinjaError::failed(format!("%{kind} format: {needed} is required, not {}", value.type_name()));
    match kind {
        's' | 'r' | 'a' => {
            let text = match kind {
                's' => text_of(value, budget)?,
                'r' => repr(value, budget)?,
                _ => ascii(&repr(value, budget)?),
            };
            let text = spec.precision.map_or_else(|| text.clone(), |most| text.chars().take(most).collect());
            let spec = Spec { fill: None, align: spec.align.filter(|align| *align == '<'), ..spec.clone() };
            spec.pad("", &text, '>', budget)
        }
        'd' | 'i' | 'u' => match value {
            Value::Float(float) => {
                let whole = whole_of(*float)?;
                spec.integer(whole.ok_or_else(|| wrong("a finite number"))?, 'd', budget)
            }
            value => spec.integer(value.as_integer().ok_or_else(|| wrong("a real number"))?, 'd', budget),
        },
        'o' | 'x' | 'X' => spec.integer(value.as_integer().ok_or_else(|| wrong("an integer"))?, kind, budget),
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            spec.float(number(value).ok_or_else(|| wrong("a real number"))?, kind, budget)
        }
        'c' => {
            let text = match value {
                Value::Text(text) if text.chars().count() == 1 => text.to_string(),
                value => {
                    let code = value.as_integer().and_then(|code| u32::try_from(code).ok());
                    code.and_then(char::from_u32).ok_or_else(|| wrong("an integer or a character"))?.to_string()
                }
            };
            let spec = Spec { fill: None, align: spec.align.filter(|align| *align == '<'), ..spec.clone() };
            spec.pad("", &text, '>', budget)
        }
        _ => Err(JinjaError::failed(format!("unsupported format character {kind:?}"))),
    }
}

/// Python's `ascii` of what `repr` gave.
pub(super) fn ascii(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        if char.is_ascii() && is_printable(char) {
            out.push(char);
        } else {
            out.push_str(&escaped(char));
        }
    }
    out
}
