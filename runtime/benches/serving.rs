//! What serving costs beyond the model: the same requests through one rank that is called directly, through the server
//! with that rank behind it, streaming and not, and through the server with 2 and 4 ranks on the same cores. Prints one
//! JSON object.
//!
//! `cargo bench -p runtime --bench serving`

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark's own mistake ends it")]

#[path = "../tests/serving/group.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod group;
mod one_rank;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use group::{Group, MODEL};
use one_rank::{Engine, read_prompts};
use reqwest::Client;
use serde_json::{Value, json};

/// Requests at a time.
const REQUESTS: [usize; 3] = [1, 8, 32];
const PROMPT_TOKENS: usize = 64;
const TOKENS: usize = 128;
/// Sequences whose prompts the server computes in one step: 512 tokens.
const PROMPTS_PER_STEP: usize = 512 / PROMPT_TOKENS;
const THREADS: usize = 2;
/// Runs of each way and number of requests, round robin, so that a slow phase of the machine hits all of them alike.
const ROUNDS: usize = 9;
/// A run is repeated while other processes take more than this many cores from it, or the host does.
const FOREIGN_CORES: f64 = 0.10;
const MOST_REPEATS: usize = 6;

/// A way that requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Direct,
    Server,
    Streaming,
    TwoRanks,
    FourRanks,
}

const WAYS: [(Way, &str); 5] = [
    (Way::Direct, "one rank, called directly"),
    (Way::Server, "HTTP, one rank"),
    (Way::Streaming, "HTTP, one rank, streaming"),
    (Way::TwoRanks, "HTTP, 2 ranks of one thread"),
    (Way::FourRanks, "HTTP, 4 ranks of one thread"),
];

