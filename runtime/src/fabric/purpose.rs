//! What a connection is for, and the greeting that says so: messages of fixed length, the same for every purpose. Knows
//! nothing of sockets or of how a peer proves itself.

use plan::ids::RankId;
use serde::{Deserialize, Serialize};

use crate::protocol::PROTOCOL;

/// Begins every greeting.
const MAGIC: [u8; 4] = *b"SwBa";

/// Length of a greeting, bytes.
pub const HELLO_BYTES: usize = 64;

/// Random bytes that make every greeting another.
pub type Challenge = [u8; 32];

/// A group of ranks: its generation, and a number that tells the groups of different coordinators apart. It names the group
/// and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId {
    /// Only rises within a coordinator's life.
    pub generation: u64,
    /// Drawn by the coordinator for each group.
    pub nonce: u64,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A rank's control connection to the coordinator.
    Control,
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
        /// The rank that it asks.
        to: RankId,
    },
}

/// The first message on a connection, from who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What it calls for.
    pub purpose: Purpose,
    /// What the other end has to prove itself on.
    pub challenge: Challenge,
}

/// Why bytes are no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHello {
    /// They are something else's.
    NotOurs,
    /// They are of another version of the protocol.
    OtherVersion(u16),
}

/// Magic and version, which every message of a greeting begins with.
#[must_use]
pub fn head() -> [u8; 6] {
    let mut head = [0; 6];
    head[..4].copy_from_slice(&MAGIC);
    head[4..].copy_from_slice(&PROTOCOL.to_le_bytes());
    head
}

/// Checks what a message of a greeting begins with.
///
/// # Errors
/// If it is nothing of ours, or of another version.
pub fn check_head(bytes: &[u8]) -> Result<(), NoHello> {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else { return Err(NoHello::NotOurs) };
    let Some((version, _)) = rest.split_first_chunk::<2>() else { return Err(NoHello::NotOurs) };
    match (*magic, u16::from_le_bytes(*version)) {
        (MAGIC, PROTOCOL) => Ok(()),
        (MAGIC, other) => Err(NoHello::OtherVersion(other)),
        _ => Err(NoHello::NotOurs),
    }
}

impl Hello {
    /// Head (6), kind (1), nothing (1), generation (8), nonce (8), from (4), to (4), challenge (32); little endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let none = GroupId { generation: 0, nonce: 0 };
        let (kind, group, from, to) = match self.purpose {
            Purpose::Control => (0, none, RankId(0), RankId(0)),
            Purpose::Steps { group, rank } => (1, group, rank, RankId(0)),
            Purpose::Mesh { group, from, to } => (2, group, from, to),
            Purpose::Moves { group, from, to } => (3, group, from, to),
        };
        let mut bytes = [0; HELLO_BYTES];
        bytes[..6].copy_from_slice(&head());
        bytes[6] = kind;
        bytes[8..16].copy_from_slice(&group.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&group.nonce.to_le_bytes());
        bytes[24..28].copy_from_slice(&from.0.to_le_bytes());
        bytes[28..32].copy_from_slice(&to.0.to_le_bytes());
        bytes[32..].copy_from_slice(&self.challenge);
        bytes
    }

    /// Reads what [`Self::to_bytes`] writes, and nothing else.
    ///
    /// # Errors
    /// If it is no greeting of this version.
    pub fn from_bytes(bytes: &[u8; HELLO_BYTES]) -> Result<Self, NoHello> {
        check_head(bytes)?;
        let eight = |from: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[from + index]));
        let four = |from: usize| RankId(u32::from_le_bytes(std::array::from_fn(|index| bytes[from + index])));
        let group = GroupId { generation: eight(8), nonce: eight(16) };
        let (from, to) = (four(24), four(28));
        let purpose = match bytes[6] {
            0 => Purpose::Control,
            1 => Purpose::Steps { group, rank: from },
            2 => Purpose::Mesh { group, from, to },
            3 => Purpose::Moves { group, from, to },
            _ => return Err(NoHello::NotOurs),
        };
        let hello = Self { purpose, challenge: std::array::from_fn(|index| bytes[32 + index]) };
        // What is not read must be nothing, so that no two greetings say the same.
        if hello.to_bytes() == *bytes { Ok(hello) } else { Err(NoHello::NotOurs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId { generation: 3, nonce: 9 };

    #[test]
    fn a_greeting_is_read_as_it_was_written_and_no_other_bytes_are_one() {
        let (from, to) = (RankId(2), RankId(7));
        for purpose in [
            Purpose::Control,
            Purpose::Steps { group: GROUP, rank: from },
            Purpose::Mesh { group: GROUP, from, to },
            Purpose::Moves { group: GROUP, from, to },
        ] {
            let hello = Hello { purpose, challenge: [5; 32] };
            let bytes = hello.to_bytes();
            assert_eq!(Hello::from_bytes(&bytes), Ok(hello));
            for index in 0..HELLO_BYTES {
                let mut other = bytes;
                other[index] ^= 0x40;
                assert_ne!(Hello::from_bytes(&other), Ok(hello), "byte {index}");
            }
        }
        let mut padded = Hello { purpose: Purpose::Control, challenge: [5; 32] }.to_bytes();
        padded[24] = 1;
        assert_eq!(Hello::from_bytes(&padded), Err(NoHello::NotOurs));
    }

    #[test]
    fn another_version_is_told_from_something_else() {
        let mut bytes = Hello { purpose: Purpose::Control, challenge: [0; 32] }.to_bytes();
        let other = PROTOCOL + 1;
        bytes[4..6].copy_from_slice(&other.to_le_bytes());
        assert_eq!(Hello::from_bytes(&bytes), Err(NoHello::OtherVersion(other)));
        bytes[0] = b'G';
        assert_eq!(Hello::from_bytes(&bytes), Err(NoHello::NotOurs));
        assert_eq!(check_head(b"SwB"), Err(NoHello::NotOurs));
    }
}
