//! Ranks that serve the tiny model over real sockets while experts move between them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "../device/mod.rs"]
mod device;
mod device_memory;
mod failed_device;
#[path = "../group/mod.rs"]
mod group;
mod lost_device;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex};

use group::{Deployment, Moves, Sequence, Setup, Worker, advance, advance_ahead, settings};
use plan::policy::Decision;
use plan::wire;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use runtime::coordinator::ranks::Ranks as _;
use runtime::experts::load::BeforeRead;
use runtime::experts::mover::Faults;
use runtime::experts::rebalance::{Notice, Settings};
use runtime::worker::WorkerSettings;

/// Steps of each sequence: its prompt and as many tokens.
const STEPS: usize = 40;

fn seed() -> u64 {
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed}");
    seed
}

/// `count` requests with random prompts, most of them greedy.
fn sequences(setup: &Setup, count: u32, seed: u64) -> Vec<Sequence> {
    let mut random = StdRng::seed_from_u64(seed);
    let request = |number| {
        let length = random.random_range(1..60);
        let prompt = (0..length).map(|_| random.random_range(0..256)).collect();
        Sequence::new(setup, number, prompt, if number % 4 == 3 { 0.8 } else { 0.0 })
    };
    (0..count).map(request).collect()
}

/// The tokens of every sequence after [`STEPS`] steps.
fn serve(deployment: &mut Deployment, mut sequences: Vec<Sequence>) -> Vec<Vec<u32>> {
    for _ in 0..STEPS {
        assert!(advance_ahead(deployment, &mut sequences), "no rank is lost");
    }
    sequences.iter().map(|sequence| sequence.output().to_vec()).collect()
}

/// The same with a loss of ranks halfway, after which the group forms again.
fn serve_through(
    deployment: &mut Deployment,
    mut sequences: Vec<Sequence>,
    halfway: impl FnOnce(&mut Deployment),
) -> Vec<Vec<u32>> {
    let mut halfway = Some(halfway);
    while sequences[0].output().len() < STEPS {
        if sequences[0].output().len() == STEPS / 2
            && let Some(lose) = halfway.take()
        {
            lose(deployment);
        }
        if !advance_ahead(deployment, &mut sequences) {
            deployment.wait_for_group();
            sequences.iter_mut().for_each(Sequence::forget);
            deployment.run_in();
        }
    }
    sequences.iter().map(|sequence| sequence.output().to_vec()).collect()
}

/// A group whose experts move every so many steps.
fn moving(setup: Setup, every: u64, seed: u64) -> (Setup, Deployment) {
    let setup = Setup { moves: Some(Moves { every, seed, patient: true }), ..setup };
    let mut deployment = Deployment::start(setup);
    deployment.run_in();
    deployment.committed.clear();
    (setup, deployment)
}

#[test]
fn a_random_transaction_every_5_steps_changes_no_token_of_200_requests() {
    let (seed, still) = (seed(), Setup::default());
    let requests = |setup: &Setup| sequences(setup, 200, seed);
    let expected = serve(&mut Deployment::start(still), requests(&still));
    let (setup, mut deployment) = moving(still, 5, seed);
    let before = deployment.rebalancer.epoch();
    let tokens = serve(&mut deployment, requests(&setup));
    assert!(tokens == expected, "seed {seed}");
    let committed: usize = deployment.committed.values().map(Vec::len).sum();
    assert!(committed >= STEPS / 5 - 1, "{committed} transactions in {STEPS} steps; {:?}", deployment.notices);
    assert_eq!(deployment.rebalancer.epoch() - before, committed as u64);
}

#[test]
fn the_number_of_ranks_changes_no_token() {
    let seed = seed();
    let serve = |ranks, redundancy| {
        let setup = Setup { ranks, redundancy, ..Setup::default() };
        serve(&mut Deployment::start(setup), sequences(&setup, 20, seed))
    };
    let alone = serve(1, 0);
    assert!(serve(2, 0) == alone && serve(4, 4) == alone, "seed {seed}");
}

