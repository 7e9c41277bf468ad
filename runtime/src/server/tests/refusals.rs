//! What is refused, with which status, field and words.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::coordinator::fake::Fake;
use crate::server::fixture::{Answer, Server};

fn line(name: &str, answer: &Answer) -> String {
    let error = answer.json()["error"].clone();
    let text = |field: &str| error[field].as_str().unwrap_or("-").to_owned();
    assert_eq!(error.as_object().unwrap().len(), 4, "message, type, param and code: {error}");
    format!(
        "{name}: {} {} {} {}\n    {}",
        answer.status.as_u16(),
        text("type"),
        text("param"),
        text("code"),
        text("message")
    )
}

#[tokio::test]
async fn bad_completions_are_refused_naming_the_field() {
    let server = Server::start(Fake::default());
    let with = |more: Value| {
        let mut body = json!({"model": "tiny", "prompt": "a"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let mut report = Vec::new();
    for (name, body) in [
        ("no prompt", json!({"model": "tiny"})),
        ("prompt of a wrong type", with(json!({"prompt": {"text": "a"}}))),
        ("mixed prompt", with(json!({"prompt": ["a", 1]}))),
        ("no prompts", with(json!({"prompt": []}))),
        ("empty prompt", with(json!({"prompt": ""}))),
        ("token that does not exist", with(json!({"prompt": [1, 1792]}))),
        ("other model", with(json!({"model": "gpt-4"}))),
        ("too long", with(json!({"max_tokens": 1024}))),
        ("prompt too long", with(json!({"prompt": vec![1; 1025], "max_tokens": 0, "echo": true}))),
        ("nothing to do", with(json!({"max_tokens": 0}))),
        ("negative max_tokens", with(json!({"max_tokens": -1}))),
        ("temperature", with(json!({"temperature": 2.5}))),
        ("temperature of a wrong type", with(json!({"temperature": "hot"}))),
        ("top_p", with(json!({"top_p": 0}))),
        ("top_k", with(json!({"top_k": -2}))),
        ("seed", with(json!({"seed": 1.5}))),
        ("n", with(json!({"n": 0}))),
        ("more than fits the queue", with(json!({"prompt": vec!["a"; 100], "n": 3}))),
        ("best_of", with(json!({"n": 2, "best_of": 4}))),
        ("logprobs", with(json!({"logprobs": 21}))),
        ("many log-probabilities", with(json!({"logprobs": 20, "n": 128, "max_tokens": 500}))),
        (
            "many echoed log-probabilities",
            with(json!({"prompt": vec![vec![1; 1000]; 60], "echo": true, "logprobs": 20})),
        ),
        ("empty stop", with(json!({"stop": ["a", ""]}))),
        ("many stops", with(json!({"stop": vec!["a"; 17]}))),
        ("presence_penalty", with(json!({"presence_penalty": 0.5}))),
        ("logit_bias", with(json!({"logit_bias": {"50": -100}}))),
        ("suffix", with(json!({"suffix": "end"}))),
        ("stream_options without stream", with(json!({"stream_options": {"include_usage": true}}))),
        ("unknown stream option", with(json!({"stream": true, "stream_options": {"exclude": 1}}))),
        ("unknown field", with(json!({"temprature": 0.5}))),
    ] {
        report.push(line(name, &server.post("/v1/completions", &body).await));
    }
    insta::assert_snapshot!(report.join("\n"));
    let counted = server.get("/metrics").await.text();
    let refused = "swiftbalancer_requests_total{outcome=\"refused\",route=\"completions\"} 30";
    for line in [refused, "swiftbalancer_prompt_tokens_total 0"] {
        assert!(counted.lines().any(|counted| counted == line), "no {line} in {counted}");
    }
}

#[tokio::test]
async fn bad_chats_are_refused_naming_the_field() {
    let server = Server::start(Fake::default());
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let with = |more: Value| {
        let mut body = user(json!("a"));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let mut report = Vec::new();
    for (name, body) in [
        ("no messages", json!({})),
        ("empty messages", json!({"messages": []})),
        ("messages of a wrong type", json!({"messages": "hello"})),
        ("no role", json!({"messages": [{"content": "a"}]})),
        ("role", json!({"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "a"}]})),
        ("no content", json!({"messages": [{"role": "user"}]})),
        ("content", user(json!(5))),
        ("image", user(json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]))),
        ("tool calls", json!({"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]})),
        ("top_logprobs alone", with(json!({"top_logprobs": 2}))),
        ("top_logprobs", with(json!({"logprobs": true, "top_logprobs": 21}))),
        ("many log-probabilities", with(json!({"logprobs": true, "top_logprobs": 20, "n": 128, "max_tokens": 500}))),
        ("two bounds", with(json!({"max_tokens": 5, "max_completion_tokens": 6}))),
        ("no token", with(json!({"max_completion_tokens": 0}))),
        ("too long", with(json!({"max_completion_tokens": 1024}))),
        ("tools", with(json!({"tools": [{"type": "function", "function": {"name": "f"}}]}))),
        ("response_format", with(json!({"response_format": {"type": "json_object"}}))),
        ("prompt", with(json!({"prompt": "a"}))),
    ] {
        report.push(line(name, &server.post("/v1/chat/completions", &body).await));
    }
    insta::assert_snapshot!(report.join("\n"));
}

#[tokio::test]
async fn bad_http_is_refused_in_the_same_form() {
    let server = Server::start(Fake::default());
    let post = |body: &'static str| Request::post("/v1/completions").body(Body::from(body)).unwrap();
    let mut report = Vec::new();
    for (name, request) in [
        ("no JSON", post("{\"prompt\": ")),
        ("no object", post("[1]")),
        ("no such route", Request::post("/v1/embeddings").body(Body::empty()).unwrap()),
        ("other method", Request::get("/v1/completions").body(Body::empty()).unwrap()),
        ("too large", Request::post("/v1/completions").body(Body::from(vec![b' '; 2 << 20])).unwrap()),
    ] {
        report.push(line(name, &server.send(request).await));
    }
    insta::assert_snapshot!(report.join("\n"));
}

#[tokio::test]
async fn fields_that_change_nothing_are_taken() {
    let server = Server::start(Fake::default());
    let body = json!({
        "prompt": "a", "max_tokens": 1, "user": "u", "metadata": {}, "n": 1, "best_of": 1, "presence_penalty": 0,
        "frequency_penalty": 0.0, "logit_bias": {}, "suffix": null, "logprobs": null, "stop": null, "seed": -1,
        "top_k": -1, "min_p": 0, "repetition_penalty": 1.0,
    });
    let answer = server.post("/v1/completions", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let body = json!({
        "messages": [{"role": "user", "content": "a", "name": "n"}], "max_tokens": 1, "tools": [], "tool_choice": "auto",
        "response_format": {"type": "text"}, "store": false, "chat_template_kwargs": {"enable_thinking": false},
    });
    let answer = server.post("/v1/chat/completions", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

/// Text that no context could hold costs no tokenizing: the same text is refused whatever its length.
#[tokio::test]
async fn text_that_no_context_could_hold_is_refused_by_its_length() {
    let server = Server::start(Fake::default());
    let text = "many words ".repeat(80_000);
    let chat = json!({"messages": [{"role": "user", "content": text}]});
    for (path, body) in [("/v1/completions", json!({"prompt": text})), ("/v1/chat/completions", chat)] {
        let answer = server.post(path, &body).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["code"]), (StatusCode::BAD_REQUEST, &json!("context_length_exceeded")));
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with("This model's maximum context length is 1024 tokens. However, "), "{message}");
        assert!(message.contains("bytes of text"), "{message}");
    }
}

#[tokio::test]
async fn a_request_gets_its_name_back_or_one_that_is_made_for_it() {
    let server = Server::start(Fake::default());
    let send = |id: Option<&str>, path: &str| {
        let request = Request::get(path);
        let request = id.map_or_else(|| Request::get(path), |id| request.header("x-request-id", id));
        server.respond(request.body(Body::empty()).unwrap())
    };
    assert_eq!(send(Some("trace-7"), "/v1/models").await.headers()["x-request-id"], "trace-7");
    assert_eq!(send(Some("trace-8"), "/nowhere").await.headers()["x-request-id"], "trace-8");
    let made = [send(None, "/v1/models").await, send(Some("two words"), "/v1/models").await];
    let made = made.map(|answer| answer.headers()["x-request-id"].to_str().unwrap().to_owned());
    assert!(made[0].len() == 32 && made[1].len() == 32 && made[0] != made[1], "{made:?}");
}

#[tokio::test]
async fn what_errors_quote_is_short_whatever_was_sent() {
    let server = Server::start(Fake::default());
    let long = "x".repeat(500_000);
    let user = json!({"role": "user", "content": "a"});
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "a", "model": long})),
        ("/v1/completions", json!({"prompt": "a", long.clone(): 1})),
        ("/v1/completions", json!({"prompt": {"a": long}})),
        ("/v1/completions", json!({"prompt": "a", "temperature": long})),
        ("/v1/completions", json!({"prompt": "a", "stop": [[long]]})),
        ("/v1/completions", json!(long)),
        ("/v1/chat/completions", json!({"messages": [{"role": long, "content": "a"}]})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": [{"type": long}]}]})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "a", long.clone(): 1}]})),
        ("/v1/chat/completions", json!({"messages": [user], "chat_template_kwargs": long})),
    ] {
        let answer = server.post(path, &body).await;
        assert!(answer.status.is_client_error(), "{}", answer.status);
        assert!(answer.body.len() < 1500, "{} bytes: {}", answer.body.len(), &answer.text()[..1000]);
    }
    let path = format!("/{}", "y".repeat(20_000));
    assert!(server.get(&path).await.body.len() < 500);
    assert!(server.get(&format!("/v1/models{path}")).await.body.len() < 500);
}
