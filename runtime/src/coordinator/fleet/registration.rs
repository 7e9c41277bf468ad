//! The fleet's threads: one accepts, one watches for silence, and each rank has one that reads and one that writes.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use plan::ids::RankId;

use super::FleetEvent;
use super::members::{Member, Members};
use crate::fabric::framing::{CUT_AFTER, Connection, ConnectionError};
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
    let registration = connection.receive()?;
    let (outbox, orders) = crossbeam_channel::unbounded();
    let closer = connection.closer()?;
    let admitted = check(members, registration).and_then(|(address, kv_blocks, block_tokens)| {
        let rank = address.rank;
        let (outbox, heard) = (outbox.clone(), Instant::now());
        members.register(Member { process, address, kv_blocks, block_tokens, outbox, closer, heard })?;
        Ok(rank)
    });
    let rank = match admitted {
        Ok(rank) => rank,
        Err(reason) => {
            tracing::warn!(peer = connection.peer(), reason, "registration refused");
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

/// What a rank says of itself, if it may join; otherwise why not, and what to do.
fn check(members: &Members, message: FromRank) -> Result<(RankAddress, u32, u32), String> {
    let FromRank::Register { protocol, rank, model, step_address, move_address, kv_blocks, block_tokens } = message
    else {
        return Err("the first message must be a registration".to_owned());
    };
    let settings = &members.settings;
    if protocol != PROTOCOL {
        return Err(format!(
            "{rank} speaks protocol {protocol}, this coordinator {PROTOCOL}; run the same version everywhere"
        ));
    }
    if rank.index() >= settings.ranks {
        return Err(format!("{rank} does not exist: the group has ranks 0 to {}", settings.ranks - 1));
    }
    let expected = &settings.model;
    if (&model.digest, model.layers, model.experts) != (&expected.digest, expected.layers, expected.experts) {
        return Err(format!(
            "{rank} found another model: {} MoE layers of {} experts, digest {}; the coordinator serves {} ({}, {}, {}); \
             give both the same checkpoint",
            model.layers,
            model.experts,
            model.digest,
            expected.name,
            expected.layers,
            expected.experts,
            expected.digest
        ));
    }
    if kv_blocks == 0 || block_tokens == 0 {
        return Err(format!("{rank} has no KV cache: {kv_blocks} blocks of {block_tokens} tokens"));
    }
    Ok((RankAddress { rank, step: step_address, moves: move_address }, kv_blocks, block_tokens))
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
        FromRank::Register { .. } => tracing::warn!(%rank, "a rank that is registered registers again; ignored"),
    }
}