struct Bench {
    prompts: Vec<Vec<u32>>,
    direct: Direct,
    client: Client,
    groups: BTreeMap<Way, Group>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{:#}", runtime.block_on(report()));
}

async fn report() -> Value {
    let prompts = read_prompts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/prompts.txt")).unwrap();
    let prompts: Vec<Vec<u32>> = prompts.into_iter().map(|prompt| prompt[..PROMPT_TOKENS].to_vec()).collect();
    let threads = THREADS.to_string();
    let one = async || Group::start(1, &["--threads", &threads]).await;
    let groups = [
        (Way::Server, one().await),
        (Way::Streaming, one().await),
        (Way::TwoRanks, Group::start(2, &[]).await),
        (Way::FourRanks, Group::start(4, &[]).await),
    ];
    let bench = Bench { prompts, direct: Direct::start(), client: Client::new(), groups: groups.into() };
    let mut seconds: BTreeMap<(usize, Way), Vec<f64>> = BTreeMap::new();
    let (mut repeated, mut disturbed) = (0, 0);
    for round in 0..=ROUNDS {
        for requests in REQUESTS {
            for (way, _) in WAYS {
                let mut taken = bench.watched(way, requests).await;
                for _ in 0..MOST_REPEATS {
                    if taken.foreign_cores <= FOREIGN_CORES || round == 0 {
                        break;
                    }
                    repeated += 1;
                    taken = bench.watched(way, requests).await;
                }
                // The first round warms up.
                if round > 0 {
                    disturbed += usize::from(taken.foreign_cores > FOREIGN_CORES);
                    seconds.entry((requests, way)).or_default().push(taken.wall.as_secs_f64());
                }
            }
        }
    }
    let cases: Vec<Value> = REQUESTS.iter().map(|&requests| case(requests, &seconds)).collect();
    json!({
        "prompt_tokens": PROMPT_TOKENS, "tokens": TOKENS, "rounds": ROUNDS, "cases": cases,
        "runs_repeated": repeated, "runs_kept_though_disturbed": disturbed,
    })
}

/// Speeds, and each way's time as a multiple of another's: the median of the rounds' own ratios.
fn case(requests: usize, seconds: &BTreeMap<(usize, Way), Vec<f64>>) -> Value {
    let of = |way| &seconds[&(requests, way)];
    let ratio = |way, base| {
        let rounds = of(way).iter().zip(of(base)).map(|(way, base)| way / base);
        (median(rounds) * 1000.0).round() / 1000.0
    };
    let speed = |way| (requests * TOKENS) as f64 / median(of(way).iter().copied());
    let speeds: BTreeMap<&str, f64> = WAYS.iter().map(|&(way, name)| (name, speed(way).round())).collect();
    let added = |way| {
        let added = of(way).iter().zip(of(Way::Direct)).map(|(way, direct)| way - direct);
        (median(added) * 1e6 / (requests * TOKENS) as f64 * 10.0).round() / 10.0
    };
    json!({
        "requests": requests,
        "tokens_per_second": speeds,
        "time_of_http_to_direct": ratio(Way::Server, Way::Direct),
        "time_of_streaming_to_direct": ratio(Way::Streaming, Way::Direct),
        "microseconds_per_token_added_by_http": added(Way::Server),
        "microseconds_per_token_added_by_streaming": added(Way::Streaming),
        "time_of_2_ranks_to_1": ratio(Way::TwoRanks, Way::Server),
        "time_of_4_ranks_to_1": ratio(Way::FourRanks, Way::Server),
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// How long a run took, and how many cores were busy with something else.
struct Taken {
    wall: Duration,
    foreign_cores: f64,
}

impl Bench {
    async fn watched(&self, way: Way, requests: usize) -> Taken {
        let (busy, own, started) = (busy_seconds(), self.own_seconds(), Instant::now());
        self.run(way, requests).await;
        let wall = started.elapsed();
        let foreign = (busy_seconds() - busy) - (self.own_seconds() - own);
        Taken { wall, foreign_cores: foreign.max(0.0) / wall.as_secs_f64() }
    }

    async fn run(&self, way: Way, requests: usize) {
        let prompts = &self.prompts[..requests];
        if way == Way::Direct {
            return self.direct.run(prompts.to_vec());
        }
        let group = &self.groups[&way];
        join_all(prompts.iter().map(|prompt| self.request(group, prompt, way == Way::Streaming))).await;
    }

    async fn request(&self, group: &Group, prompt: &[u32], stream: bool) {
        let mut body = json!({"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": true});
        if stream {
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
        }
        let request = self.client.post(format!("{}/v1/completions", group.url)).body(body.to_string());
        let text = request.send().await.unwrap().text().await.unwrap();
        assert!(text.contains(&format!("\"completion_tokens\":{TOKENS}")), "{text}");
    }

    /// Processor time of this process, the servers and their ranks.
    fn own_seconds(&self) -> f64 {
        let groups = self.groups.values().flat_map(|group| group.ranks().into_iter().chain([group.pid()]));
        groups.chain([std::process::id() as i32]).map(process_seconds).sum()
    }
}

/// Seconds that any core was not idle since boot, time stolen by the host included.
fn busy_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<u64> = text.split_whitespace().skip(1).take(8).map(|field| field.parse().unwrap()).collect();
    ticks(fields.iter().sum::<u64>() - fields[3] - fields[4])
}

fn process_seconds(pid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in brackets, may contain anything.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    ticks(fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum())
}

/// Seconds of what the kernel shows in ticks, a hundred a second on every machine.
fn ticks(count: u64) -> f64 {
    count as f64 / 100.0
}

/// The rank that is called directly, on a thread of its own: a device belongs to the thread that makes it.
struct Direct {
    work: mpsc::Sender<Vec<Vec<u32>>>,
    done: mpsc::Receiver<()>,
}

impl Direct {
    fn start() -> Self {
        let (work, incoming) = mpsc::channel::<Vec<Vec<u32>>>();
        let (finished, done) = mpsc::channel();
        std::thread::spawn(move || {
            let most = REQUESTS.into_iter().max().unwrap();
            let mut engine = Engine::load(Path::new(MODEL), THREADS, most).unwrap();
            for prompts in incoming {
                generate(&mut engine, &prompts);
                finished.send(()).unwrap();
            }
        });
        Self { work, done }
    }

    fn run(&self, prompts: Vec<Vec<u32>>) {
        self.work.send(prompts).unwrap();
        self.done.recv().unwrap();
    }
}

fn generate(engine: &mut Engine, prompts: &[Vec<u32>]) {
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let steps = prompts.chunks(PROMPTS_PER_STEP).enumerate();
    let mut next: Vec<u32> =
        steps.flat_map(|(step, prompts)| engine.step(step * PROMPTS_PER_STEP, prompts, 0).unwrap()).collect();
    for position in PROMPT_TOKENS..PROMPT_TOKENS + TOKENS - 1 {
        let tokens: Vec<&[u32]> = next.iter().map(std::slice::from_ref).collect();
        next = engine.step(0, &tokens, position).unwrap();
    }
}
