//! What a value holds: how much, each of it, and parts of it, as in Python.

use std::rc::Rc;

use super::JinjaError;
use super::budget::Budget;
use super::value::{Range, Value};

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
        Value::Dict(dict) => Ok(dict.len()),
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
            budget.items(dict.len())?;
            dict.entries().map(|(key, _)| key.clone()).collect()
        }
        Value::Range(range) => {
            budget.items(range.len())?;
            (0..range.len()).map(|index| Value::integer(range.get(index))).collect()
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
            Value::Range(Rc::new(Range { start: at(of.start), stop: at(of.stop), step }))
        }
        Value::Markup(_) => return Err(JinjaError::unsupported("a part of text that is marked as safe")),
        _ => return Ok(None),
    }))
}
