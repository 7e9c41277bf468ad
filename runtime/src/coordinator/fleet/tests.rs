use std::time::Instant;

use plan::map::{ExpertMap, MapShape};

use super::*;
use crate::fabric::framing::Connection;
use crate::fabric::hello::{GroupId, Purpose};
use crate::protocol::{Commit, FromRank, PROTOCOL, Step, StepDone, StepTiming};

const PATIENCE: Duration = Duration::from_secs(20);

fn model() -> ModelIdentity {
    ModelIdentity { name: "tiny".to_owned(), digest: "abc".to_owned(), layers: 1, experts: 4 }
}

fn fleet(ranks: usize, silence_limit: Duration) -> (Fleet, Receiver<FleetEvent>) {
    let settings = FleetSettings { ranks, model: model(), staging_pages: 2, move_bytes_per_second: 0, silence_limit };
    Fleet::start(settings, TcpListener::bind("127.0.0.1:0").unwrap(), &VitalThreads::new(drop)).unwrap()
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
    fn register(fleet: &Fleet, rank: u32, process: u64, change: impl FnOnce(&mut FromRank)) -> Self {
        let address = fleet.address().to_string();
        let mut control = Connection::connect(&address, "coordinator", PATIENCE).unwrap();
        Purpose::Control { process }.introduce(&mut control).unwrap();
        let mut registration = FromRank::Register {
            protocol: PROTOCOL,
            rank: RankId(rank),
            model: model(),
            step_address: format!("step:{rank}"),
            move_address: format!("moves:{rank}"),
            kv_blocks: 8,
            block_tokens: 16,
            node: format!("node-{rank}"),
        };
        change(&mut registration);
        control.send(&registration).unwrap();
        Self { number: RankId(rank), control, address }
    }

    fn join(fleet: &Fleet, rank: u32) -> Self {
        Self::register(fleet, rank, u64::from(rank), |_| {})
    }

    /// Takes the order to form, connects its steps and says that it is ready.
    fn form(&mut self) -> (GroupId, Connection) {
        let ToRank::Form { generation, nonce, ranks, .. } = self.control.receive().unwrap() else {
            panic!("an order to form was expected")
        };
        assert_eq!(ranks[self.number.index()].moves, format!("moves:{}", self.number.0));
        let group = GroupId { generation, nonce };
        let mut steps = Connection::connect(&self.address, "coordinator", PATIENCE).unwrap();
        Purpose::Steps { group, rank: self.number }.introduce(&mut steps).unwrap();
        self.control.send(&FromRank::Ready { generation }).unwrap();
        (group, steps)
    }

    fn refusal(mut self) -> String {
        match self.control.receive().unwrap() {
            ToRank::Refused { reason } => reason,
            other => panic!("a refusal was expected, not {other:?}"),
        }
    }
}

fn next(events: &Receiver<FleetEvent>) -> FleetEvent {
    events.recv_timeout(PATIENCE).unwrap()
}

fn formed(fleet: &Fleet, events: &Receiver<FleetEvent>, ranks: &mut [Rank]) -> (Group, Vec<Connection>) {
    assert!(matches!(next(events), FleetEvent::Complete));
    fleet.form(&map(ranks.len()), 0).unwrap();
    let steps = ranks.iter_mut().map(|rank| rank.form().1).collect();
    match next(events) {
        FleetEvent::Formed(group) => (group, steps),
        other => panic!("a group was expected, not {other:?}"),
    }
}

fn answer(step: &Step) -> StepDone {
    let (generation, number) = (step.generation, step.number);
    let slot_pairs = vec![step.commits.len() as u32];
    StepDone { generation, number, outputs: Vec::new(), slot_pairs, timing: StepTiming::default() }
}

