//! Python's operators.

use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use super::JinjaError;
use super::ast::{Comparison, Operator};
use super::budget::Budget;
use super::percent;
use super::value::{Dict, Range, Value};

/// The first float that is beyond all whole numbers that are done.
const BEYOND: f64 = (1_u128 << 127) as f64;

type Made = Result<Value, JinjaError>;

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
    if left.entries().len() != right.entries().len() {
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

/// The whole part of a number; `None` if it is not finite.
///
/// # Errors
/// If it has more digits than are done.
pub(super) fn whole_of(float: f64) -> Result<Option<i128>, JinjaError> {
    if !float.is_finite() {
        return Ok(None);
    }
    if float.abs() >= BEYOND { Err(too_large()) } else { Ok(Some(float.trunc() as i128)) }
}

pub(super) fn too_large() -> JinjaError {
    JinjaError::unsupported("a whole number of more than 38 digits")
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
                if equal(&Value::Integer(range.get(index)), item, budget)? {
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

/// An operator between two values.
pub(super) fn binary(operator: Operator, left: &Value, right: &Value, budget: &mut Budget) -> Made {
    if let Value::Undefined(reason) = left {
        return Err(JinjaError::failed(&**reason));
    }
    if operator == Operator::Modulo
        && let Some(format) = left.as_text()
    {
        return percent::format(format, right, budget);
    }
    if let Value::Undefined(reason) = right {
        return Err(JinjaError::failed(&**reason));
    }
    match (operator, left, right) {
        (_, Value::Markup(_), _) | (_, _, Value::Markup(_)) => {
            Err(JinjaError::unsupported("an operator on text that is marked as safe"))
        }
        (Operator::Add, Value::Text(left), Value::Text(right)) => {
            budget.text(left.len() + right.len())?;
            Ok(Value::text([&**left, &**right].concat()))
        }
        (Operator::Add, Value::List(left), Value::List(right)) => {
            budget.items(left.values.len() + right.values.len())?;
            Value::list([&left.values[..], &right.values[..]].concat())
        }
        (Operator::Add, Value::Tuple(left) | Value::Group(left), Value::Tuple(right) | Value::Group(right)) => {
            budget.items(left.values.len() + right.values.len())?;
            Value::tuple([&left.values[..], &right.values[..]].concat())
        }
        (Operator::Multiply, Value::Text(text), times) | (Operator::Multiply, times, Value::Text(text))
            if times.as_integer().is_some() =>
        {
            let times = repetitions(times);
            budget.text(text.len().saturating_mul(times))?;
            Ok(Value::text(text.repeat(times)))
        }
        (Operator::Multiply, Value::List(items), times) | (Operator::Multiply, times, Value::List(items))
            if times.as_integer().is_some() =>
        {
            repeat(&items.values, times, budget).and_then(Value::list)
        }
        (Operator::Multiply, Value::Tuple(items), times) | (Operator::Multiply, times, Value::Tuple(items))
            if times.as_integer().is_some() =>
        {
            repeat(&items.values, times, budget).and_then(Value::tuple)
        }
        _ => arithmetic(operator, left, right),
    }
}

fn repetitions(times: &Value) -> usize {
    usize::try_from(times.as_integer().unwrap_or(0).max(0)).unwrap_or(usize::MAX)
}

fn repeat(values: &[Value], times: &Value, budget: &mut Budget) -> Result<Vec<Value>, JinjaError> {
    let times = repetitions(times);
    budget.items(values.len().saturating_mul(times))?;
    Ok(values.iter().cycle().take(values.len().saturating_mul(times)).cloned().collect())
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Made {
    let symbol = match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Modulo => "%",
        Operator::Power => "** or pow()",
    };
    let (Some(first), Some(second)) = (number(left), number(right)) else {
        return Err(JinjaError::failed(format!(
            "unsupported operand type(s) for {symbol}: '{}' and '{}'",
            left.type_name(),
            right.type_name()
        )));
    };
    let by_zero = || JinjaError::failed("division by zero");
    if let (Some(left), Some(right)) = (left.as_integer(), right.as_integer()) {
        let whole = |value: Option<i128>| value.map(Value::Integer).ok_or_else(too_large);
        return match operator {
            Operator::Add => whole(left.checked_add(right)),
            Operator::Subtract => whole(left.checked_sub(right)),
            Operator::Multiply => whole(left.checked_mul(right)),
            Operator::Divide | Operator::FloorDivide | Operator::Modulo if right == 0 => Err(by_zero()),
            // Python rounds once, which is the same where no float rounds before.
            Operator::Divide if [left, right].iter().any(|value| value.unsigned_abs() > 1 << 53) => {
                Err(JinjaError::unsupported("a division of whole numbers beyond 9007199254740992"))
            }
            Operator::Divide => Ok(Value::Float(left as f64 / right as f64)),
            Operator::FloorDivide => {
                let quotient = left.checked_div_euclid(right).ok_or_else(too_large)?;
                let is_floored = right > 0 || quotient * right == left;
                Ok(Value::Integer(if is_floored { quotient } else { quotient - 1 }))
            }
            Operator::Modulo => {
                let rest = left.checked_rem(right).ok_or_else(too_large)?;
                Ok(Value::Integer(if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }))
            }
            Operator::Power if right < 0 && left == 0 => {
                Err(JinjaError::failed("0.0 cannot be raised to a negative power"))
            }
            Operator::Power if right < 0 => Ok(Value::Float((left as f64).powf(right as f64))),
            Operator::Power => whole(u32::try_from(right).ok().and_then(|right| left.checked_pow(right))),
        };
    }
    let value = match operator {
        Operator::Add => first + second,
        Operator::Subtract => first - second,
        Operator::Multiply => first * second,
        Operator::Divide | Operator::FloorDivide | Operator::Modulo if second == 0.0 => return Err(by_zero()),
        Operator::Divide => first / second,
        Operator::FloorDivide => {
            let rest = modulo(first, second);
            ((first - rest) / second).round()
        }
        Operator::Modulo => modulo(first, second),
        Operator::Power if first < 0.0 && second.fract() != 0.0 => {
            return Err(JinjaError::unsupported("a complex number"));
        }
        Operator::Power => first.powf(second),
    };
    Ok(Value::Float(value))
}

fn modulo(left: f64, right: f64) -> f64 {
    let rest = left % right;
    if rest == 0.0 {
        return 0.0_f64.copysign(right);
    }
    if (rest < 0.0) == (right < 0.0) { rest } else { rest + right }
}

pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        value => value.as_integer().map(|value| value as f64),
    }
}

