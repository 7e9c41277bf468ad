//! Bytes between processes, and how ranks exchange rows on the step path. Knows nothing of experts or models: only
//! which rank gets which frame.

pub mod exchange;
pub mod framing;
pub mod greeter;
pub mod handshake;
pub mod in_process;
pub mod mesh;
pub mod neighbours;
pub mod purpose;
pub mod secret;

use plan::ids::RankId;
use thiserror::Error;

/// What one rank sends another in one exchange: some numbers that say what the rows are, and the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Counts and indices; the sender and the receiver agree on their meaning.
    pub indices: Vec<u32>,
    /// Rows of activations, one after the other.
    pub values: Vec<f32>,
}

impl Frame {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.indices.clear();
        self.values.clear();
    }
}

/// Connects the ranks of one group. Every rank makes the same exchanges in the same order.
pub trait Fabric: Send {
    /// This rank.
    fn rank(&self) -> RankId;

    /// Ranks of the group.
    fn ranks(&self) -> usize;

    /// Sends `outgoing[r]` to every other rank `r` and overwrites `incoming[r]` with what `r` sends here. The entries
    /// of this rank itself are neither read nor written. Both have one entry for each rank; the memory of `incoming`
    /// is reused. Returns when every other rank's frame is here.
    ///
    /// # Errors
    /// If a rank is lost or breaks the protocol, or the group is dissolved. The exchange is then lost as a whole, and
    /// the fabric can no longer be used: the group must be formed again.
    fn all_to_all(&mut self, outgoing: &[Frame], incoming: &mut [Frame]) -> Result<(), FabricError>;
}

/// The fabric of a group of one rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Fabric for Solo {
    fn rank(&self) -> RankId {
        RankId(0)
    }

    fn ranks(&self) -> usize {
        1
    }

    fn all_to_all(&mut self, _outgoing: &[Frame], _incoming: &mut [Frame]) -> Result<(), FabricError> {
        Ok(())
    }
}

/// Why an exchange failed. None can be retried on the same fabric; all can be on a group that is formed again.
#[derive(Debug, Error)]
pub enum FabricError {
    /// The connection to a rank broke.
    #[error("{rank} was lost during an exchange")]
    Lost {
        /// The rank.
        rank: RankId,
        /// What the connection says.
        source: std::io::Error,
    },
    /// A rank sent something that cannot be.
    #[error("{rank} broke the step protocol: {reason}")]
    Protocol {
        /// The rank.
        rank: RankId,
        /// What it sent.
        reason: String,
    },
    /// A rank's device did not come to an exchange between devices.
    #[error("{} gave no rows within {seconds} s: its device hangs, or its process", named(*rank))]
    Silent {
        /// The rank, if that is known.
        rank: Option<RankId>,
        /// How long it was waited for.
        seconds: u64,
    },
    /// What carries rows between devices goes on no more.
    #[error("rows are exchanged no more: {reason}")]
    Ended {
        /// What it says.
        reason: &'static str,
    },
    /// The coordinator dissolved the group.
    #[error("the group was dissolved during an exchange")]
    Dissolved,
    /// The system cannot wait for connections.
    #[error("waiting for the other ranks failed")]
    Wait(#[source] std::io::Error),
}

fn named(rank: Option<RankId>) -> String {
    rank.map_or_else(|| "another rank".to_owned(), |rank| rank.to_string())
}

/// Two ends of a TCP connection within this process.
#[cfg(test)]
pub(crate) fn loopback_pair() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let left = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (left, listener.accept().unwrap().0)
}
