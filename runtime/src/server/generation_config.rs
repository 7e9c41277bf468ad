//! `generation_config.json`: which tokens end an answer, and how tokens are chosen where a request does not say.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::served::SamplingDefaults;

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

#[derive(Default, Deserialize)]
pub(super) struct GenerationConfig {
    pub eos_token_id: Option<OneOrMore>,
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl GenerationConfig {
    /// A checkpoint that says it is not sampled from is greedy unless a request says otherwise.
    pub fn defaults(&self) -> SamplingDefaults {
        SamplingDefaults {
            temperature: if self.do_sample == Some(false) { 0.0 } else { self.temperature.unwrap_or(1.0) },
            top_p: self.top_p.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(0),
        }
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
        self.rest.iter().map(|(key, value)| (key.as_str(), value)).filter(has_no_effect).collect()
    }
}

/// A token, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

impl OneOrMore {
    pub fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(token) => vec![token],
            Self::More(tokens) => tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> GenerationConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_request_that_does_not_say_is_sampled_as_the_checkpoint_says() {
        let sampled = config(r#"{"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20}"#).defaults();
        assert_eq!(sampled, SamplingDefaults { temperature: 0.7, top_p: 0.8, top_k: 20 });
        let greedy = config(r#"{"do_sample": false, "temperature": 0.7}"#).defaults();
        assert_eq!(greedy, SamplingDefaults { temperature: 0.0, top_p: 1.0, top_k: 0 });
    }

    #[test]
    fn what_has_no_effect_here_is_named() {
        let coder = config(
            r#"{"pad_token_id": 1, "temperature": 0.7, "repetition_penalty": 1.05, "min_p": 0.0, "typical_p": 1,
                "bad_words_ids": null, "suppress_tokens": [], "forced_eos_token_id": 7, "transformers_version": "4.51.0"}"#,
        );
        let named: Vec<_> = coder.without_effect().into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(named, ["forced_eos_token_id 7", "repetition_penalty 1.05"]);
    }
}
