//! What one rank asks another for a page, and what comes before its bytes.

use plan::ids::{ExpertId, LayerId};
use serde::{Deserialize, Serialize};

/// Asks a rank's move path for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// The generation of the asking rank.
    pub generation: u64,
    /// The layer.
    pub layer: LayerId,
    /// The expert.
    pub expert: ExpertId,
    /// The first of its chunks that is wanted, from 0: all from there on follow the head.
    pub from: u32,
}

/// Heads a page on the move path. What the page must be is not the sender's to say, see [`ToRank::Connect`]: these are believed
/// only if they are those of that page, and then each chunk is checked by its own as it arrives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageHead {
    /// Fingerprints of all chunks of the page; none if the rank does not hold the expert.
    pub chunks: Vec<u128>,
}

impl PageHead {
    /// Bytes of the longest head of a page of so many chunks.
    #[must_use]
    pub const fn most_bytes(chunks: usize) -> usize {
        const LENGTH: usize = 10;
        const FINGERPRINT: usize = 19;
        LENGTH + FINGERPRINT * chunks
    }
}
