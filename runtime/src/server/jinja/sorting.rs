//! Sorting of what need not have an order.

use super::JinjaError;

/// Sorts; equal ones stay in order. The standard library's may panic where values have no order among them, as numbers
/// and what is no number have none, and cannot end at the first error.
///
/// # Errors
/// The first of `is_less`.
pub(super) fn sort<T>(
    values: Vec<T>,
    is_less: &mut impl FnMut(&T, &T) -> Result<bool, JinjaError>,
) -> Result<Vec<T>, JinjaError> {
    if values.len() < 2 {
        return Ok(values);
    }
    let mut first = values;
    let second = first.split_off(first.len() / 2);
    let mut sorted = Vec::with_capacity(first.len() + second.len());
    let mut first = sort(first, is_less)?.into_iter().peekable();
    let mut second = sort(second, is_less)?.into_iter().peekable();
    while let (Some(left), Some(right)) = (first.peek(), second.peek()) {
        let from = if is_less(right, left)? { &mut second } else { &mut first };
        sorted.extend(from.next());
    }
    sorted.extend(first);
    sorted.extend(second);
    Ok(sorted)
}
