//! `kubectl moe bench` as a program, at servers that answer as those of the OpenAI API do.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::{printed, run, text};

/// What a server was asked: the path, the API key, and the body.
type Calls = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A server that ends with the test; one that fails refuses every completion after the first.
fn server(fails: bool) -> (String, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Calls::default();
    let log = Arc::clone(&calls);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let log = Arc::clone(&log);
            thread::spawn(move || while serve(&stream, &log, fails).is_some() {});
        }
    });
    (url, calls)
}

fn serve(mut stream: &TcpStream, calls: &Calls, fails: bool) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let found = head.iter().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        found.map(|line| line.split_once(':').unwrap().1.trim().to_owned()).unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let path = head[0].split(' ').nth(1)?.to_owned();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let earlier = {
        let mut calls = calls.lock().unwrap();
        calls.push((path.clone(), header("authorization"), asked.clone()));
        calls.iter().filter(|(path, ..)| path.ends_with("/completions")).count()
    };
    let plain = |status: &str, body: Value| {
        let body = body.to_string();
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let answer = if path.ends_with("/v1/models") {
        plain("200 OK", json!({"data": [{"id": "tiny"}]}))
    } else if path.contains("/moedeployments/") {
        plain("200 OK", serde_saphyr::from_str(include_str!("../../../examples/tiny-moe.yaml")).unwrap())
    } else if fails && earlier > 1 {
        plain("503 Service Unavailable", json!({"error": {"message": "the group is lost"}}))
    } else {
        let tokens = asked["max_tokens"].as_u64().unwrap();
        let piece = |text: &str| format!("data: {}\n\n", json!({"choices": [{"text": text}]}));
        let usage = json!({"choices": [], "usage": {"completion_tokens": tokens}});
        let pieces: String = (0..tokens).map(|_| piece("a")).collect();
        let events = format!("{pieces}data: {usage}\n\ndata: [DONE]\n\n");
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{events}",
            events.len()
        )
    };
    stream.write_all(answer.as_bytes()).ok()
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(&[arguments, &["-o", "json"]].concat())).unwrap()
}

const SMALL: &[&str] = &[
    "--seconds",
    "2",
    "--shift-seconds",
    "1",
    "--concurrency",
    "2",
    "--burst",
    "2",
    "--vocabulary",
    "50",
    "--prompt-tokens",
    "9",
    "--max-tokens",
    "5",
];

#[test]
fn two_servers_get_the_same_traffic_in_turn_and_are_compared() {
    let ((one, first), (other, second)) = (server(false), server(false));
    let with_version = format!("{other}/v1/");
    let report = json_of(&[&["bench", &one, "--against", &with_version], SMALL].concat());
    for target in report["targets"].as_array().unwrap() {
        let number = |name: &str| target[name].as_u64().unwrap();
        assert!(number("answered") > 2 && number("failed") == 0, "{target}");
        assert_eq!(number("tokens"), 5 * number("answered"));
        let first_token = target["timeToFirstToken"]["p50"].as_f64().unwrap();
        assert!(first_token > 0.0 && first_token <= target["endToEnd"]["most"].as_f64().unwrap());
        assert_eq!(target["model"], "tiny");
    }
    assert!(report["against"]["tokensPerSecond"].as_f64().unwrap() > 0.0);
    let prompts = |calls: &Calls| -> BTreeSet<Vec<u64>> {
        let calls = calls.lock().unwrap();
        let asked = calls.iter().filter(|(path, ..)| path == "/v1/completions");
        asked.map(|(.., body)| serde_json::from_value(body["prompt"].clone()).unwrap()).collect()
    };
    let (first, second) = (prompts(&first), prompts(&second));
    // One may come further in its seconds than the other.
    let fewer = first.len().min(second.len());
    assert!(first.intersection(&second).count() * 2 > fewer, "both get the same requests: {first:?} {second:?}");
    assert!(first.iter().all(|ids| ids.len() == 9 && ids.iter().all(|&id| id < 50)), "{first:?}");
    let plot = printed(&[&["bench", &one, "--plot", "-"], SMALL].concat());
    assert!(plot.starts_with("<svg ") && plot.contains("inter-token p99"), "{plot}");
}

#[test]
fn requests_that_begin_at_a_rate_wait_for_no_answer_and_a_key_is_sent() {
    let (url, calls) = server(false);
    let key = std::env::temp_dir().join(format!("kubectl-moe-key-{}", std::process::id()));
    std::fs::write(&key, "# of today\nsecret-key\n").unwrap();
    let key_path = key.to_str().unwrap();
    let words = ["bench", &url, "--rate", "20", "--seconds", "2", "--max-tokens", "2", "--api-key-file", key_path];
    let report = json_of(&words);
    assert!((2.0..4.0).contains(&report["targets"][0]["seconds"].as_f64().unwrap()), "{report}");
    std::fs::remove_file(&key).unwrap();
    let answered = report["targets"][0]["answered"].as_u64().unwrap();
    assert!((15..70).contains(&answered), "about 40 of Poisson's: {answered}");
    assert!(calls.lock().unwrap().iter().all(|(_, key, _)| key == "Bearer secret-key"));
}

#[test]
fn a_deployment_is_asked_through_the_api_server() {
    let (url, calls) = server(false);
    let report = json_of(&[&["bench", "tiny-moe", "--server", &url], SMALL].concat());
    assert_eq!(report["targets"][0]["failed"], 0);
    let calls = calls.lock().unwrap();
    assert!(calls[0].0.ends_with("/namespaces/default/moedeployments/tiny-moe"), "{}", calls[0].0);
    assert_eq!(calls[1].0, "/api/v1/namespaces/default/services/tiny-moe:http/proxy/v1/models");
    assert_eq!(calls[2].0, "/api/v1/namespaces/default/services/tiny-moe:http/proxy/v1/completions");
}

#[test]
fn what_fails_is_counted_and_told_and_what_cannot_work_at_all_ends_at_once() {
    let (url, _) = server(true);
    let output = run(&[&["bench", &url], SMALL].concat());
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let answered = stdout.lines().find(|line| line.starts_with("requests answered ")).unwrap();
    assert!(!output.status.success() && answered.ends_with(" 0"), "{stdout}");
    assert_eq!(stderr, format!("kubectl-moe: {url} answers with: 503 Service Unavailable: the group is lost\n"));
    let refused = |target: &str, more: &[&str]| {
        let output = run(&[&["bench", target], more].concat());
        assert!(!output.status.success());
        text(&output.stderr)
    };
    let nobody = refused("http://127.0.0.1:1", &[]);
    assert!(nobody.starts_with("kubectl-moe: http://127.0.0.1:1 cannot be asked: a URL needs a server"), "{nobody}");
    assert!(refused("http://", &[]).contains("is no URL of a server"), "{}", refused("http://", &[]));
    assert!(refused(&url, &["--skew", "-1"]).contains("it must be from 0 to 100"));
    assert!(refused(&url, &["--rate", "0"]).contains("it must be above 0"));
    let by_name = refused("tiny-moe", &["--server", &url, "--api-key-file", "/proc/self/comm"]);
    assert!(by_name.starts_with("kubectl-moe: tiny-moe is asked through the API server, which passes no"), "{by_name}");
    assert!(refused(&url, &["--api-key-file", "/nowhere"]).contains("the API key cannot be read from /nowhere"));
}
