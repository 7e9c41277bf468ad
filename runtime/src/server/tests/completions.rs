use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::coordinator::fake::Fake;
use crate::server::fixture::{Server, says, tokenizer};

const ROUTE: &str = "/v1/completions";

#[tokio::test]
async fn a_completion_ends_with_the_models_end_token_which_is_counted_and_not_shown() {
    let server = Server::answering("Say: ", "naïve café 語 done");
    let answer = server.post(ROUTE, &json!({"model": "tiny", "prompt": "Say: ", "max_tokens": 100})).await;
    let json = answer.json();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(json["object"], "text_completion");
    assert_eq!(json["choices"][0]["text"], "naïve café 語 done");
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    assert_eq!(json["choices"][0]["logprobs"], Value::Null);
    let (prompt, given) = (tokens("Say: "), tokens("naïve café 語 done") + 1);
    assert_eq!(
        json["usage"],
        json!({"prompt_tokens": prompt, "completion_tokens": given, "total_tokens": prompt + given})
    );
}

fn tokens(text: &str) -> usize {
    tokenizer().encode(text, false).unwrap().len()
}

#[tokio::test]
async fn a_prompt_is_text_or_tokens_one_or_more() {
    let server = Server::start(Fake { script: says(2, vec![64]), ..Fake::default() });
    let ids = tokenizer().encode("The", true).unwrap();
    let two = vec![ids[0], ids[0]];
    for (prompt, choices) in
        [(json!("\n\nAB\n\n"), 1), (json!(["a b", "c d"]), 2), (json!(two), 1), (json!([two, two, two]), 3)]
    {
        let answer = server.post(ROUTE, &json!({"prompt": prompt, "max_tokens": 3, "ignore_eos": true})).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let json = answer.json();
        let list = json["choices"].as_array().unwrap();
        assert_eq!(
            list.iter().map(|choice| choice["index"].as_u64().unwrap()).collect::<Vec<_>>(),
            (0..choices).collect::<Vec<_>>(),
            "{prompt}"
        );
        assert!(list.iter().all(|choice| choice["finish_reason"] == "length"));
    }
}

