//! Filters that look into lists.

use std::cmp::Ordering;

use super::super::JinjaError;
use super::super::ast::Operator;
use super::super::budget::Budget;
use super::super::call::{Passed, integer, required, string};
use super::super::comparison::{equal, order, position};
use super::super::items::iterate;
use super::super::operators::binary;
use super::super::render;
use super::super::sorting::sort;
use super::super::value::{Items, Value};
use super::super::writing::text_of;
use super::{Made, is_set, wrong};

/// Applies one.
pub(super) fn apply(name: &str, value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    match name {
        "first" | "last" | "reverse" => at_end(name, value, budget),
        "join" => {
            let [separator, attribute] = passed.take(name, ["d", "attribute"])?;
            join(value, separator, attribute, budget)
        }
        "sum" => sum(value, passed, budget),
        "min" | "max" => {
            let [sensitive, attribute] = passed.take(name, ["case_sensitive", "attribute"])?;
            extreme(value, name == "max", is_set(sensitive.as_ref()), attribute.as_ref(), budget)
        }
        "sort" => {
            let [reverse, sensitive, attribute] = passed.take(name, ["reverse", "case_sensitive", "attribute"])?;
            let key = |item: &Value, budget: &mut Budget| {
                sort_keys(item, is_set(sensitive.as_ref()), attribute.as_ref(), budget)
            };
            sorted(iterate(value, budget)?, is_set(reverse.as_ref()), key, budget).and_then(Value::list)
        }
        "dictsort" => dict_sort(value, passed, budget),
        "unique" => unique(value, passed, budget),
        "groupby" => group_by(value, passed, budget),
        _ => in_parts(name, value, passed, budget),
    }
}

