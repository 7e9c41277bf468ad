//! Experts that move between ranks on GPUs as they do in a deployment: by each rank's mover, out of the memory of another GPU, over
//! connections or from the checkpoint, while steps run; and what goes wrong in the middle of a page.

#[path = "../../../runtime/tests/group/mod.rs"]
mod group;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use plan::wire;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use runtime::coordinator::ranks::Ranks as _;
use runtime::experts::mover::Faults;
use runtime::worker::WorkerSettings;

use self::group::{Deployment, Moves, Sequence, Setup, Worker, advance, advance_ahead, settings};
use crate::model::{Test, variant};

/// Steps of each sequence: its prompt and as many tokens.
const STEPS: usize = 40;
/// What requests and moves are drawn from.
const SEED: u64 = 3;
const RANKS: usize = 2;

/// The tests of this file.
pub const CASES: &[Test] = &[
    ("moves_out_of_another_gpus_memory_change_no_bit", moves_out_of_another_gpus_memory_change_no_bit),
    ("moves_between_processes_change_no_bit", moves_between_processes_change_no_bit),
    ("pages_that_come_wrong_or_in_part_change_no_bit", pages_that_come_wrong_or_in_part_change_no_bit),
    ("a_process_that_ends_in_the_middle_of_a_page_changes_no_bit", a_process_that_ends_in_the_middle_of_a_page),
];

fn setup(ranks: usize, redundancy: usize) -> Setup {
    let model: &'static Path = Box::leak(variant("base").into_boxed_path());
    Setup { model, ranks, redundancy, sequences_per_rank: 4, ..Setup::default() }
}

/// A group of two ranks whose experts move whenever they do not move yet, and steps wait for that.
fn moving(faults: Faults) -> Setup {
    Setup { moves: Some(Moves { every: 1, seed: SEED, patient: true }), faults, ..setup(RANKS, 2) }
}

fn sequences(setup: &Setup) -> Vec<Sequence> {
    let mut random = StdRng::seed_from_u64(SEED);
    let request = |number| {
        let length = random.random_range(1..20);
        let prompt = (0..length).map(|_| random.random_range(3..96)).collect();
        Sequence::new(setup, number, prompt, if number == 3 { 0.8 } else { 0.0 })
    };
    (0..4).map(request).collect()
}

/// The tokens of every sequence, of a rank alone that nothing moves on.
fn expected() -> Result<Vec<Vec<u32>>> {
    let alone = setup(1, 0);
    let mut deployment = Deployment::start_in_processes(alone, 1);
    let tokens = serve(&mut deployment, sequences(&alone))?;
    end(deployment)?;
    Ok(tokens)
}

fn serve(deployment: &mut Deployment, mut sequences: Vec<Sequence>) -> Result<Vec<Vec<u32>>> {
    for _ in 0..STEPS {
        ensure!(advance_ahead(deployment, &mut sequences), "a rank is lost: {:?}", deployment.losses);
    }
    ensure!(deployment.receive_all(), "a rank is lost: {:?}", deployment.losses);
    Ok(sequences.iter().map(|sequence| sequence.output().to_vec()).collect())
}

/// Waits until all ranks have ended: what they do on GPUs ends before the driver does.
fn end(mut deployment: Deployment) -> Result<()> {
    let workers: Vec<Worker> = deployment.workers.iter_mut().filter_map(Option::take).collect();
    workers.iter().for_each(Worker::end);
    Ok(workers.into_iter().try_for_each(Worker::stop)?)
}

/// The pages that ranks have received by the ways that they came, as the processes' metrics say.
fn received(addresses: &[SocketAddr]) -> Result<BTreeMap<String, u64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut pages = BTreeMap::new();
    for address in addresses {
        let get = async { reqwest::get(format!("http://{address}/metrics")).await?.text().await };
        for line in runtime.block_on(get)?.lines() {
            let Some(labels) = line.strip_prefix("swiftbalancer_rank_received_pages_total{") else { continue };
            let (_, route) = labels.split_once("route=\"").context("a route")?;
            let (route, count) = route.split_once("\"} ").context("a count")?;
            *pages.entry(route.to_owned()).or_default() += count.parse::<u64>()?;
        }
    }
    pages.retain(|_, count| *count > 0);
    Ok(pages)
}

