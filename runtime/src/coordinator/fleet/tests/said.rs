//! What ranks say, and what is heard of it.

use super::*;

#[test]
fn ranks_that_cannot_serve_are_told_the_first_of_them_until_others_have_their_places() {
    let (fleet, events) = fleet(3, PATIENCE);
    let fail = |rank: u32| {
        let reason = format!("hole {rank}");
        Rank::register(&fleet, rank, u128::from(rank), |message| {
            *message = FromRank::Failed { process: ProcessId(rank.into()), rank: RankId(rank), reason }
        })
    };
    let told = || match next(&events) {
        FleetEvent::Failing(reason) => reason.take().unwrap(),
        other => panic!("a failure was expected, not {other:?}"),
    };
    let _second = fail(2);
    assert_eq!(told().as_deref(), Some("rank 2 cannot serve: hole 2"));
    let first = fail(1);
    assert_eq!(told().as_deref(), Some("rank 1 cannot serve: hole 1"));
    drop(first);
    let _others = [Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    assert_eq!(told().as_deref(), Some("rank 2 cannot serve: hole 2"));
    let _last = Rank::join(&fleet, 2);
    assert_eq!(told(), None);
    assert!(matches!(next(&events), FleetEvent::Complete));
    assert!(fail(9).refusal().contains("does not exist"));
}

#[test]
fn members_that_are_refused_or_fail_again_and_again_fill_no_memory_of_a_driver_that_is_busy() {
    let (fleet, events) = fleet(2, PATIENCE);
    let fail = |process: u32| {
        Rank::register(&fleet, 0, process.into(), |message| {
            let reason = format!("hole {process}");
            *message = FromRank::Failed { process: ProcessId(process.into()), rank: RankId(0), reason }
        })
    };
    for number in 0..20 {
        let reason = Rank::join(&fleet, 100 + number).refusal();
        assert!(reason.contains(&format!("rank {} does not exist", 100 + number)), "{reason}");
        let (_failing, words) = (fail(number), format!("hole {number}"));
        wait_until("its failure is known", || fleet.members.failure_of(RankId(0)).as_ref() == Some(&words));
    }
    let heard: Vec<FleetEvent> = events.try_iter().collect();
    let [FleetEvent::Refused(refused), FleetEvent::Failing(failing)] = &heard[..] else { panic!("{heard:?}") };
    assert!(refused.take().unwrap().contains("rank 119 does not exist"));
    assert_eq!(failing.take().unwrap().unwrap(), "rank 0 cannot serve: hole 19");
    let _first = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Failing(failing) if failing.take() == Some(None)));
}

#[test]
fn an_order_reaches_its_rank_and_its_answer_comes_back() {
    let (fleet, events) = fleet(1, PATIENCE);
    let mut rank = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    let work = Transaction { layer: 0.into(), changes: Vec::new(), shares: Vec::new() };
    let order = ToRank::Stage { generation: 1, transaction: TransactionId(4), work, deadline_ms: 1000 };
    fleet.order(RankId(0), order.clone());
    assert_eq!(rank.control.receive::<ToRank>().unwrap(), order);
    let sent = MoveReport { generation: 1, transaction: TransactionId(4), staged: Ok(10) };
    rank.control.send(&FromRank::Moved(sent.clone())).unwrap();
    let FleetEvent::Moved { rank: RankId(0), report } = next(&events) else { panic!("a report was expected") };
    assert_eq!(report, sent);
    // One report of each order: whoever goes on has its place no longer.
    rank.control.send(&FromRank::Moved(sent)).unwrap();
    rank.control.set_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(rank.control.receive::<ToRank>(), Err(crate::fabric::framing::ConnectionError::Closed { .. })));
    assert!(events.try_recv().is_err());
}