/// `-value`, or `+value`.
pub(super) fn sign(value: &Value, negative: bool) -> Made {
    match value {
        Value::Undefined(reason) => Err(JinjaError::failed(&**reason)),
        Value::Float(value) => Ok(Value::Float(if negative { -value } else { *value })),
        value => match value.as_integer() {
            Some(value) if negative => value.checked_neg().map(Value::Integer).ok_or_else(too_large),
            Some(value) => Ok(Value::Integer(value)),
            None => Err(JinjaError::failed(format!(
                "bad operand type for unary {}: '{}'",
                if negative { '-' } else { '+' },
                value.type_name()
            ))),
        },
    }
}

/// Python's `len`.
pub(super) fn length(value: &Value, budget: &mut Budget) -> Result<usize, JinjaError> {
    match value {
        Value::Undefined(_) => Ok(0),
        Value::Text(text) | Value::Markup(text) => {
            budget.look(text.len())?;
            Ok(text.chars().count())
        }
        Value::List(items) | Value::Tuple(items) | Value::Group(items) | Value::View(_, items) => {
            Ok(items.values.len())
        }
        Value::Dict(dict) => Ok(dict.entries().len()),
        Value::Range(range) => Ok(range.len()),
        _ => Err(JinjaError::failed(format!("object of type '{}' has no len()", value.type_name()))),
    }
}

/// The items of a value, as a loop takes them. A generator is empty afterwards.
pub(super) fn iterate(value: &Value, budget: &mut Budget) -> Result<Vec<Value>, JinjaError> {
    let values = match value {
        Value::Undefined(_) => Vec::new(),
        Value::Text(text) | Value::Markup(text) => {
            budget.items(text.len())?;
            text.chars().map(|char| Value::text(char.encode_utf8(&mut [0; 4]))).collect()
        }
        Value::List(items) | Value::Tuple(items) | Value::Group(items) | Value::View(_, items) => {
            budget.items(items.values.len())?;
            items.values.clone()
        }
        Value::Dict(dict) => {
            budget.items(dict.entries().len())?;
            dict.entries().iter().map(|(key, _)| key.clone()).collect()
        }
        Value::Range(range) => {
            budget.items(range.len())?;
            (0..range.len()).map(|index| Value::Integer(range.get(index))).collect()
        }
        Value::Generator(generator) => generator.take_all(),
        _ => return Err(JinjaError::failed(format!("'{}' object is not iterable", value.type_name()))),
    };
    Ok(values)
}

/// Which items a slice takes of so many.
pub(super) fn slice_of(length: usize, parts: [Option<i128>; 3]) -> Result<Range, JinjaError> {
    let [from, to, by] = parts;
    let (length, by) = (length as i128, by.unwrap_or(1));
    if by == 0 {
        return Err(JinjaError::failed("slice step cannot be zero"));
    }
    let (lowest, highest) = if by > 0 { (0, length) } else { (-1, length - 1) };
    let place = |index: i128| if index < 0 { index.saturating_add(length) } else { index }.clamp(lowest, highest);
    let (first, last) = if by > 0 { (lowest, highest) } else { (highest, lowest) };
    let by = by.clamp(-length - 1, length + 1);
    Ok(Range { start: from.map_or(first, place), stop: to.map_or(last, place), step: by })
}

/// `value[start:stop:step]`; `None` if it has no such thing.
pub(super) fn slice(value: &Value, parts: [Option<i128>; 3], budget: &mut Budget) -> Result<Option<Value>, JinjaError> {
    let taken = |length| slice_of(length, parts).map(|range| (0..range.len()).map(move |at| range.get(at) as usize));
    Ok(Some(match value {
        Value::Text(text) => {
            budget.text(text.len())?;
            let chars: Vec<char> = text.chars().collect();
            Value::text(taken(chars.len())?.map(|at| chars[at]).collect::<String>())
        }
        Value::List(items) => {
            budget.items(items.values.len())?;
            Value::list(taken(items.values.len())?.map(|at| items.values[at].clone()).collect())?
        }
        Value::Tuple(items) | Value::Group(items) => {
            budget.items(items.values.len())?;
            Value::tuple(taken(items.values.len())?.map(|at| items.values[at].clone()).collect())?
        }
        Value::Range(range) => {
            let of = slice_of(range.len(), parts)?;
            let at = |index: i128| range.start + range.step * index;
            let step = range.step.checked_mul(of.step).filter(|step| step.unsigned_abs() < 1 << 100);
            let step = step.ok_or_else(|| JinjaError::unsupported("a range of such a step"))?;
            Value::Range(Range { start: at(of.start), stop: at(of.stop), step })
        }
        Value::Markup(_) => return Err(JinjaError::unsupported("a part of text that is marked as safe")),
        _ => return Ok(None),
    }))
}
