//! A device that fails beside the steps: a page that it does not take costs one move, and one that can never serve is told of.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use clap::Parser as _;
use kernels::DeviceError;
use kernels::cpu::Cpu;
use plan::words::with_causes;
use runtime::args::{Arguments, Command};
use runtime::coordinator::ranks::Ranks as _;
use runtime::coordinator::start::Coordinator;
use runtime::device::DeviceOptions;
use runtime::experts::rebalance::{AbortReason, Notice};
use runtime::local::LocalSettings;
use runtime::protocol::MoveFailure;
use runtime::worker::WorkerSettings;

use crate::device::{Fault, Watched};
use crate::group::{Deployment, Moves, PATIENCE, Setup, Worker, advance_ahead, checkpoint, settings};
use crate::lost_device::answer;
use crate::{STEPS, seed, sequences, serve};

/// A rank whose device fails at what `of` says when it is told to.
fn rank(settings: WorkerSettings, fault: &Fault, of: fn(&mut Watched) -> &mut Fault) -> Worker {
    let fault = fault.clone();
    Worker::on(settings, move |DeviceOptions { threads, fingerprint_seed, .. }| {
        let mut device = Watched::of(Cpu::new(threads).with_fingerprint_seed(fingerprint_seed), Fault::default());
        *of(&mut device) = fault;
        Ok(device)
    })
}

/// What comes of a group of which the device of the second rank fails once at a page that moves: the notices, and the tokens.
fn with_a_failed_page(of: fn(&mut Watched) -> &mut Fault, usable: bool, seed: u64) -> (Vec<Notice>, Vec<Vec<u32>>) {
    let setup =
        Setup { ranks: 2, redundancy: 2, moves: Some(Moves { every: 5, seed, patient: true }), ..Setup::default() };
    let fault = Fault::default();
    let mut deployment = Deployment::begin(setup, |number, coordinator| match number {
        1 => rank(settings(1, coordinator, &setup), &fault, of),
        _ => Worker::start(number, coordinator, &setup),
    });
    deployment.wait_for_group();
    deployment.run_in();
    deployment.notices.clear();
    let mut sequences = sequences(&setup, 16, seed);
    for step in 0..STEPS {
        if step == STEPS / 4 {
            fault.after(0, usable);
        }
        assert!(advance_ahead(&mut deployment, &mut sequences), "no rank is lost, seed {seed}");
    }
    assert!(!fault.is_due(), "pages have moved, seed {seed}");
    // A move that failed in the last of these steps is tried again after them.
    deployment.settle(|Deployment { notices, .. }| {
        let failed = notices.iter().position(|notice| matches!(notice, Notice::Aborted { .. }));
        let ended = |notice: &Notice| matches!(notice, Notice::Committed { .. } | Notice::Dropped { .. });
        failed.is_none_or(|failed| notices[failed..].iter().any(ended))
    });
    assert_eq!((deployment.fleet.generation(), &*deployment.losses), (1, &[][..]), "seed {seed}");
    let tokens = sequences.iter().map(|sequence| sequence.output().to_vec()).collect();
    (std::mem::take(&mut deployment.notices), tokens)
}

fn expected(seed: u64) -> Vec<Vec<u32>> {
    let still = Setup { ranks: 2, redundancy: 2, ..Setup::default() };
    serve(&mut Deployment::start(still), sequences(&still, 16, seed))
}

fn aborted(notices: &[Notice]) -> Vec<(AbortReason, &str)> {
    let aborted = notices.iter().filter_map(|notice| match notice {
        Notice::Aborted { reason, message, .. } => Some((*reason, message.as_str())),
        _ => None,
    });
    aborted.collect()
}

#[test]
fn a_page_that_a_device_does_not_take_costs_one_move_which_is_tried_again_and_neither_a_group_nor_a_token() {
    let seed = seed();
    let (notices, tokens) = with_a_failed_page(|device| &mut device.filling, true, seed);
    let why = (AbortReason::Move(MoveFailure::Device), "rank 1: the device failed: it was told to");
    assert_eq!(aborted(&notices), [why], "seed {seed}");
    let failed = notices.iter().position(|notice| matches!(notice, Notice::Aborted { .. })).unwrap();
    let again = |notice: &Notice| matches!(notice, Notice::Committed { .. });
    assert!(notices[failed..].iter().any(again), "seed {seed}: {notices:?}");
    assert!(!notices.iter().any(|notice| matches!(notice, Notice::Dropped { .. })), "seed {seed}: {notices:?}");
    assert!(tokens == expected(seed), "seed {seed}");
}

