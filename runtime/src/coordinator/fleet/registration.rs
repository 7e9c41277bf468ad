//! The fleet's threads: one accepts, one watches for silence, and each rank has one that reads and one that writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use plan::ids::RankId;
use plan::wire::{ModelIdentity, RankState};
use plan::words::counted;

use super::alike::{Traits, device_name};
use super::members::formation::Loaded;
use super::members::{Member, Members};
use crate::fabric::framing::{CUT_AFTER, Closer, Connection, ConnectionError};
use crate::fabric::greeter::Greeter;
use crate::fabric::purpose::Purpose;
use crate::protocol::{FromRank, MOST_WORDS, MoveReport, NotStaged, ProcessId, RankAddress, ToRank};
use crate::quoted::shortened;

/// How often silence is looked for.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Control connections beside two of each rank, which may have one that is about to end: those that are to be refused.
const SPARE_CONNECTIONS: usize = 8;

/// The longest first message: names, addresses and a reason.
const MOST_FIRST_BYTES: usize = 16 << 10;

/// The longest later message without the fingerprints of pages.
const MOST_REPORT_BYTES: usize = 16 << 10;

/// The most bytes of a fingerprint in a message.
const FINGERPRINT_BYTES: usize = 19;

/// The longest name of a host or node, and the longest `host:port`.
const MOST_NAME_BYTES: usize = 253;
const MOST_ADDRESS_BYTES: usize = MOST_NAME_BYTES + 8;

/// The most bytes that one transaction brings a rank.
const MOST_STAGED_BYTES: u64 = 1 << 44;

/// Accepts ranks until the fleet is closed.
pub(super) fn accept(members: &Arc<Members>, greeter: Greeter) {
    let controls =
        Arc::new(OpenControls { taken: AtomicUsize::new(0), all: members.settings.ranks * 2 + SPARE_CONNECTIONS });
    let admit = |purpose: &Purpose| match *purpose {
        Purpose::Control => Some(members.settings.secret.clone()),
        Purpose::Steps { group, rank } => members.secret_of(group, rank),
        Purpose::Mesh { .. } | Purpose::Moves { .. } => None,
    };
    greeter.run(admit, |purpose, connection| match purpose {
        Purpose::Control => spawn_control(members, &controls, connection),
        Purpose::Steps { group, rank } => members.attach_steps(group, rank, connection),
        // Nobody is admitted for these.
        Purpose::Mesh { .. } | Purpose::Moves { .. } => {}
    });
}