#[test]
fn a_group_forms_when_every_rank_is_there_and_runs_steps_on_all_of_them() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 1)];
    assert!(matches!(fleet.form(&map(2), 0), Err(FormError::Incomplete { missing }) if missing.contains(&0)));
    ranks.insert(0, Rank::join(&fleet, 0));
    let (mut group, steps) = formed(&fleet, &events, &mut ranks);
    assert_eq!((group.generation(), group.kv_blocks(), group.block_tokens()), (1, &[8, 8][..], 16));
    assert!(fleet.ranks().iter().all(|rank| rank.connected));
    assert_eq!(fleet.ranks().iter().map(|rank| rank.node.as_str()).collect::<Vec<_>>(), ["node-0", "node-1"]);
    let workers = steps.into_iter().map(|mut steps| {
        std::thread::spawn(move || {
            let step: Step = steps.receive().unwrap();
            steps.send(&answer(&step)).unwrap();
        })
    });
    let workers: Vec<_> = workers.collect();
    let commit =
        Commit { transaction: TransactionId(1), epoch: 1, layer: 0.into(), changes: Vec::new(), shares: Vec::new() };
    let done = group.run_step(1, vec![Vec::new(); 2], &[commit]).unwrap();
    assert_eq!(done.iter().map(|done| done.slot_pairs[0]).collect::<Vec<_>>(), [1, 1]);
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
    let error = group.run_step(1, vec![Vec::new(); 2], &[]).unwrap_err();
    assert_eq!(error.number, 1);
    assert!(ranks[0].control.receive::<ToRank>().is_err(), "the survivor is told to register again");
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
        steps[0].send(&answer(&step)).unwrap();
        steps
    });
    let error = group.run_step(7, vec![Vec::new(); 2], &[]).unwrap_err();
    assert_eq!((error.rank, error.number), (RankId(1), 7));
    assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, rank: RankId(1), .. }));
    survivor.join().unwrap();
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
    assert!(matches!(next(&events), FleetEvent::Refused { reason: told } if told == reason));
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
    assert_eq!(fleet.ranks()[0].address, "moves:0", "its silence begins when it is taken in");
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
    let field = |message: &mut FromRank| match message {
        FromRank::Register { protocol, .. } => *protocol = 9,
        _ => unreachable!(),
    };
    let reasons = [
        refuse(field),
        refuse(|message| match message {
            FromRank::Register { rank, .. } => *rank = RankId(2),
            _ => unreachable!(),
        }),
        refuse(|message| match message {
            FromRank::Register { model, .. } => model.digest = "other".to_owned(),
            _ => unreachable!(),
        }),
        refuse(|message| match message {
            FromRank::Register { kv_blocks, .. } => *kv_blocks = 0,
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
        Rank::register(&fleet, rank, u64::from(rank), |message| {
            *message = FromRank::Failed { rank: RankId(rank), reason }
        })
    };
    let told = || match next(&events) {
        FleetEvent::Failing(reason) => reason,
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
fn ranks_with_different_blocks_are_refused() {
    let (fleet, events) = fleet(2, PATIENCE);
    let _first = Rank::join(&fleet, 0);
    while fleet.ranks()[0].address.is_empty() {
        std::thread::yield_now();
    }
    let other = Rank::register(&fleet, 1, 5, |message| match message {
        FromRank::Register { block_tokens, .. } => *block_tokens = 32,
        _ => unreachable!(),
    });
    assert!(other.refusal().contains("--block-tokens"));
    assert!(matches!(next(&events), FleetEvent::Refused { .. }));
    assert!(events.try_recv().is_err());
}

#[test]
fn an_order_reaches_its_rank_and_its_answer_comes_back() {
    let (fleet, events) = fleet(1, PATIENCE);
    let mut rank = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    let order = ToRank::Abort { generation: 1, transaction: TransactionId(4) };
    fleet.order(RankId(0), order.clone());
    assert_eq!(rank.control.receive::<ToRank>().unwrap(), order);
    rank.control.send(&FromRank::Staged { generation: 1, transaction: TransactionId(4), bytes: 10 }).unwrap();
    let staged = next(&events);
    assert!(matches!(staged, FleetEvent::Staged { transaction: TransactionId(4), bytes: 10, .. }), "{staged:?}");
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
