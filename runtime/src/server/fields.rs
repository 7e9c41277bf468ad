//! The fields of a request's body, taken one by one so that an error names the one at fault and none is ignored.

use std::fmt;
use std::marker::PhantomData;

use axum::http::StatusCode;
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::{ApiError, Code};
use crate::quoted::{Quoted, shortened};

/// Fields that say nothing about the result.
const HARMLESS: [&str; 9] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "verbosity",
];

/// Fields that other servers know and that would change the result. Each with the values, beside null, that would not.
fn unsupported() -> [(&'static str, Vec<Value>); 26] {
    [
        ("suffix", vec![json!("")]),
        ("presence_penalty", vec![json!(0), json!(0.0)]),
        ("frequency_penalty", vec![json!(0), json!(0.0)]),
        ("repetition_penalty", vec![json!(1), json!(1.0)]),
        ("length_penalty", vec![json!(1), json!(1.0)]),
        ("min_p", vec![json!(0), json!(0.0)]),
        ("min_tokens", vec![json!(0)]),
        ("logit_bias", vec![json!({})]),
        ("use_beam_search", vec![json!(false)]),
        ("stop_token_ids", vec![json!([])]),
        ("bad_words", vec![json!([])]),
        ("include_stop_str_in_output", vec![json!(false)]),
        ("skip_special_tokens", vec![json!(true)]),
        ("add_special_tokens", vec![]),
        ("continue_final_message", vec![json!(false)]),
        ("prompt_logprobs", vec![]),
        ("tools", vec![json!([])]),
        ("tool_choice", vec![json!("none"), json!("auto")]),
        ("functions", vec![json!([])]),
        ("function_call", vec![json!("none"), json!("auto")]),
        ("response_format", vec![json!({"type": "text"})]),
        ("guided_json", vec![]),
        ("structured_outputs", vec![]),
        ("modalities", vec![json!(["text"])]),
        ("reasoning_effort", vec![json!("none")]),
        ("web_search_options", vec![]),
    ]
}

/// Fields that one body may have: more than all that have a meaning.
const FIELDS_AT_MOST: usize = 256;

/// Bytes of the longest neutral value; what is longer is none and is not looked at.
const NEUTRAL_BYTES: usize = 64;

/// What a body holds and no one has taken yet. Values are slices of the body until they are taken, so that each is read
/// once, straight into its type.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Finds the fields of a body. Where a name is there twice, the last one counts.
    ///
    /// # Errors
    /// If it is no JSON object, or has more fields than any request.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let refuse = |message| ApiError::other(StatusCode::BAD_REQUEST, Code::InvalidJson, message);
        serde_json::from_slice(body)
            .map_err(|error| refuse(format!("the request body is not a JSON object: {}", Quoted::<200>::new(error))))
    }

    /// Takes a field as it is written; null is as good as none.
    pub fn take_raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let mut value = None;
        self.0.retain(|(found, raw)| {
            let taken = found == name;
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
    pub fn take<T: Deserialize<'a>>(&mut self, name: &str, expected: &str) -> Result<Option<T>, ApiError> {
        self.take_with(name, expected, PhantomData)
    }

    /// Takes a field whose reading depends on more than its type; null is as good as none.
    ///
    /// # Errors
    /// If its type is wrong; `expected` says in words what it should be.
    pub fn take_with<S: DeserializeSeed<'a>>(
        &mut self,
        name: &str,
        expected: &str,
        seed: S,
    ) -> Result<Option<S::Value>, ApiError> {
        let Some(value) = self.take_raw(name) else { return Ok(None) };
        let read = seed.deserialize(&mut serde_json::Deserializer::from_str(value.get()));
        read.map(Some).map_err(|error| {
            let message = match error.classify() {
                Category::Data => format!("{name} must be {expected}, not {}", Quoted::<64>::from(value.get())),
                Category::Io | Category::Syntax | Category::Eof => {
                    let message = format!("{name} is no valid JSON: {}", Quoted::<200>::new(error));
                    return ApiError::field(name, Code::InvalidJson, message);
                }
            };
            ApiError::field(name, Code::InvalidType, message)
        })
    }

    /// Takes a field that has to be within bounds.
    ///
    /// # Errors
    /// If its type is wrong or `valid` does not hold; `expected` says in words what it should be.
    pub fn take_valid<T>(
        &mut self,
        name: &str,
        expected: &str,
        valid: impl FnOnce(&T) -> bool,
    ) -> Result<Option<T>, ApiError>
    where
        T: Deserialize<'a> + std::fmt::Display,
    {
        match self.take::<T>(name, expected)? {
            Some(value) if !valid(&value) => {
                let message = format!("{name} must be {expected}, not {}", Quoted::<64>::new(value));
                Err(ApiError::field(name, Code::InvalidValue, message))
            }
            value => Ok(value),
        }
    }

    /// Checks what nobody took: harmless and neutral values pass, everything else is refused by name.
    ///
    /// # Errors
    /// If a field would change the result or is not known.
    pub fn finish(self) -> Result<(), ApiError> {
        let unsupported = unsupported();
        for (name, value) in &self.0 {
            if HARMLESS.contains(&name.as_str()) {
                continue;
            }
            match unsupported.iter().find(|(known, _)| known == name) {
                Some((_, neutral)) if is_neutral(value, neutral) => {}
                Some(_) => {
                    let message = format!("{name} is not supported; leave it out");
                    return Err(ApiError::field(name, Code::UnsupportedParameter, message));
                }
                None => {
                    let name = shortened(name, 64);
                    return Err(ApiError::field(&name, Code::UnknownParameter, format!("unknown parameter: {name}")));
                }
            }
        }
        Ok(())
    }
}

fn is_neutral(value: &RawValue, neutral: &[Value]) -> bool {
    let short = value.get().len() <= NEUTRAL_BYTES;
    let value = short.then(|| serde_json::from_str::<Value>(value.get()).ok()).flatten();
    value.is_some_and(|value| value.is_null() || neutral.contains(&value))
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
                return Err(A::Error::custom(format_args!("it has more than {FIELDS_AT_MOST} fields")));
            }
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_counts_and_null_is_none() {
        let mut fields = Fields::parse(br#"{"n": 1, "seed": 3, "n": 2, "top_k": null}"#).unwrap();
        assert_eq!(fields.take::<u32>("n", "a number").unwrap(), Some(2));
        assert_eq!(fields.take::<u32>("n", "a number").unwrap(), None);
        assert_eq!(fields.take::<u32>("top_k", "a number").unwrap(), None);
        assert_eq!(fields.finish().unwrap_err().message, "unknown parameter: seed");
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
    }
}
