//! How ranks become a group.

use super::*;

#[test]
fn a_group_forms_when_every_rank_is_there_and_runs_steps_on_all_of_them() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 1)];
    assert!(matches!(fleet.form(&map(2), 0), Err(GroupError::Incomplete { missing }) if missing.contains(&0)));
    ranks.insert(0, Rank::join(&fleet, 0));
    let (mut group, steps) = formed(&fleet, &events, &mut ranks);
    assert_eq!((group.generation(), group.caches()), (1, vec![RankCache { blocks: 8, block_tokens: 16 }; 2]));
    assert!(fleet.roll().states().iter().all(|rank| rank.connected));
    assert_eq!(fleet.roll().states().iter().map(|rank| rank.node.as_str()).collect::<Vec<_>>(), ["node-0", "node-1"]);
    let workers = steps.into_iter().map(|mut steps| {
        std::thread::spawn(move || {
            let step: Step = steps.receive().unwrap();
            assert_eq!(step.commits.len(), 1);
            steps.send(&answer(&step, 2)).unwrap();
        })
    });
    let workers: Vec<_> = workers.collect();
    let work = Transaction { layer: 0.into(), changes: Vec::new(), shares: Vec::new() };
    let commit = Commit { transaction: TransactionId(1), epoch: 1, work };
    let done = run_step(&mut group, 1, vec![Batch::default(); 2], &[commit]).unwrap();
    assert_eq!(done.iter().map(|done| done.number).collect::<Vec<_>>(), [1, 1]);
    for worker in workers {
        worker.join().unwrap();
    }
}

#[test]
fn ranks_that_are_not_alike_are_refused_before_any_is_told_to_load() {
    let (fleet, events) = fleet(2, PATIENCE);
    let _first = Rank::join(&fleet, 0);
    wait_until("the first is registered", || !fleet.roll().states()[0].address.is_empty());
    let refuse = |change: fn(&mut u32, &mut RankDevice)| {
        let change = |message: &mut FromRank| match message {
            FromRank::Register { block_tokens, device, .. } => change(block_tokens, device),
            _ => unreachable!(),
        };
        let refusal = Rank::register(&fleet, 1, 5, change).refusal();
        assert!(matches!(next(&events), FleetEvent::Refused(refused) if refused.take().as_ref() == Some(&refusal)));
        assert!(events.try_recv().is_err());
        refusal
    };
    assert!(refuse(|block_tokens, _| *block_tokens = 32).contains("--block-tokens"));
    assert!(refuse(|_, device| device.kind = "gpu".to_owned()).contains("--backend"));
    assert!(refuse(|_, device| device.page_bytes += 1).contains("4097 bytes"));
    let _second = Rank::register(&fleet, 1, 5, |message| match message {
        FromRank::Register { device, .. } => (device.name, device.memory) = ("AVX-512".to_owned(), 7),
        _ => unreachable!(),
    });
    assert!(matches!(next(&events), FleetEvent::Complete));
    let said = fleet.roll().states().into_iter().map(|rank| (rank.device, rank.memory)).collect::<Vec<_>>();
    assert_eq!(said, [("cpu (AVX2)".to_owned(), 1 << 30), ("cpu (AVX-512)".to_owned(), 7)]);
}

#[test]
fn a_fleet_that_is_dropped_lets_its_ranks_go() {
    let (fleet, events) = fleet(1, PATIENCE);
    let mut rank = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    let address = fleet.address();
    drop(fleet);
    assert!(rank.control.receive::<ToRank>().is_err());
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "the listener must be closed");
    }
}

#[test]
fn ranks_that_hold_other_weights_are_refused_by_name() {
    let (fleet, events) = fleet(2, PATIENCE);
    let shape = MapShape::with_redundancy(1, 4, 2, 2).unwrap();
    let map = MapDocument::new(model(), &ExpertMap::contiguous(shape).unwrap());
    let mut ranks = [Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    assert!(matches!(next(&events), FleetEvent::Complete));
    fleet.form(&map, 0).unwrap();
    ranks[0].load();
    ranks[1].load_with(|expert| if expert == 1 { 99 } else { u128::from(expert) + 1 });
    let FleetEvent::Refused(refused) = next(&events) else { panic!("a refusal was expected") };
    assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, .. }));
    assert!(refused.take().unwrap().contains("expert 1 than rank 0"), "the last of both");
    let [first, second] = ranks;
    assert!(first.refusal().contains("rank 0 holds other weights of layer 0, expert 1"));
    assert!(second.refusal().contains("rank 1 holds other weights of layer 0, expert 1"));
}

#[test]
fn every_rank_is_told_what_was_agreed_when_the_last_is_loaded_and_not_before() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = [Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    assert!(matches!(next(&events), FleetEvent::Complete));
    fleet.form(&map(2), 0).unwrap();
    let first = ranks[0].load();
    let told = loop {
        let FleetEvent::Loading(told) = events.recv_timeout(PATIENCE).unwrap() else { panic!("it loads") };
        match told.take() {
            Some(told) if told.ends_with("rank 1 is last and has not begun") => {
                ranks[1].control.send(&FromRank::Loading { read: 1 << 30, of: 1 << 31 }).unwrap();
            }
            Some(told) if told.contains("rank 1") => break told,
            _ => {}
        }
    };
    assert_eq!(told, "the ranks are loading: 1.07 of 2.15 GB; rank 1 is last with 1.07 of 2.15 GB");
    let second = ranks[1].load();
    let [one, other] = &mut ranks;
    let ((_first, agreed), (_second, also)) = (one.connect(first), other.connect(second));
    assert_eq!((&agreed, &agreed[..]), (&also, &[1, 2, 3, 4].map(Some)[..]));
    assert!(matches!(next(&events), FleetEvent::Formed(_)));
}

#[test]
fn a_rank_that_lives_and_comes_no_further_is_lost_with_how_far_it_was() {
    let (fleet, events) = fleet_of(FleetSettings { stall_limit: Duration::from_millis(1500), ..settings(1) });
    let mut rank = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    fleet.form(&map(1), 0).unwrap();
    rank.hear_form();
    let (over, started) = (std::sync::atomic::AtomicBool::new(false), Instant::now());
    let reason = std::thread::scope(|scope| {
        let speaks = scope.spawn(|| {
            // Far longer than the limit it reads on; then it says that it lives, and the same again.
            for read in 0.. {
                let read = if started.elapsed() < Duration::from_secs(3) { read } else { u64::MAX };
                let said = rank.control.send(&FromRank::Loading { read, of: 4_000_000_000 });
                if said.is_err() || over.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        let FleetEvent::Lost { reason, .. } = next(&events) else { panic!("a loss was expected") };
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        speaks.join().unwrap();
        reason
    });
    assert!(started.elapsed() >= Duration::from_secs(3));
    assert_eq!(reason, "it lives and came no further for 1.5 s, with 4.00 of 4.00 GB loaded");
}
