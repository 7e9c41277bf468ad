//! The fields that both generating routes share: how tokens are chosen, when a choice ends, how it is answered.

use super::error::{ApiError, Code};
use super::fields::Fields;
use super::served::SamplingDefaults;
use super::text::StopStrings;
use crate::draws::mix;
use crate::protocol::Sampling;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// The most choices of one prompt.
pub const CHOICES_AT_MOST: u32 = 128;
/// The most stop strings.
pub const STOPS_AT_MOST: usize = 16;
/// The most bytes of one stop string: what an answer could end with is held back until it is sure that it does not.
pub const STOP_BYTES_AT_MOST: usize = 1024;
/// The most tokens reported beside each one.
pub const TOP_LOGPROBS_AT_MOST: u32 = 20;
/// The most bytes of a name that a request gives itself.
pub const REQUEST_ID_BYTES_AT_MOST: usize = 128;

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
    /// The name that the request gave itself, which becomes part of the answer's.
    pub request_id: Option<String>,
}

/// How the answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// All of it is sent at once, when it is complete.
    No,
    /// Each part of it is sent as it is made.
    Yes(StreamUsage),
}

/// Where a stream tells the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamUsage {
    /// It is not reported.
    No,
    /// It is in a last chunk.
    AtEnd,
    /// It is in every chunk, that of its choice so far, and in a last one.
    InEachChunk,
}

impl Options {
    /// Takes the fields. `seed` is used where the request gives none.
    ///
    /// # Errors
    /// If one is of a wrong type or out of range.
    pub fn take(fields: &mut Fields<'_>, defaults: SamplingDefaults, seed: u64) -> Result<Self, ApiError> {
        let choices = fields.take_whole("n", 1..=CHOICES_AT_MOST.into())?.map_or(1, |choices| choices as u32);
        let temperature =
            fields.take_number("temperature", "a number from 0 to 2", |value| (0.0..=2.0).contains(&value))?;
        let top_p =
            fields.take_number("top_p", "a number above 0 and at most 1", |value| value > 0.0 && value <= 1.0)?;
        // 0 and -1 are no bound.
        let top_k = fields.take_whole("top_k", -1..=u32::MAX.into())?;
        let seed = fields.take_whole("seed", i64::MIN..=i64::MAX)?.map_or(seed, i64::cast_unsigned);
        let ignore_eos = fields.take_bool("ignore_eos")?.unwrap_or(false);
        let sampling = Sampling {
            temperature: temperature.map_or(defaults.temperature, |value| value as f32),
            top_p: top_p.map_or(defaults.top_p, |value| value as f32),
            top_k: top_k.map_or(defaults.top_k, |value| u32::try_from(value).unwrap_or(0)),
            seed,
            logprob: false,
        };
        let (stops, stream) = (take_stops(fields)?, take_stream(fields)?);
        Ok(Self { choices, sampling, stops, ignore_eos, stream, request_id: take_request_id(fields)? })
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

fn take_request_id(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    let expected = format!("1 to {REQUEST_ID_BYTES_AT_MOST} visible ASCII characters");
    match fields.take::<String>("request_id", &expected)? {
        Some(id)
            if id.is_empty()
                || id.len() > REQUEST_ID_BYTES_AT_MOST
                || !id.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            let message = format!("request_id must be {expected}");
            Err(ApiError::field("request_id", Code::InvalidValue, message))
        }
        id => Ok(id),
    }
}

/// Stop strings as a request has them; of more than any may have, the first ones.
struct Stops {
    strings: Vec<String>,
    count: usize,
}

fn take_stops(fields: &mut Fields<'_>) -> Result<StopStrings, ApiError> {
    let Some(Stops { strings, count }) = fields.take("stop", "a string or a list of strings")? else {
        return Ok(StopStrings::default());
    };
    let refuse = |message: String| Err(ApiError::field("stop", Code::InvalidValue, message));
    if count > STOPS_AT_MOST {
        return refuse(format!("stop has {count} strings, at most {STOPS_AT_MOST} are taken"));
    }
    if strings.iter().any(String::is_empty) {
        return refuse("stop has an empty string, which every text begins with".to_owned());
    }
    match strings.iter().map(String::len).max() {
        Some(longest) if longest > STOP_BYTES_AT_MOST => {
            refuse(format!("stop has a string of {longest} bytes, at most {STOP_BYTES_AT_MOST} are taken"))
        }
        _ => Ok(StopStrings::new(strings)),
    }
}

impl<'de> Deserialize<'de> for Stops {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Stops;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, string: &str) -> Result<Stops, E> {
                Ok(Stops { strings: vec![string.to_owned()], count: 1 })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Stops, A::Error> {
                let mut stops = Stops { strings: Vec::new(), count: 0 };
                while let Some(string) = list.next_element::<String>()? {
                    stops.count += 1;
                    if stops.strings.len() < STOPS_AT_MOST {
                        stops.strings.push(string);
                    }
                }
                Ok(stops)
            }
        }
        deserializer.deserialize_any(Strings)
    }
}

fn take_stream(fields: &mut Fields<'_>) -> Result<Stream, ApiError> {
    let stream = fields.take_bool("stream")?.unwrap_or(false);
    let mut usage = StreamUsage::No;
    if let Some(options) = fields.take_raw("stream_options") {
        let mut options = Fields::of("stream_options", options, "an object")?;
        // Random padding that OpenAI's own server can add; never added here.
        options.take_bool("include_obfuscation")?;
        let in_each_chunk = options.take_bool("continuous_usage_stats")?.unwrap_or(false);
        if options.take_bool("include_usage")?.unwrap_or(false) {
            usage = if in_each_chunk { StreamUsage::InEachChunk } else { StreamUsage::AtEnd };
        }
        options.finish_part(&[])?;
    }
    match (stream, usage) {
        (true, usage) => Ok(Stream::Yes(usage)),
        (false, StreamUsage::No) => Ok(Stream::No),
        (false, StreamUsage::AtEnd | StreamUsage::InEachChunk) => {
            let message = "stream_options is only for stream = true".to_owned();
            Err(ApiError::field("stream_options", Code::InvalidValue, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_prompts_and_seeds_share_no_draws() {
        let seeds: std::collections::BTreeSet<u64> = (0..20)
            .flat_map(|seed| (0..20).flat_map(move |prompt| (0..20).map(move |choice| seed_of(seed, prompt, choice))))
            .collect();
        assert_eq!(seeds.len(), 8000);
        assert_eq!(seed_of(7, 1, 2), seed_of(7, 1, 2));
        assert_eq!(seed_of(u64::MAX, u32::MAX, u32::MAX), seed_of(u64::MAX, u32::MAX, u32::MAX));
    }

    #[test]
    fn of_more_stop_strings_than_are_taken_none_is_kept() {
        let many = format!("[{}]", vec!["\"a\""; 10_000].join(","));
        let stops: Stops = serde_json::from_str(&many).unwrap();
        assert_eq!((stops.strings.len(), stops.count), (STOPS_AT_MOST, 10_000));
    }
}
