//! Python's operators between values that give another.

use super::JinjaError;
use super::ast::Operator;
use super::budget::Budget;
use super::percent;
use super::value::Value;

/// The first float that is beyond all whole numbers that are done.
pub(super) const BEYOND: f64 = (1_u128 << 127) as f64;

type Made = Result<Value, JinjaError>;

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
        let whole = |value: Option<i128>| value.map(Value::integer).ok_or_else(too_large);
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
                Ok(Value::integer(if is_floored { quotient } else { quotient - 1 }))
            }
            Operator::Modulo => {
                let rest = left.checked_rem(right).ok_or_else(too_large)?;
                Ok(Value::integer(if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }))
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
            Some(value) if negative => value.checked_neg().map(Value::integer).ok_or_else(too_large),
            Some(value) => Ok(Value::integer(value)),
            None => Err(JinjaError::failed(format!(
                "bad operand type for unary {}: '{}'",
                if negative { '-' } else { '+' },
                value.type_name()
            ))),
        },
    }
}
