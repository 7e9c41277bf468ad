//! The fields of a request's body, taken one by one so that an error names the one at fault and none is ignored.

pub mod known;
pub mod list;
mod number;

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use axum::http::StatusCode;
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;

use self::known::{BLANK, Rule, rule};
pub(super) use self::number::{Whole, real, whole};
use super::Route;
use super::error::{ApiError, Code};
use crate::model::json::without_mark;
use crate::quoted::{Quoted, shortened};

/// Fields that one body may have: more than all that have a meaning.
pub const FIELDS_AT_MOST: usize = 256;

/// How a refusal of more of them begins.
const TOO_MANY: &str = "it has more than";

/// Bytes of the longest neutral value; what is longer is none and is not looked at.
const NEUTRAL_BYTES: usize = 4096;

/// What an object of a body holds and no one has taken yet. Values are slices of the body until they are taken, so that
/// each is read once, straight into its type.
#[derive(Debug)]
pub struct Fields<'a> {
    /// Where the object is in the body, as errors begin the names of its fields.
    path: String,
    values: Vec<(String, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// Finds the fields of a body. Where a name is there twice, the last one counts.
    ///
    /// # Errors
    /// If it is no JSON object, or has more fields than any request.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let refuse = |message| ApiError::other(StatusCode::BAD_REQUEST, Code::InvalidJson, message);
        serde_json::from_slice(without_mark(body))
            .map_err(|error| refuse(format!("the request body is not a JSON object: {}", Quoted::<200>::new(error))))
    }

    /// Finds the fields of a value within a body, which is named `name`.
    ///
    /// # Errors
    /// If it is no object.
    pub fn of(name: &str, value: &'a RawValue, expected: &str) -> Result<Self, ApiError> {
        let fields: Self = read(name, value, expected, PhantomData).map_err(|error| {
            // An object all the same; serde_json has no other way to tell.
            let has_too_many = serde_json::from_str::<Self>(value.get()).is_err_and(|error| is_too_many(&error));
            if !has_too_many {
                return error;
            }
            let message = format!("{name} has more than {FIELDS_AT_MOST} fields, which no such object needs");
            ApiError::field(name, Code::InvalidValue, message)
        })?;
        Ok(Self { path: format!("{name}."), ..fields })
    }

    /// A field's name as errors say it.
    #[must_use]
    pub fn name(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    /// Takes a field as it is written; null is as good as none.
    pub fn take_raw(&mut self, field: &str) -> Option<&'a RawValue> {
        let mut value = None;
        self.values.retain(|(found, raw)| {
            let taken = found == field;
            if taken {
                value = Some(*raw);
            }
            !taken
        });
        value.filter(|value| value.get() != "null")
    }

    /// Takes a field; null is as good as none.
    ///
    /// # Errors
    /// If its type is wrong; `expected` says in words what it should be.
    pub fn take<T: Deserialize<'a>>(&mut self, field: &str, expected: &str) -> Result<Option<T>, ApiError> {
        self.take_with(field, expected, PhantomData)
    }

    /// Takes a field that is true or false; null is as good as none.
    ///
    /// # Errors
    /// If it is neither.
    pub fn take_bool(&mut self, field: &str) -> Result<Option<bool>, ApiError> {
        self.take(field, "true or false")
    }

    /// Takes a field whose reading depends on more than its type; null is as good as none.
    ///
    /// # Errors
    /// If its type is wrong; `expected` says in words what it should be.
    pub fn take_with<S: DeserializeSeed<'a>>(
        &mut self,
        field: &str,
        expected: &str,
        seed: S,
    ) -> Result<Option<S::Value>, ApiError> {
        let Some(value) = self.take_raw(field) else { return Ok(None) };
        read(&self.name(field), value, expected, seed).map(Some)
    }

    /// Takes a whole number, whole by value however it is written; null is as good as none.
    ///
    /// # Errors
    /// If it is none, or out of range.
    pub fn take_whole(&mut self, field: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take_raw(field) else { return Ok(None) };
        let code = match whole(value.get()) {
            Whole::Value(value) if range.contains(&value) => return Ok(Some(value)),
            Whole::Value(_) | Whole::Beyond => Code::InvalidValue,
            Whole::No => Code::InvalidType,
        };
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        Err(mismatch(&self.name(field), value, &expected, code))
    }

    /// Takes a number that `valid` says is within bounds; null is as good as none.
    ///
    /// # Errors
    /// If it is none, or out of bounds; `expected` says in words what it should be.
    pub fn take_number(
        &mut self,
        field: &str,
        expected: &str,
        valid: impl FnOnce(f64) -> bool,
    ) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take_raw(field) else { return Ok(None) };
        match real(value.get()) {
            Some(number) if valid(number) => Ok(Some(number)),
            Some(_) => Err(mismatch(&self.name(field), value, expected, Code::InvalidValue)),
            None => Err(mismatch(&self.name(field), value, expected, Code::InvalidType)),
        }
    }

    /// Checks what nobody took of a request: what says nothing passes, everything else is refused by name.
    ///
    /// # Errors
    /// If a field would change the result or is not known.
    pub fn finish(self, route: Route) -> Result<(), ApiError> {
        self.check_left(|name| rule(route, name), Code::UnknownParameter)
    }

    /// Checks what nobody took of an object within a request, of which these fields are known; of others only what says
    /// nothing passes.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_part(self, known: &[(&str, Rule)]) -> Result<(), ApiError> {
        let rule =
            |name: &str| known.iter().find(|(known, _)| *known == name).map_or(Some(BLANK), |&(_, rule)| Some(rule));
        self.check_left(rule, Code::UnsupportedParameter)
    }

    fn check_left(self, rule: impl Fn(&str) -> Option<Rule>, unknown: Code) -> Result<(), ApiError> {
        for (name, value) in &self.values {
            let rule = rule(name);
            if value.get() == "null" && (rule.is_some() || unknown == Code::UnsupportedParameter) {
                continue;
            }
            if matches!(rule, Some(Rule::Ignored)) || rule.is_some_and(|rule| passes(rule, value)) {
                continue;
            }
            let name = self.name(&shortened(name, 64));
            return Err(match rule {
                None | Some(Rule::Elsewhere | Rule::Read) if unknown == Code::UnknownParameter => {
                    ApiError::field(&name, unknown, format!("unknown parameter: {name}"))
                }
                _ => {
                    let message = format!("{name} is not supported; leave it out");
                    ApiError::field(&name, Code::UnsupportedParameter, message)
                }
            });
        }
        Ok(())
    }
}

