//! What moving experts costs a step, and what it pays. Four ranks of the tiny model in this process, on real sockets;
//! every figure is a ratio within one run, or far from its limit. Prints one JSON object and fails if a limit is missed.
//!
//! `cargo bench -p runtime --bench movement`

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark's own mistake ends it")]

#[path = "../tests/group/mod.rs"]
mod group;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use group::{Deployment, Sequence, Setup, advance, checkpoint};
use plan::balance::Policy;
use plan::ids::{ExpertId, LayerId, RankId, SlotIndex};
use plan::map::ExpertMap;
use plan::moves::{SlotChange, Transaction};
use runtime::coordinator::ranks::{RankGroup as _, Ranks as _};
use runtime::experts::rebalance::{Notice, Settings};
use runtime::protocol::{Batch, Commit, ToRank, TransactionId};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

/// Pairs of runs, one with and one without moves.
const PAIRS: usize = 5;
/// Turns of each run, and steps of each turn.
const TURNS: usize = 5;
const TURN_STEPS: usize = 200;
/// Pages that must move in each run, or it shows nothing.
const LEAST_PAGES: u64 = 64;
/// Limits, from the promises that the project makes.
const P99_LIMIT: f64 = 1.10;
const COMMIT_LIMIT_MICROS: u32 = 50;
const RATIO_AFTER_SHIFT: f64 = 0.75;
const RATIO_REGAINED: f64 = 0.94;
const SHARE_OF_PAGES: f64 = 0.5;
/// Windows while traffic shifts between domains.
const WINDOW_STEPS: u64 = 64;
const TOKENS_PER_RANK: usize = 64;

fn main() {
    let report = json!({ "commit": commit(), "felt": felt(), "pays": pays() });
    println!("{report:#}");
    let failed: Vec<&str> = ["commit", "felt", "pays"].into_iter().filter(|part| report[part]["met"] != true).collect();
    assert!(failed.is_empty(), "limits missed: {failed:?}");
}

fn decoding(setup: &Setup, count: u32) -> Vec<Sequence> {
    (0..count).map(|number| Sequence::new(setup, number, (number..number + 16).collect(), 0.0)).collect()
}

