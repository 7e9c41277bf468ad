//! From one map to another: ordered transactions, each keeping every expert present, that fit the staging pages.
//! Knows nothing of bytes, pages or time.

use serde::{Deserialize, Serialize};

use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};

/// One slot gets another expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotChange {
    /// The rank that receives a page.
    pub rank: RankId,
    /// The slot that will point at it.
    pub slot: SlotIndex,
    /// The expert that the slot holds until then.
    pub from: ExpertId,
    /// The expert it holds afterwards.
    pub to: ExpertId,
    /// A rank that holds `to` in the map before the transaction.
    pub source: RankId,
}

/// The smallest set of slot changes of one layer that keeps every expert present; applied whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transaction {
    /// The layer.
    pub layer: LayerId,
    /// The changes; no slot twice.
    pub changes: Vec<SlotChange>,
}
