//! The fleet's threads: one accepts, one watches for silence, and each rank has one that reads and one that writes.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use plan::ids::RankId;
use plan::wire::ModelIdentity;

use super::FleetEvent;
use super::members::{Member, Members};
use crate::fabric::framing::{CUT_AFTER, Closer, Connection, ConnectionError};
use crate::fabric::hello::Purpose;
use crate::protocol::{FromRank, PROTOCOL, RankAddress, ToRank};

/// How often silence is looked for.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Accepts ranks until the fleet is closed.
pub(super) fn accept(members: &Arc<Members>, listener: &TcpListener) {
    loop {
        let accepted = listener.accept();
        if members.is_closed() {
            return;
        }
        let serving = Arc::clone(members);
        let spawned = accepted.and_then(|(stream, address)| {
            std::thread::Builder::new()
                .name("fleet-rank".to_owned())
                .spawn(move || serve(&serving, stream, &address.to_string()))
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "a connection of a rank could not be accepted");
            // Out of descriptors or threads: trying again at once would only burn a core.
            std::thread::park_timeout(WATCH_INTERVAL);
        }
    }
}

/// Loses ranks that are silent, until the fleet is dropped.
pub(super) fn watch_for_silence(members: &Members, stopped: &Receiver<()>) {
    while stopped.recv_timeout(WATCH_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        members.lose_silent(Instant::now());
    }
}

fn serve(members: &Arc<Members>, stream: TcpStream, address: &str) {
    let served = Connection::new(stream, address).and_then(|mut connection| {
        match Purpose::hear(&mut connection)? {
            Purpose::Control { process } => return serve_control(members, process, connection),
            Purpose::Steps { group, rank } => members.attach_steps(group, rank, connection),
            purpose @ (Purpose::Mesh { .. } | Purpose::Moves { .. }) => {
                let (found, expected) = (format!("{purpose:?}"), "a rank of this coordinator".to_owned());
                return Err(ConnectionError::Stranger { peer: address.to_owned(), found, expected });
            }
        }
        Ok(())
    });
    if let Err(error) = served {
        tracing::info!(%error, "a connection ended");
    }
}

fn serve_control(members: &Arc<Members>, process: u64, mut connection: Connection) -> Result<(), ConnectionError> {
    connection.set_timeout(Some(CUT_AFTER))?;
    let first = connection.receive()?;
    let (outbox, orders) = crossbeam_channel::unbounded();
    let control = Control { process, outbox: outbox.clone(), closer: connection.closer()? };
    let rank = match introduce(members, first, control, connection.peer()) {
        Ok(rank) => rank,
        Err(reason) => {
            tracing::warn!(peer = connection.peer(), reason, "registration refused");
            members.report(FleetEvent::Refused { reason: reason.clone() });
            return connection.send(&ToRank::Refused { reason });
        }
    };
    connection.rename(rank.to_string());
    let writer = connection.share().and_then(|writer| spawn_writer(writer, orders));
    // A rank that is there speaks every second; silence is the watcher's to judge.
    let ended = writer.and_then(|()| connection.set_timeout(None)).and_then(|()| {
        loop {
            let message = connection.receive()?;
            members.heard(rank, process, Instant::now());
            hear(members, rank, message);
        }
    });
    let ended: Result<std::convert::Infallible, _> = ended;
    let Err(error) = ended;
    members.lose(rank, process, &outbox, &error.to_string());
    Ok(())
}

/// A control connection, as far as its rank's place needs it.
struct Control {
    process: u64,
    outbox: Sender<ToRank>,
    closer: Closer,
}

/// Takes a rank in, or takes note of why it can never be; otherwise why it is refused, and what to do.
fn introduce(members: &Members, message: FromRank, control: Control, peer: &str) -> Result<RankId, String> {
    let Control { process, outbox, closer } = control;
    let ranks = members.settings.ranks;
    let exists = |rank: RankId| {
        let absent = || format!("{rank} does not exist: the group has ranks 0 to {}", ranks - 1);
        if rank.index() < ranks { Ok(rank) } else { Err(absent()) }
    };
    match message {
        FromRank::Register { protocol, rank, .. } if protocol != PROTOCOL => Err(format!(
            "{rank} speaks protocol {protocol}, this coordinator {PROTOCOL}; run the same version everywhere"
        )),
        FromRank::Register { rank, model, step_address, move_address, kv_blocks, block_tokens, node, .. } => {
            let rank = exists(rank)?;
            check_model(rank, &model, &members.settings.model)?;
            if kv_blocks == 0 || block_tokens == 0 {
                return Err(format!("{rank} has no KV cache: {kv_blocks} blocks of {block_tokens} tokens"));
            }
            let address = RankAddress { rank, step: step_address, moves: move_address, node };
            let heard = Instant::now();
            members.register(Member { process, address, kv_blocks, block_tokens, outbox, closer, heard })?;
            Ok(rank)
        }
        FromRank::Failed { rank, reason } => {
            let rank = exists(rank)?;
            members.fail(rank, process, peer, &reason)?;
            Ok(rank)
        }
        _ => Err("the first message must be a registration".to_owned()),
    }
}

fn check_model(rank: RankId, found: &ModelIdentity, expected: &ModelIdentity) -> Result<(), String> {
    if (&found.digest, found.layers, found.experts) == (&expected.digest, expected.layers, expected.experts) {
        return Ok(());
    }
    Err(format!(
        "{rank} found another model: {} MoE layers of {} experts, digest {}; the coordinator serves {} ({}, {}, {}); \
         give both the same checkpoint",
        found.layers, found.experts, found.digest, expected.name, expected.layers, expected.experts, expected.digest
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
        }
    };
    let spawned = std::thread::Builder::new().name("fleet-orders".to_owned()).spawn(write);
    spawned.map(|_| ()).map_err(|source| ConnectionError::Io { peer, source })
}

fn hear(members: &Arc<Members>, rank: RankId, message: FromRank) {
    match message {
        FromRank::Ready { generation } => members.ready(rank, generation),
        FromRank::Staged { generation, transaction, bytes } => {
            members.report(FleetEvent::Staged { generation, rank, transaction, bytes });
        }
        FromRank::MoveFailed { generation, transaction, reason, message } => {
            members.report(FleetEvent::MoveFailed { generation, rank, transaction, reason, message });
        }
        FromRank::Alive => {}
        FromRank::Register { .. } | FromRank::Failed { .. } => {
            tracing::warn!(%rank, "a rank that is registered introduces itself again; ignored");
        }
    }
}
