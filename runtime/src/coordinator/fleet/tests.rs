use std::time::Instant;

use plan::map::{ExpertMap, MapShape};
use plan::moves::Transaction;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::coordinator::ranks::RankGroup as _;
use crate::fabric::framing::Connection;
use crate::fabric::handshake::call;
use crate::fabric::purpose::{GroupId, Purpose};
use crate::protocol::{
    Batch, Commit, FromRank, MoveFailure, MoveReport, NotStaged, ProcessId, Step, StepDone, StepTiming, TransactionId,
};
use crate::scheduler::CacheSize;
use crate::waiting::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

fn model() -> ModelIdentity {
    ModelIdentity { name: "tiny".to_owned(), digest: "abc".to_owned(), layers: 1, experts: 4 }
}

/// The same for every fleet and rank of a test.
fn secret() -> Secret {
    static SECRET: std::sync::LazyLock<Secret> = std::sync::LazyLock::new(|| Secret::draw().unwrap());
    SECRET.clone()
}

fn fleet(ranks: usize, silence_limit: Duration) -> (Fleet, Receiver<FleetEvent>) {
    fleet_of_steps(ranks, silence_limit, PATIENCE)
}

fn fleet_of_steps(ranks: usize, silence_limit: Duration, step_deadline: Duration) -> (Fleet, Receiver<FleetEvent>) {
    fleet_of(FleetSettings { silence_limit, step_deadline, ..settings(ranks) })
}

fn fleet_of(settings: FleetSettings) -> (Fleet, Receiver<FleetEvent>) {
    Fleet::start(settings, TcpListener::bind("127.0.0.1:0").unwrap(), &VitalThreads::new(drop)).unwrap()
}

fn settings(ranks: usize) -> FleetSettings {
    FleetSettings {
        ranks,
        secret: secret(),
        model: model(),
        vocabulary: 256,
        top_k: 2,
        step_tokens: 64,
        staging_pages: 2,
        move_bytes_per_second: 0,
        silence_limit: PATIENCE,
        stall_limit: PATIENCE,
        step_deadline: PATIENCE,
    }
}

fn map(ranks: usize) -> MapDocument {
    let shape = MapShape::with_redundancy(1, 4, ranks, 0).unwrap();
    MapDocument::new(model(), &ExpertMap::contiguous(shape).unwrap())
}

/// A rank as far as the coordinator can see.
struct Rank {
    number: RankId,
    control: Connection,
    address: String,
}

impl Rank {
    fn register(fleet: &Fleet, rank: u32, process: u128, change: impl FnOnce(&mut FromRank)) -> Self {
        let address = fleet.address().to_string();
        let mut control = call(&address, "coordinator", (Purpose::Control, &secret()), PATIENCE).unwrap();
        let mut registration = FromRank::Register {
            process: ProcessId(process),
            rank: RankId(rank),
            model: model(),
            step_address: format!("step:{rank}"),
            move_address: format!("moves:{rank}"),
            block_tokens: 16,
            node: format!("node-{rank}"),
        };
        change(&mut registration);
        control.send(&registration).unwrap();
        Self { number: RankId(rank), control, address }
    }

    fn join(fleet: &Fleet, rank: u32) -> Self {
        Self::register(fleet, rank, u128::from(rank), |_| {})
    }

    /// Takes the order to form and says that it is loaded, each page being what its expert's number says.
    fn load(&mut self) -> (GroupId, Secret) {
        self.load_with(|expert| u128::from(expert) + 1)
    }

    fn load_with(&mut self, fingerprint: impl Fn(u32) -> u128) -> (GroupId, Secret) {
        let (group, group_secret, map) = self.hear_form();
        let slots = map.placement.iter().flat_map(|layer| &layer[self.number.index()]);
        let fingerprints = slots.map(|&expert| fingerprint(expert)).collect();
        let generation = group.generation;
        self.control.send(&FromRank::Loaded { generation, kv_blocks: 8, fingerprints }).unwrap();
        (group, group_secret)
    }

    fn hear_form(&mut self) -> (GroupId, Secret, MapDocument) {
        let ToRank::Form { generation, nonce, drawn, ranks, map, .. } = self.control.receive().unwrap() else {
            panic!("an order to form was expected")
        };
        assert_eq!(ranks[self.number.index()].moves, format!("moves:{}", self.number.0));
        (GroupId { generation, nonce }, secret().of_group(&drawn), map)
    }

