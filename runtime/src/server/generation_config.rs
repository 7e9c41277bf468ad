//! `generation_config.json`: which tokens end an answer, and how tokens are chosen where a request does not say. A value
//! is judged as a request's field of the same name is; what a request may not have is refused here too, by name.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

use super::fields::{Whole, real, whole};
use super::served::SamplingDefaults;
use crate::quoted::Quoted;

/// The file.
pub(super) const FILE: &str = "generation_config.json";
/// Tokens that end an answer.
pub(super) const END: &str = "eos_token_id";

/// A value that no request may have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key} of {file} must be {expected}, not {value}; mend it or leave it out")]
pub struct WrongSetting {
    /// The file.
    pub file: &'static str,
    /// The key.
    pub key: &'static str,
    /// What it should be.
    pub expected: &'static str,
    /// What it is, shortened.
    pub value: String,
}

/// Keys that choose no other token, at any value.
const HARMLESS: &[&str] = &[
    "_from_model_config",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "decoder_start_token_id",
    "max_length",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "return_dict_in_generate",
    "transformers_version",
    "use_cache",
];

/// Keys that choose no other token at one value.
const NEUTRAL: &[(&str, f64)] = &[
    ("diversity_penalty", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("length_penalty", 1.0),
    ("min_length", 0.0),
    ("min_p", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("num_beam_groups", 1.0),
    ("num_beams", 1.0),
    ("repetition_penalty", 1.0),
    ("typical_p", 1.0),
];

/// Keys that are read.
const READ: &[&str] = &["do_sample", "temperature", "top_k", "top_p", END];

/// What the file says.
#[derive(Debug)]
pub(super) struct GenerationConfig {
    /// How tokens are chosen where a request does not say.
    pub defaults: SamplingDefaults,
    /// Tokens that end an answer; `None` if it does not say.
    pub ends: Option<EndTokens>,
    rest: Vec<(String, Value)>,
}

impl GenerationConfig {
    /// Reads the file's members. A checkpoint that says it is not sampled from is greedy unless a request says otherwise.
    ///
    /// # Errors
    /// If a value is none that a request may have.
    pub fn new(settings: &Map<String, Value>) -> Result<Self, WrongSetting> {
        let sampled = match settings.get("do_sample") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(sampled)) => *sampled,
            Some(other) => return Err(wrong(FILE, "do_sample", "true or false", other)),
        };
        let temperature =
            number(settings, "temperature", "a number from 0 to 2", |value| (0.0..=2.0).contains(&value))?;
        let top_p = number(settings, "top_p", "a number above 0 and at most 1", |value| value > 0.0 && value <= 1.0)?;
        let defaults = SamplingDefaults {
            temperature: if sampled { temperature.unwrap_or(1.0) as f32 } else { 0.0 },
            top_p: top_p.unwrap_or(1.0) as f32,
            top_k: top_k(settings)?,
        };
        let rest = settings.iter().filter(|(key, _)| !READ.contains(&key.as_str()));
        let rest = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Self { defaults, ends: EndTokens::of(FILE, settings)?, rest })
    }

    /// What it says that would choose other tokens elsewhere and has no effect here.
    pub fn without_effect(&self) -> Vec<(&str, &Value)> {
        let neutral = |key: &str, value: &Value| {
            let listed = NEUTRAL.iter().find(|(name, _)| *name == key);
            listed.is_some_and(|(_, neutral)| value.as_f64().is_some_and(|value| (value - neutral).abs() < 1e-9))
        };
        let says_nothing = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(values) => values.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
        };
        let has_no_effect =
            |(key, value): &(&str, &Value)| !says_nothing(value) && !HARMLESS.contains(key) && !neutral(key, value);
        let mut left: Vec<_> =
            self.rest.iter().map(|(key, value)| (key.as_str(), value)).filter(has_no_effect).collect();
        left.sort_by_key(|(key, _)| *key);
        left
    }
}

/// Tokens that end an answer, as a file lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EndTokens {
    pub tokens: BTreeSet<u32>,
    /// Numbers that no token has: transformers goes on without them, and so does this.
    pub ignored: Vec<i64>,
}

impl EndTokens {
    /// Reads `eos_token_id` of a file; `None` if it has none.
    ///
    /// # Errors
    /// If it is neither a token nor a list of tokens.
    pub fn of(file: &'static str, settings: &Map<String, Value>) -> Result<Option<Self>, WrongSetting> {
        const EXPECTED: &str = "the number of a token, or a list of them";
        let listed = match settings.get(END) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(listed)) => listed.iter().collect(),
            Some(one) => vec![one],
        };
        let mut ends = Self::default();
        for value in listed {
            match whole(&value.to_string()) {
                Whole::Value(token @ ..0) => ends.ignored.push(token),
                Whole::Value(token) if u32::try_from(token).is_ok() => {
                    ends.tokens.insert(token as u32);
                }
                _ => return Err(wrong(file, END, EXPECTED, value)),
            }
        }
        Ok(Some(ends))
    }

    /// The same for a vocabulary of so many tokens.
    pub fn within(self, vocab_size: usize) -> Self {
        let (tokens, beyond): (_, BTreeSet<u32>) =
            self.tokens.into_iter().partition(|&token| (token as usize) < vocab_size);
        let ignored = self.ignored.into_iter().chain(beyond.into_iter().map(i64::from)).collect();
        Self { tokens, ignored }
    }
}

