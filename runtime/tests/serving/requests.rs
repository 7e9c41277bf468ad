//! What requests mean to a model that runs, as far as scripted ranks cannot show it.

use serde_json::{Value, json};

use crate::client::complete;
use crate::failure::with_weights;
use crate::group::Group;

/// The weights are finite, and what they compute is not.
#[tokio::test]
async fn results_that_are_no_numbers_never_reach_a_client() {
    let model = with_weights("model.norm.weight", half::bf16::from_f32(3e38), 128);
    let group = Group::of(model.path(), 2, &[]).await;
    for body in [
        json!({"prompt": "The cat", "max_tokens": 8, "temperature": 0}),
        json!({"prompt": "The cat", "max_tokens": 8, "temperature": 1.0, "logprobs": 2}),
        json!({"prompt": "The cat", "max_tokens": 0, "echo": true, "logprobs": 0}),
    ] {
        let (status, answer) = complete(&group, &body).await;
        assert_eq!((status, &answer["error"]["type"]), (500, &json!("server_error")), "{answer}");
    }
    assert!(group.is_healthy().await, "the ranks serve on");
    let failures = group.metric("swiftbalancer_sequences_failed_total{reason=\"no_numbers\"}").await;
    assert_eq!(failures.to_bits(), 3_f64.to_bits());
}

#[tokio::test]
async fn a_context_is_no_longer_than_the_ranks_caches_and_what_does_not_say_gets_what_is_left() {
    let group = Group::start(2, &["--kv-blocks", "6", "--block-tokens", "16"]).await;
    let models = reqwest::get(format!("{}/v1/models", group.url)).await.unwrap();
    assert_eq!(models.json::<Value>().await.unwrap()["data"][0]["max_model_len"], 96);
    let chat = json!({"messages": [{"role": "user", "content": "What is 2 plus 3?"}], "ignore_eos": true});
    let answer = reqwest::Client::new().post(format!("{}/v1/chat/completions", group.url)).body(chat.to_string());
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["usage"]["total_tokens"], 96, "{answer}");
    let (status, refused) = complete(&group, &json!({"prompt": "a", "max_tokens": 96})).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("context_length_exceeded")));
}
