//! Filters of numbers.

use super::super::JinjaError;
use super::super::budget::Budget;
use super::super::call::{Passed, integer, string};
use super::super::lexer::is_space;
use super::super::operators::{number, too_large, whole_of};
use super::super::value::Value;
use super::{Made, wrong};

/// Applies one.
pub(super) fn apply(name: &str, value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    if let Value::Text(text) = value {
        budget.scratch(text.len())?;
        // Python reads the digits of every script.
        if text.chars().any(|char| !char.is_ascii() && char.is_numeric()) {
            return Err(JinjaError::unsupported(format!("{name} of digits that are not ASCII")));
        }
    }
    match name {
        "int" => {
            let [default, base] = passed.take(name, ["default", "base"])?;
            let base = base.map_or(Ok(10), |base| integer(&base, "base"))?;
            if base != 10 {
                return Err(JinjaError::unsupported("int with a base"));
            }
            let found = match value {
                Value::Undefined(reason) => return Err(JinjaError::failed(&**reason)),
                Value::Text(text) => match python_integer(text)? {
                    Some(whole) => Some(whole),
                    None => python_float(text).map_or(Ok(None), whole_of)?,
                },
                Value::Float(value) if value.is_infinite() => {
                    return Err(JinjaError::failed("cannot convert float infinity to integer"));
                }
                Value::Float(value) => whole_of(*value)?,
                value => value.as_integer(),
            };
            Ok(found.map_or_else(|| default.unwrap_or(Value::integer(0)), Value::integer))
        }
        "float" => {
            let [default] = passed.take(name, ["default"])?;
            let found = match value {
                Value::Undefined(reason) => return Err(JinjaError::failed(&**reason)),
                Value::Text(text) => python_float(text),
                value => number(value),
            };
            Ok(Value::Float(match (found, default) {
                (Some(value), _) => value,
                (None, None) => 0.0,
                (None, Some(default)) => return Ok(default),
            }))
        }
        _ => {
            let [precision, method] = passed.take(name, ["precision", "method"])?;
            let precision = precision.map_or(Ok(0), |precision| integer(&precision, "precision"))?;
            let method = method.as_ref().map_or(Ok("common"), |method| string(method, "method"))?;
            round(value, precision, method)
        }
    }
}

fn round(value: &Value, precision: i128, method: &str) -> Made {
    let size = number(value).ok_or_else(|| wrong("round", value))?;
    let precision = i32::try_from(precision).ok().filter(|precision| precision.abs() <= 300);
    let precision = precision.ok_or_else(|| JinjaError::unsupported("round with such a precision"))?;
    match method {
        "common" => match value {
            Value::Float(value) if precision >= 0 && value.is_finite() => {
                // Rounding the exact value to even, as both do, is rounding what is written.
                let text = format!("{value:.*}", precision as usize);
                Ok(Value::Float(text.parse().unwrap_or(*value)))
            }
            Value::Float(value) if !value.is_finite() => Ok(Value::Float(*value)),
            value if value.as_integer().is_some() && precision >= 0 => {
                Ok(Value::integer(value.as_integer().unwrap_or(0)))
            }
            _ => Err(JinjaError::unsupported("round to tens")),
        },
        "ceil" | "floor" => {
            let factor = 10_f64.powi(precision.abs());
            let scaled = if precision < 0 { size / factor } else { size * factor };
            let scaled = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
            Ok(Value::Float(if precision < 0 { scaled * factor } else { scaled / factor }))
        }
        _ => Err(JinjaError::failed("method must be common, ceil or floor")),
    }
}

/// Digits with underscores between them, as Python takes them.
fn digits(text: &str) -> Option<String> {
    let (sign, body) = match text.strip_prefix(['+', '-']) {
        Some(body) => text.split_at(text.len() - body.len()),
        None => ("", text),
    };
    let bytes = body.as_bytes();
    let is_fine = |(index, byte): (usize, &u8)| {
        *byte != b'_'
            || (index > 0 && bytes[index - 1].is_ascii_digit() && bytes.get(index + 1).is_some_and(u8::is_ascii_digit))
    };
    bytes.iter().enumerate().all(is_fine).then(|| format!("{sign}{}", body.replace('_', "")))
}

fn python_integer(text: &str) -> Result<Option<i128>, JinjaError> {
    let Some(text) = digits(text.trim_matches(is_space)) else { return Ok(None) };
    let size = text.strip_prefix(['+', '-']).unwrap_or(&text);
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| too_large())
}

fn python_float(text: &str) -> Option<f64> {
    // Rust takes the same words as Python, and no others.
    digits(text.trim_matches(is_space))?.parse().ok()
}