    /// Takes the order to connect, connects its steps and says that it is ready; what was agreed.
    fn connect(&mut self, (group, secret): (GroupId, Secret)) -> (Connection, Vec<Option<u128>>) {
        let ToRank::Connect { generation, fingerprints } = self.control.receive().unwrap() else {
            panic!("an order to connect was expected")
        };
        assert_eq!(generation, group.generation);
        let purpose = (Purpose::Steps { group, rank: self.number }, &secret);
        let steps = call(&self.address, "coordinator", purpose, PATIENCE).unwrap();
        self.control.send(&FromRank::Ready { generation }).unwrap();
        (steps, fingerprints)
    }

    /// All of that, of a group that it is alone in.
    fn form(&mut self) -> Connection {
        let loaded = self.load();
        self.connect(loaded).0
    }

    fn refusal(mut self) -> String {
        match self.control.receive().unwrap() {
            ToRank::Refused { reason } => reason,
            other => panic!("a refusal was expected, not {other:?}"),
        }
    }
}

/// What happens next, beside loading.
fn next(events: &Receiver<FleetEvent>) -> FleetEvent {
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            FleetEvent::Loading(_) => {}
            event => return event,
        }
    }
}

fn formed(fleet: &Fleet, events: &Receiver<FleetEvent>, ranks: &mut [Rank]) -> (Group, Vec<Connection>) {
    assert!(matches!(next(events), FleetEvent::Complete));
    fleet.form(&map(ranks.len()), 0).unwrap();
    let loaded: Vec<_> = ranks.iter_mut().map(Rank::load).collect();
    let steps = ranks.iter_mut().zip(loaded).map(|(rank, loaded)| rank.connect(loaded).0).collect();
    match next(events) {
        FleetEvent::Formed(group) => (group, steps),
        other => panic!("a group was expected, not {other:?}"),
    }
}

/// To a step of no sequences, on a rank of `slots` slots.
fn answer(step: &Step, slots: usize) -> StepDone {
    let (generation, number) = (step.generation, step.number);
    let slot_pairs = vec![0; slots];
    StepDone { generation, number, outputs: Vec::new(), slot_pairs, timing: StepTiming::default() }
}

#[test]
fn a_group_forms_when_every_rank_is_there_and_runs_steps_on_all_of_them() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 1)];
    assert!(matches!(fleet.form(&map(2), 0), Err(FormError::Incomplete { missing }) if missing.contains(&0)));
    ranks.insert(0, Rank::join(&fleet, 0));
    let (mut group, steps) = formed(&fleet, &events, &mut ranks);
    assert_eq!((group.generation(), group.caches()), (1, vec![CacheSize { blocks: 8, block_tokens: 16 }; 2]));
    assert!(fleet.states().iter().all(|rank| rank.connected));
    assert_eq!(fleet.states().iter().map(|rank| rank.node.as_str()).collect::<Vec<_>>(), ["node-0", "node-1"]);
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
    let done = group.run_step(1, vec![Batch::default(); 2], &[commit]).unwrap();
    assert_eq!(done.iter().map(|done| done.number).collect::<Vec<_>>(), [1, 1]);
    for worker in workers {
        worker.join().unwrap();
    }
}

#[test]
fn a_lost_rank_ends_its_group_and_the_next_has_a_higher_generation() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (mut group, steps) = formed(&fleet, &events, &mut ranks);
    drop(ranks.pop());
    assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, rank: RankId(1), .. }));
    let error = group.run_step(1, vec![Batch::default(); 2], &[]).unwrap_err();
    assert_eq!(error.number, 1);
    let is_let_go = (0..2).any(|_| ranks[0].control.receive::<ToRank>().is_err());
    assert!(is_let_go, "the survivor hears what was agreed, and then that it has to register again");
    drop((group, steps));
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (group, _steps) = formed(&fleet, &events, &mut ranks);
    assert_eq!(group.generation(), 2);
}

#[test]
fn a_rank_that_dies_in_a_step_is_named_and_its_group_is_lost() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (mut group, mut steps) = formed(&fleet, &events, &mut ranks);
    drop(steps.pop());
    let survivor = std::thread::spawn(move || {
        let step: Step = steps[0].receive().unwrap();
        steps[0].send(&answer(&step, 2)).unwrap();
        steps
    });
    let error = group.run_step(7, vec![Batch::default(); 2], &[]).unwrap_err();
    assert_eq!((error.rank, error.number), (RankId(1), 7));
    assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, rank: RankId(1), .. }));
    survivor.join().unwrap();
}

