//! What values have by name or place: methods, attributes, keys and items.

use std::rc::Rc;

use super::Rendered;
use crate::server::jinja::JinjaError;
use crate::server::jinja::budget::Budget;
use crate::server::jinja::strings;
use crate::server::jinja::value::Value;

/// A method of a value that has it by this name; those that would change it are not safe to Jinja's sandbox.
pub(in super::super) fn method_of(value: &Value, name: &str) -> Rendered<Option<Value>> {
    const CHANGING: [&str; 12] = [
        "append",
        "clear",
        "extend",
        "insert",
        "pop",
        "popitem",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
        "fromkeys",
    ];
    let unsafe_method =
        || Value::undefined(format!("access to attribute '{name}' of '{}' object is unsafe.", value.type_name()));
    let has = match value {
        Value::Text(_) => match strings::method(name) {
            Some(false) => return Err(JinjaError::unsupported(format!("the method {name} of strings"))),
            known => known.is_some(),
        },
        Value::Dict(_) => match name {
            "get" | "items" | "keys" | "values" | "copy" => true,
            "fromkeys" => return Err(JinjaError::unsupported("the method fromkeys of dictionaries")),
            "clear" | "pop" | "popitem" | "setdefault" | "update" => return Ok(Some(unsafe_method())),
            _ => false,
        },
        Value::List(_) => match name {
            "count" | "index" | "copy" => true,
            changing if CHANGING[..9].contains(&changing) || changing == "sort" => {
                let is_of_lists = !matches!(changing, "popitem" | "setdefault");
                return Ok(is_of_lists.then(unsafe_method));
            }
            _ => false,
        },
        Value::Tuple(_) | Value::Group(_) => matches!(name, "count" | "index"),
        _ => false,
    };
    Ok(has.then(|| Value::Method(Rc::new((value.clone(), name.to_owned())))))
}

/// `of.name`, of what is neither a namespace nor a loop.
pub(in super::super) fn attribute(of: &Value, name: &str) -> Rendered<Value> {
    if let Value::Undefined(reason) = of {
        return Err(JinjaError::failed(&**reason));
    }
    if name.starts_with("__") && name.ends_with("__") {
        let reason = format!("access to attribute '{name}' of '{}' object is unsafe.", of.type_name());
        return Ok(Value::undefined(reason));
    }
    if let Some(method) = method_of(of, name)? {
        return Ok(method);
    }
    let missing = || Value::undefined(format!("'{} object' has no attribute '{name}'", of.type_name()));
    Ok(match (of, name) {
        (Value::Dict(dict), name) => dict.get_text(name).cloned().unwrap_or_else(missing),
        (Value::Group(items), "grouper") => items.values[0].clone(),
        (Value::Group(items), "list") => items.values[1].clone(),
        (Value::Range(range), "start") => Value::integer(range.start),
        (Value::Range(range), "stop") => Value::integer(range.stop),
        (Value::Range(range), "step") => Value::integer(range.step),
        (Value::Range(_), "count" | "index")
        | (Value::View(..), "isdisjoint" | "mapping")
        | (Value::Macro(_), "name" | "arguments" | "catch_kwargs" | "catch_varargs" | "caller")
        | (Value::Markup(_), _) => {
            return Err(JinjaError::unsupported(format!("{name} of {}", of.type_name())));
        }
        (Value::Bool(_) | Value::Integer(_) | Value::Float(_), name) if is_of_numbers(name) => {
            return Err(JinjaError::unsupported(format!("{name} of {}", of.type_name())));
        }
        _ => missing(),
    })
}

fn is_of_numbers(name: &str) -> bool {
    const NAMES: [&str; 13] = [
        "as_integer_ratio",
        "bit_count",
        "bit_length",
        "conjugate",
        "denominator",
        "from_bytes",
        "fromhex",
        "hex",
        "imag",
        "is_integer",
        "numerator",
        "real",
        "to_bytes",
    ];
    NAMES.contains(&name)
}

/// `of[key]`, of what is neither a namespace nor a loop.
pub(in super::super) fn item(of: &Value, key: &Value, budget: &mut Budget) -> Rendered<Value> {
    if let Value::Undefined(reason) = of {
        return Err(JinjaError::failed(&**reason));
    }
    if let Value::Text(text) | Value::Markup(text) = of {
        budget.look(text.len())?;
    }
    if let Value::Text(name) = key {
        budget.look(name.len())?;
    }
    let place = |length: usize| {
        let index = key.as_integer()?;
        usize::try_from(if index < 0 { index + length as i128 } else { index }).ok().filter(|index| *index < length)
    };
    let found = match of {
        Value::Dict(dict) => match dict.get(key, budget) {
            Ok(found) => found.cloned(),
            Err(limit @ JinjaError::Limit(_)) => return Err(limit),
            // What can be no key is not there.
            Err(_) => None,
        },
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
            place(items.values.len()).map(|at| items.values[at].clone())
        }
        Value::Range(range) => place(range.len()).map(|at| Value::integer(range.get(at))),
        Value::Text(text) if key.as_integer().is_some_and(|index| index >= 0) => {
            let index = usize::try_from(key.as_integer().unwrap_or(0)).unwrap_or(usize::MAX);
            text.chars().nth(index).map(|char| Value::text(char.encode_utf8(&mut [0; 4])))
        }
        Value::Text(text) if key.as_integer().is_some() => {
            let back = usize::try_from(key.as_integer().unwrap_or(-1).unsigned_abs()).unwrap_or(usize::MAX);
            text.chars().rev().nth(back - 1).map(|char| Value::text(char.encode_utf8(&mut [0; 4])))
        }
        Value::Markup(_) => return Err(JinjaError::unsupported("a part of text that is marked as safe")),
        _ => None,
    };
    match (found, key) {
        (Some(found), _) => Ok(found),
        (None, Value::Text(name)) => match of {
            // A key that is not there is looked for among the methods.
            Value::Dict(_) => Ok(method_of(of, name)?.unwrap_or_else(|| missing(of, name))),
            of => attribute(of, name),
        },
        (None, key) => Ok(Value::undefined(format!("{} object has no element {}", of.type_name(), shown(key)))),
    }
}

fn missing(of: &Value, name: &str) -> Value {
    Value::undefined(format!("'{} object' has no attribute '{name}'", of.type_name()))
}

fn shown(key: &Value) -> String {
    key.as_integer().map_or_else(|| key.type_name().to_owned(), |index| index.to_string())
}
