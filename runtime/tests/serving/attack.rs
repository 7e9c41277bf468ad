//! Hostile bytes on both ports of HTTP: `SWIFTBALANCER_FUZZ_INPUTS` says how many for each port,
//! `SWIFTBALANCER_FUZZ_SEED` which.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Streaming, text};
use crate::greedy;
use crate::group::{Group, PATIENCE, kill};

/// Inputs for each port where nobody says.
const INPUTS: usize = 400;

/// Inputs under way at the same time.
const AT_ONCE: usize = 16;

/// Connections that keep a port waiting.
const WAITING: usize = 1000;

/// Memory that attacks may leave a coordinator with.
const MORE_MEMORY: usize = 64 << 20;

/// Within which `/livez` answers.
const ALIVE: Duration = Duration::from_secs(1);

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// One input: its bytes, and whether an answer is due.
struct Input {
    bytes: Vec<u8>,
    is_whole: bool,
}

/// Values that are not what a field wants.
fn odd(random: &mut StdRng) -> Value {
    let long = "x".repeat(random.random_range(0..20_000));
    let deep = (0..random.random_range(0..200)).fold(json!(1), |value, _| json!([value]));
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1e308),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.5),
        json!(""),
        json!("\u{0}\u{202e}\u{feff}é🦀"),
        json!(long),
        deep,
        json!([]),
        json!({}),
        json!([[]]),
        json!(vec![0; random.random_range(0..3000)]),
        json!(vec!["a"; random.random_range(0..300)]),
        json!(vec![vec![random.random_range(0..3000_u32)]; random.random_range(0..300)]),
        json!([{"role": "user", "content": long}]),
        json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": null}]}]),
        json!({"include_usage": 1}),
    ];
    values[random.random_range(0..values.len())].clone()
}

/// A request's body that is nearly right.
fn body(random: &mut StdRng, chat: bool) -> Value {
    let mut body = if chat {
        json!({"messages": [{"role": "user", "content": "Once"}], "max_tokens": 4})
    } else {
        json!({"prompt": "Once", "max_tokens": 4})
    };
    let fields = [
        "model",
        "prompt",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "n",
        "best_of",
        "stop",
        "seed",
        "logprobs",
        "top_logprobs",
        "echo",
        "stream",
        "stream_options",
        "chat_template_kwargs",
        "logit_bias",
        "user",
        "tools",
        "response_format",
        "nothing",
        "add_special_tokens",
        "request_id",
        "ignore_eos",
    ];
    for _ in 0..random.random_range(0..4) {
        body[fields[random.random_range(0..fields.len())]] = odd(random);
    }
    body
}

fn post(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn input(random: &mut StdRng, admin: bool, map: &[u8]) -> Input {
    let mut bytes = match (random.random_range(0..4), admin) {
        (0, _) => (0..random.random_range(0..2000)).map(|_| random.random()).collect(),
        (1, true) => {
            let paths = ["/admin/v1/map", "/admin/v1/state", "/admin/v1/rebalance", "/livez", "/metrics", "/../livez"];
            let kind = ["application/json", "text/plain"][random.random_range(0..2)];
            post(paths[random.random_range(0..paths.len())], kind, body(random, false).to_string().as_bytes())
        }
        (1, false) => {
            let lines =
                ["GET /health", "GET /v1/models/%ff%00", "DELETE /v1/completions", "HEAD /metrics", "* *", "GET //"];
            let line = lines[random.random_range(0..lines.len())];
            format!("{line} HTTP/1.1\r\nhost: \r\nx-request-id: {}\r\n\r\n", "é".repeat(random.random_range(0..99)))
                .into()
        }
        (_, true) => post("/admin/v1/map", "application/json", map),
        (kind, false) => {
            let path = ["/v1/completions", "/v1/chat/completions"][usize::from(kind == 3)];
            post(path, "application/json", body(random, kind == 3).to_string().as_bytes())
        }
    };
    let mut is_whole = !bytes.is_empty();
    if random.random_bool(0.5) && !bytes.is_empty() {
        // Bytes changed, a part repeated, or the end left out.
        is_whole = false;
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => bytes.extend_from_within(at..(at + 50).min(bytes.len())),
                _ => bytes.truncate(at.max(1)),
            }
        }
    }
    Input { bytes, is_whole }
}

/// Sends an input; what is answered is read as far as it comes soon.
async fn send(address: &str, input: Input) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    // The server may have closed already: it owes nobody to listen.
    let _ = stream.write_all(&input.bytes).await;
    let wait = Duration::from_millis(if input.is_whole { 2000 } else { 20 });
    let mut answer = [0; 4096];
    let _ = tokio::time::timeout(wait, stream.read(&mut answer)).await;
}

