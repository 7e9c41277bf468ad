//! Every field of OpenAI's and vLLM's protocols for the routes that generate, and what is done with it. docs/api.md shows
//! the same list; a test compares them.

use serde_json::Value;

use crate::server::Route;

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is read.
    Read,
    /// It says nothing about the answer and is left alone.
    Ignored,
    /// It would change the answer: it passes where it is null or one of these values, in JSON, and is refused otherwise.
    Neutral(&'static [&'static str]),
    /// The same for an object: it passes where each of its members is null or one of these values.
    Members(&'static [&'static str]),
    /// The other route reads it, and this one has no such field; null passes all the same, since it says nothing.
    Elsewhere,
}

use Rule::{Elsewhere, Ignored, Members, Neutral, Read};

/// A field's name, and what is done with it in chat completions and in completions.
type Known = (&'static str, Rule, Rule);

const fn both(name: &'static str, rule: Rule) -> Known {
    (name, rule, rule)
}

const NULL: Rule = Neutral(&[]);
const FALSE: Rule = Neutral(&["false"]);
const TRUE: Rule = Neutral(&["true"]);
const ZERO: Rule = Neutral(&["0"]);
const ONE: Rule = Neutral(&["1"]);
const EMPTY_TEXT: Rule = Neutral(&["\"\""]);
const EMPTY_LIST: Rule = Neutral(&["[]"]);
const EMPTY_OBJECT: Rule = Members(&[]);
/// What says nothing, whatever the field means: servers put many such fields into the messages that they answer.
pub const BLANK: Rule = Neutral(&["false", "\"\"", "[]", "{}"]);

/// In alphabetical order.
pub const KNOWN: &[Known] = &[
    both("add_generation_prompt", TRUE),
    both("add_special_tokens", Read),
    both("allowed_token_ids", NULL),
    both("audio", NULL),
    both("bad_words", EMPTY_LIST),
    ("best_of", ONE, Read),
    both("cache_salt", Ignored),
    both("chat_template", NULL),
    ("chat_template_kwargs", Read, Elsewhere),
    both("continue_final_message", FALSE),
    both("documents", EMPTY_LIST),
    both("early_stopping", FALSE),
    both("ec_transfer_params", EMPTY_OBJECT),
    ("echo", FALSE, Read),
    both("frequency_penalty", ZERO),
    both("function_call", Neutral(&["\"none\"", "\"auto\""])),
    both("functions", EMPTY_LIST),
    both("guided_choice", NULL),
    both("guided_decoding_backend", NULL),
    both("guided_grammar", NULL),
    both("guided_json", NULL),
    both("guided_regex", NULL),
    both("guided_whitespace_pattern", NULL),
    both("ignore_eos", Read),
    both("include_reasoning", TRUE),
    both("include_stop_str_in_output", FALSE),
    both("kv_transfer_params", EMPTY_OBJECT),
    both("length_penalty", ONE),
    both("logit_bias", Members(&["0"])),
    both("logits_processors", EMPTY_LIST),
    both("logprob_token_ids", EMPTY_LIST),
    both("logprobs", Read),
    ("max_completion_tokens", Read, Elsewhere),
    both("max_tokens", Read),
    both("media_io_kwargs", EMPTY_OBJECT),
    ("messages", Read, Elsewhere),
    both("metadata", Ignored),
    both("min_p", ZERO),
    both("min_tokens", ZERO),
    both("mm_payload", Ignored),
    both("mm_processor_kwargs", EMPTY_OBJECT),
    both("modalities", Neutral(&["[\"text\"]"])),
    both("model", Read),
    both("moderation", NULL),
    both("n", Read),
    both("parallel_tool_calls", Ignored),
    both("prediction", NULL),
    both("presence_penalty", ZERO),
    both("priority", ZERO),
    ("prompt", Elsewhere, Read),
    both("prompt_cache_key", Ignored),
    both("prompt_cache_options", Ignored),
    both("prompt_cache_retention", Ignored),
    both("prompt_embeds", EMPTY_LIST),
    both("prompt_logprobs", NULL),
    both("reasoning_effort", Neutral(&["\"none\""])),
    both("repetition_detection", NULL),
    both("repetition_penalty", ONE),
    both("request_id", Read),
    both("response_format", Neutral(&["{\"type\": \"text\"}"])),
    both("return_mm_kwargs", Ignored),
    both("return_prompt_text", FALSE),
    both("return_token_ids", FALSE),
    both("return_token_offsets", Ignored),
    both("return_tokens_as_token_ids", FALSE),
    both("return_weight_versions", FALSE),
    both("routed_experts_prompt_start", ZERO),
    both("safety_identifier", Ignored),
    both("seed", Read),
    both("service_tier", Ignored),
    both("session_id", Ignored),
    both("skip_special_tokens", TRUE),
    both("spaces_between_special_tokens", Ignored),
    both("stop", Read),
    both("stop_token_ids", EMPTY_LIST),
    both("store", Ignored),
    both("stream", Read),
    both("stream_interval", ONE),
    both("stream_options", Read),
    both("structural_tag", NULL),
    both("structured_outputs", Members(&["false"])),
    both("suffix", EMPTY_TEXT),
    both("temperature", Read),
    both("thinking_token_budget", Neutral(&["-1"])),
    both("tool_choice", Neutral(&["\"none\"", "\"auto\""])),
    both("tools", EMPTY_LIST),
    both("top_k", Read),
    ("top_logprobs", Read, Elsewhere),
    both("top_p", Read),
    both("truncate_prompt_tokens", NULL),
    both("truncation_side", Neutral(&["\"left\"", "\"right\""])),
    both("use_beam_search", FALSE),
    both("user", Ignored),
    both("verbosity", Neutral(&["\"medium\""])),
    both("vllm_xargs", EMPTY_OBJECT),
    both("watermarking", FALSE),
    both("web_search_options", NULL),
];

/// Fields of a message of a chat that are not read, and what is done with them: what says nothing has the field's own type.
/// Of any other nobody knows the type, and it is [`BLANK`].
pub const OF_MESSAGES: &[(&str, Rule)] = &[
    ("annotations", EMPTY_LIST),
    ("audio", EMPTY_OBJECT),
    ("citations", EMPTY_LIST),
    ("documents", EMPTY_LIST),
    ("function_call", EMPTY_OBJECT),
    ("images", EMPTY_LIST),
    ("partial", FALSE),
    ("prefix", FALSE),
    ("provider_specific_fields", EMPTY_OBJECT),
    ("reasoning_details", EMPTY_LIST),
    ("refusal", EMPTY_TEXT),
    ("thinking_blocks", EMPTY_LIST),
    ("tool_call_id", EMPTY_TEXT),
    ("tools", EMPTY_LIST),
    ("type", Neutral(&["\"\"", "\"text\"", "\"message\""])),
];

/// The same of a text part of a message.
pub const OF_PARTS: &[(&str, Rule)] = &[
    ("annotations", EMPTY_LIST),
    ("cache_control", Ignored),
    ("image_url", EMPTY_OBJECT),
    ("input_audio", EMPTY_OBJECT),
    ("logprobs", EMPTY_LIST),
    ("prompt_cache_breakpoint", Ignored),
    ("refusal", EMPTY_TEXT),
];

/// What a route does with a field of a request; `None` if neither protocol has it.
pub fn rule(route: Route, name: &str) -> Option<Rule> {
    let (_, chat, completions) = KNOWN.iter().find(|(known, ..)| *known == name)?;
    Some(match route {
        Route::Chat => *chat,
        Route::Completions => *completions,
    })
}

impl Rule {
    /// Whether a value may pass that nobody has read.
    pub fn passes(self, value: &Value) -> bool {
        match self {
            Ignored => true,
            Neutral(neutral) => is_one_of(value, neutral),
            Members(neutral) => match value {
                Value::Object(members) => members.values().all(|member| is_one_of(member, neutral)),
                value => value.is_null(),
            },
            Elsewhere | Read => value.is_null(),
        }
    }
}

fn is_one_of(value: &Value, neutral: &[&str]) -> bool {
    let is_same = |neutral: &&str| serde_json::from_str(neutral).is_ok_and(|neutral| same(value, &neutral));
    value.is_null() || neutral.iter().any(is_same)
}

/// Whether a value is a neutral one, numbers by value; members that are null are as good as none.
fn same(value: &Value, neutral: &Value) -> bool {
    match (value, neutral) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Object(members), Value::Object(expected)) => {
            let given = members.iter().filter(|(_, member)| !member.is_null());
            given.clone().count() == expected.len()
                && given.into_iter().all(|(name, member)| expected.get(name).is_some_and(|other| same(member, other)))
        }
        _ => value == neutral,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_listed_once_and_in_order() {
        assert!(KNOWN.is_sorted_by(|(one, ..), (other, ..)| one < other));
        assert!(OF_MESSAGES.is_sorted_by(|(one, _), (other, _)| one < other));
        assert!(OF_PARTS.is_sorted_by(|(one, _), (other, _)| one < other));
        for (name, chat, completions) in KNOWN {
            for rule in [chat, completions] {
                if let Neutral(values) | Members(values) = rule {
                    assert!(values.iter().all(|value| serde_json::from_str::<Value>(value).is_ok()), "{name}");
                }
            }
        }
    }

    #[test]
    fn neutral_is_a_value_and_not_how_it_is_written() {
        for value in [json!(0), json!(0.0), json!(-0.0), json!(null)] {
            assert!(ZERO.passes(&value), "{value}");
        }
        for value in [json!(1e-9), json!("0"), json!(false), json!([])] {
            assert!(!ZERO.passes(&value), "{value}");
        }
    }
}