/// p99 of the step time while experts move, against the same steps without. The two alternate in short turns, so that
/// whatever else the machine does meets both alike.
fn felt() -> Value {
    let mut deployment = Deployment::start(Setup::default());
    let maps = [deployment.rebalancer.map().clone(), reversed(deployment.rebalancer.map())];
    // A plan is applied no earlier than some steps after the start.
    deployment.settle(|deployment| deployment.steps > 40);
    turn(&mut deployment, None);
    let pairs: Vec<Value> = (0..PAIRS).map(|_| pair(&mut deployment, &maps)).collect();
    let median = |name: &str| {
        let mut ratios: Vec<f64> = pairs.iter().filter_map(|pair| pair[name].as_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[PAIRS / 2]
    };
    let p99 = median("p99_ratio");
    let enough = pairs.iter().all(|pair| pair["pages"].as_u64() >= Some(LEAST_PAGES));
    json!({
        "p99_ratio_median": p99, "p50_ratio_median": median("p50_ratio"), "limit": P99_LIMIT,
        "steps_each": TURNS * TURN_STEPS, "pairs": pairs, "met": p99 <= P99_LIMIT && enough,
    })
}

fn pair(deployment: &mut Deployment, maps: &[ExpertMap; 2]) -> Value {
    let (before, mut still, mut moving) = (moved(deployment), Vec::new(), Vec::new());
    for number in 0..TURNS {
        // Neither is always the first after the other.
        for moves in [number % 2 == 0, number % 2 == 1] {
            let times = turn(deployment, moves.then_some(maps));
            if moves { &mut moving } else { &mut still }.extend(times);
        }
    }
    let pages = moved(deployment) - before;
    let micros = |times: &[Duration]| [50, 99].map(|percent| (percentile(times, percent) * 1e6).round());
    let ratio = |percent| percentile(&moving, percent) / percentile(&still, percent);
    json!({
        "p50_ratio": ratio(50), "p99_ratio": ratio(99), "pages": pages,
        "still_micros_p50_p99": micros(&still), "moving_micros_p50_p99": micros(&moving),
    })
}

/// Step times of [`TURN_STEPS`] decoding steps of 32 sequences. With `maps`, experts move to one or the other all the
/// while; without, nothing moves.
fn turn(deployment: &mut Deployment, maps: Option<&[ExpertMap; 2]>) -> Vec<Duration> {
    let mut sequences = decoding(&deployment.setup, 32);
    assert!(advance(deployment, &mut sequences), "no rank is lost");
    let mut times = Vec::with_capacity(TURN_STEPS);
    for _ in 0..TURN_STEPS {
        if let Some(maps) = maps
            && deployment.rebalancer.pending_transactions() == 0
        {
            let target = if same_places(&maps[0], deployment.rebalancer.map()) { &maps[1] } else { &maps[0] };
            deployment.apply_map(target.clone());
        }
        let started = Instant::now();
        assert!(advance(deployment, &mut sequences), "no rank is lost");
        times.push(started.elapsed());
    }
    // What is under way is dropped, so that the next turn starts with nothing.
    let here = deployment.rebalancer.map().clone();
    deployment.apply_map(here);
    deployment.settle(|deployment| deployment.rebalancer.pending_transactions() == 0);
    times
}

/// Whether every rank holds the same experts under both maps, in whatever order.
fn same_places(one: &ExpertMap, other: &ExpertMap) -> bool {
    let ranks = |map: &ExpertMap| {
        let mut ranks: Vec<_> = map.slots().chunks_exact(map.shape().slots_per_rank).map(<[_]>::to_vec).collect();
        for rank in &mut ranks {
            rank.sort_unstable();
        }
        ranks
    };
    ranks(one) == ranks(other)
}

fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64()
}

fn moved(deployment: &Deployment) -> u64 {
    let pages = deployment.notices.iter().map(|notice| match notice {
        Notice::Committed { pages, .. } => *pages,
        _ => 0,
    });
    pages.sum()
}

/// Every rank gets other experts.
fn reversed(map: &ExpertMap) -> ExpertMap {
    let slots = map.slots().chunks_exact(map.shape().physical());
    ExpertMap::new(map.shape(), slots.flat_map(|layer| layer.iter().rev().copied()).collect()).unwrap()
}

/// What applying commits takes from a step, when it changes 32 slots of every rank at once.
fn commit() -> Value {
    let settings = Settings { staging_pages: 32, ..Setup::default().settings };
    let mut deployment = Deployment::start(Setup { redundancy: 0, settings, ..Setup::default() });
    let mut map = deployment.rebalancer.map().clone();
    let mut micros = Vec::new();
    for round in 0..20_u64 {
        // Each rank gets everything that the rank after it holds.
        let works: Vec<Transaction> = map.layers().map(|layer| rotation(&map, layer)).collect();
        let commits = works.iter().zip(round * works.len() as u64 + 1..).map(|(work, number)| Commit {
            transaction: TransactionId(number),
            epoch: number,
            work: work.clone(),
        });
        let commits: Vec<Commit> = commits.collect();
        for (work, commit) in works.iter().zip(&commits) {
            for rank in 0..4 {
                let (transaction, work) = (commit.transaction, work.clone());
                let order = ToRank::Stage { generation: 1, transaction, work, deadline_ms: 10_000 };
                deployment.fleet.order(RankId(rank), order);
            }
        }
        deployment.wait_for_staged(4 * works.len());
        let group = deployment.group.as_mut().unwrap();
        group.send(round + 1, vec![Batch::default(); 4], &commits).unwrap();
        let answers = group.receive().unwrap();
        micros.extend(answers.iter().map(|answer| answer.timing.commit));
        map = works.iter().fold(map, |map, work| map.apply(work).unwrap());
    }
    micros.sort_unstable();
    let (median, worst) = (micros[micros.len() / 2], micros[micros.len() - 1]);
    json!({
        "slots_per_rank": 32, "micros_median": median, "micros_p90": micros[micros.len() * 9 / 10],
        "micros_worst": worst, "limit": COMMIT_LIMIT_MICROS, "met": median < COMMIT_LIMIT_MICROS,
    })
}