/// The first or the last item, or all of them the other way round.
fn at_end(name: &str, value: &Value, budget: &mut Budget) -> Made {
    match name {
        "first" => {
            if let Value::Generator(generator) = value {
                return Ok(generator.next().unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")));
            }
            let first = iterate(value, budget)?.into_iter().next();
            Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
        }
        "last" => {
            let last = reversible(value, budget)?.pop();
            Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
        }
        _ => {
            if let Value::Text(text) = value {
                budget.text(text.len())?;
                return Ok(Value::text(text.chars().rev().collect::<String>()));
            }
            let mut values = match value {
                Value::Generator(_) => iterate(value, budget)?,
                value => reversible(value, budget)?,
            };
            values.reverse();
            Ok(match value {
                Value::Generator(_) => Value::list(values)?,
                _ => Value::generator(values),
            })
        }
    }
}

fn sum(value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    let [attribute, start] = passed.take("sum", ["attribute", "start"])?;
    let mut sum = start.unwrap_or(Value::integer(0));
    if matches!(sum, Value::Text(_)) {
        return Err(JinjaError::failed("sum() can't sum strings [use ''.join(seq) instead]"));
    }
    for item in iterate(value, budget)? {
        let item =
            attribute.as_ref().map_or_else(|| Ok(item.clone()), |path| attribute_of(&item, path, None, budget))?;
        sum = binary(Operator::Add, &sum, &item, budget)?;
    }
    Ok(sum)
}

fn unique(value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    let [sensitive, attribute] = passed.take("unique", ["case_sensitive", "attribute"])?;
    let (mut seen, mut kept): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for item in iterate(value, budget)? {
        let key = one_key(&item, is_set(sensitive.as_ref()), attribute.as_ref(), None, budget)?;
        if position(&seen, &key, budget)?.is_none() {
            seen.push(key);
            kept.push(item);
        }
    }
    Ok(Value::generator(kept))
}

/// The items of what Python can go through backwards.
fn reversible(value: &Value, budget: &mut Budget) -> Result<Vec<Value>, JinjaError> {
    if let Value::Generator(_) = value {
        return Err(JinjaError::failed(format!("'{}' object is not reversible", value.type_name())));
    }
    iterate(value, budget)
}

fn join(value: &Value, separator: Option<Value>, attribute: Option<Value>, budget: &mut Budget) -> Made {
    let separator = separator.map_or(Ok(String::new()), |separator| text_of(&separator, budget))?;
    let attribute = attribute.filter(|attribute| !matches!(attribute, Value::None));
    let mut joined = String::new();
    for (index, item) in iterate(value, budget)?.into_iter().enumerate() {
        let item =
            attribute.as_ref().map_or_else(|| Ok(item.clone()), |path| attribute_of(&item, path, None, budget))?;
        joined.push_str(if index > 0 { &separator } else { "" });
        joined.push_str(&text_of(&item, budget)?);
        budget.text(separator.len())?;
        budget.fits(joined.len())?;
    }
    budget.text(joined.len())?;
    Ok(Value::text(joined))
}

/// What a path such as `function.name` or `0` leads to.
pub(in super::super) fn attribute_of(item: &Value, path: &Value, default: Option<&Value>, budget: &mut Budget) -> Made {
    if let Value::Text(text) = path {
        budget.scratch(text.len())?;
        budget.items(text.bytes().filter(|byte| *byte == b'.').count())?;
    }
    let parts: Vec<Value> = match path {
        Value::Text(text) => text
            .split('.')
            .map(|part| match part.parse() {
                Ok(index) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::integer(index),
                _ => Value::text(part),
            })
            .collect(),
        Value::None => Vec::new(),
        other => vec![other.clone()],
    };
    let mut item = item.clone();
    for part in parts {
        item = render::item(&item, &part, budget)?;
        if let (Value::Undefined(_), Some(default)) = (&item, default) {
            item = default.clone();
        }
    }
    Ok(item)
}

/// What an item is sorted by, in lower case unless `sensitive`.
fn one_key(item: &Value, sensitive: bool, path: Option<&Value>, default: Option<&Value>, budget: &mut Budget) -> Made {
    let key = match path {
        None => item.clone(),
        Some(path) => attribute_of(item, path, default, budget)?,
    };
    Ok(match &key {
        Value::Text(text) if !sensitive => {
            budget.scratch(text.len())?;
            Value::text(text.to_lowercase())
        }
        _ => key,
    })
}

/// What an item is sorted by where several attributes may be named.
fn sort_keys(item: &Value, sensitive: bool, path: Option<&Value>, budget: &mut Budget) -> Made {
    if let Some(Value::Text(text)) = path {
        budget.scratch(text.len())?;
        budget.items(text.bytes().filter(|byte| *byte == b',').count())?;
    }
    let paths: Vec<Option<Value>> = match path {
        Some(Value::Text(text)) => text.split(',').map(|part| Some(Value::text(part))).collect(),
        path => vec![path.cloned()],
    };
    let keys = paths.iter().map(|path| one_key(item, sensitive, path.as_ref(), None, budget));
    Value::list(keys.collect::<Result<_, _>>()?)
}

/// Sorts as Python does: equal ones stay in order, also in reverse.
fn sorted(
    values: Vec<Value>,
    reverse: bool,
    key: impl Fn(&Value, &mut Budget) -> Made,
    budget: &mut Budget,
) -> Result<Vec<Value>, JinjaError> {
    budget.items(values.len().saturating_mul(8))?;
    let keyed: Result<Vec<(Value, Value)>, JinjaError> =
        values.into_iter().map(|value| Ok((key(&value, budget)?, value))).collect();
    let wanted = if reverse { Ordering::Greater } else { Ordering::Less };
    let sorted = sort(keyed?, &mut |(left, _), (right, _)| Ok(order(left, right, "<", budget)? == Some(wanted)))?;
    Ok(sorted.into_iter().map(|(_, value)| value).collect())
}

fn extreme(value: &Value, largest: bool, sensitive: bool, path: Option<&Value>, budget: &mut Budget) -> Made {
    let mut best: Option<(Value, Value)> = None;
    for item in iterate(value, budget)? {
        let key = one_key(&item, sensitive, path, None, budget)?;
        let is_better = match &best {
            None => true,
            Some((known, _)) if largest => order(&key, known, ">", budget)? == Some(Ordering::Greater),
            Some((known, _)) => order(&key, known, "<", budget)? == Some(Ordering::Less),
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| Value::undefined("No aggregated item, sequence was empty."), |(_, item)| item))
}

fn dict_sort(value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    let [sensitive, by, reverse] = passed.take("dictsort", ["case_sensitive", "by", "reverse"])?;
    let Value::Dict(dict) = value else { return Err(wrong("dictsort", value)) };
    let place = match by.as_ref().map(|by| string(by, "by")).transpose()? {
        None | Some("key") => 0,
        Some("value") => 1,
        Some(_) => return Err(JinjaError::failed("You can only sort by either \"key\" or \"value\"")),
    };
    budget.items(dict.len())?;
    let pairs = dict.entries().map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
    let key = |pair: &Value, budget: &mut Budget| {
        let part = pair.as_items().and_then(|items| items.get(place)).cloned().unwrap_or(Value::None);
        one_key(&part, is_set(sensitive.as_ref()), None, None, budget)
    };
    sorted(pairs.collect::<Result<_, _>>()?, is_set(reverse.as_ref()), key, budget).and_then(Value::list)
}

fn group_by(value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    let [path, default, sensitive] = passed.take("groupby", ["attribute", "default", "case_sensitive"])?;
    let path = required(path, "groupby", "an attribute")?;
    let default = default.filter(|default| !matches!(default, Value::None));
    let key = |item: &Value, budget: &mut Budget| {
        one_key(item, is_set(sensitive.as_ref()), Some(&path), default.as_ref(), budget)
    };
    let values = sorted(iterate(value, budget)?, false, key, budget)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in values {
        let own = key(&item, budget)?;
        match groups.last_mut() {
            Some((known, items)) if equal(known, &own, budget)? => items.push(item),
            _ => groups.push((own, vec![item])),
        }
    }
    let group = |(_, items): (Value, Vec<Value>)| {
        let name = attribute_of(&items[0], &path, default.as_ref(), budget)?;
        Ok(Value::Group(Items::new(vec![name, Value::list(items)?])?))
    };
    Value::list(groups.into_iter().map(group).collect::<Result<_, JinjaError>>()?)
}

fn in_parts(name: &str, value: &Value, passed: Passed, budget: &mut Budget) -> Made {
    let [size, fill] = passed.take(name, [if name == "batch" { "linecount" } else { "slices" }, "fill_with"])?;
    let size = usize::try_from(integer(&required(size, name, "a number")?, "the number")?)
        .ok()
        .filter(|size| *size > 0)
        .ok_or_else(|| JinjaError::unsupported(format!("{name} with a number below 1")))?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let values = iterate(value, budget)?;
    budget.items(size)?;
    let mut parts: Vec<Vec<Value>> = if name == "batch" {
        values.chunks(size).map(<[Value]>::to_vec).collect()
    } else {
        let (each, more) = (values.len() / size, values.len() % size);
        let start = |part: usize| part * each + part.min(more);
        (0..size).map(|part| values[start(part)..start(part + 1)].to_vec()).collect()
    };
    if let Some(fill) = fill {
        let more = values.len() % size;
        match (name, parts.last_mut()) {
            ("batch", Some(last)) => last.resize(size, fill),
            ("batch", None) => {}
            _ => parts.iter_mut().skip(more).for_each(|part| part.push(fill.clone())),
        }
    }
    Ok(Value::generator(parts.into_iter().map(Value::list).collect::<Result<Vec<_>, _>>()?))
}
