//! What requests mean beyond being taken: how long answers get, what is told of them, what happens without numbers.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::coordinator::fake::Fake;
use crate::scheduler::RankCache;
use crate::server::fixture::{Server, tokenizer};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

fn hello() -> Value {
    json!([{"role": "user", "content": "Hello"}])
}

#[tokio::test]
async fn the_context_offered_is_what_the_ranks_caches_hold_where_that_is_less() {
    let cache = RankCache { blocks: 4, block_tokens: 16 };
    let server = Server::start(Fake { cache, ..Fake::default() });
    let open = server.post(CHAT, &json!({"messages": hello(), "ignore_eos": true})).await;
    assert_eq!(open.json()["usage"]["total_tokens"], 64, "{}", open.text());
    assert_eq!(server.get("/v1/models").await.json()["data"][0]["max_model_len"], 64);
    let fits = json!({"prompt": [1, 2], "max_tokens": 62, "ignore_eos": true});
    assert_eq!(server.post(COMPLETIONS, &fits).await.json()["usage"]["total_tokens"], 64);
    for (route, body, param) in [
        (COMPLETIONS, json!({"prompt": [1, 2], "max_tokens": 63}), "max_tokens"),
        (COMPLETIONS, json!({"prompt": vec![1; 65], "max_tokens": 1}), "prompt"),
        (COMPLETIONS, json!({"prompt": vec![1; 64]}), "prompt"),
        (CHAT, json!({"messages": hello(), "max_completion_tokens": 64}), "max_completion_tokens"),
    ] {
        let refused = server.post(route, &body).await;
        let error = &refused.json()["error"];
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{error}");
        assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!(param)));
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("This model's maximum context length is 64 tokens. However, "), "{message}");
    }
}

#[tokio::test]
async fn many_prompts_with_many_choices_are_counted_and_not_made() {
    let server = Server::start(Fake::default());
    let body = json!({"prompt": vec![[0]; 8000], "n": 128, "max_tokens": 1});
    assert!(body.to_string().len() < 40_000);
    let refused = server.post(COMPLETIONS, &body).await;
    assert_eq!(refused.json()["error"]["param"], "prompt");
    let body = json!({"prompt": vec![[0]; 200], "n": 128, "max_tokens": 1});
    let refused = server.post(COMPLETIONS, &body).await;
    assert_eq!(refused.json()["error"]["param"], "n");
    assert_eq!(server.metric("swiftbalancer_prompt_tokens_total").await.to_bits(), 0_f64.to_bits());
}

