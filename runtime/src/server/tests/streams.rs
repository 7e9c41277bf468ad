//! What the events of a stream mean to whoever times them.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::poll;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::coordinator::fake::Fake;
use crate::server::fixture::{Server, tokenizer};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn request(path: &str, body: &Value) -> Request<Body> {
    Request::post(path).body(Body::from(body.to_string())).unwrap()
}

/// The headers tell at once that the request was taken; the first event, that its first token is there.
#[tokio::test]
async fn the_first_event_of_a_stream_is_its_first_token() {
    for (path, body) in [
        (CHAT, json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "stream": true})),
        (COMPLETIONS, json!({"prompt": "a", "max_tokens": 2, "ignore_eos": true, "echo": true, "stream": true})),
    ] {
        let server = Server::start(Fake { gated: true, ..Fake::default() });
        let mut response = server.respond(request(path, &body)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut first = Box::pin(response.body_mut().frame());
        // The step that gives the token has begun and waits for a permit.
        server.remote.begun.recv().unwrap();
        assert!(poll!(&mut first).is_pending(), "{path}: nothing has been given yet");
        server.remote.permits.as_ref().unwrap().send(()).unwrap();
        let first = first.await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"data: {"), "{path}");
    }
}

#[tokio::test]
async fn each_token_is_an_event_though_it_shows_nothing_yet() {
    // Characters of several tokens, and a beginning that could be the stop string's.
    let text = "語é🦀 one two";
    let tokens = tokenizer().encode(text, false).unwrap().len();
    assert!(tokens > text.chars().count() / 2);
    let prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let stop = json!("two three");
    for (server, path, body, before) in [
        (Server::answering(prompt, text), CHAT, json!({"messages": messages, "stream": true, "stop": stop}), 1),
        (
            Server::answering("Say: ", text),
            COMPLETIONS,
            json!({"prompt": "Say: ", "max_tokens": 100, "stream": true, "stop": stop}),
            0,
        ),
    ] {
        let events = server.post(path, &body).await.events();
        // The role, each token, the token that ends the answer, and the end.
        assert_eq!(events.len(), before + tokens + 1 + 1, "{events:?}");
        let chunks = events[..events.len() - 1].iter().map(|event| serde_json::from_str::<Value>(event).unwrap());
        let choices: Vec<Value> = chunks.map(|chunk| chunk["choices"][0].clone()).collect();
        let shown = choices.iter().map(|choice| {
            choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default().to_owned()
        });
        assert_eq!(shown.collect::<String>(), text);
        assert!(choices.iter().any(|choice| choice["delta"]["content"] == "" || choice["text"] == ""));
    }
}

/// A reader that pauses is no client's fault to be told with a client's error.
#[tokio::test]
async fn a_stream_that_is_not_read_ends_with_a_server_error_and_is_counted_as_failed() {
    let server = Server::start(Fake::default());
    let body = json!({"prompt": "a", "n": 128, "max_tokens": 900, "ignore_eos": true, "stream": true});
    let response = server.respond(request(COMPLETIONS, &body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    // Nothing is read until every sequence is gone.
    while server.metric("swiftbalancer_step_seconds_count").await < 80.0 || server.unfinished().await > 0.0 {
        tokio::task::yield_now().await;
    }
    let all = response.into_body().collect().await.unwrap().to_bytes();
    let events = String::from_utf8(all.to_vec()).unwrap();
    let last = events.trim_end().rsplit("\n\n").next().unwrap().strip_prefix("data: ").unwrap().to_owned();
    let error = serde_json::from_str::<Value>(&last).unwrap()["error"].clone();
    assert_eq!((&error["type"], &error["code"]), (&json!("server_error"), &json!("service_unavailable")), "{error}");
    let failed = "swiftbalancer_requests_total{outcome=\"failed\",route=\"completions\"}";
    assert!((server.metric(failed).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn streams_that_nobody_reads_stay_within_the_room_for_all_and_those_beside_them_are_whole() {
    let (streams, choices, tokens, room) = (20, 4, 900, 512 << 10);
    let server = Server::start(Fake::default()).with_room_for_unread(room);
    let body = |choices: usize, tokens: usize| json!({"prompt": "a", "n": choices, "max_tokens": tokens, "ignore_eos": true, "stream": true});
    let mut unread = Vec::new();
    for _ in 0..streams {
        unread.push(server.respond(request(COMPLETIONS, &body(choices, tokens))).await);
    }
    // Those beside come after all others, so that nothing is left to begin when the first of them has ended.
    let mut is_idle = false;
    while !is_idle {
        let beside = server.post(COMPLETIONS, &body(1, 20)).await.events();
        assert_eq!((beside.len(), beside.last().map(String::as_str)), (21, Some("[DONE]")));
        is_idle = server.unfinished().await == 0.0;
    }
    let mut whole = 0;
    for response in unread {
        assert_eq!(response.status(), StatusCode::OK);
        let all = response.into_body().collect().await.unwrap().to_bytes();
        let events = String::from_utf8(all.to_vec()).unwrap();
        match events.trim_end().rsplit("\n\n").next().unwrap().strip_prefix("data: ").unwrap() {
            "[DONE]" => whole += 1,
            last => {
                let error = serde_json::from_str::<Value>(last).unwrap()["error"].clone();
                assert_eq!((&error["type"], &error["code"]), (&json!("server_error"), &json!("service_unavailable")));
                assert!(error["message"].as_str().unwrap().contains("of this one most waited"), "{error}");
            }
        }
    }
    // Each update of a token counts as 96 bytes.
    assert!(whole * choices * tokens * 96 <= room, "{whole} streams are whole");
    let failed = server.metric("swiftbalancer_requests_total{outcome=\"failed\",route=\"completions\"}").await;
    assert_eq!(failed.to_bits(), ((streams - whole) as f64).to_bits());
    let again = server.post(COMPLETIONS, &body(choices, tokens)).await.events();
    assert_eq!(again.last().map(String::as_str), Some("[DONE]"), "the room is free again");
}
