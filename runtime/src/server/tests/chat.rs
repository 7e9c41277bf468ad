use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::fixture::{Server, tokenizer};

const ROUTE: &str = "/v1/chat/completions";
const PROMPT: &str =
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nH\ni<|im_end|>\n<|im_start|>assistant\n";

fn messages() -> Value {
    json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
    ])
}

#[tokio::test]
async fn messages_go_through_the_chat_template() {
    let server = Server::answering(PROMPT, "Hello, 語!");
    let answer = server.post(ROUTE, &json!({"model": "tiny", "messages": messages()})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["object"], "chat.completion");
    let choice = &json["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "Hello, 語!", "refusal": null}));
    assert_eq!((&choice["finish_reason"], &choice["logprobs"]), (&json!("stop"), &Value::Null));
    assert_eq!(json["usage"]["prompt_tokens"], tokenizer().encode(PROMPT, false).unwrap().len());
}

#[tokio::test]
async fn logprobs_name_each_token_with_its_bytes_and_the_best_others() {
    let server = Server::answering(PROMPT, "語a");
    let body = json!({"messages": messages(), "logprobs": true, "top_logprobs": 2});
    let json = server.post(ROUTE, &body).await.json();
    let content = json["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    let ids = tokenizer().encode("語a", false).unwrap();
    assert_eq!(content.len(), ids.len() + 1, "the end token has an entry too");
    let bytes: Vec<u8> = serde_json::from_value(
        content[..ids.len()].iter().flat_map(|entry| entry["bytes"].as_array().unwrap().clone()).collect(),
    )
    .unwrap();
    assert_eq!(bytes, "語a".as_bytes());
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(content[0]["top_logprobs"][0]["token"], content[0]["token"]);
    assert!(content[0]["token"].as_str().unwrap().starts_with("bytes:"), "part of a character: {}", content[0]);
}

#[tokio::test]
async fn a_stream_begins_with_the_role_and_ends_with_the_reason_the_usage_and_done() {
    let server = Server::answering(PROMPT, "Hello, 語!");
    let body = json!({"messages": messages(), "stream": true, "stream_options": {"include_usage": true}});
    let mut events = server.post(ROUTE, &body).await.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(chunks[0]["object"], "chat.completion.chunk");
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let (usage, deltas) = chunks.split_last().unwrap();
    let text: String = deltas.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Hello, 語!");
    assert_eq!(deltas.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert_eq!(usage["choices"], json!([]));
    assert!(usage["usage"]["completion_tokens"].as_u64() > Some(0));
}

#[tokio::test]
async fn an_answer_may_be_as_long_as_the_context_leaves_room_for() {
    let server = Server::answering(PROMPT, "abc");
    let body = json!({"messages": messages(), "ignore_eos": true});
    let json = server.post(ROUTE, &body).await.json();
    assert_eq!(json["usage"]["total_tokens"], 1024);
    assert_eq!(json["choices"][0]["finish_reason"], "length");
}
