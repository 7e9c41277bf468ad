//! What the operations guide lists is what `/metrics` has, and what the page of the API says of fields and limits is so.

use crate::coordinator::handle::{UNREAD_BYTES, UNREAD_IN_ALL};
use crate::scheduler::{LOSSES_IN_A_ROW, LOSSES_IN_ALL};
use crate::server::answers::{LARGEST_AT_ONCE, LEAST_ROOM};
use crate::server::bounds::SCORES_AT_MOST;
use crate::server::chat::TEMPLATE_ARGUMENT_BYTES_AT_MOST;
use crate::server::completions::PROMPTS_AT_MOST;
use crate::server::fields::FIELDS_AT_MOST;
use crate::server::fields::known::{BLANK, KNOWN, OF_MESSAGES, OF_PARTS, Rule};
use crate::server::options::{
    CHOICES_AT_MOST, REQUEST_ID_BYTES_AT_MOST, STOP_BYTES_AT_MOST, STOPS_AT_MOST, TOP_LOGPROBS_AT_MOST,
};
use crate::server::scores::Scores;
use crate::server::written::PIECE;

const PAGE: &str = include_str!("../../../../docs/operations.md");
const API: &str = include_str!("../../../../docs/api.md");
const LIMITS: &str = include_str!("../../../../docs/limits.md");
const COORDINATOR: &[&str] = &[
    include_str!("../../coordinator/metrics.rs"),
    include_str!("../../coordinator/metrics/moving.rs"),
    include_str!("../../coordinator/metrics/scraped.rs"),
    include_str!("../metrics.rs"),
    include_str!("../../experts/recorder.rs"),
    include_str!("../../process_metrics.rs"),
];
const RANK: &[&str] = &[include_str!("../../worker/metrics.rs"), include_str!("../../process_metrics.rs")];

/// Names in the table whose first heading is `heading`.
fn listed(heading: &str) -> Vec<&'static str> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with(&format!("| {heading} |"))).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let mut names: Vec<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    names.sort_unstable();
    names
}

/// Names that the code registers, its tests aside.
fn registered(sources: &[&'static str]) -> Vec<&'static str> {
    let code = sources.iter().map(|source| source.split("#[cfg(test)]").next().unwrap_or_default());
    let is_name = |text: &&str| {
        ["swiftbalancer_", "expert_load", "ttft_", "tpot_", "gpu_"].iter().any(|start| text.starts_with(start))
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut names: Vec<_> = code.flat_map(|code| code.split('"')).filter(is_name).collect();
    names.sort_unstable();
    names
}

#[test]
fn every_metric_is_listed_once() {
    for (heading, sources) in [("metric of coordinators", COORDINATOR), ("metric of ranks", RANK)] {
        let registered = registered(sources);
        assert!(registered.len() > 5, "{registered:?}");
        assert_eq!(listed(heading), registered, "{heading}");
    }
}

/// The cells of each row of the table of the API's page whose first heading is `heading`.
fn rows_of(heading: &str) -> Vec<Vec<&'static str>> {
    let rows = API.lines().skip_while(|line| !line.starts_with(&format!("| {heading} |"))).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// A rule in the page's words.
fn words(rule: Rule) -> String {
    match rule {
        Rule::Read => "read".to_owned(),
        Rule::Ignored => "any value".to_owned(),
        Rule::Elsewhere => "no such field".to_owned(),
        Rule::Neutral(values) => {
            let values = std::iter::once(&"null").chain(values).map(|value| format!("`{value}`"));
            values.collect::<Vec<_>>().join(", ")
        }
        Rule::Members(values) => {
            let members = values.iter().map(|value| format!(", members `{value}`"));
            ["`null`, `{}`".to_owned()].into_iter().chain(members).collect()
        }
    }
}

#[test]
fn the_page_of_the_api_lists_every_field_with_what_is_done_with_it() {
    let listed: Vec<String> = rows_of("field").iter().map(|cells| cells[..3].join(" | ")).collect();
    let known =
        KNOWN.iter().map(|(name, chat, completions)| format!("`{name}` | {} | {}", words(*chat), words(*completions)));
    assert_eq!(listed, known.collect::<Vec<_>>());
    for (heading, known) in [("field of a message", OF_MESSAGES), ("field of a text part", OF_PARTS)] {
        let listed: Vec<String> = rows_of(heading).iter().map(|cells| cells.join(" | ")).collect();
        let known: Vec<String> = known.iter().map(|(name, rule)| format!("`{name}` | {}", words(*rule))).collect();
        assert_eq!(listed, known);
    }
}

#[test]
fn the_page_of_the_api_tells_the_limits() {
    let limits: Vec<String> = rows_of("what").iter().map(|cells| cells[1].to_owned()).collect();
    let expected = [
        PROMPTS_AT_MOST.to_string(),
        "the context's tokens".to_owned(),
        CHOICES_AT_MOST.to_string(),
        "`--max-queued-requests`".to_owned(),
        format!("{SCORES_AT_MOST}, or context x {} if that is more", 1 + TOP_LOGPROBS_AT_MOST),
        STOPS_AT_MOST.to_string(),
        STOP_BYTES_AT_MOST.to_string(),
        TOP_LOGPROBS_AT_MOST.to_string(),
        FIELDS_AT_MOST.to_string(),
        TEMPLATE_ARGUMENT_BYTES_AT_MOST.to_string(),
        REQUEST_ID_BYTES_AT_MOST.to_string(),
    ];
    assert_eq!(limits, expected);
    for words in [
        format!(
            "ranks were lost {LOSSES_IN_A_ROW} times in a row without a token in between, or {LOSSES_IN_ALL} times"
        ),
        format!("`n`, 1 to {CHOICES_AT_MOST}").replace("`n`, ", "choices of each prompt, "),
        format!("best tokens beside each, 0 to {TOP_LOGPROBS_AT_MOST}"),
        format!("1 to {REQUEST_ID_BYTES_AT_MOST} visible ASCII characters"),
        format!("passes where it says nothing: {}.", words(BLANK)),
    ] {
        assert!(API.contains(&words), "{words}");
    }
}

#[test]
fn the_page_of_limits_tells_the_room_for_answers() {
    let (room, token) = (LEAST_ROOM >> 20, Scores::bytes_of(1, 0));
    let best = Scores::bytes_of(1, 1) - token;
    for words in [
        format!("{token} bytes of each token with a log-probability, {best} of each best token beside it"),
        format!("| {} MiB of a request, shared by its choices", UNREAD_BYTES >> 20),
        format!("| what waits to be read of all answers together | {} MiB |", UNREAD_IN_ALL >> 20),
        format!("| {room} MiB, or {LARGEST_AT_ONCE} of the largest answers if that is more |"),
        format!("is written while it is read, {} KiB at a time", PIECE >> 10),
    ] {
        assert!(LIMITS.contains(&words), "{words}");
    }
}