fn number(
    settings: &Map<String, Value>,
    key: &'static str,
    expected: &'static str,
    valid: impl Fn(f64) -> bool,
) -> Result<Option<f64>, WrongSetting> {
    match settings.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match real(&value.to_string()).filter(|value| valid(*value)) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(FILE, key, expected, value)),
        },
    }
}

/// 0 and -1 are no bound.
fn top_k(settings: &Map<String, Value>) -> Result<u32, WrongSetting> {
    match settings.get("top_k") {
        None | Some(Value::Null) => Ok(0),
        Some(value) => match whole(&value.to_string()) {
            Whole::Value(top_k) if (-1..=u32::MAX.into()).contains(&top_k) => Ok(u32::try_from(top_k).unwrap_or(0)),
            _ => Err(wrong(FILE, "top_k", "a whole number from -1 to 4294967295", value)),
        },
    }
}

fn wrong(file: &'static str, key: &'static str, expected: &'static str, value: &Value) -> WrongSetting {
    WrongSetting { file, key, expected, value: Quoted::<64>::new(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::json;

    fn read(json: &str) -> Result<GenerationConfig, WrongSetting> {
        let Value::Object(settings) = json::parse(json.as_bytes()).unwrap().value else { unreachable!("{json}") };
        GenerationConfig::new(&settings)
    }

    #[test]
    fn a_request_that_does_not_say_is_sampled_as_the_checkpoint_says() {
        let sampled = read(r#"{"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20}"#).unwrap().defaults;
        assert_eq!(sampled, SamplingDefaults { temperature: 0.7, top_p: 0.8, top_k: 20 });
        let greedy = read(r#"{"do_sample": false, "temperature": 0.7}"#).unwrap().defaults;
        assert_eq!(greedy, SamplingDefaults { temperature: 0.0, top_p: 1.0, top_k: 0 });
    }

    #[test]
    fn values_are_judged_as_those_of_requests() {
        for (json, top_k) in [
            ("{\"top_k\": 20.0}", 20),
            ("\u{feff}{\"top_k\": 2e1}", 20),
            ("{\"top_k\": -1, \"temperature\": 1, \"top_p\": null}", 0),
            ("{\"top_k\": 0, \"do_sample\": null}", 0),
        ] {
            assert_eq!(read(json).unwrap().defaults.top_k, top_k, "{json}");
        }
        for (json, key) in [
            (r#"{"top_k": 20.5}"#, "top_k"),
            (r#"{"top_k": "20"}"#, "top_k"),
            (r#"{"top_k": true}"#, "top_k"),
            (r#"{"top_k": -2}"#, "top_k"),
            (r#"{"top_k": 1e300}"#, "top_k"),
            (r#"{"temperature": -0.5}"#, "temperature"),
            (r#"{"temperature": Infinity}"#, "temperature"),
            (r#"{"temperature": 2.5}"#, "temperature"),
            (r#"{"temperature": [1]}"#, "temperature"),
            (r#"{"top_p": 0}"#, "top_p"),
            (r#"{"top_p": NaN}"#, "top_p"),
            (r#"{"top_p": 1.1}"#, "top_p"),
            (r#"{"do_sample": 1}"#, "do_sample"),
            (r#"{"eos_token_id": "<|im_end|>"}"#, "eos_token_id"),
            (r#"{"eos_token_id": [1, null]}"#, "eos_token_id"),
            (r#"{"eos_token_id": [1.5]}"#, "eos_token_id"),
            (r#"{"eos_token_id": 4294967296}"#, "eos_token_id"),
            (r#"{"eos_token_id": {"a": 1}}"#, "eos_token_id"),
        ] {
            let error = read(json).unwrap_err();
            assert_eq!(error.key, key, "{json}");
            assert!(error.to_string().starts_with(&format!("{key} of generation_config.json must be ")), "{error}");
        }
        let long = format!(r#"{{"top_k": "{}"}}"#, "x".repeat(5000));
        assert!(read(&long).unwrap_err().to_string().chars().count() <= 300);
    }

    #[test]
    fn numbers_that_no_token_has_end_nothing() {
        let ends = |json: &str| read(json).unwrap().ends;
        assert_eq!(ends("{}"), None);
        assert_eq!(ends(r#"{"eos_token_id": null}"#), None);
        assert_eq!(ends(r#"{"eos_token_id": []}"#), Some(EndTokens::default()));
        let some = |tokens: &[u32], ignored: &[i64]| {
            Some(EndTokens { tokens: tokens.iter().copied().collect(), ignored: ignored.to_vec() })
        };
        assert_eq!(ends(r#"{"eos_token_id": -1}"#), some(&[], &[-1]));
        assert_eq!(ends(r#"{"eos_token_id": [7, 5.0, 7, -1]}"#), some(&[5, 7], &[-1]));
    }

    #[test]
    fn what_has_no_effect_here_is_named() {
        let coder = read(
            r#"{"pad_token_id": 1, "temperature": 0.7, "repetition_penalty": 1.05, "min_p": 0.0, "typical_p": 1,
                "bad_words_ids": null, "suppress_tokens": [], "forced_eos_token_id": 7, "transformers_version": "4.51.0"}"#,
        )
        .unwrap();
        let named: Vec<_> = coder.without_effect().into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(named, ["forced_eos_token_id 7", "repetition_penalty 1.05"]);
    }
}