/// Gives a member a thread, if members have not too many.
fn spawn_control(members: &Arc<Members>, controls: &Arc<OpenControls>, connection: Connection) {
    let Some(control) = controls.take() else {
        tracing::warn!(
            peer = connection.peer(),
            limit = controls.all,
            "too many control connections; the last is closed"
        );
        return;
    };
    let serving = Arc::clone(members);
    let serve = move || {
        let _control = control;
        if let Err(error) = serve_control(&serving, connection) {
            tracing::info!(%error, "a control connection ended");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("fleet-rank".to_owned()).spawn(serve) {
        tracing::warn!(%error, "a connection of a rank could not be accepted");
    }
}

/// How many control connections there may be, and are.
struct OpenControls {
    taken: AtomicUsize,
    all: usize,
}

/// One of them, until it is dropped.
struct OpenControl(Arc<OpenControls>);

impl OpenControls {
    fn take(self: &Arc<Self>) -> Option<OpenControl> {
        // Only the thread that accepts takes any.
        let taken = self.taken.load(Ordering::Acquire);
        (taken < self.all).then(|| {
            self.taken.fetch_add(1, Ordering::AcqRel);
            OpenControl(Arc::clone(self))
        })
    }
}

impl Drop for OpenControl {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Loses ranks that are silent or do not go on, and tells how far loading is, until the fleet is dropped.
pub(super) fn watch_for_silence(members: &Members, stopped: &Receiver<()>) {
    while stopped.recv_timeout(WATCH_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        members.lose_silent(Instant::now());
        members.watch_loading(Instant::now());
    }
}

fn serve_control(members: &Arc<Members>, mut connection: Connection) -> Result<(), ConnectionError> {
    connection.set_timeout(Some(CUT_AFTER))?;
    let first = connection.receive_up_to(MOST_FIRST_BYTES)?;
    let (outbox, orders) = crossbeam_channel::unbounded();
    let control = Control { outbox: outbox.clone(), closer: connection.closer()? };
    let (rank, process) = match introduce(members, first, control, connection.peer()) {
        Ok(introduced) => introduced,
        Err(reason) => {
            tracing::warn!(peer = connection.peer(), reason, "registration refused");
            members.tell_refusal(&reason);
            return connection.send(&ToRank::Refused { reason });
        }
    };
    connection.rename(rank.to_string());
    let writer = connection.share().and_then(|writer| spawn_writer(writer, orders));
    let ModelIdentity { layers, experts, .. } = members.settings.model;
    // A rank holds an expert once.
    let most_bytes = MOST_REPORT_BYTES + layers * experts * FINGERPRINT_BYTES;
    // A rank that is there speaks every second; silence is the watcher's to judge.
    let served = writer.and_then(|()| connection.set_timeout(None)).and_then(|()| {
        loop {
            let message = connection.receive_up_to(most_bytes)?;
            members.heard(rank, process, Instant::now());
            if let Err(reason) = hear(members, (rank, process), message) {
                return Ok(reason);
            }
        }
    });
    let reason = served.unwrap_or_else(|error| error.to_string());
    members.lose(rank, process, &outbox, &reason);
    Ok(())
}

/// A control connection, as far as its rank's place needs it.
struct Control {
    outbox: Sender<ToRank>,
    closer: Closer,
}

/// Takes a rank in, or takes note of why it can never be; otherwise why it is refused, and what to do.
fn introduce(
    members: &Members,
    message: FromRank,
    control: Control,
    peer: &str,
) -> Result<(RankId, ProcessId), String> {
    let Control { outbox, closer } = control;
    let ranks = members.settings.ranks;
    let exists = |rank: RankId| {
        let absent = || format!("{rank} does not exist: the group has ranks 0 to {}", ranks - 1);
        if rank.index() < ranks { Ok(rank) } else { Err(absent()) }
    };
    match message {
        FromRank::Register { process, rank, model, step_address, move_address, block_tokens, node, device } => {
            let rank = exists(rank)?;
            check_model(rank, &model, &members.settings.model)?;
            check_names(rank, [&step_address, &move_address], &node)?;
            let unit = device.unit.clone();
            let traits = Traits { block_tokens, device: *device };
            traits.check(rank)?;
            let shown = Arc::new(RankState {
                rank: rank.0,
                connected: false,
                address: move_address.clone(),
                node: node.clone(),
                device: device_name(&traits.device),
                memory: traits.device.memory,
                exchange: String::new(),
            });
            let address = RankAddress { rank, step: step_address, moves: move_address, node, unit };
            let heard = Instant::now();
            let owed = BTreeSet::new();
            members.register(Member { process, address, traits, outbox, closer, heard, shown, owed })?;
            Ok((rank, process))
        }
        FromRank::Failed { process, rank, reason } => {
            let rank = exists(rank)?;
            members.fail(rank, process, peer, &shortened(&reason, MOST_WORDS))?;
            Ok((rank, process))
        }
        _ => Err("the first message must be a registration".to_owned()),
    }
}

/// Names and addresses go to other ranks and are shown to people: they are what they seem to be.
fn check_names(rank: RankId, addresses: [&str; 2], node: &str) -> Result<(), String> {
    for address in addresses {
        let is_plain = address.len() <= MOST_ADDRESS_BYTES && address.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || !address.contains(':') {
            return Err(format!("{rank} gives {} as its address, which is no host:port", shortened(address, 64)));
        }
    }
    if node.len() > MOST_NAME_BYTES || node.bytes().any(|byte| !(byte.is_ascii_graphic() || byte == b' ')) {
        return Err(format!("{rank} gives {} as its node, which is no name of one (--node)", shortened(node, 64)));
    }
    Ok(())
}

fn check_model(rank: RankId, found: &ModelIdentity, expected: &ModelIdentity) -> Result<(), String> {
    if (&found.digest, found.layers, found.experts) == (&expected.digest, expected.layers, expected.experts) {
        return Ok(());
    }
    Err(format!(
        "{rank} found another model: {} of {}, digest {}; the coordinator serves {} ({}, {}, {}); \
         give both the same checkpoint",
        counted(found.layers, "MoE layer"),
        counted(found.experts, "expert"),
        shortened(&found.digest, 64),
        expected.name,
        expected.layers,
        expected.experts,
        expected.digest
    ))
}

fn spawn_writer(mut connection: Connection, orders: Receiver<ToRank>) -> Result<(), ConnectionError> {
    let peer = connection.peer().to_owned();
    let write = move || {
        for order in orders {
            // The thread that reads reports the loss.
            if connection.send(&order).is_err() {
                return;
            }
            if matches!(order, ToRank::Refused { .. }) {
                connection.close();
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name("fleet-orders".to_owned()).spawn(write);
    spawned.map(|_| ()).map_err(|source| ConnectionError::Io { peer, source })
}

/// Takes note of what a rank says; why it is lost, if that cannot be.
fn hear(members: &Arc<Members>, (rank, process): (RankId, ProcessId), message: FromRank) -> Result<(), String> {
    match message {
        FromRank::Loading { read, of } => members.loading(rank, read, of, Instant::now()),
        FromRank::Loaded { generation, kv_blocks, fingerprints } => {
            return members.loaded(rank, generation, Loaded { kv_blocks, fingerprints });
        }
        FromRank::Ready { generation, exchange } => return members.ready(rank, generation, exchange),
        FromRank::Moved(MoveReport { staged: Ok(bytes), .. }) if bytes > MOST_STAGED_BYTES => {
            return Err(format!("it reports {bytes} bytes of one transaction"));
        }
        FromRank::Moved(mut report) => {
            if let Err(NotStaged { message, .. }) = &mut report.staged {
                *message = shortened(message, MOST_WORDS);
            }
            return members.moved((rank, process), report);
        }
        FromRank::Leaves { reason } => return Err(shortened(&reason, MOST_WORDS)),
        FromRank::Alive => {}
        FromRank::Register { .. } | FromRank::Failed { .. } => {
            return Err("it introduced itself again on the same connection".to_owned());
        }
    }
    Ok(())
}