/// Asks for `/livez` once; false if the connection is closed before the answer.
fn is_alive(address: &str) -> bool {
    let answer = || {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    let answer = answer().unwrap_or_default();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    !answer.is_empty()
}

/// Asks for `/livez` again and again, over a connection each time, until it is dropped.
struct Watch {
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<Duration>>>,
}

impl Watch {
    fn start(group: &Group) -> Self {
        let address = group.admin.strip_prefix("http://").unwrap().to_owned();
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !ended.load(Ordering::SeqCst) {
                let start = Instant::now();
                // A connection that is slower to ask than all others, on a machine that has other work, may lose its
                // place to a newer one: what counts is how long the answer takes in all.
                while !is_alive(&address) {
                    assert!(start.elapsed() < PATIENCE, "/livez does not answer");
                }
                times.push(start.elapsed());
            }
            times
        });
        Self { ends, thread: Some(thread) }
    }

    /// Whether it was alive throughout. One answer in a hundred may have waited for this machine's other work.
    fn check(mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let mut times = self.thread.take().unwrap().join().expect("/livez answers throughout");
        times.sort_unstable();
        let most = times[times.len() * 99 / 100];
        println!("/livez {} times, mostly within {most:?}, once after {:?}", times.len(), times.last());
        assert!(most < ALIVE, "{most:?} of {}", times.len());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
    }
}

/// A group with a text that it gives whenever it is asked to.
struct Target {
    group: Group,
    body: Value,
    expected: String,
    idle: usize,
    watch: Watch,
}

impl Target {
    async fn start() -> Self {
        let group = Group::start(1, &[]).await;
        let body = greedy("Once upon a time", 60);
        let expected = text(&group, &body).await;
        let idle = group.memory();
        let watch = Watch::start(&group);
        Self { group, body, expected, idle, watch }
    }

    async fn stream_is_the_same(&self) {
        let mut stream = Streaming::start(&self.group, self.body.clone()).await;
        stream.read(|_| false).await;
        assert_eq!(stream.text, self.expected);
    }

    async fn check(self) {
        self.stream_is_the_same().await;
        assert!(self.group.is_healthy().await);
        let memory = self.group.memory();
        println!("memory {} KiB before and {} KiB after", self.idle >> 10, memory >> 10);
        assert!(memory < self.idle + MORE_MEMORY, "{} and then {memory}", self.idle);
        self.watch.check();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_inputs_on_either_port_disturb_nobody() {
    let seed = variable("SWIFTBALANCER_FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let inputs = variable("SWIFTBALANCER_FUZZ_INPUTS").unwrap_or(INPUTS);
    println!("SWIFTBALANCER_FUZZ_SEED={seed} SWIFTBALANCER_FUZZ_INPUTS={inputs}");
    let target = Target::start().await;
    let map = reqwest::get(format!("{}{}", target.group.admin, plan::wire::path::MAP)).await.unwrap();
    let map = map.bytes().await.unwrap();
    for (admin, url) in [(false, &target.group.url), (true, &target.group.admin)] {
        let address = url.strip_prefix("http://").unwrap();
        let numbered = (0..inputs as u64).map(|number| {
            let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
            send(address, input(&mut random, admin, &map))
        });
        let attack = futures::stream::iter(numbered).buffer_unordered(AT_ONCE).collect::<Vec<()>>();
        let beside = async {
            for _ in 0..3 {
                target.stream_is_the_same().await;
            }
        };
        tokio::join!(attack, beside);
    }
    target.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_that_wait_or_drip_on_either_port_disturb_nobody() {
    let target = Target::start().await;
    for url in [&target.group.url, &target.group.admin] {
        let address = url.strip_prefix("http://").unwrap();
        let mut waiting = Vec::new();
        for number in 0..WAITING {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let begun: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET /health HTTP/1.1\r\nx: ",
                _ => b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"prompt\": \"",
            };
            // It may have lost its place already.
            let _ = stream.write_all(begun).await;
            waiting.push(stream);
        }
        for _ in 0..3 {
            for stream in &mut waiting {
                let _ = stream.write_all(b"a").await;
            }
            target.stream_is_the_same().await;
            assert!(target.group.is_healthy().await);
        }
    }
    target.check().await;
}

/// With few descriptors there are few places, and those who wait lose theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_64_descriptors_answers_though_more_connections_wait() {
    let group = Group::start_within(64, 1).await;
    let mut waiting = Vec::new();
    for url in [&group.url, &group.admin] {
        let address = url.strip_prefix("http://").unwrap();
        for _ in 0..100 {
            waiting.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(group.is_healthy().await);
        let livez = reqwest::get(format!("{}/livez", group.admin)).await.unwrap();
        assert_eq!(livez.status(), 200);
    }
    assert!(!text(&group, &greedy("Once", 5)).await.is_empty());
    // What is left for a rank that comes back is enough: its process, and its connections.
    kill(group.ranks()[0], Signal::KILL);
    group.until("its rank is lost", async || !group.is_healthy().await).await;
    group.until("its rank is back", async || group.is_healthy().await).await;
    assert!(!text(&group, &greedy("Once", 5)).await.is_empty());
    drop(waiting);
}