#[tokio::test]
async fn several_choices_of_a_prompt_count_it_once() {
    let server = Server::answering("Say: ", "abc");
    let json = server.post(ROUTE, &json!({"prompt": ["Say: "], "n": 3, "best_of": 3})).await.json();
    let texts: Vec<&Value> = json["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts, ["abc", "abc", "abc"]);
    assert_eq!(json["usage"]["prompt_tokens"], tokens("Say: "));
    assert_eq!(json["usage"]["completion_tokens"], 3 * (tokens("abc") + 1));
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it_though_tokens_cut_it() {
    let server = Server::answering("Say: ", "one two\n\nthree four");
    let body = json!({"prompt": "Say: ", "max_tokens": 100, "stop": ["never", "o\n\nth"]});
    let json = server.post(ROUTE, &body).await.json();
    assert_eq!(json["choices"][0]["text"], "one tw");
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn echo_with_logprobs_and_no_token_scores_the_prompt_as_evaluation_harnesses_read_it() {
    let server = Server::start(Fake::default());
    let prompt = "The cat sat.";
    let body =
        json!({"model": "tiny", "prompt": [prompt], "max_tokens": 0, "echo": true, "logprobs": 2, "temperature": 0});
    let json = server.post(ROUTE, &body).await.json();
    let choice = &json["choices"][0];
    let ids = tokenizer().encode(prompt, true).unwrap();
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(prompt), &json!("length")));
    let logprobs = &choice["logprobs"];
    let names: Vec<String> = ids.iter().map(|&id| tokenizer().name(id)).collect();
    assert_eq!(logprobs["tokens"], json!(names));
    let scores = logprobs["token_logprobs"].as_array().unwrap();
    assert_eq!(scores[0], Value::Null, "nothing predicts the first token");
    assert_eq!(scores[1..], vec![json!(-0.5); ids.len() - 1]);
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert_eq!(logprobs["top_logprobs"][1][&names[1]], -0.5);
    assert_eq!(logprobs["top_logprobs"][1].as_object().unwrap().len(), 2);
    let offsets: Vec<usize> =
        names.iter().scan(0, |sum, name| Some(std::mem::replace(sum, *sum + name.len()))).collect();
    assert_eq!(logprobs["text_offset"], json!(offsets));
    assert_eq!(json["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn no_token_costs_a_prompt_no_more_than_its_one_score_however_many_choices_show_it() {
    let ids = tokenizer().encode("The cat sat.", true).unwrap();
    for (logprobs, computed) in [(Value::Null, 0), (json!(0), 1)] {
        let server = Server::start(Fake { ranks: 1, ..Fake::default() });
        let body = json!({"prompt": [ids, [5]], "n": 3, "max_tokens": 0, "echo": true, "logprobs": logprobs});
        let json = server.post(ROUTE, &body).await.json();
        let choices = json["choices"].as_array().unwrap();
        assert_eq!(choices.len(), 6);
        for choice in choices {
            let of_prompt = &choices[choice["index"].as_u64().unwrap() as usize / 3 * 3];
            assert_eq!((&choice["finish_reason"], &choice["text"]), (&json!("length"), &of_prompt["text"]));
            assert_eq!(choice["logprobs"], of_prompt["logprobs"]);
        }
        assert_eq!(
            (&choices[0]["text"], &choices[0]["logprobs"].is_null()),
            (&json!("The cat sat."), &(computed == 0))
        );
        assert_eq!(json["usage"]["completion_tokens"], 0);
        let steps: Vec<usize> = server.remote.begun.try_iter().filter(|&sequences| sequences > 0).collect();
        assert_eq!(steps, vec![1; computed], "a prompt of one token has no score");

        let stream =
            body.as_object().unwrap().clone().into_iter().chain([("stream".to_owned(), json!(true))]).collect();
        let mut events = server.post(ROUTE, &Value::Object(stream)).await.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"));
        let chunks = events.iter().map(|event| serde_json::from_str::<Value>(event).unwrap()["choices"][0].clone());
        let mut texts = vec![String::new(); 6];
        let mut ended = 0;
        for chunk in chunks {
            texts[chunk["index"].as_u64().unwrap() as usize].push_str(chunk["text"].as_str().unwrap());
            ended += usize::from(chunk["finish_reason"] == "length");
        }
        let whole: Vec<&str> = choices.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!((texts.iter().map(String::as_str).collect::<Vec<_>>(), ended), (whole, 6));
    }
}

#[tokio::test]
async fn echo_with_logprobs_and_one_token_has_an_entry_for_each_token() {
    let prompt: Vec<u32> = (300..700).collect();
    let server = Server::start(Fake { script: says(prompt.len(), vec![64]), ..Fake::default() });
    let body = json!({"prompt": [prompt], "max_tokens": 1, "echo": true, "logprobs": 1, "seed": 1234});
    let json = server.post(ROUTE, &body).await.json();
    let logprobs = &json["choices"][0]["logprobs"];
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[list].as_array().unwrap().len(), 401, "{list}");
    }
    let text = json["choices"][0]["text"].as_str().unwrap();
    assert_eq!(logprobs["text_offset"][400], text.chars().count() - tokenizer().name(64).chars().count());
}

#[tokio::test]
async fn a_stream_gives_the_same_text_and_ends_with_done() {
    let text = "naïve café 語 and more";
    let server = Server::answering("Say: ", text);
    let body = json!({"prompt": "Say: ", "max_tokens": 100, "stream": true, "stream_options": {"include_usage": true}});
    let answer = server.post(ROUTE, &body).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let mut events = answer.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let (last, chunks) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(tokens(text) + 1)));
    let shown: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(shown, text);
    let reasons: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    assert_eq!(reasons.last(), Some(&&json!("stop")));
    assert!(reasons[..reasons.len() - 1].iter().all(|reason| reason.is_null()));
    assert!(chunks.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null) && chunk["id"] == last["id"]));
}

#[tokio::test]
async fn a_stream_without_usage_has_no_such_field_and_echoes_the_prompt_first() {
    let server = Server::answering("Say: ", "abc");
    let body = json!({"prompt": "Say: ", "max_tokens": 100, "stream": true, "echo": true});
    let events = server.post(ROUTE, &body).await.events();
    let first: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!(first["choices"][0]["text"], "Say: ");
    assert!(!events.concat().contains("usage"));
}