fn rotation(map: &ExpertMap, layer: LayerId) -> Transaction {
    let ranks = map.shape().ranks;
    let change = |(rank, slot): (RankId, SlotIndex)| {
        let source = RankId::from((rank.index() + 1) % ranks);
        let expert = |rank| -> ExpertId { map.expert(layer, rank, slot) };
        SlotChange { rank, slot, from: expert(rank), to: expert(source), source }
    };
    Transaction { layer, changes: map.slots_of_layer().map(change).collect(), shares: Vec::new() }
}

/// Balance ratio before and after a shift of traffic between domains, when experts have followed it, and with how many pages
/// beside the published algorithm.
fn pays() -> Value {
    let (ours, published) = (follow(Policy::Swift), follow(Policy::DeepSeek));
    let share = ours.pages as f64 / published.pages as f64;
    json!({
        "tokens_per_window": WINDOW_STEPS as usize * 4 * TOKENS_PER_RANK, "windows": ours.windows, "shifts": ours.shifts,
        "pages": ours.pages, "pages_of_deepseek": published.pages, "share_limit": SHARE_OF_PAGES,
        "met": ours.shifts > 0 && ours.met == ours.shifts && share <= SHARE_OF_PAGES,
    })
}

/// What a policy makes of traffic that shifts.
struct Followed {
    windows: Vec<Value>,
    shifts: usize,
    /// Shifts after which the ratio came back in time.
    met: usize,
    pages: u64,
}

fn follow(policy: Policy) -> Followed {
    let settings = Settings { dynamic: true, window_steps: WINDOW_STEPS, ..Setup::default().settings };
    let mut deployment = Deployment::start(Setup { settings, policy, ..Setup::default() });
    let domains = ["scripture", "python", "tables", "rust", "prose"];
    let mut windows = Vec::new();
    let (mut met, mut shifts) = (0, 0);
    for domain in domains {
        let tokens = domain_tokens(domain);
        let first = deployment.ratios().len();
        let mut offset = 0;
        while deployment.ratios().len() < first + 3 {
            let sequence = |rank: usize| {
                let start = (offset + rank * TOKENS_PER_RANK) % (tokens.len() - TOKENS_PER_RANK);
                group::prefill(deployment.steps * 4 + rank as u64, tokens[start..start + TOKENS_PER_RANK].to_vec())
            };
            let batches = (0..4).map(|rank| Batch { ended: Vec::new(), work: vec![sequence(rank)] }).collect();
            deployment.step(batches).expect("no rank is lost");
            offset += 4 * TOKENS_PER_RANK;
        }
        let ratios: Vec<f64> = deployment.ratios().split_off(first);
        // The window that the shift opens, and the next.
        if ratios[0] <= RATIO_AFTER_SHIFT {
            shifts += 1;
            met += usize::from(ratios[1] >= RATIO_REGAINED);
        }
        windows.push(json!({ "domain": domain, "ratios": ratios }));
    }
    Followed { windows, shifts, met, pages: moved(&deployment) }
}

fn domain_tokens(domain: &str) -> Vec<u32> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/prompts");
    let text = std::fs::read_to_string(folder.join(format!("{domain}.txt"))).unwrap();
    let tokenizer = Tokenizer::from_file(checkpoint().join("tokenizer.json")).unwrap();
    let prompts = text.split("\n---\n").map(|prompt| tokenizer.encode(prompt, false).unwrap().get_ids().to_vec());
    prompts.flatten().collect()
}
