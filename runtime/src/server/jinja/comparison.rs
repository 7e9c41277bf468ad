//! Which values are equal, less, or in others, as in Python.

use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use super::JinjaError;
use super::ast::Comparison;
use super::budget::Budget;
use super::operators::BEYOND;
use super::value::{Dict, Value};

/// Whether two values are equal. Every value that is looked at is a step: lists may hold the same list many times.
pub(super) fn equal(left: &Value, right: &Value, budget: &mut Budget) -> Result<bool, JinjaError> {
    budget.step()?;
    Ok(match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Text(left) | Value::Markup(left), Value::Text(right) | Value::Markup(right)) => {
            if Arc::ptr_eq(left, right) {
                return Ok(true);
            }
            let may_be = left.len() == right.len();
            budget.look(if may_be { left.len() } else { 0 })?;
            may_be && left == right
        }
        (Value::List(left), Value::List(right))
        | (Value::Tuple(left) | Value::Group(left), Value::Tuple(right) | Value::Group(right)) => {
            Rc::ptr_eq(left, right) || all_equal(&left.values, &right.values, budget)?
        }
        (Value::Dict(left), Value::Dict(right)) => Rc::ptr_eq(left, right) || equal_dicts(left, right, budget)?,
        (Value::View(..), Value::View(..)) | (Value::Method(_), Value::Method(_)) => {
            return Err(JinjaError::unsupported(format!("to compare two {}", left.type_name())));
        }
        (Value::Range(left), Value::Range(right)) => {
            let length = left.len();
            length == right.len()
                && (length == 0 || left.start == right.start)
                && (length < 2 || left.step == right.step)
        }
        (Value::Namespace(left), Value::Namespace(right))
        | (Value::Loop(left), Value::Loop(right))
        | (Value::Macro(left), Value::Macro(right)) => left == right,
        (Value::Function(left), Value::Function(right)) => left == right,
        (Value::Generator(left), Value::Generator(right)) => Rc::ptr_eq(left, right),
        _ => numbers(left, right).is_some_and(|numbers| numbers.order() == Some(Ordering::Equal)),
    })
}