#[test]
fn ranks_of_one_process_serve_and_move_as_those_of_several_and_come_back_together() {
    let seed = seed();
    let still = Setup { ranks: 4, redundancy: 4, ..Setup::default() };
    let expected = serve(&mut Deployment::start(still), sequences(&still, 16, seed));
    let setup = Setup { moves: Some(Moves { every: 4, seed, patient: true }), ..still };
    let mut deployment = Deployment::start_in_processes(setup, 2);
    deployment.run_in();
    let tokens = serve_through(&mut deployment, sequences(&setup, 16, seed), |deployment| {
        let Some(process) = deployment.workers[2].take() else { panic!("it was there") };
        process.stop().unwrap();
        let settings = settings(2, deployment.fleet.address(), &setup);
        deployment.workers[2] = Some(Worker::of(WorkerSettings { ranks_here: 2, ..settings }));
    });
    assert!(tokens == expected, "seed {seed}");
    assert!(deployment.committed.len() >= STEPS / 10, "seed {seed}: {:?}", deployment.notices);
    assert!(deployment.fleet.generation() >= 2);
}

#[test]
fn corrupt_pages_and_cut_connections_change_no_token_and_stop_no_step() {
    let seed = seed();
    let still = Setup { ranks: 2, redundancy: 0, ..Setup::default() };
    let expected = serve(&mut Deployment::start(still), sequences(&still, 16, seed));
    for faults in [
        Faults { corrupt: Some(u64::MAX), ..Faults::default() },
        Faults { cut: Some(u64::MAX), ..Faults::default() },
        Faults { corrupt: Some(1), cut: Some(2), ..Faults::default() },
    ] {
        let (setup, mut deployment) = moving(Setup { faults, ..still }, 3, seed);
        let tokens = serve(&mut deployment, sequences(&setup, 16, seed));
        assert!(tokens == expected, "{faults:?}, seed {seed}");
        assert!(deployment.committed.len() >= 3, "{faults:?}: {:?}", deployment.notices);
    }
}

#[test]
fn a_rank_that_is_lost_comes_back_under_a_new_generation_and_no_token_changes() {
    let seed = seed();
    let still = Setup { ranks: 2, redundancy: 2, ..Setup::default() };
    let expected = serve(&mut Deployment::start(still), sequences(&still, 16, seed));
    let (setup, mut deployment) = moving(still, 5, seed);
    let mut epoch = 0;
    let tokens = serve_through(&mut deployment, sequences(&setup, 16, seed), |deployment| {
        epoch = deployment.rebalancer.epoch();
        deployment.restart(1);
    });
    assert!(tokens == expected, "seed {seed}");
    assert_eq!(deployment.fleet.generation(), 2);
    assert!(epoch > 0 && deployment.rebalancer.epoch() > epoch, "moves go on from the map that was in force");
}

#[test]
fn a_window_of_uneven_traffic_is_balanced_and_the_map_ends_where_the_plan_leads() {
    let settings = Settings { dynamic: true, window_steps: 20, ..Setup::default().settings };
    let setup = Setup { settings, ..Setup::default() };
    let mut deployment = Deployment::start(setup);
    let text: Vec<u32> = (0..32).map(|index| index % 7 + 97).collect();
    let mut sequences: Vec<Sequence> = (0..64).map(|number| Sequence::new(&setup, number, text.clone(), 0.0)).collect();
    for _ in 0..20 {
        assert!(advance(&mut deployment, &mut sequences));
    }
    deployment.settle(|deployment| deployment.rebalancer.recorded().is_some());
    let predicted = deployment.notices.iter().find_map(|notice| match notice {
        Notice::Decided(Decision { figures, .. }) => Some((figures.ratio_before, figures.ratio_after)),
        _ => None,
    });
    let (before, after) = predicted.unwrap_or_else(|| panic!("{:?}", deployment.notices));
    assert!(after > before + 0.05, "{before} to {after}");
    let recorded = deployment.rebalancer.recorded().expect("a completed rebalance is recorded");
    // What is predicted of the next window counts in that it will not be the one that has closed.
    let found = recorded.provenance.ratio;
    assert!((0.8 * found..=found).contains(&after), "{found} for {after}");
    assert_eq!(deployment.rebalancer.phase(), wire::Phase::Collecting);
}