#[tokio::test]
async fn results_that_are_no_numbers_fail_their_own_request_and_never_reach_a_client() {
    let server = Server::start(Fake { no_numbers_after: Some(7), ..Fake::default() });
    let bad = json!({"prompt": [1, 7], "max_tokens": 3, "logprobs": 1});
    let good = json!({"prompt": [1, 2], "max_tokens": 3, "logprobs": 1, "ignore_eos": true});
    let (failed, answer) = tokio::join!(server.post(COMPLETIONS, &bad), server.post(COMPLETIONS, &good));
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", failed.text());
    assert_eq!(failed.json()["error"]["type"], "server_error");
    assert_eq!(answer.json()["usage"]["completion_tokens"], 3, "{}", answer.text());
    assert!(answer.json()["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().iter().all(Value::is_f64));
    let stream = json!({"prompt": [1, 7], "max_tokens": 3, "stream": true});
    let events = server.post(COMPLETIONS, &stream).await.events();
    let error: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!((events.len(), &error["error"]["type"]), (1, &json!("server_error")));
    let failures = server.metric("swiftbalancer_sequences_failed_total{reason=\"no_numbers\"}").await;
    assert_eq!(failures.to_bits(), 2_f64.to_bits());
    let requests = server.metric("swiftbalancer_requests_total{outcome=\"failed\",route=\"completions\"}").await;
    assert_eq!(requests.to_bits(), 2_f64.to_bits());
}

/// The usage of each chunk of a stream.
async fn usages(server: &Server, route: &str, body: &Value) -> Vec<Value> {
    let mut events = server.post(route, body).await.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks = events.iter().map(|event| serde_json::from_str::<Value>(event).unwrap());
    chunks.map(|chunk| chunk.get("usage").cloned().unwrap_or(json!("absent"))).collect()
}

#[tokio::test]
async fn a_stream_tells_the_usage_so_far_in_each_chunk_where_it_is_asked_to() {
    let server = Server::answering("Say: ", "one two three");
    let given = tokenizer().encode("one two three", false).unwrap().len() + 1;
    let prompt = tokenizer().encode("Say: ", true).unwrap().len();
    let body = |options: Value| json!({"prompt": "Say: ", "max_tokens": 50, "stream": true, "stream_options": options});
    let all = usages(&server, COMPLETIONS, &body(json!({"include_usage": true, "continuous_usage_stats": true}))).await;
    let completion: Vec<u64> = all.iter().map(|usage| usage["completion_tokens"].as_u64().unwrap()).collect();
    assert!(completion.is_sorted() && completion.len() > 3, "{completion:?}");
    assert_eq!((completion[0], *completion.last().unwrap()), (1, given as u64));
    for usage in &all {
        let total = usage["completion_tokens"].as_u64().unwrap() + prompt as u64;
        assert_eq!((&usage["prompt_tokens"], &usage["total_tokens"]), (&json!(prompt), &json!(total)));
    }
    // As vLLM has it, there is none in each chunk if there is none at the end.
    let none = usages(&server, COMPLETIONS, &body(json!({"continuous_usage_stats": true}))).await;
    assert!(none.iter().all(|usage| usage == "absent"), "{none:?}");
    let at_end = usages(&server, COMPLETIONS, &body(json!({"include_usage": true}))).await;
    assert!(at_end.split_last().unwrap().1.iter().all(Value::is_null), "{at_end:?}");

    let chat = json!({
        "messages": hello(), "max_tokens": 4, "ignore_eos": true, "n": 2, "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    });
    let all = usages(&server, CHAT, &chat).await;
    assert_eq!((&all[0]["completion_tokens"], &all.last().unwrap()["completion_tokens"]), (&json!(0), &json!(8)));
    assert!(all.iter().all(Value::is_object));
}

#[tokio::test]
async fn a_byte_order_mark_before_a_body_says_nothing() {
    let server = Server::start(Fake::default());
    for (mark, status) in [("", 200), ("\u{feff}", 200), ("\u{feff}\u{feff}", 400), (" \u{feff}", 400)] {
        let body = format!("{mark}{{\"prompt\": \"a\", \"max_tokens\": 1}}");
        let answer = server.send(Request::post(COMPLETIONS).body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{mark:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn offsets_of_echoed_text_are_those_of_the_text_that_is_answered() {
    let server = Server::start(Fake::default());
    for prompt in ["caf\u{e9} au lait", "cafe\u{301} au lait"] {
        let body = json!({"prompt": prompt, "max_tokens": 2, "echo": true, "logprobs": 0, "ignore_eos": true});
        let json = server.post(COMPLETIONS, &body).await.json();
        let choice = &json["choices"][0];
        let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
        assert!(text.starts_with(&prompt.chars().collect::<Vec<_>>()), "it is given back as it was sent");
        let offsets = choice["logprobs"]["text_offset"].as_array().unwrap();
        let tokens = choice["logprobs"]["tokens"].as_array().unwrap();
        let lait = tokens.iter().position(|token| token.as_str().unwrap().starts_with(" a")).unwrap();
        let offset = offsets[lait].as_u64().unwrap() as usize;
        assert_eq!(text[offset..offset + 2], [' ', 'a'], "{json}");
        let first_given = offsets[tokens.len() - 2].as_u64().unwrap() as usize;
        assert_eq!(first_given, prompt.chars().count());
    }
}

#[tokio::test]
async fn sixteen_long_stop_strings_that_nearly_match_cost_no_more_than_one() {
    let text = "a".repeat(300);
    let server = Server::answering("Say: ", &text);
    let stops: Vec<String> = (0..16).map(|length| format!("{}b", "a".repeat(1000 - length))).collect();
    let body = json!({"prompt": "Say: ", "max_tokens": 900, "stop": stops});
    let json = server.post(COMPLETIONS, &body).await.json();
    assert_eq!(json["choices"][0]["text"], text.as_str());
}
