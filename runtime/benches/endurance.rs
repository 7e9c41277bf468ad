//! Whether a group stays right for as long as it is let run: requests whose answers are known stream through 4 ranks
//! whose experts move all the time, a rank is killed every ten seconds, and memory and descriptors are watched. Prints
//! one JSON object; fails if an answer is wrong or missing, or if the coordinator grows.
//!
//! `cargo bench -p runtime --bench endurance -- --minutes 20`; `--seed N` repeats a run's choice of ranks.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark's own mistake ends it")]

#[path = "../tests/serving/client.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod client;
#[path = "../tests/serving/group.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod group;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::{complete, text};
use futures::future::{join, join_all};
use group::{Group, kill};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Requests under way at any time.
const CLIENTS: usize = 16;
/// Between two ranks that are killed.
const KILL_EVERY: Duration = Duration::from_secs(10);
/// The coordinator may be larger at the end than after its first minute by this: what metrics and logs hold.
const GROWTH_BYTES: u64 = 32 << 20;
/// Descriptors that may be open at the end beyond those after the first minute: connections that are just being made.
const GROWTH_DESCRIPTORS: usize = 32;
const OPTIONS: [&str; 3] = ["--init-redundancy-expert", "4", "--dynamic-eplb"];

/// What came of the requests.
#[derive(Default)]
struct Tally {
    right: u64,
    wrong: Vec<String>,
    /// Requests without an answer, by what was answered instead.
    lost: BTreeMap<String, u64>,
}

/// How large the coordinator is.
#[derive(Clone, Copy)]
struct Size {
    resident_bytes: u64,
    descriptors: usize,
}

fn main() {
    let option = |name: &str| std::env::args().skip_while(|argument| argument != name).nth(1);
    let minutes: f64 = option("--minutes").map_or(20.0, |minutes| minutes.parse().unwrap());
    let seed = option("--seed").map_or_else(|| rand::rng().random(), |seed| seed.parse().unwrap());
    eprintln!("endurance: {minutes} minutes, --seed {seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (report, holds) = runtime.block_on(run(Duration::from_secs_f64(minutes * 60.0), seed));
    println!("{report:#}");
    assert!(holds, "see the report");
}

async fn run(length: Duration, seed: u64) -> (Value, bool) {
    let still = Group::start(1, &[]).await;
    let mut known = Vec::new();
    for body in bodies() {
        let expected = text(&still, &body).await;
        known.push((body, expected));
    }
    drop(still);
    let group = Group::start(4, &OPTIONS).await;
    let (end, tally) = (Instant::now() + length, RefCell::new(Tally::default()));
    let clients = join_all((0..CLIENTS).map(|client| ask(&group, &known, client, end, &tally)));
    let served = join(async { drop(clients.await) }, disturb(&group, seed, end));
    let ((), (kills, sizes)) = tokio::select! {
        served = served => served,
        never = group.keep_moving(seed) => match never {},
    };
    let moved = group.metric("swiftbalancer_transactions_committed_total").await;
    let (first, last) = (sizes[0], *sizes.last().unwrap());
    let Tally { right, wrong, lost } = tally.into_inner();
    let flat = last.resident_bytes <= first.resident_bytes + GROWTH_BYTES
        && last.descriptors <= first.descriptors + GROWTH_DESCRIPTORS;
    let report = json!({
        "seconds": length.as_secs(), "answers_right": right, "answers_wrong": wrong, "requests_lost": lost,
        "ranks_killed": kills, "transactions_committed": moved,
        "coordinator": {
            "resident_bytes": [first.resident_bytes, last.resident_bytes],
            "descriptors": [first.descriptors, last.descriptors],
        },
    });
    (report, wrong.is_empty() && lost.is_empty() && flat)
}

/// Requests of many kinds, each with one right answer.
fn bodies() -> Vec<Value> {
    let body = |number: usize| {
        let drawn = number.is_multiple_of(2);
        json!({
            "prompt": format!("{number} times {number} is"), "max_tokens": 8 + 5 * (number % 16), "seed": number,
            "temperature": if drawn { 0.8 } else { 0.0 }, "top_p": if number.is_multiple_of(4) { 0.9 } else { 1.0 },
        })
    };
    (0..64).map(body).collect()
}

/// One client after the other asks for all of them, streaming every other time.
async fn ask(group: &Group, known: &[(Value, String)], client: usize, end: Instant, tally: &RefCell<Tally>) {
    for turn in client * known.len() / CLIENTS.. {
        if Instant::now() >= end {
            return;
        }
        let (body, expected) = &known[turn % known.len()];
        let answer = if turn.is_multiple_of(2) { streamed(group, body).await } else { whole(group, body).await };
        let mut tally = tally.borrow_mut();
        match answer {
            Ok(answer) if answer == *expected => tally.right += 1,
            Ok(answer) => tally.wrong.push(format!("{body}: {answer:?} instead of {expected:?}")),
            Err(reason) => *tally.lost.entry(reason).or_default() += 1,
        }
    }
}

async fn whole(group: &Group, body: &Value) -> Result<String, String> {
    let (status, json) = complete(group, body).await;
    let text = json["choices"][0]["text"].as_str();
    text.filter(|_| status == 200).map(str::to_owned).ok_or_else(|| format!("{status}: {}", json["error"]["message"]))
}

async fn streamed(group: &Group, body: &Value) -> Result<String, String> {
    let mut body = body.clone();
    body["stream"] = true.into();
    let request = reqwest::Client::new().post(format!("{}/v1/completions", group.url)).body(body.to_string());
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let (status, text) = (answer.status(), answer.text().await.map_err(|error| error.to_string())?);
    if !status.is_success() {
        return Err(format!("{status}: {text}"));
    }
    let mut whole = String::new();
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if data == "[DONE]" {
            return Ok(whole);
        }
        let chunk: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
        match chunk["choices"][0]["text"].as_str() {
            Some(text) => whole.push_str(text),
            None => return Err(format!("in a stream: {}", chunk["error"]["message"])),
        }
    }
    Err("a stream ended before its last line".to_owned())
}

/// Kills a rank every [`KILL_EVERY`], and takes the coordinator's size each time from a minute after the start on.
async fn disturb(group: &Group, seed: u64, end: Instant) -> (u64, Vec<Size>) {
    let mut draws = StdRng::seed_from_u64(seed);
    let (mut kills, mut sizes, started) = (0, Vec::new(), Instant::now());
    let mut ticks = tokio::time::interval(KILL_EVERY);
    while Instant::now() < end {
        ticks.tick().await;
        let ranks = group.ranks();
        if !ranks.is_empty() {
            kill(ranks[draws.random_range(0..ranks.len())], Signal::KILL);
            kills += 1;
        }
        if started.elapsed() >= Duration::from_mins(1) || Instant::now() + KILL_EVERY >= end {
            sizes.push(size(group.pid()));
        }
    }
    (kills, sizes)
}

fn size(pid: i32) -> Size {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = resident.trim().trim_end_matches("kB").trim().parse().unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    Size { resident_bytes: kilobytes * 1024, descriptors }
}
