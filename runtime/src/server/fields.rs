//! The fields of a request's body, taken one by one so that an error names the one at fault and none is ignored.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::{ApiError, Code};

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

/// What a body holds and no one has taken yet.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map(Self).map_err(|error| {
            let message = format!("the request body is not a JSON object: {error}");
            ApiError::other(StatusCode::BAD_REQUEST, Code::InvalidJson, message)
        })
    }

    /// Takes a field; null is as good as none.
    ///
    /// # Errors
    /// If its type is wrong; `expected` says in words what it should be.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|_| {
                let message = format!("{name} must be {expected}, not {}", shortened(&value));
                ApiError::field(name, Code::InvalidType, message)
            }),
        }
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
        T: DeserializeOwned + std::fmt::Display,
    {
        match self.take::<T>(name, expected)? {
            Some(value) if !valid(&value) => {
                let message = format!("{name} must be {expected}, not {value}");
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
                Some((_, neutral)) if value.is_null() || neutral.contains(value) => {}
                Some(_) => {
                    let message = format!("{name} is not supported; leave it out");
                    return Err(ApiError::field(name, Code::UnsupportedParameter, message));
                }
                None => {
                    return Err(ApiError::field(name, Code::UnknownParameter, format!("unknown parameter: {name}")));
                }
            }
        }
        Ok(())
    }
}

/// A value as an error shows it: whole if it is short.
fn shortened(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= LONGEST { text } else { text.chars().take(LONGEST).chain("...".chars()).collect() }
}