#[test]
fn a_page_that_a_device_says_it_never_takes_is_not_tried_again() {
    let seed = seed();
    let (notices, tokens) = with_a_failed_page(|device| &mut device.filling, false, seed);
    let why = (AbortReason::Move(MoveFailure::DeviceLost), "rank 1: the device failed: it was told to");
    assert_eq!(aborted(&notices), [why], "seed {seed}");
    let dropped = notices.iter().find_map(|notice| match notice {
        Notice::Dropped { reason } => Some(reason.as_str()),
        _ => None,
    });
    let reason = dropped.unwrap_or_else(|| panic!("seed {seed}: {notices:?}"));
    assert!(reason.contains("is not tried again: rank 1: the device failed: it was told to"), "{reason}");
    assert!(tokens == expected(seed), "seed {seed}");
}

#[test]
fn a_page_that_a_device_does_not_give_comes_from_elsewhere() {
    let seed = seed();
    let (notices, tokens) = with_a_failed_page(|device| &mut device.reading, true, seed);
    assert_eq!(aborted(&notices), [], "seed {seed}");
    assert!(tokens == expected(seed), "seed {seed}");
}

#[test]
fn a_device_that_fails_while_an_expert_is_loaded_is_tried_again_and_not_taken_for_one_with_other_weights() {
    let (setup, fault) = (Setup { ranks: 2, redundancy: 0, ..Setup::default() }, Fault::default());
    fault.after(20, true);
    let mut deployment = Deployment::begin(setup, |number, coordinator| match number {
        1 => rank(settings(1, coordinator, &setup), &fault, |device| &mut device.fingerprinting),
        _ => Worker::start(number, coordinator, &setup),
    });
    deployment.wait_for_group();
    assert!(!fault.is_due());
    assert_eq!(deployment.refusals, Vec::<String>::new());
}

/// A coordinator of one rank, and how that rank is set up.
fn coordinator(model: &Path) -> (Coordinator, WorkerSettings) {
    let mut words = vec!["swiftbalancer-runtime", "local", "--ranks", "1", "--listen", "127.0.0.1:0"];
    words.extend(["--admin-listen", "127.0.0.1:0", "--model", model.to_str().unwrap()]);
    let Command::Local(arguments) = Arguments::try_parse_from(words).unwrap().command else { panic!("it is local") };
    let LocalSettings { coordinator, .. } = LocalSettings::try_from(*arguments).unwrap();
    let secret = coordinator.secret.clone();
    let coordinator = Coordinator::start(&coordinator).unwrap();
    let rank = settings(0, coordinator.control_address(), &Setup::default());
    (coordinator, WorkerSettings { secret, ..rank })
}

#[test]
fn a_device_that_cannot_serve_the_model_is_told_to_the_coordinator_and_not_tried_again() {
    let (coordinator, settings) = coordinator(&checkpoint());
    let health = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let batches = Fault::default();
    // It fails once: a rank that tried again would serve.
    batches.with(0, DeviceError::Unusable { reason: "heads are too wide for it".to_owned() });
    let settings = WorkerSettings { health_listen: health, ..settings };
    let rank = rank(settings, &batches, |device| &mut device.batches);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let driver = coordinator.driver();
    let told = runtime.block_on(async { tokio::time::timeout(PATIENCE, driver.failure()).await });
    let why = "the device cannot be used: heads are too wide for it";
    assert_eq!(told.unwrap(), format!("rank 0 cannot serve: {why}"));
    assert!(ready(health).ends_with(&format!("failed: {why}\n")), "{}", ready(health));
    assert_eq!(with_causes(&rank.stop().unwrap_err()), why);
    driver.stop();
}

#[test]
fn a_device_that_has_no_memory_for_steps_now_is_tried_again() {
    let (setup, batches) = (Setup { ranks: 1, redundancy: 0, ..Setup::default() }, Fault::default());
    batches.with(0, DeviceError::Memory { bytes: 1 << 30 });
    let mut deployment = Deployment::begin(setup, |number, coordinator| {
        rank(settings(number, coordinator, &setup), &batches, |device| &mut device.batches)
    });
    deployment.wait_for_group();
    assert!(!batches.is_due());
}

/// What a rank says of whether it is ready.
fn ready(health: SocketAddr) -> String {
    answer(health, "/readyz")
}