#[test]
fn a_map_that_is_asked_for_is_reached() {
    let setup = Setup { ranks: 2, redundancy: 0, ..Setup::default() };
    let mut deployment = Deployment::start(setup);
    let start = deployment.rebalancer.map().clone();
    let slots = start.slots().chunks_exact(start.shape().physical());
    let reversed = slots.flat_map(|layer| layer.iter().rev().copied()).collect();
    let wanted = plan::map::ExpertMap::new(start.shape(), reversed).unwrap();
    deployment.apply_map(wanted.clone());
    deployment.settle(|deployment| matches!(deployment.notices.last(), Some(Notice::Completed { .. })));
    let sorted = |map: &plan::map::ExpertMap| {
        let mut ranks: Vec<_> = map.slots().chunks_exact(map.shape().slots_per_rank).map(<[_]>::to_vec).collect();
        for rank in &mut ranks {
            rank.sort_unstable();
        }
        ranks
    };
    assert_eq!(sorted(deployment.rebalancer.map()), sorted(&wanted));
}

#[test]
fn ranks_find_a_coordinator_that_was_restarted() {
    let seed = seed();
    let setup = Setup { ranks: 2, redundancy: 0, ..Setup::default() };
    let mut deployment = Deployment::start(setup);
    let expected = serve(&mut deployment, sequences(&setup, 8, seed));
    deployment.restart_coordinator();
    assert_eq!(deployment.fleet.generation(), 1, "the new one knows nothing of the old");
    assert!(serve(&mut deployment, sequences(&setup, 8, seed)) == expected, "seed {seed}");
}

#[test]
fn a_rank_that_the_group_has_no_place_for_ends_with_what_to_do() {
    let setup = Setup { ranks: 1, redundancy: 0, ..Setup::default() };
    let deployment = Deployment::start(setup);
    let error = Worker::start(3, deployment.fleet.address(), &setup).join().unwrap_err();
    assert!(error.to_string().contains("the group has ranks 0 to 0"), "{error}");
}

#[test]
fn a_rank_that_loads_far_slower_than_the_others_joins_and_reads_nothing_twice_though_its_session_ends_meanwhile() {
    let setup = Setup { ranks: 2, redundancy: 0, ..Setup::default() };
    let reads: Arc<Mutex<BTreeMap<_, usize>>> = Arc::default();
    let (counted, [go, waits]) = (Arc::clone(&reads), [1, 2].map(|_| crossbeam_channel::unbounded::<()>()));
    // Each read of the slow rank begins when the test lets it, and tells that it waits.
    let slow = BeforeRead::new(move |layer, expert| {
        *counted.lock().unwrap().entry((layer, expert)).or_default() += 1;
        waits.0.send(()).unwrap();
        // When the test has ended nothing waits.
        let _ = go.1.recv();
    });
    let mut deployment = Deployment::begin(setup, |rank, coordinator| {
        let before_read = if rank == 1 { slow.clone() } else { BeforeRead::default() };
        Worker::start_watched(rank, coordinator, &setup, before_read)
    });
    let delivered = Cell::new(0);
    let deliver = || {
        if waits.1.try_recv().is_ok() {
            go.0.send(()).unwrap();
            delivered.set(delivered.get() + 1);
        }
    };
    deployment.until("it reads", |_| {
        deliver();
        delivered.get() == 20
    });
    deployment.replace_coordinator();
    deployment.until("both are told to form a group again", |deployment| {
        // What is being read is read to its end.
        deliver();
        deployment.fleet.generation() == 1
    });
    let map = deployment.rebalancer.map().shape();
    let slots = map.slots_per_rank * map.layers;
    assert!((20..slots).contains(&reads.lock().unwrap().len()), "its session ended while it read");
    drop(go.0);
    deployment.wait_for_group();
    let reads = reads.lock().unwrap();
    assert_eq!((reads.len(), reads.values().sum::<usize>()), (slots, slots), "{reads:?}");
    drop(reads);
    let seed = seed();
    let tokens = serve(&mut deployment, sequences(&setup, 8, seed));
    assert!(tokens == serve(&mut Deployment::start(setup), sequences(&setup, 8, seed)), "seed {seed}");
}
