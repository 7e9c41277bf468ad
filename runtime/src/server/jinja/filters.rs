//! Filters. What calls other filters or tests by name is in [`super::render`].

mod lists;
mod numbers;
mod text;

pub(super) use self::lists::attribute_of;
use super::JinjaError;
use super::budget::Budget;
use super::call::{Passed, integer, required, string};
use super::items::{iterate, length};
use super::operators::too_large;
use super::value::Value;
use super::writing::{JsonStyle, text_of};

type Made = Result<Value, JinjaError>;

/// Names of filters that are done.
const NAMES: [&str; 47] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "forceescape",
];

/// Names of filters that Jinja has and that are not done.
const UNSUPPORTED: [&str; 7] = ["filesizeformat", "pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"];

/// Whether there is a filter of this name.
///
/// # Errors
/// What it is if it is not done.
pub(super) fn check_name(name: &str) -> Result<bool, String> {
    if UNSUPPORTED.contains(&name) { Err(format!("the filter {name}")) } else { Ok(NAMES.contains(&name)) }
}

/// Applies a filter.
pub(super) fn apply(name: &str, value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    match name {
        "default" | "d" => {
            let [default, boolean] = passed.take(name, ["default_value", "boolean"])?;
            let falls_back = matches!(value, Value::Undefined(_))
                || (boolean.is_some_and(|boolean| boolean.is_true()) && !value.is_true());
            Ok(if falls_back { default.unwrap_or_else(|| Value::text("")) } else { value.clone() })
        }
        "tojson" => to_json(value, passed, budget),
        "length" | "count" => none(passed, name).and_then(|()| Ok(Value::integer(length(value, budget)? as i128))),
        "string" => match value {
            Value::Text(_) | Value::Markup(_) => Ok(value.clone()),
            value => text_of(value, budget).map(Value::text),
        },
        "list" => iterate(value, budget).and_then(Value::list),
        "items" => match value {
            Value::Undefined(_) => Ok(Value::generator([])),
            Value::Dict(dict) => {
                budget.items(dict.len())?;
                let pairs = dict.entries().map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                Ok(Value::generator(pairs.collect::<Result<Vec<_>, _>>()?))
            }
            _ => Err(JinjaError::failed("Can only get item pairs from a mapping.")),
        },
        "attr" => {
            let [attribute] = passed.take(name, ["name"])?;
            let attribute = required(attribute, name, "a name")?;
            let attribute = string(&attribute, "a name")?;
            budget.scratch(attribute.len())?;
            Ok(match value {
                Value::Dict(_) => super::render::method_of(value, attribute)?
                    .unwrap_or_else(|| Value::undefined(format!("dict has no attribute '{attribute}'"))),
                value => super::render::attribute(value, attribute)?,
            })
        }
        "abs" => match value {
            Value::Float(value) => Ok(Value::Float(value.abs())),
            value => {
                let whole = value.as_integer().ok_or_else(|| wrong("abs()", value))?;
                whole.checked_abs().map(Value::integer).ok_or_else(too_large)
            }
        },
        "int" | "float" | "round" => numbers::apply(name, value, passed, budget),
        "batch" | "dictsort" | "first" | "groupby" | "join" | "last" | "max" | "min" | "reverse" | "slice" | "sort"
        | "sum" | "unique" => lists::apply(name, value, passed, budget),
        _ => text::apply(name, value, passed, budget),
    }
}

fn none(passed: Passed, name: &str) -> Result<(), JinjaError> {
    let [] = passed.positional(name)?;
    Ok(())
}

fn wrong(what: &str, value: &Value) -> JinjaError {
    match value {
        Value::Undefined(reason) => JinjaError::failed(&**reason),
        value => JinjaError::failed(format!("{what} is not for {}", value.type_name())),
    }
}

fn is_set(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_true)
}

/// `json.dumps`, with the arguments that transformers' filter takes.
fn to_json(value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    let [ascii, indent, separators, sorted] =
        passed.take("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) => Some(text.to_string()),
        Some(width) => {
            let width = usize::try_from(integer(&width, "indent")?.max(0)).unwrap_or(usize::MAX);
            budget.text(width)?;
            Some(" ".repeat(width))
        }
    };
    let mut style =
        JsonStyle { ascii: is_set(ascii.as_ref()), sorted: is_set(sorted.as_ref()), ..JsonStyle::default() };
    if indent.is_some() {
        ",".clone_into(&mut style.separators[0]);
    }
    style.indent = indent;
    match separators {
        None | Some(Value::None) => {}
        Some(pair) => match pair.as_items() {
            Some([items, keys]) => {
                style.separators = [string(items, "a separator")?.to_owned(), string(keys, "a separator")?.to_owned()];
            }
            _ => return Err(JinjaError::failed("separators must be two strings")),
        },
    }
    style.write(value, budget).map(Value::text)
}
