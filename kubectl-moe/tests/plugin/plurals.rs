//! What is said of a number of things is right where there is one: each message of a program that puts a number before a
//! word for several things is found in the sources.

use std::fs;
use std::path::{Path, PathBuf};

use super::workspace;

/// What messages count.
const THINGS: &[&str] = &[
    "layers",
    "experts",
    "ranks",
    "slots",
    "windows",
    "nodes",
    "devices",
    "copies",
    "groups",
    "values",
    "rows",
    "steps",
    "files",
    "pages",
    "transactions",
    "iterations",
    "counts",
    "numbers",
    "tokens",
    "replicas",
    "bytes",
    "decisions",
    "sequences",
    "prompts",
    "choices",
    "messages",
    "heads",
    "blocks",
    "dimensions",
    "names",
    "pairs",
    "indices",
];

/// What says which of them.
const WHICH: &[&str] =
    &["MoE", "dense", "physical", "logical", "redundant", "router", "whole", "empty", "more", "staging"];

/// Numbers that are never 1, with why.
const NEVER_ONE: &[(&str, &str)] = &[
    ("{slots_per_rank} slots per rank are more than the", "experts, of which there is one at least"),
    ("{speed} bytes per second; it must be", "it is no positive number"),
    ("{most} bytes, as no coordinator does", "a bound of this program"),
    ("replaying {} windows under", "a replay has two at least"),
    ("any {some} ranks", "one rank has words of its own"),
    ("{found} experts; there are from 1 to", "it is none of these"),
    ("; there must be 1 to {", "it is none of these"),
    ("context length is {", "the words by which clients of other servers know it"),
    ("the model was made for {most} tokens", "one that was made for a single token answers nothing"),
    ("reports {bytes} bytes of one transaction", "pages are larger"),
    ("the KV cache holds {tokens} tokens", "a cache of one token answers nothing"),
    ("than the {most} bytes", "a bound of this program, or of an option in mebibytes"),
    ("has more than {", "a bound of this program"),
    ("a header of {size} bytes", "a header that is refused is long"),
    ("{held} bytes of tensors", "a checkpoint has more"),
    ("{name} has {} dimensions", "only of many is it said"),
    ("and the model has {} tokens", "a vocabulary has more"),
    ("{field} has {bytes} bytes of text", "it is longer than the longest token"),
    ("more than {UNREAD_BYTES} bytes", "a bound of this program"),
    ("{there} bytes are there", "what says how far it is, not what it is"),
    ("n = {choices} choices of", "one choice has words of its own"),
    ("prompt has {prompts} prompts", "more than may be, of which there is one at least"),
    ("a key of {found} bytes", "many are needed"),
    ("a string of {longest} bytes", "more than may be"),
    ("there are {count} messages", "more than may be"),
    ("{name} has {bytes} bytes, at most", "more than may be"),
    ("{found} bytes, less than {LEAST_BYTES}", "a secret that is no secret"),
    ("{indices} indices and {values} values", "a frame that is refused is long"),
    ("a message of {bytes} bytes, more than", "more than may be"),
    ("{rank} of {} ranks", "what cannot be"),
    ("has more than {most} bytes", "a bound of this program"),
    ("{total} of {total} replicas", "one of so many, as kubectl says it"),
    ("{done} of {total} replicas", "one of so many, as kubectl says it"),
    ("the {LARGEST_MAP} bytes", "a bound of this program"),
    ("than the {most} that are read", "a bound of this program"),
    ("tokens/s", "a rate"),
    ("steps/s", "a rate"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// Whether a text goes on with one of the things, perhaps after a word that says which of them.
fn is_of_several(rest: &str) -> bool {
    let Some(rest) = rest.strip_prefix(' ') else { return false };
    let mut words = rest.split(|letter: char| !letter.is_ascii_alphabetic());
    let first = words.next().unwrap_or_default();
    let thing = if WHICH.contains(&first) { words.next().unwrap_or_default() } else { first };
    THINGS.contains(&thing)
}

/// The places of a source where a number is put before a word for several things.
fn wrong(source: &str) -> Vec<String> {
    let tested = source.find("#[cfg(test)]").unwrap_or(source.len());
    let lines = source[..tested].lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut wrong = Vec::new();
    for line in lines {
        for (place, _) in line.match_indices('}') {
            let is_known = |(known, _): &(&str, &str)| line.contains(known);
            if line[..place].contains('{') && is_of_several(&line[place + 1..]) && !NEVER_ONE.iter().any(is_known) {
                wrong.push(line.trim().to_owned());
            }
        }
    }
    wrong
}

#[test]
fn no_message_has_a_number_before_a_word_for_several_things() {
    assert_eq!(wrong(r#"#[error("{found} MoE layers")]"#).len(), 1);
    assert_eq!(wrong(r#"#[error("the {} slots of it")]"#).len(), 1);
    assert!(wrong(r#"#[error("{layer}: ranks are {rank}")]"#).is_empty());
    let mut all = Vec::new();
    for part in ["plan/src", "kubectl-moe/src", "operator/src", "runtime/src"] {
        sources(&workspace().join(part), &mut all);
    }
    assert!(all.len() > 250, "{} sources", all.len());
    // Tests of their own folders say nothing to anybody.
    all.retain(|path| !path.components().any(|part| part.as_os_str() == "tests"));
    let found: Vec<String> = all
        .iter()
        .flat_map(|path| {
            wrong(&fs::read_to_string(path).unwrap()).into_iter().map(|line| format!("{}: {line}", path.display()))
        })
        .collect();
    assert!(found.is_empty(), "say them with `counted`:\n{}", found.join("\n"));
}
