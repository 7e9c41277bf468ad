//! What answers may come to and cost together: of one request, and of all.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::coordinator::fake::Fake;
use crate::scheduler::Length;
use crate::server::answers::Answers;
use crate::server::bounds::RequestBounds;
use crate::server::fixture::{Server, model, tokenizer};
use crate::server::{chat, completions};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const FAILED: &str = "swiftbalancer_requests_total{outcome=\"failed\",route=\"completions\"}";

fn with_room(bytes: usize) -> Server {
    Server::with(Fake::default(), model(), Answers::of(bytes))
}

/// One that keeps some 16 bytes of each token.
fn request(choices: usize, tokens: usize) -> Value {
    json!({"prompt": "a", "n": choices, "max_tokens": tokens, "logprobs": 0, "ignore_eos": true})
}

#[tokio::test]
async fn an_answer_that_outgrows_the_room_for_all_ends_and_the_next_one_is_given() {
    let server = with_room(64 << 10);
    for _ in 0..2 {
        let failed = server.post(COMPLETIONS, &request(8, 900)).await;
        let error = failed.json()["error"].clone();
        assert_eq!((failed.status, &error["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("service_unavailable")));
        assert_eq!(failed.headers["retry-after"], "1");
        let answer = server.post(COMPLETIONS, &request(2, 900)).await;
        assert_eq!(answer.json()["usage"]["completion_tokens"], 1800, "{}", answer.text());
    }
    assert_eq!(server.metric(FAILED).await.to_bits(), 2_f64.to_bits());
}

#[tokio::test]
async fn prompts_whose_scores_find_no_room_are_refused_before_they_are_computed() {
    let server = with_room(64 << 10);
    let body = |tokens: usize| json!({"prompt": vec![5; tokens], "n": 2, "max_tokens": 1, "echo": true, "logprobs": 20, "stream": true});
    let refused = server.post(COMPLETIONS, &body(400)).await;
    let error = refused.json()["error"].clone();
    assert_eq!((refused.status, &error["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limit_exceeded")));
    assert_eq!((&refused.headers["retry-after"], &error["type"]), (&"1".parse().unwrap(), &json!("rate_limit_error")));
    assert_eq!(server.metric("swiftbalancer_prompt_tokens_total").await.to_bits(), 0_f64.to_bits());
    assert_eq!(server.post(COMPLETIONS, &body(300)).await.events().last().map(String::as_str), Some("[DONE]"));
}

#[tokio::test]
async fn prompts_count_as_long_as_they_are_kept_and_more_so_if_they_are_echoed() {
    let server = with_room(5 << 10);
    // Ten bytes of text each.
    let token = tokenizer().token("<|im_end|>").unwrap();
    let body = |tokens: usize, echo: bool| json!({"prompt": vec![token; tokens], "max_tokens": 1, "echo": echo});
    for (tokens, echo, status) in [(1000, false, 200), (1000, true, 429), (1000, false, 200), (300, true, 200)] {
        let answer = server.post(COMPLETIONS, &body(tokens, echo)).await;
        assert_eq!(answer.status.as_u16(), status, "{tokens} {echo}: {}", answer.text());
    }
    let prompts = json!({"prompt": vec![vec![5; 1000]; 2], "max_tokens": 1});
    assert_eq!(server.post(COMPLETIONS, &prompts).await.status, StatusCode::TOO_MANY_REQUESTS);
    let chat = |words: usize| json!({"messages": [{"role": "user", "content": "a ".repeat(words)}], "max_tokens": 1});
    let small = with_room(1 << 10);
    assert_eq!(small.post(CHAT, &chat(10)).await.status, StatusCode::OK);
    assert_eq!(small.post(CHAT, &chat(400)).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn an_answer_that_is_not_read_gives_its_room_to_a_smaller_one_and_counts_as_failed() {
    let server = with_room(200 << 10);
    let post = |body: Value| Request::post(COMPLETIONS).body(Body::from(body.to_string())).unwrap();
    let unread = server.respond(post(request(8, 900))).await;
    assert_eq!(unread.status(), StatusCode::OK);
    let smaller = server.post(COMPLETIONS, &request(6, 900)).await;
    assert_eq!(smaller.json()["usage"]["completion_tokens"], 5400, "{}", smaller.text());
    assert!(unread.into_body().collect().await.is_err(), "it is not taken for a whole one");
    assert_eq!(server.metric(FAILED).await.to_bits(), 1_f64.to_bits());
    let again = server.post(COMPLETIONS, &request(8, 900)).await;
    assert_eq!(again.json()["usage"]["completion_tokens"], 7200);
}

#[tokio::test]
async fn short_answers_have_a_length_and_long_ones_come_in_pieces() {
    let server = Server::start(Fake::default());
    for (route, field) in [(COMPLETIONS, "prompt"), (CHAT, "messages")] {
        for (choices, tokens, is_long) in [(1, 1, false), (3, 500, true)] {
            let prompt = if route == CHAT { json!([{"role": "user", "content": "a"}]) } else { json!("a") };
            let logprobs = if route == CHAT { json!(true) } else { json!(5) };
            let top = if route == CHAT { json!(5) } else { Value::Null };
            let body = json!({
                field: prompt, "n": choices, "max_tokens": tokens, "logprobs": logprobs, "top_logprobs": top,
                "ignore_eos": true,
            });
            let answer = server.post(route, &body).await;
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(answer.headers.contains_key("content-length"), !is_long, "{route} {}", answer.body.len());
            let json = answer.json();
            assert_eq!(json["usage"]["completion_tokens"], choices * tokens);
            for choice in json["choices"].as_array().unwrap() {
                let logprobs = &choice["logprobs"];
                let given = logprobs.get("content").unwrap_or(&logprobs["top_logprobs"]).as_array().unwrap();
                assert_eq!(given.len(), tokens);
                assert_eq!(choice["finish_reason"], "length");
            }
        }
    }
}

#[test]
fn an_answer_of_open_length_may_have_its_share_of_what_all_choices_may_have() {
    let (model, bounds) = (model(), RequestBounds { context: 100_000, sequences: 256 });
    let length = |more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        chat::read(body.to_string().as_bytes(), &model, bounds).map(|request| (request.length, request.prompt.len()))
    };
    let (open, prompt) = length(json!({"n": 128})).unwrap();
    assert_eq!(open, Length::Open(100_000 - prompt as u32), "no share without log-probabilities");
    for (choices, beside, share) in
        [(1, 20, 100_000 - prompt as u32), (4, 20, 25_000), (128, 20, 781), (128, 0, 16_406)]
    {
        let more = json!({"n": choices, "logprobs": true, "top_logprobs": beside});
        assert_eq!(length(more).unwrap().0, Length::Open(share), "{choices} {beside}");
    }
    let asked = json!({"n": 4, "logprobs": true, "top_logprobs": 20, "max_tokens": 25_001});
    assert_eq!(length(asked).unwrap_err().param.as_deref(), Some("n"));
}

#[test]
fn of_many_prompts_none_is_made_tokens_of_after_the_first_that_is_too_many() {
    let (model, bounds) = (model(), RequestBounds { context: 1000, sequences: 2048 });
    // The last one cannot be served at all, which would be told if it were looked at.
    let mut prompts = vec![vec![5; 1000]; 60];
    prompts.push(vec![u32::MAX]);
    let body = json!({"prompt": prompts, "max_tokens": 0, "echo": true, "logprobs": 20}).to_string();
    let error = completions::read(body.as_bytes(), &model, bounds).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("logprobs"), "{error}");
}

/// What a stream shows of each choice, put together.
fn put_together(events: &[String]) -> Vec<(String, Vec<Value>)> {
    let mut choices: Vec<(String, Vec<Value>)> = Vec::new();
    for event in &events[..events.len() - 1] {
        let chunk: Value = serde_json::from_str(event).unwrap();
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        choices.resize(choices.len().max(index + 1), Default::default());
        let (text, logprobs) = &mut choices[index];
        text.push_str(choice["text"].as_str().unwrap());
        logprobs.resize(4, json!([]));
        for (all, list) in logprobs.iter_mut().zip(["text_offset", "token_logprobs", "tokens", "top_logprobs"]) {
            all.as_array_mut().unwrap().extend(choice["logprobs"][list].as_array().unwrap().clone());
        }
    }
    choices
}

#[tokio::test]
async fn every_choice_shows_its_prompt_though_it_is_scored_once_streamed_or_not() {
    let server = Server::start(Fake::default());
    let body = |stream: bool| {
        json!({
            "prompt": [vec![70; 700], [71], [72, 73, 74]], "n": 3, "max_tokens": 5, "echo": true, "logprobs": 2,
            "ignore_eos": true, "stream": stream,
        })
    };
    let whole = server.post(COMPLETIONS, &body(false)).await.json();
    let streamed = put_together(&server.post(COMPLETIONS, &body(true)).await.events());
    assert_eq!((streamed.len(), whole["choices"].as_array().unwrap().len()), (9, 9));
    for ((text, logprobs), choice) in streamed.iter().zip(whole["choices"].as_array().unwrap()) {
        assert_eq!(choice["text"], *text);
        let lists = ["text_offset", "token_logprobs", "tokens", "top_logprobs"];
        assert_eq!(*logprobs, lists.map(|list| choice["logprobs"][list].clone()));
        let tokens = [700, 1, 3][choice["index"].as_u64().unwrap() as usize / 3] + 5;
        assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), tokens);
        assert_eq!(choice["logprobs"]["token_logprobs"][0], Value::Null);
        assert!(choice["logprobs"]["token_logprobs"].as_array().unwrap()[1..].iter().all(Value::is_f64));
    }
}