/// Whether two rows of values are equal.
pub(super) fn all_equal(left: &[Value], right: &[Value], budget: &mut Budget) -> Result<bool, JinjaError> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (left, right) in left.iter().zip(right) {
        if !equal(left, right, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_dicts(left: &Dict, right: &Dict, budget: &mut Budget) -> Result<bool, JinjaError> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (key, value) in left.entries() {
        let Some(other) = right.get(key, budget)? else { return Ok(false) };
        if !equal(value, other, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the first of the values is that equals one.
pub(super) fn position<'v>(
    values: impl IntoIterator<Item = &'v Value>,
    wanted: &Value,
    budget: &mut Budget,
) -> Result<Option<usize>, JinjaError> {
    for (index, value) in values.into_iter().enumerate() {
        if equal(value, wanted, budget)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Two numbers, if both are, as what tells their order.
fn numbers(left: &Value, right: &Value) -> Option<Numbers> {
    Some(match (left, right) {
        (Value::Float(left), Value::Float(right)) => Numbers::Floats(*left, *right),
        (Value::Float(left), right) => Numbers::FloatFirst(*left, right.as_integer()?),
        (left, Value::Float(right)) => Numbers::FloatLast(left.as_integer()?, *right),
        (left, right) => Numbers::Integers(left.as_integer()?, right.as_integer()?),
    })
}

enum Numbers {
    Integers(i128, i128),
    Floats(f64, f64),
    FloatFirst(f64, i128),
    FloatLast(i128, f64),
}

impl Numbers {
    /// `None` if one is no number in the sense of IEEE 754.
    fn order(&self) -> Option<Ordering> {
        match self {
            Self::Integers(left, right) => Some(left.cmp(right)),
            Self::Floats(left, right) => left.partial_cmp(right),
            Self::FloatFirst(left, right) => order_exactly(*right, *left).map(Ordering::reverse),
            Self::FloatLast(left, right) => order_exactly(*left, *right),
        }
    }
}

/// The order of two numbers as they are, of which the second may be one that no float is.
fn order_exactly(whole: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.abs() >= BEYOND {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let by_whole = whole.cmp(&(float.trunc() as i128));
    if by_whole == Ordering::Equal { 0.0.partial_cmp(&float.fract()) } else { Some(by_whole) }
}

/// The order of two values; `None` if neither is less nor equal.
pub(super) fn order(
    left: &Value,
    right: &Value,
    operator: &str,
    budget: &mut Budget,
) -> Result<Option<Ordering>, JinjaError> {
    budget.step()?;
    if let Some(numbers) = numbers(left, right) {
        return Ok(numbers.order());
    }
    match (left, right) {
        (Value::Text(left) | Value::Markup(left), Value::Text(right) | Value::Markup(right)) => {
            budget.look(left.len().min(right.len()))?;
            Ok(Some(left.cmp(right)))
        }
        (Value::List(left), Value::List(right))
        | (Value::Tuple(left) | Value::Group(left), Value::Tuple(right) | Value::Group(right)) => {
            if Rc::ptr_eq(left, right) {
                return Ok(Some(Ordering::Equal));
            }
            for (left, right) in left.values.iter().zip(&right.values) {
                if !equal(left, right, budget)? {
                    return order(left, right, operator, budget);
                }
            }
            Ok(Some(left.values.len().cmp(&right.values.len())))
        }
        (Value::Undefined(reason), _) | (_, Value::Undefined(reason)) => Err(JinjaError::failed(&**reason)),
        _ => Err(JinjaError::failed(format!(
            "'{operator}' not supported between instances of '{}' and '{}'",
            left.type_name(),
            right.type_name()
        ))),
    }
}

/// A comparison.
pub(super) fn compare(
    comparison: Comparison,
    left: &Value,
    right: &Value,
    budget: &mut Budget,
) -> Result<bool, JinjaError> {
    let mut ordered = |symbol, holds: fn(Ordering) -> bool| Ok(order(left, right, symbol, budget)?.is_some_and(holds));
    match comparison {
        Comparison::Equal => equal(left, right, budget),
        Comparison::NotEqual => Ok(!equal(left, right, budget)?),
        Comparison::Less => ordered("<", Ordering::is_lt),
        Comparison::LessOrEqual => ordered("<=", Ordering::is_le),
        Comparison::Greater => ordered(">", Ordering::is_gt),
        Comparison::GreaterOrEqual => ordered(">=", Ordering::is_ge),
        Comparison::In => contains(right, left, budget),
        Comparison::NotIn => Ok(!contains(right, left, budget)?),
    }
}

/// Python's `item in container`.
fn contains(container: &Value, item: &Value, budget: &mut Budget) -> Result<bool, JinjaError> {
    match container {
        Value::Undefined(_) => Ok(false),
        Value::Text(text) | Value::Markup(text) => match item {
            Value::Text(item) | Value::Markup(item) => {
                budget.look(text.len() + item.len())?;
                Ok(text.contains(&**item))
            }
            Value::Undefined(reason) => Err(JinjaError::failed(&**reason)),
            _ => Err(JinjaError::failed(format!(
                "'in <string>' requires string as left operand, not {}",
                item.type_name()
            ))),
        },
        Value::Dict(dict) => Ok(dict.get(item, budget)?.is_some()),
        Value::List(items) | Value::Tuple(items) | Value::Group(items) | Value::View(_, items) => {
            Ok(position(&items.values, item, budget)?.is_some())
        }
        Value::Range(range) => {
            for index in 0..range.len() {
                if equal(&Value::integer(range.get(index)), item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Generator(generator) => {
            while let Some(value) = generator.next() {
                if equal(&value, item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(JinjaError::failed(format!("argument of type '{}' is not iterable", container.type_name()))),
    }
}
