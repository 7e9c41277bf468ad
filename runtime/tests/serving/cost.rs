//! What one request can cost, whatever is in it: memory in proportion to its bytes, and time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::group::{Group, MODEL};

/// Bytes of the bodies that are tried.
const BODY: usize = 4 << 20;

/// Memory for each byte of a body.
const PER_BYTE: usize = 8;

/// A body as long as is taken, of one `item` again and again within `field`.
fn filled(before: &str, item: &str, after: &str) -> String {
    let room = BODY - before.len() - after.len();
    let items = item.repeat(room / item.len());
    format!("{before}{}{after}", items.trim_end_matches(','))
}

/// By the version of HTTP whose answers come in one piece.
async fn post(group: &Group, path: &str, body: &str) -> (u16, Value, Duration) {
    let mut stream = TcpStream::connect(group.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!("POST {path} HTTP/1.0\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let sent = Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let waited = sent.elapsed();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap(), waited)
}

#[tokio::test]
async fn a_request_costs_at_most_eight_bytes_of_memory_for_each_of_its_own() {
    let group = Group::start(1, &["--max-body-bytes", &BODY.to_string()]).await;
    let warm = json!({"prompt": "a", "max_tokens": 1}).to_string();
    assert_eq!(post(&group, "/v1/completions", &warm).await.0, 200);
    let idle = group.memory();
    let chat = "{\"messages\":[";
    for (name, path, body) in [
        ("one list of tokens", "/v1/completions", filled("{\"prompt\":[", "0,", "]}")),
        ("lists of one token", "/v1/completions", filled("{\"prompt\":[", "[0],", "]}")),
        ("lists of a thousand", "/v1/completions", filled("{\"prompt\":[", &format!("[{}0],", "1,".repeat(999)), "]}")),
        ("short texts", "/v1/completions", filled("{\"prompt\":[", "\"a\",", "]}")),
        ("one text", "/v1/completions", filled("{\"prompt\":\"", "many words ", "\"}")),
        ("one text of escapes", "/v1/completions", filled("{\"prompt\":\"", "\\u0041", "\"}")),
        (
            "echoed lists",
            "/v1/completions",
            filled("{\"max_tokens\":0,\"echo\":true,\"prompt\":[", "[999,999,999],", "]}"),
        ),
        ("stop strings", "/v1/completions", filled("{\"prompt\":\"a\",\"stop\":[", "\"a\",", "]}")),
        ("fields", "/v1/completions", filled("{", "\"a\":0,", "}")),
        ("an unknown field", "/v1/completions", filled("{\"prompt\":\"a\",\"b\":[", "{},", "]}")),
        ("biases", "/v1/completions", filled("{\"prompt\":\"a\",\"logit_bias\":{", "\"1\":0,", "}}")),
        ("messages", "/v1/chat/completions", filled(chat, "{\"role\":\"user\",\"content\":\"\"},", "]}")),
        ("no messages", "/v1/chat/completions", filled(chat, "0,", "]}")),
        ("parts", "/v1/chat/completions", filled(&format!("{chat}{{\"role\":\"user\",\"content\":["), "\"\",", "]}]}")),
        (
            "one message",
            "/v1/chat/completions",
            filled(&format!("{chat}{{\"role\":\"user\",\"content\":\""), "a b ", "\"}]}"),
        ),
        (
            "arguments",
            "/v1/chat/completions",
            filled(
                "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"chat_template_kwargs\":{\"a\":[",
                "0,",
                "]}}",
            ),
        ),
    ] {
        group.forget_peak();
        let (status, answer, waited) = post(&group, path, &body).await;
        // What the bodies before have left behind counts too.
        let cost = group.peak_memory() - idle;
        println!("{name}: {status} after {waited:?}, {:.2} bytes a byte, {answer}", cost as f64 / body.len() as f64);
        assert_eq!(status, 400, "{name}: {answer}");
        assert!(cost < PER_BYTE * body.len(), "{name}: {cost} bytes for {}", body.len());
    }
    let kept = group.memory() - idle;
    println!("{kept} bytes are kept");
    assert!(kept < PER_BYTE * BODY, "{kept}");
}

/// Memory for what a chat costs whatever its length: a piece of text of which tokens are made, a hundred times over, what the chats
/// before have left behind, and threads that begin.
const PER_CHAT: usize = 4 << 20;

/// Memory for each byte of the arguments of a template, of which 64 KiB are taken.
const PER_BYTE_OF_ARGUMENTS: usize = 56;

/// The small model with a context of so many tokens and a template that reads every message and says how many there are.
fn model_of_long_chats(context: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    {
        std::fs::copy(format!("{MODEL}/{file}"), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = context.into();
    std::fs::write(path, config.to_string()).unwrap();
    let template = "{% for message in messages %}{% if message.role == 'x' or message.content == 'x' %}\
                    {{ message.content }}{% endif %}{% endfor %}{{ messages | length }}";
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

/// Tokens of the longest chat, and so about how many messages it may have.
const CONTEXT: usize = 1 << 16;

const SHORT: &str = "{\"role\":\"user\",\"content\":\"a\"}";

/// Serves chats with a server of their own, and sees that none costs more than [`PER_CHAT`] and so much for each of its bytes.
async fn check_chats(mut chats: Vec<(&str, String)>, per_byte: usize) {
    let folder = model_of_long_chats(CONTEXT);
    let blocks = (CONTEXT / 16).to_string();
    let group = Group::of(folder.path(), 1, &["--kv-blocks", &blocks]).await;
    let path = "/v1/chat/completions";
    assert_eq!(post(&group, path, &format!("{{\"max_tokens\":1,\"messages\":[{SHORT}]}}")).await.0, 200);
    let idle = group.memory();
    // What one chat leaves behind for the next counts as the next one's, so none is measured after a longer one.
    chats.sort_by_key(|(_, body)| body.len());
    for (name, body) in chats {
        group.forget_peak();
        let (status, answer, waited) = post(&group, path, &body).await;
        let cost = group.peak_memory().saturating_sub(idle);
        let of_each = cost.saturating_sub(PER_CHAT) as f64 / body.len() as f64;
        println!("{name}: {status} after {waited:?}, {cost} bytes for {}: {of_each:.2}, {answer}", body.len());
        assert_eq!(status, 200, "{name}: {answer}");
        assert!(cost < PER_CHAT + per_byte * body.len(), "{name}: {cost} bytes for {}", body.len());
    }
}

#[tokio::test]
async fn a_chat_that_is_served_costs_at_most_eight_bytes_of_memory_for_each_of_its_own() {
    let messages = |message: &str| {
        let all = vec![message; CONTEXT - 16].join(",");
        format!("{{\"max_tokens\":1,\"messages\":[{all}]}}")
    };
    let parts = |part: &str| {
        let all = vec![part; CONTEXT].join(",");
        format!("{{\"max_tokens\":1,\"messages\":[{{\"role\":\"user\",\"content\":[{all}]}}]}}")
    };
    let taking_turns =
        |one: &str, other: &str| messages(one).replace(&format!("{one},{one}"), &format!("{one},{other}"));
    let chats = vec![
        ("empty messages", messages("{\"role\":\"user\",\"content\":\"\"}")),
        ("short messages", messages(SHORT)),
        ("answers without content", messages("{\"role\":\"assistant\"}")),
        ("named messages", messages("{\"role\":\"user\",\"content\":\"\",\"name\":\"n\"}")),
        (
            "answers that called no tools",
            messages("{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[],\"refusal\":\"\"}"),
        ),
        (
            "answers that were thought about",
            messages("{\"role\":\"assistant\",\"content\":\"b\",\"reasoning_content\":\"c\"}"),
        ),
        ("thoughts alone", messages("{\"role\":\"assistant\",\"reasoning\":\"c\"}")),
        (
            "empty messages that take turns",
            taking_turns("{\"role\":\"assistant\"}", "{\"role\":\"user\",\"content\":\"\"}"),
        ),
        ("parts", parts("{\"type\":\"text\",\"text\":\"a\"}")),
        ("plain parts", parts("\"\"")),
        ("long parts", parts(&format!("\"{}\"", "a b ".repeat(4)))),
    ];
    check_chats(chats, PER_BYTE).await;
}

#[tokio::test]
async fn arguments_of_a_template_cost_a_bounded_number_of_bytes_for_each_of_their_own() {
    let arguments =
        |arguments: &str| format!("{{\"max_tokens\":1,\"messages\":[{SHORT}],\"chat_template_kwargs\":{arguments}}}");
    let list = |item: &str| arguments(&format!("{{\"a\":[{}]}}", vec![item; (60 << 10) / (item.len() + 1)].join(",")));
    let names: Vec<String> = (0..5000).map(|name| format!("\"n{name}\":0")).collect();
    let chats = vec![
        ("numbers as arguments", list("0")),
        ("lists as arguments", list("[]")),
        ("objects as arguments", list("{}")),
        ("names as arguments", arguments(&format!("{{{}}}", names.join(",")))),
    ];
    check_chats(chats, PER_BYTE_OF_ARGUMENTS).await;
}

#[tokio::test]
async fn text_that_no_context_holds_is_refused_at_once() {
    for options in [&[][..], &["--max-body-bytes", "8388608"]] {
        let group = Group::start(1, options).await;
        let body = json!({"prompt": "many words ".repeat((4 << 20) / 11)}).to_string();
        let mut quickest = Duration::MAX;
        // The machine may have other work: once is enough.
        for _ in 0..20 {
            let (status, answer, waited) = post(&group, "/v1/completions", &body).await;
            let code = &answer["error"]["code"];
            let expected =
                if options.is_empty() { (413, "request_too_large") } else { (400, "context_length_exceeded") };
            assert_eq!((status, code.as_str()), (expected.0, Some(expected.1)), "{answer}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.starts_with("This model's maximum context length is 1024 tokens. However, "), "{message}");
            quickest = quickest.min(waited);
        }
        println!("{options:?}: refused {quickest:?} after the last byte");
        assert!(quickest < Duration::from_millis(50), "{quickest:?}");
    }
}

#[tokio::test]
async fn an_answer_costs_a_few_bytes_for_each_log_probability_and_one_with_more_than_there_may_be_is_refused() {
    // Those that are kept take 8 bytes each, and 8 more for each token; the rest is what is under way.
    const OF_EACH: usize = 40;
    let group = Group::start(1, &[]).await;
    let one = vec![5; 1000];
    let echo = |prompt: Value, choices: usize| json!({"prompt": prompt, "n": choices, "max_tokens": 0, "echo": true, "logprobs": 20});
    let chat = |choices: usize, tokens: usize| {
        json!({
            "messages": [{"role": "user", "content": "a"}], "n": choices, "max_tokens": tokens, "logprobs": true,
            "top_logprobs": 20, "ignore_eos": true,
        })
    };
    let (completions, chats) = ("/v1/completions", "/v1/chat/completions");
    for (name, path, body, choices, tokens) in [
        ("one prompt, echoed many times", completions, echo(json!(one), 8), 8, 8000),
        ("many prompts, echoed", completions, echo(json!(vec![&one; 8]), 1), 8, 8000),
        ("many choices", chats, chat(128, 62), 128, 7936),
    ] {
        let before = group.memory();
        group.forget_peak();
        let (status, answer, waited) = post(&group, path, &body.to_string()).await;
        let (cost, scores) = (group.peak_memory().saturating_sub(before), tokens * 21);
        println!("{name}: {status} after {waited:?}, {:.2} bytes a score", cost as f64 / scores as f64);
        assert_eq!((status, answer["choices"].as_array().map(Vec::len)), (200, Some(choices)), "{name}");
        assert!(cost < scores * OF_EACH, "{name}: {cost} bytes");
    }
    for (path, body) in [(completions, echo(json!(one), 50)), (chats, chat(128, 391))] {
        let (status, answer, _) = post(&group, path, &body.to_string()).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("n")), "{answer}");
    }
}
