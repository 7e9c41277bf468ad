//! Weights that are drawn from a seed, with nothing of the model but its `config.json`.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::group::{Group, MODEL, program};

/// A folder with `config.json` alone.
fn bare() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(Path::new(MODEL).join("config.json"), folder.path().join("config.json")).unwrap();
    folder
}

/// What a group answers to a prompt.
async fn answer(group: &Group, prompt: Value) -> String {
    let body = json!({"prompt": prompt, "max_tokens": 6, "temperature": 0, "ignore_eos": true});
    let url = format!("{}/v1/completions", group.url);
    let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    answer["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn any_number_of_ranks_draws_one_model_and_it_answers_texts_and_tokens() {
    let folder = bare();
    let (alone, two) = tokio::join!(
        Group::of(folder.path(), 1, &["--weights", "seed:7"]),
        Group::of(folder.path(), 2, &["--weights", "seed:7"]),
    );
    for prompt in [json!("any text"), json!([1, 700, 42])] {
        let (one, other) = tokio::join!(answer(&alone, prompt.clone()), answer(&two, prompt));
        assert!(!one.is_empty() && one == other, "{one:?}, {other:?}");
    }
    // A text is its bytes.
    let bytes: Vec<u8> = b"any text".to_vec();
    assert_eq!(answer(&alone, json!(bytes)).await, answer(&two, json!("any text")).await);
}

#[test]
fn what_is_drawn_is_inspected_without_being_served_and_anything_else_is_refused() {
    let folder = bare();
    let inspect = |weights: &[&str]| {
        let output = program().args(["inspect", "--model"]).arg(folder.path()).args(weights).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default(), said)
    };
    let (code, report, said) = inspect(&["--weights", "seed:7"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((&report["weights"], &report["weightFiles"]), (&json!("drawn"), &json!([])));
    let (_, other, _) = inspect(&["--weights", "seed:8", "--ranks", "2", "--memory", "100000000"]);
    assert_ne!(report["model"]["digest"], other["model"]["digest"]);
    assert!(other["eachRank"]["experts"].as_u64().unwrap() > 0);
    let (code, _, said) = inspect(&["--weights", "seed:x"]);
    assert!(code == Some(2) && said.contains("seed:N"), "{code:?}: {said}");
    let (code, _, said) = inspect(&["--weights"]);
    assert!(code == Some(1) && said.contains("no weights"), "{code:?}: {said}");
}
