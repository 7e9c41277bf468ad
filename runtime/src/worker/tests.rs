//! What one process of ranks does, alone.

use std::net::Ipv4Addr;

use kernels::DeviceError;
use kernels::cpu::Cpu;
use plan::words::with_causes;

use super::*;
use crate::device::DeviceOptions;

fn settings() -> WorkerSettings {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    WorkerSettings {
        model: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-moe"),
        weights: None,
        secret: Secret::draw().unwrap(),
        rank: RankId(0),
        ranks_here: 1,
        // Nobody listens there: the rank tries again and again until it is stopped.
        coordinator: "127.0.0.1:1".to_owned(),
        listen: any,
        move_listen: any,
        health_listen: any,
        advertise_address: "127.0.0.1".to_owned(),
        node: "here".to_owned(),
        device: Device::default(),
        exchange: ExchangeChoice::default(),
        neighbours: Neighbours::default(),
        threads: 1,
        is_eager: false,
        kv_blocks: Some(4),
        block_tokens: 16,
        faults: Faults::default(),
        before_read: BeforeRead::default(),
        parent: None,
    }
}

#[test]
fn a_cache_that_the_machine_does_not_have_is_refused_for_good() {
    // Otherwise it would stay and tell the coordinator.
    let stop = Arc::new(Stop::default());
    stop.stop();
    let error = run(WorkerSettings { kv_blocks: Some(1 << 30), ..settings() }, &stop).unwrap_err();
    assert!(error.to_string().starts_with("kv-blocks 1073741824 takes "), "{error}");
    assert!(error.is_permanent());
}

#[test]
fn a_rank_that_has_lost_a_thread_ends_and_says_which() {
    let stop = Arc::new(Stop::default());
    stop.threads(None).spawn("signals", || Err("no signals")).unwrap();
    let error = run(settings(), &stop).unwrap_err();
    assert_eq!(with_causes(&error), "the thread 'signals' ended, which this process cannot do without: no signals");
    assert!(!error.is_permanent());
}

#[test]
fn a_rank_of_several_that_cannot_go_on_ends_its_process_and_says_which_it_was() {
    let stop = Arc::new(Stop::default());
    let settings = WorkerSettings { rank: RankId(4), ranks_here: 3, ..settings() };
    // The others wait for a coordinator, and would for ever.
    let open = |DeviceOptions { threads, rank, .. }| match rank {
        5 => Err(DeviceError::Failed { reason: "its memory is broken".to_owned(), usable: false }),
        _ => Ok(Cpu::new(threads)),
    };
    let error = run_on(&settings, &stop, open).unwrap_err();
    assert_eq!(
        with_causes(&error),
        "rank 5 of this process cannot go on: the device cannot be used: the device failed: its memory is broken"
    );
}

#[test]
fn a_thread_of_a_rank_of_several_is_told_with_its_rank_and_a_panic_of_one_ends_all() {
    let stop = Arc::new(Stop::default());
    stop.threads(Some(RankId(1))).spawn("engine", || Err("no steps")).unwrap();
    let two = || WorkerSettings { ranks_here: 2, ..settings() };
    let of = "rank 1 of this process cannot go on: the thread";
    let error = run(two(), &stop).unwrap_err();
    assert_eq!(with_causes(&error), format!("{of} 'engine' ended, which this process cannot do without: no steps"));
    let open = |DeviceOptions { threads, rank, .. }| {
        assert_ne!(rank, 1, "a rank that panics");
        Ok(Cpu::new(threads))
    };
    let error = with_causes(&run_on(&two(), &Arc::default(), open).unwrap_err());
    assert!(error.starts_with(&format!("{of} 'rank-1' ended")) && error.contains("a rank that panics"), "{error}");
}
