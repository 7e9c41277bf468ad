//! How ranks find each other: each calls those below it and is called by those above, and both make sure that they mean
//! the same group.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use plan::ids::RankId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Members, MeshError};
use crate::cancel::Cancel;
use crate::fabric::framing::{CONNECT_TIMEOUT, Connection, ConnectionError};
use crate::fabric::hello::{GroupId, Purpose};
use crate::protocol::RankAddress;

/// How often a wait looks whether it was cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(50);

/// How long a rank that is called may take to answer before it is called again: it answers once its experts are loaded.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The ranks that have no stream yet.
pub(super) fn missing(streams: &[Option<TcpStream>], own: usize) -> Option<Vec<RankId>> {
    let missing = (0..streams.len()).filter(|&rank| rank != own && streams[rank].is_none()).map(RankId::from);
    let missing: Vec<RankId> = missing.collect();
    (!missing.is_empty()).then_some(missing)
}

/// Calls a lower rank until it answers under the same group.
pub(super) fn call(
    members: Members<'_>,
    address: &RankAddress,
    deadline: Instant,
    cancel: &Cancel,
) -> Result<TcpStream, MeshError> {
    loop {
        if cancel.is_cancelled() {
            return Err(MeshError::Cancelled);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match try_call(members, address) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if left.is_zero() {
            return Err(MeshError::Unreachable { peer: address.rank, source: error });
        }
        std::thread::park_timeout(left.min(CANCEL_CHECK));
    }
}

/// Calls a lower rank once.
pub(super) fn try_call(members: Members<'_>, address: &RankAddress) -> Result<TcpStream, ConnectionError> {
    let mut connection = Connection::connect(&address.step, address.rank.to_string(), CONNECT_TIMEOUT)?;
    Purpose::Mesh { group: members.group, from: members.rank, to: address.rank }.introduce(&mut connection)?;
    connection.set_timeout(Some(ANSWER_TIMEOUT))?;
    confirm(members.group, &mut connection)?;
    // The other rank hears that this call was not given up meanwhile.
    connection.send(&members.group)?;
    connection.set_timeout(None)?;
    Ok(connection.into_stream())
}

fn confirm(group: GroupId, connection: &mut Connection) -> Result<(), ConnectionError> {
    let found: GroupId = connection.receive_up_to(size_of::<GroupId>() * 2)?;
    if found == group {
        return Ok(());
    }
    let peer = connection.peer().to_owned();
    Err(ConnectionError::Stranger { peer, found: format!("{found:?}"), expected: format!("{group:?}") })
}

/// Answers one caller, if there is one within [`CANCEL_CHECK`]; `None` if it is not of this group.
pub(super) fn answer(members: Members<'_>, listener: &TcpListener) -> Result<Option<(RankId, TcpStream)>, MeshError> {
    let patience = Timespec { tv_sec: 0, tv_nsec: CANCEL_CHECK.as_nanos() as i64 };
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience)).map_err(io::Error::from)?;
    let (stream, address) = match listener.accept() {
        Ok(accepted) => accepted,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match greet(members, stream, &address.to_string()) {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            tracing::debug!(%error, "a caller of the step path was turned away");
            Ok(None)
        }
    }
}

fn greet(members: Members<'_>, stream: TcpStream, address: &str) -> Result<(RankId, TcpStream), ConnectionError> {
    stream.set_nonblocking(false).map_err(|source| ConnectionError::Io { peer: address.to_owned(), source })?;
    let mut connection = Connection::new(stream, address)?;
    let purpose = Purpose::hear(&mut connection)?;
    match purpose {
        Purpose::Mesh { group, from, to }
            if (group, to) == (members.group, members.rank) && to < from && from.index() < members.ranks.len() =>
        {
            connection.send(&members.group)?;
            connection.set_timeout(Some(ANSWER_TIMEOUT))?;
            confirm(members.group, &mut connection)?;
            connection.set_timeout(None)?;
            Ok((from, connection.into_stream()))
        }
        _ => Err(ConnectionError::Stranger {
            peer: address.to_owned(),
            found: format!("{purpose:?}"),
            expected: format!("a rank above {} of {:?}", members.rank, members.group),
        }),
    }
}