#[test]
fn a_rank_that_says_what_cannot_be_is_lost_with_the_reason() {
    fn moved(transaction: u64, staged: Result<u64, NotStaged>) -> FromRank {
        FromRank::Moved(MoveReport { generation: 1, transaction: TransactionId(transaction), staged })
    }
    type Said = (fn() -> FromRank, &'static str);
    const fn loaded(kv_blocks: u32, fingerprints: Vec<u128>) -> FromRank {
        FromRank::Loaded { generation: 1, kv_blocks, fingerprints }
    }
    let said: [Said; 8] = [
        (|| loaded(8, vec![1]), "it has loaded 1 page instead of 4"),
        (|| loaded(0, vec![1; 4]), "it has a KV cache of 0 blocks"),
        (|| loaded(u32::MAX, vec![1; 4]), "it has a KV cache of 4294967295 blocks; there must be 1 to 16777216"),
        (|| FromRank::Ready { generation: 1, exchange: None }, "it is ready before it was told to connect"),
        (|| moved(1, Ok(u64::MAX)), "it reports 18446744073709551615 bytes"),
        (|| moved(1, Ok(1)), "it reports of transaction 1, of which nothing was asked"),
        (
            || moved(9, Err(NotStaged { reason: MoveFailure::Deadline, message: String::new() })),
            "it reports of transaction 9, of which nothing was asked",
        ),
        (
            || FromRank::Failed { process: ProcessId(7), rank: RankId(0), reason: String::new() },
            "it introduced itself again",
        ),
    ];
    for (message, expected) in said {
        let (fleet, events) = fleet(1, PATIENCE);
        let mut rank = Rank::join(&fleet, 0);
        assert!(matches!(next(&events), FleetEvent::Complete));
        fleet.form(&map(1), 0).unwrap();
        rank.control.send(&message()).unwrap();
        let FleetEvent::Lost { reason, .. } = next(&events) else { panic!("a loss was expected") };
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn words_of_a_rank_are_shortened_and_shown_as_they_are() {
    let (fleet, events) = fleet(1, PATIENCE);
    let _rank = Rank::register(&fleet, 0, 1, |message| {
        let reason = format!("\u{1b}[31m\n{}", "x".repeat(10_000));
        *message = FromRank::Failed { process: ProcessId(1), rank: RankId(0), reason };
    });
    let FleetEvent::Failing(failing) = next(&events) else { panic!("a failure was expected") };
    let reason = failing.take().unwrap().unwrap();
    assert!(reason.starts_with("rank 0 cannot serve: \\u{1b}[31m\\nxxx") && reason.len() < 1100, "{reason}");
}

/// A member that says anything but what it should: it is lost, and nothing else is.
#[test]
fn whatever_a_member_says_the_next_group_forms() {
    let seed = crate::protocol::tests::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let (fleet, events) = fleet(1, PATIENCE);
    for number in 0..crate::protocol::tests::inputs(40) {
        let mut rank = Rank::join(&fleet, 0);
        while !matches!(next(&events), FleetEvent::Complete) {}
        fleet.form(&map(1), 0).unwrap();
        let mut bytes =
            postcard::to_allocvec(&FromRank::Loaded { generation: number + 1, kv_blocks: 8, fingerprints: vec![1; 4] })
                .unwrap();
        for _ in 0..random.random_range(0..4) {
            let place = random.random_range(0..bytes.len());
            bytes[place] = random.random();
        }
        let length = if random.random_bool(0.2) { random.random() } else { bytes.len() as u32 };
        rank.control.send_bytes(&[&length.to_le_bytes()[..], &bytes].concat()).unwrap();
        drop(rank);
        while !matches!(next(&events), FleetEvent::Lost { .. }) {}
    }
    let mut ranks = vec![Rank::join(&fleet, 0)];
    let (group, _steps) = formed(&fleet, &events, &mut ranks);
    assert!(group.generation() > 40, "seed {seed}");
}

#[test]
fn a_rank_that_leaves_its_group_is_lost_with_what_it_says_of_it() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (mut group, steps) = formed(&fleet, &events, &mut ranks);
    ranks[1].control.send(&FromRank::Leaves { reason: "its device failed".to_owned() }).unwrap();
    // Neither has answered, and the first waits for the second.
    assert!(run_step(&mut group, 1, vec![Batch::default(); 2], &[]).is_err());
    match next(&events) {
        FleetEvent::Lost { generation: 1, rank: RankId(1), reason } => assert_eq!(reason, "its device failed"),
        other => panic!("a loss was expected, not {other:?}"),
    }
    drop(steps);
    assert!(fleet.roll().states().iter().all(|rank| rank.address.is_empty()));
}