fn is_too_many(error: &serde_json::Error) -> bool {
    error.to_string().starts_with(TOO_MANY)
}

/// Reads a value within a body, which is named `name`.
///
/// # Errors
/// If its type is wrong; `expected` says in words what it should be.
pub fn read<'a, S: DeserializeSeed<'a>>(
    name: &str,
    value: &'a RawValue,
    expected: &str,
    seed: S,
) -> Result<S::Value, ApiError> {
    let read = seed.deserialize(&mut serde_json::Deserializer::from_str(value.get()));
    read.map_err(|error| match error.classify() {
        Category::Data => mismatch(name, value, expected, Code::InvalidType),
        // Valid JSON all the same; serde_json has no other way to tell.
        _ if error.to_string().starts_with("number out of range") => {
            let most = f64::MAX;
            let message =
                format!("{name} has a number beyond {most:e}, the largest that is taken; write a smaller one");
            ApiError::field(name, Code::InvalidValue, message)
        }
        Category::Io | Category::Syntax | Category::Eof => {
            let message = format!("{name} is no valid JSON: {}", Quoted::<200>::new(error));
            ApiError::field(name, Code::InvalidJson, message)
        }
    })
}

/// A refusal of a value that is not what it should be.
pub fn mismatch(name: &str, value: &RawValue, expected: &str, code: Code) -> ApiError {
    let message = format!("{name} must be {expected}, not {}", Quoted::<64>::from(value.get()));
    ApiError::field(name, code, message)
}

fn passes(rule: Rule, value: &RawValue) -> bool {
    let short = value.get().len() <= NEUTRAL_BYTES;
    let value = short.then(|| serde_json::from_str::<Value>(value.get()).ok()).flatten();
    value.is_some_and(|value| rule.passes(&value))
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor(PhantomData))
    }
}

struct FieldsVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for FieldsVisitor<'a> {
    type Value = Fields<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            if fields.len() == FIELDS_AT_MOST {
                return Err(A::Error::custom(format_args!("{TOO_MANY} {FIELDS_AT_MOST} fields")));
            }
            fields.push(field);
        }
        Ok(Fields { path: String::new(), values: fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_counts_and_null_is_none() {
        let mut fields = Fields::parse(br#"{"n": 1, "sed": 3, "n": 2, "top_k": null}"#).unwrap();
        assert_eq!(fields.take_whole("n", 1..=9).unwrap(), Some(2));
        assert_eq!(fields.take_whole("n", 1..=9).unwrap(), None);
        assert_eq!(fields.take_whole("top_k", 1..=9).unwrap(), None);
        assert_eq!(fields.finish(Route::Chat).unwrap_err().message, "unknown parameter: sed");
    }

    #[test]
    fn half_a_character_and_endless_nesting_are_bad_json_of_their_field_not_of_a_wrong_type() {
        for value in [r#""\ud800""#.to_owned(), format!("{}{}", "[".repeat(200_000), "]".repeat(200_000))] {
            let body = format!(r#"{{"prompt": {value}}}"#);
            let error = Fields::parse(body.as_bytes()).unwrap().take::<Value>("prompt", "text").unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (Code::InvalidJson, Some("prompt")));
        }
    }

    #[test]
    fn more_fields_than_any_request_has_are_refused_before_they_are_kept() {
        let fields: Vec<String> = (0..=FIELDS_AT_MOST).map(|field| format!("\"f{field}\":0")).collect();
        let error = Fields::parse(format!("{{{}}}", fields.join(",")).as_bytes()).unwrap_err();
        assert!(error.message.contains("more than 256 fields"), "{error}");
        let object = format!("{{{}}}", fields.join(","));
        let error = Fields::of("messages[0]", serde_json::from_str(&object).unwrap(), "an object").unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (Code::InvalidValue, Some("messages[0]")));
        assert!(error.message.starts_with("messages[0] has more than 256 fields"), "{error}");
        let error = Fields::of("messages[0]", serde_json::from_str("5").unwrap(), "an object").unwrap_err();
        assert_eq!(error.message, "messages[0] must be an object, not 5");
    }
}
