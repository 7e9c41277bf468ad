use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::server::ServedModel;
use crate::server::chat::TemplateError;

use crate::coordinator::fake::Fake;
use crate::server::fixture::{Server, model, says, tokenizer};

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
async fn a_plain_word_that_ends_an_answer_is_no_part_of_it() {
    let prompt = tokenizer().encode(PROMPT, false).unwrap().len();
    let tokens = tokenizer().encode("Hello, 語!", false).unwrap();
    let end = tokens[tokens.len() - 1];
    assert_eq!(tokenizer().name(end), "!");
    let model = || ServedModel { end_tokens: [tokenizer().token("<|im_end|>").unwrap(), end].into(), ..model() };
    let server = || Server::serving(Fake { script: says(prompt, tokens.clone()), ..Fake::default() }, model());
    let json = server().post(ROUTE, &json!({"messages": messages(), "logprobs": true})).await.json();
    let choice = &json["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!("Hello, 語"), &json!("stop")));
    assert_eq!(json["usage"]["completion_tokens"], tokens.len());
    assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), tokens.len());
    let events = server().post(ROUTE, &json!({"messages": messages(), "stream": true})).await.events();
    assert!(events.iter().all(|event| !event.contains('!')), "{events:?}");
    let going_on = json!({"messages": messages(), "ignore_eos": true, "max_tokens": tokens.len()});
    assert_eq!(server().post(ROUTE, &going_on).await.json()["choices"][0]["message"]["content"], "Hello, 語!");
}

#[tokio::test]
async fn a_template_that_cannot_be_used_costs_chat_alone() {
    let prompt = "In the";
    let tokens = tokenizer().encode(" end", false).unwrap();
    let script = says(tokenizer().encode(prompt, true).unwrap().len(), tokens);
    let model = ServedModel { chat: Err(TemplateError::NoDefault), ..model() };
    let server = Server::serving(Fake { script, ..Fake::default() }, model);
    let answer = server.post(ROUTE, &json!({"messages": messages()})).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("none of them is named \"default\"; use /v1/completions"), "{message}");
    let answer = server.post("/v1/completions", &json!({"prompt": prompt, "max_tokens": 1})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

#[tokio::test]
async fn an_answer_may_be_as_long_as_the_context_leaves_room_for() {
    let server = Server::answering(PROMPT, "abc");
    let body = json!({"messages": messages(), "ignore_eos": true});
    let json = server.post(ROUTE, &body).await.json();
    assert_eq!(json["usage"]["total_tokens"], 1024);
    assert_eq!(json["choices"][0]["finish_reason"], "length");
}
