//! The first message on every connection: what it is for, and which group it belongs to. A rank of an earlier group,
//! or something that is no rank at all, gets no further.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use plan::ids::RankId;
use serde::{Deserialize, Serialize};

use super::framing::{Connection, ConnectionError};

const MAGIC: u32 = u32::from_le_bytes(*b"SwBa");

/// A greeting is a few dozen bytes.
const MAX_HELLO_BYTES: usize = 256;

/// A peer that connects says who it is at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// A group of ranks: its generation, and a number that tells the groups of different coordinators apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupId {
    /// Only rises within a coordinator's life.
    pub generation: u64,
    /// Drawn by the coordinator when it starts.
    pub nonce: u64,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A rank's control connection to the coordinator.
    Control {
        /// Drawn by the rank's process when it starts: the same process that registers again replaces itself.
        process: u64,
    },
    /// A rank's step connection to the coordinator.
    Steps {
        /// The group.
        group: GroupId,
        /// The rank.
        rank: RankId,
    },
    /// A step path between two ranks.
    Mesh {
        /// The group.
        group: GroupId,
        /// The rank that connects.
        from: RankId,
        /// The rank that it means to reach.
        to: RankId,
    },
    /// A connection of the move path; it asks for pages.
    Moves {
        /// The group.
        group: GroupId,
        /// The rank that asks.
        from: RankId,
    },
}

/// A number that no other process has drawn. The standard library's only source of randomness; it needs to differ, not
/// to be secret.
#[must_use]
pub fn draw() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[derive(Serialize, Deserialize)]
struct Hello {
    magic: u32,
    purpose: Purpose,
}

impl Purpose {
    /// Says it to the peer.
    ///
    /// # Errors
    /// If the peer is gone.
    pub fn introduce(self, connection: &mut Connection) -> Result<(), ConnectionError> {
        connection.send(&Hello { magic: MAGIC, purpose: self })
    }

    /// Hears it from a peer that has just connected.
    ///
    /// # Errors
    /// If the peer is gone, is silent for 5 s, or is nothing of ours.
    pub fn hear(connection: &mut Connection) -> Result<Self, ConnectionError> {
        connection.set_timeout(Some(HELLO_TIMEOUT))?;
        let hello: Hello = connection.receive_up_to(MAX_HELLO_BYTES)?;
        if hello.magic != MAGIC {
            return Err(ConnectionError::Stranger {
                peer: connection.peer().to_owned(),
                found: format!("{:08x}", hello.magic),
                expected: format!("{MAGIC:08x}"),
            });
        }
        connection.set_timeout(None)?;
        Ok(hello.purpose)
    }
}