#[test]
fn a_rank_that_is_there_and_never_answers_a_step_is_lost_and_the_next_group_forms() {
    let (fleet, events) = fleet_of_steps(2, PATIENCE, Duration::from_millis(400));
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (mut group, mut steps) = formed(&fleet, &events, &mut ranks);
    // Rank 1 has taken the step, says that it lives, and begins an answer that it does not end.
    let hangs = std::thread::spawn(move || {
        let step: Step = steps[0].receive().unwrap();
        steps[0].send(&answer(&step, 2)).unwrap();
        steps[1].receive::<Step>().unwrap();
        steps[1].send_bytes(&[9, 0]).unwrap();
        steps
    });
    ranks[1].control.send(&FromRank::Alive).unwrap();
    let started = Instant::now();
    let error = group.run_step(1, vec![Batch::default(); 2], &[]).unwrap_err();
    assert_eq!((error.rank, error.number), (RankId(1), 1));
    assert!(error.reason.starts_with("no answer within 0.4 s (step-deadline-seconds)"), "{}", error.reason);
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, rank: RankId(1), .. }));
    drop((group, hangs.join().unwrap()));
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    assert_eq!(formed(&fleet, &events, &mut ranks).0.generation(), 2);
}

#[test]
fn a_rank_that_is_silent_is_lost() {
    let (fleet, events) = fleet(1, Duration::from_millis(300));
    let mut ranks = vec![Rank::join(&fleet, 0)];
    let (_group, _steps) = formed(&fleet, &events, &mut ranks);
    let FleetEvent::Lost { reason, .. } = next(&events) else { panic!("a loss was expected") };
    assert!(reason.contains("silent"), "{reason}");
}