/// Serves while experts move, with so many ranks in a process: no token is another. Gives the pages by their ways.
fn moves(setup: Setup, ranks_here: usize) -> Result<BTreeMap<String, u64>> {
    let addresses = Mutex::new(Vec::new());
    let free = || -> std::io::Result<SocketAddr> { TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr() };
    let with = |settings: WorkerSettings| {
        let health_listen = free().expect("there is a port");
        addresses.lock().unwrap_or_else(PoisonError::into_inner).push(health_listen);
        WorkerSettings { health_listen, ..settings }
    };
    let mut deployment = Deployment::start_in_processes_with(setup, ranks_here, with);
    deployment.run_in();
    let found = serve(&mut deployment, sequences(&setup))?;
    ensure!(found == expected()?, "tokens are others");
    let moved: usize = deployment.committed.values().flatten().map(|commit| commit.work.changes.len()).sum();
    ensure!(moved >= STEPS / 2, "{moved} slots changed: {:?}", deployment.notices);
    let pages = received(&addresses.into_inner().unwrap_or_else(PoisonError::into_inner))?;
    end(deployment)?;
    Ok(pages)
}

fn by_one_way(pages: &BTreeMap<String, u64>, way: &str) -> Result<()> {
    ensure!(pages.len() == 1 && pages.get(way).is_some_and(|count| *count >= 8), "pages came by {pages:?}");
    Ok(())
}

fn moves_out_of_another_gpus_memory_change_no_bit() -> Result<()> {
    by_one_way(&moves(moving(Faults::default()), RANKS)?, "peer")
}

fn moves_between_processes_change_no_bit() -> Result<()> {
    by_one_way(&moves(moving(Faults::default()), 1)?, "node")
}

fn pages_that_come_wrong_or_in_part_change_no_bit() -> Result<()> {
    for faults in
        [Faults { cut: Some(u64::MAX), ..Faults::default() }, Faults { corrupt: Some(u64::MAX), ..Faults::default() }]
    {
        by_one_way(&moves(moving(faults), RANKS)?, "checkpoint")?;
    }
    // The second of each rank's is cut and its third comes wrong; the others are good.
    let faults = Faults { cut: Some(2), corrupt: Some(3), ..Faults::default() };
    for (ranks_here, way) in [(RANKS, "peer"), (1, "node")] {
        let pages = moves(moving(faults), ranks_here)?;
        let [good, read] = [way, "checkpoint"].map(|way| pages.get(way).copied().unwrap_or(0));
        ensure!(pages.len() == 2 && good >= 8 && (1..=4).contains(&read), "pages came by {pages:?}");
    }
    Ok(())
}

/// Pages take seconds, so that the process of a rank ends while some are on their way from it and to it.
fn a_process_that_ends_in_the_middle_of_a_page() -> Result<()> {
    let slow = Setup {
        moves: Some(Moves { every: 1, seed: SEED, patient: false }),
        move_bytes_per_second: 1000,
        ..setup(RANKS, 2)
    };
    let expected = expected()?;
    for ranks_here in [RANKS, 1] {
        let mut deployment = Deployment::start_in_processes(slow, ranks_here);
        deployment.run_in();
        let mut sequences = sequences(&slow);
        let mut ended = false;
        while sequences[0].output().len() < STEPS {
            let is_moving = deployment.rebalancer.phase() == wire::Phase::Moving;
            if !ended && sequences[0].output().len() >= STEPS / 2 && is_moving {
                ended = true;
                let process = deployment.workers[RANKS - ranks_here].take().context("it was there")?;
                process.stop()?;
                let settings = settings(RANKS - ranks_here, deployment.fleet.address(), &slow);
                deployment.workers[RANKS - ranks_here] = Some(Worker::of(WorkerSettings { ranks_here, ..settings }));
            }
            if !advance(&mut deployment, &mut sequences) {
                ensure!(ended, "a rank is lost: {:?}", deployment.losses);
                deployment.wait_for_group();
                sequences.iter_mut().for_each(Sequence::forget);
                deployment.run_in();
            }
        }
        ensure!(ended && deployment.fleet.generation() >= 2, "a process ended while experts moved");
        let found: Vec<Vec<u32>> = sequences.iter().map(|sequence| sequence.output()[..STEPS].to_vec()).collect();
        ensure!(found == expected, "{ranks_here} ranks in a process: tokens are others");
        end(deployment)?;
    }
    Ok(())
}
