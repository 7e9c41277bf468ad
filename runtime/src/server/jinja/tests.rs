//! What `is` asks.

use super::JinjaError;
use super::ast::{Comparison, Operator};
use super::budget::Budget;
use super::call::{Passed, required};
use super::comparison::{compare, equal};
use super::operators::binary;
use super::value::Value;

const NAMES: [&str; 33] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
];
const FURTHER_NAMES: [&str; 6] = ["sequence", "string", "test", "true", "undefined", "upper"];

/// Whether there is a test of this name.
pub(super) fn is_name(name: &str) -> bool {
    NAMES.contains(&name) || FURTHER_NAMES.contains(&name)
}

/// Whether a test holds.
pub(super) fn holds(name: &str, value: &Value, passed: Passed, budget: &mut Budget) -> Result<bool, JinjaError> {
    let comparison = match name {
        "eq" | "equalto" | "==" => Some(Comparison::Equal),
        "ne" | "!=" => Some(Comparison::NotEqual),
        "lt" | "lessthan" | "<" => Some(Comparison::Less),
        "le" | "<=" => Some(Comparison::LessOrEqual),
        "gt" | "greaterthan" | ">" => Some(Comparison::Greater),
        "ge" | ">=" => Some(Comparison::GreaterOrEqual),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let [other] = passed.positional(name)?;
        return compare(comparison, value, &required(other, name, "an argument")?, budget);
    }
    if name == "divisibleby" || name == "sameas" {
        let [other] = passed.positional(name)?;
        let other = required(other, name, "an argument")?;
        return match name {
            "divisibleby" => {
                let rest = binary(Operator::Modulo, value, &other, budget)?;
                equal(&rest, &Value::integer(0), budget)
            }
            _ => same(value, &other),
        };
    }
    let [] = passed.positional(name)?;
    Ok(match name {
        "odd" => leaves(value, 1, budget)?,
        "even" => leaves(value, 0, budget)?,
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Integer(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Integer(_) | Value::Float(_)),
        "string" => matches!(value, Value::Text(_) | Value::Markup(_)),
        "escaped" => matches!(value, Value::Markup(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "iterable" => is_iterable(value),
        // What has a length and can be subscripted, as Jinja asks.
        "sequence" => match value {
            Value::Text(_) | Value::Markup(_) | Value::Dict(_) | Value::Range(_) | Value::Undefined(_) => true,
            value => value.as_items().is_some(),
        },
        "callable" => matches!(
            value,
            Value::Macro(_) | Value::Function(_) | Value::Method(_) | Value::Undefined(_) | Value::Loop(_)
        ),
        "lower" | "upper" => {
            let text = super::writing::text_of(value, budget)?;
            super::strings::is(&text, if name == "lower" { "islower" } else { "isupper" })?
        }
        "filter" => super::filters::check_name(super::call::string(value, "the name of a filter")?)
            .map_err(JinjaError::unsupported)?,
        "test" => is_name(super::call::string(value, "the name of a test")?),
        _ => return Err(JinjaError::failed(format!("there is no test {name}"))),
    })
}

/// Whether a number divided by two leaves so much.
fn leaves(value: &Value, rest: i128, budget: &mut Budget) -> Result<bool, JinjaError> {
    let left = binary(Operator::Modulo, value, &Value::integer(2), budget)?;
    equal(&left, &Value::integer(rest), budget)
}

fn is_iterable(value: &Value) -> bool {
    match value {
        Value::Undefined(_)
        | Value::Text(_)
        | Value::Markup(_)
        | Value::Dict(_)
        | Value::View(..)
        | Value::Range(_)
        | Value::Generator(_)
        | Value::Loop(_) => true,
        value => value.as_items().is_some(),
    }
}

/// Python's `is`, where it does not depend on which objects Python keeps.
fn same(left: &Value, right: &Value) -> Result<bool, JinjaError> {
    match (left, right) {
        (Value::None, Value::None) => Ok(true),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (Value::None | Value::Bool(_), _) | (_, Value::None | Value::Bool(_)) => Ok(false),
        _ => Err(JinjaError::unsupported("sameas of anything but none, true and false")),
    }
}
