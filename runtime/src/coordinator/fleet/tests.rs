mod forming;
mod places;
mod said;
mod steps;

use std::time::Instant;

use plan::map::{ExpertMap, MapShape};
use plan::moves::Transaction;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::coordinator::ranks::RankGroup as _;
use crate::fabric::exchange::means::Means;
use crate::fabric::framing::Connection;
use crate::fabric::handshake::call;
use crate::fabric::purpose::{GroupId, Purpose};
use crate::protocol::tests::device;
use crate::protocol::{
    Batch, Commit, FromRank, MoveFailure, MoveReport, NotStaged, ProcessId, RankDevice, Step, StepDone, StepTiming,
    TransactionId,
};
use crate::scheduler::RankCache;
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

/// Sends a step and waits for its answers; none may be under way.
fn run_step(
    group: &mut Group,
    number: u64,
    batches: Vec<Batch>,
    commits: &[Commit],
) -> Result<Vec<StepDone>, RankLost> {
    group.send(number, batches, commits)?;
    group.receive()
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
        kv_tokens: 4096,
        move_bytes_per_second: None,
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
            device: device().into(),
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
        (GroupId { generation, nonce }, secret().of_group(&drawn), *map)
    }

    /// Takes the order to connect, connects its steps and says that it is ready; what was agreed.
    fn connect(&mut self, (group, secret): (GroupId, Secret)) -> (Connection, Vec<Option<u128>>) {
        let ToRank::Connect { generation, fingerprints } = self.control.receive().unwrap() else {
            panic!("an order to connect was expected")
        };
        assert_eq!(generation, group.generation);
        let purpose = (Purpose::Steps { group, rank: self.number }, &secret);
        let steps = call(&self.address, "coordinator", purpose, PATIENCE).unwrap();
        self.control.send(&FromRank::Ready { generation, exchange: Some(Means::Tcp) }).unwrap();
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
    let slot_pairs = std::iter::repeat_n(0, slots).collect();
    StepDone { generation, number, outputs: Vec::new(), slot_pairs, timing: StepTiming::default() }
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
            FromRank::Register { device, .. } => device.kind = "a\u{1b}[2Jkind".to_owned(),
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