#[test]
fn a_second_process_as_a_rank_that_lives_is_refused_and_the_first_serves_on() {
    let (fleet, events) = fleet(1, Duration::from_millis(800));
    let mut first = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    let second = Rank::register(&fleet, 0, 99, |_| {});
    let refused = std::thread::spawn(move || second.refusal());
    let deadline = Instant::now() + PATIENCE;
    while !refused.is_finished() {
        assert!(Instant::now() < deadline);
        first.control.send(&FromRank::Alive).unwrap();
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let reason = refused.join().unwrap();
    assert!(reason.contains("alive at moves:0"), "{reason}");
    assert!(matches!(next(&events), FleetEvent::Refused(told) if told.take() == Some(reason)));
    fleet.form(&map(1), 0).unwrap();
    first.form();
    assert!(matches!(next(&events), FleetEvent::Formed(_)));
}

#[test]
fn a_process_takes_over_a_rank_whose_old_process_is_dead() {
    let (fleet, events) = fleet(1, Duration::from_millis(300));
    let _silent = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    let mut second = Rank::register(&fleet, 0, 99, |_| {});
    assert!(matches!(next(&events), FleetEvent::Complete));
    fleet.members.lose_silent(Instant::now());
    assert_eq!(fleet.states()[0].address, "moves:0", "its silence begins when it is taken in");
    fleet.form(&map(1), 0).unwrap();
    second.form();
    assert!(matches!(next(&events), FleetEvent::Formed(_)));
}

#[test]
fn a_process_that_registers_again_replaces_itself_at_once() {
    let (fleet, events) = fleet(1, PATIENCE);
    let mut first = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    let _again = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    assert!(first.control.receive::<ToRank>().is_err());
}

#[test]
fn a_rank_that_does_not_belong_here_is_refused_with_what_to_do() {
    let (fleet, _events) = fleet(2, PATIENCE);
    let _first = Rank::join(&fleet, 0);
    let refuse = |change: fn(&mut FromRank)| Rank::register(&fleet, 1, 5, change).refusal();
    let reasons = [
        refuse(|message| match message {
            FromRank::Register { rank, .. } => *rank = RankId(2),
            _ => unreachable!(),
        }),
        refuse(|message| match message {
            FromRank::Register { model, .. } => model.digest = "other".to_owned(),
            _ => unreachable!(),
        }),
        refuse(|message| match message {
            FromRank::Register { block_tokens, .. } => *block_tokens = 0,
            _ => unreachable!(),
        }),
        refuse(|message| match message {
            FromRank::Register { node, .. } => *node = "a\u{1b}[2Jnode".to_owned(),
            _ => unreachable!(),
        }),
        refuse(|message| match message {
            FromRank::Register { step_address, .. } => *step_address = "x".repeat(1000),
            _ => unreachable!(),
        }),
        refuse(|message| *message = FromRank::Alive),
    ];
    insta::assert_yaml_snapshot!(reasons);
}

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
fn ranks_with_different_blocks_are_refused() {
    let (fleet, events) = fleet(2, PATIENCE);
    let _first = Rank::join(&fleet, 0);
    wait_until("the first is registered", || !fleet.states()[0].address.is_empty());
    let other = Rank::register(&fleet, 1, 5, |message| match message {
        FromRank::Register { block_tokens, .. } => *block_tokens = 32,
        _ => unreachable!(),
    });
    assert!(other.refusal().contains("--block-tokens"));
    assert!(matches!(next(&events), FleetEvent::Refused(_)));
    assert!(events.try_recv().is_err());
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
fn a_caller_with_another_secret_is_told_and_does_not_count() {
    let (fleet, events) = fleet(1, PATIENCE);
    let other = Secret::draw().unwrap();
    let address = fleet.address().to_string();
    let error = call(&address, "coordinator", (Purpose::Control, &other), PATIENCE).unwrap_err();
    assert!(
        error.to_string().contains("the secret differs: both") || error.to_string().contains("the secret differs;")
    );
    let group = GroupId { generation: 1, nonce: 0 };
    let steps = Purpose::Steps { group, rank: RankId(0) };
    let error = call(&address, "coordinator", (steps, &secret()), PATIENCE).unwrap_err();
    assert!(error.to_string().ends_with("does not expect this call now"), "{error}");
    let _rank = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    assert!(events.try_recv().is_err());
}

#[test]
fn a_place_is_kept_for_the_rank_that_had_it_when_its_group_was_lost() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (_group, _steps) = formed(&fleet, &events, &mut ranks);
    // Members too, as far as their secret goes, that wait for both places.
    let _waiting: Vec<Rank> = (0..2).map(|rank| Rank::register(&fleet, rank, 90 + u128::from(rank), |_| {})).collect();
    drop(ranks.pop());
    assert!(matches!(next(&events), FleetEvent::Lost { rank: RankId(1), .. }));
    // The one that waits for it takes the place of the rank that is gone; nobody takes that of the one that is not.
    wait_until("it has the place", || fleet.members.process_of(RankId(1)) == Some(ProcessId(91)));
    assert_eq!(fleet.members.process_of(RankId(0)), None);
    let _first = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    assert_eq!(fleet.members.process_of(RankId(0)), Some(ProcessId(0)));
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

#[test]
fn a_rank_that_answers_wrongly_is_lost_with_the_reason() {
    type Wrong = (fn(&mut StepDone), &'static str);
    let wrong: [Wrong; 3] = [
        (|done| done.slot_pairs.push(0), "pairs of 3 slots instead of 2"),
        (|done| done.slot_pairs[0] = 7, "7 pairs in a slot of a step of 0 tokens"),
        (|done| done.number += 1, "it answered step 2 of generation 1 instead"),
    ];
    for (change, expected) in wrong {
        let (fleet, events) = fleet(1, PATIENCE);
        let mut ranks = vec![Rank::join(&fleet, 0)];
        let (mut group, mut steps) = formed(&fleet, &events, &mut ranks);
        let worker = std::thread::spawn(move || {
            let step: Step = steps[0].receive().unwrap();
            let mut done = answer(&step, 4);
            done.slot_pairs.truncate(4);
            change(&mut done);
            steps[0].send(&done).unwrap();
            steps
        });
        let error = group.run_step(1, vec![Batch::default()], &[]).unwrap_err();
        let expected = expected.replace("3 slots instead of 2", "5 slots instead of 4");
        assert!(error.reason.contains(&expected), "{error}");
        assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, rank: RankId(0), .. }));
        worker.join().unwrap();
    }
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
        (|| FromRank::Ready { generation: 1 }, "it is ready before it was told to connect"),
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
