//! The fields that both generating routes share: how tokens are chosen, when a choice ends, how it is answered.

use serde::Deserialize;

use super::error::{ApiError, Code};
use super::fields::Fields;
use super::served::SamplingDefaults;
use super::text::StopStrings;
use crate::draws::mix;
use crate::protocol::Sampling;

/// The most choices of one prompt.
const CHOICES_AT_MOST: u32 = 128;
/// The most stop strings: each is searched for at each token.
const STOPS_AT_MOST: usize = 16;
/// The most tokens reported beside each one.
pub const TOP_LOGPROBS_AT_MOST: u32 = 20;

/// What a request says about generating, checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Choices of each prompt.
    pub choices: u32,
    /// How to choose tokens; the seed is the request's.
    pub sampling: Sampling,
    /// Strings that end a choice.
    pub stops: StopStrings,
    /// Whether the model's own end tokens do not end a choice.
    pub ignore_eos: bool,
    /// Whether and how to stream.
    pub stream: Stream,
}

/// How the answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// At once, when it is complete.
    No,
    /// As it grows.
    Yes {
        /// With a last chunk that holds the usage.
        include_usage: bool,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    include_usage: Option<bool>,
    /// Random padding that OpenAI's own server can add; never added here.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

impl Options {
    /// Takes the fields. `seed` is used where the request gives none.
    ///
    /// # Errors
    /// If one is of a wrong type or out of range.
    pub fn take(fields: &mut Fields, defaults: SamplingDefaults, seed: u64) -> Result<Self, ApiError> {
        let choices = fields
            .take_valid("n", &format!("a whole number from 1 to {CHOICES_AT_MOST}"), |n| {
                (1..=CHOICES_AT_MOST).contains(n)
            })?
            .unwrap_or(1);
        let temperature =
            fields.take_valid("temperature", "a number from 0 to 2", |value| (0.0..=2.0).contains(value))?;
        let top_p = fields
            .take_valid("top_p", "a number above 0 and at most 1", |&value| value > 0.0 && value <= 1.0)?
            .unwrap_or(defaults.top_p);
        let top_k = fields
            .take_valid("top_k", "a whole number from 1, or 0 or -1 for no bound", |&value: &i64| {
                (-1..=i64::from(u32::MAX)).contains(&value)
            })?
            .map_or(defaults.top_k, |value| u32::try_from(value).unwrap_or(0));
        let seed = fields.take::<i64>("seed", "a whole number")?.map_or(seed, i64::cast_unsigned);
        let ignore_eos = fields.take("ignore_eos", "true or false")?.unwrap_or(false);
        let sampling =
            Sampling { temperature: temperature.unwrap_or(defaults.temperature), top_p, top_k, seed, logprob: false };
        Ok(Self { choices, sampling, stops: take_stops(fields)?, ignore_eos, stream: take_stream(fields)? })
    }

    /// How the tokens of one choice of one prompt are chosen: by draws of their own.
    #[must_use]
    pub fn sampling_of(&self, prompt: u32, choice: u32, logprob: bool) -> Sampling {
        Sampling { seed: seed_of(self.sampling.seed, prompt, choice), logprob, ..self.sampling }
    }
}

/// The seed of one choice of one prompt, as good as drawn. Neighbouring seeds and places have nothing in common: the
/// second choice under one seed is not the first under the next.
fn seed_of(seed: u64, prompt: u32, choice: u32) -> u64 {
    [prompt, choice].into_iter().fold(seed, |seed, place| mix(mix(seed).wrapping_add(u64::from(place))))
}

fn take_stops(fields: &mut Fields) -> Result<StopStrings, ApiError> {
    let strings = match fields.take("stop", "a string or a list of strings")? {
        None => Vec::new(),
        Some(OneOrMore::One(string)) => vec![string],
        Some(OneOrMore::More(strings)) => strings,
    };
    if strings.len() > STOPS_AT_MOST {
        let message = format!("stop has {} strings, at most {STOPS_AT_MOST} are taken", strings.len());
        return Err(ApiError::field("stop", Code::InvalidValue, message));
    }
    if strings.iter().any(String::is_empty) {
        let message = "stop has an empty string, which every text begins with".to_owned();
        return Err(ApiError::field("stop", Code::InvalidValue, message));
    }
    Ok(StopStrings::new(strings))
}

fn take_stream(fields: &mut Fields) -> Result<Stream, ApiError> {
    let stream = fields.take("stream", "true or false")?.unwrap_or(false);
    let options = fields
        .take::<StreamOptions>("stream_options", "an object that has include_usage, true or false, or nothing")?;
    match (stream, options) {
        (false, Some(_)) => {
            let message = "stream_options is only for stream = true".to_owned();
            Err(ApiError::field("stream_options", Code::InvalidValue, message))
        }
        (false, None) => Ok(Stream::No),
        (true, options) => {
            let include_usage = options.and_then(|options| options.include_usage).unwrap_or(false);
            Ok(Stream::Yes { include_usage })
        }
    }
}
