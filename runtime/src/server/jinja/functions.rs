//! Functions that every template may call.

use std::rc::Rc;

use super::JinjaError;
use super::budget::Budget;
use super::call::{Passed, integer, required};
use super::value::{Dict, Range, Value};

/// Items of the longest range that Jinja's sandbox allows.
const LONGEST_RANGE: usize = 100_000;

/// A function by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Range,
    Dict,
    Namespace,
    RaiseException,
    StrftimeNow,
}

impl Function {
    /// The function of a name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "range" => Self::Range,
            "dict" => Self::Dict,
            "namespace" => Self::Namespace,
            "raise_exception" => Self::RaiseException,
            "strftime_now" => Self::StrftimeNow,
            _ => return None,
        })
    }

    /// Names that Jinja has and that are not done.
    pub fn is_unsupported(name: &str) -> bool {
        matches!(name, "lipsum" | "cycler" | "joiner" | "self")
    }
}

/// `range(...)`.
pub(super) fn range(passed: Passed) -> Result<Value, JinjaError> {
    let [first, second, step] = passed.positional("range")?;
    let first = integer(&required(first, "range", "an argument")?, "an argument of range")?;
    let second = second.map(|value| integer(&value, "an argument of range")).transpose()?;
    let step = step.map_or(Ok(1), |value| integer(&value, "an argument of range"))?;
    if step == 0 {
        return Err(JinjaError::failed("range() arg 3 must not be zero"));
    }
    let (from, to) = second.map_or((0, first), |second| (first, second));
    let fits = |value: i128| value.unsigned_abs() < 1 << 100;
    let range = Range { start: from, stop: to, step };
    if ![from, to, step].into_iter().all(fits) || range.len() > LONGEST_RANGE {
        return Err(JinjaError::failed(format!("a range has at most {LONGEST_RANGE} items")));
    }
    Ok(Value::Range(Rc::new(range)))
}

/// Pairs of a dictionary or of a list of pairs, and then of what is named.
pub(super) fn pairs(passed: Passed, function: &str, budget: &mut Budget) -> Result<Vec<(Value, Value)>, JinjaError> {
    let Passed { mut positional, named } = passed;
    if positional.len() > 1 {
        return Err(JinjaError::failed(format!("{function} takes at most one argument")));
    }
    let mut pairs = match positional.pop() {
        None => Vec::new(),
        Some(Value::Dict(dict)) => {
            budget.items(dict.len().saturating_mul(2))?;
            dict.entries().map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        Some(value) => {
            let items = match &value {
                Value::View(_, items) => &items.values[..],
                value => value.as_items().unwrap_or_default(),
            };
            budget.items(items.len().saturating_mul(2))?;
            let pair = |item: &Value| match item.as_items() {
                Some([key, value]) => Ok((key.clone(), value.clone())),
                _ => Err(JinjaError::failed(format!("{function} needs pairs"))),
            };
            if items.is_empty() && value.as_items().is_none() && !matches!(value, Value::View(..)) {
                return Err(JinjaError::failed(format!("{function} needs pairs, not {}", value.type_name())));
            }
            items.iter().map(pair).collect::<Result<_, _>>()?
        }
    };
    pairs.extend(named.into_iter().map(|(name, value)| (Value::text(name), value)));
    Ok(pairs)
}

/// `dict(...)`.
pub(super) fn dict(passed: Passed, budget: &mut Budget) -> Result<Value, JinjaError> {
    Ok(Value::Dict(Dict::new(pairs(passed, "dict", budget)?, budget)?))
}
