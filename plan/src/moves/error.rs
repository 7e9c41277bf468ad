//! Why maps cannot be reached and transactions do not apply.

use thiserror::Error;

use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::MapError;
use crate::membership::MembershipError;
use crate::words::counted;

/// Why there is no way to a map, or why a transaction does not apply. Trying the same again does not help: plan anew
/// from the map in force.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MoveError {
    /// The maps are of different models.
    #[error(
        "the target has {} of {}, the map in force {in_force_layers} of {in_force_experts}; both must be of one model",
        counted(*layers, "layer"),
        counted(*experts, "expert")
    )]
    Model {
        /// Layers of the map in force.
        in_force_layers: usize,
        /// Experts of each of its layers.
        in_force_experts: usize,
        /// Layers of the target.
        layers: usize,
        /// Experts of each of its layers.
        experts: usize,
    },
    /// The maps are not of one group.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// Other ranks are live in the target than in the map in force.
    #[error(
        "{rank} has slots in only one of the two maps: it is lost or has returned, and transactions lead between maps of the \
         same live ranks; fill what is missing first (moves::regroup)"
    )]
    LiveRanks {
        /// The first rank that is live in one only.
        rank: RankId,
    },
    /// The load is of another model than the maps.
    #[error(
        "the load has {} of {}, the map {map_layers} of {map_experts}; they must be of one model",
        counted(*layers, "layer"),
        counted(*experts, "expert")
    )]
    Load {
        /// Layers of the load.
        layers: usize,
        /// Experts of the load.
        experts: usize,
        /// Layers of the map.
        map_layers: usize,
        /// Experts of the map.
        map_experts: usize,
    },
    /// Slots are still empty, or experts still without a copy.
    #[error(
        "{} still empty and {} still without a copy; fill them first",
        counted(*empty, "slot"),
        counted(*absent, "expert")
    )]
    Unfinished {
        /// Empty slots.
        empty: usize,
        /// Experts without a copy.
        absent: usize,
    },
    /// Pages cannot be received.
    #[error("moving experts needs at least one staging page on each rank, there is none")]
    NoStagingPage,
    /// The topology is of another group than the maps.
    #[error("the topology has {}, the map {ranks}", counted(*found, "rank"))]
    Ranks {
        /// Ranks of the topology.
        found: usize,
        /// Ranks of the map.
        ranks: usize,
    },
    /// The layer does not exist.
    #[error("{layer} does not exist, the map has {layers}")]
    UnknownLayer {
        /// The layer named.
        layer: LayerId,
        /// Layers of the map.
        layers: usize,
    },
    /// It changes nothing.
    #[error("{layer}: the transaction has no changes")]
    Empty {
        /// The layer.
        layer: LayerId,
    },
    /// The slot does not exist.
    #[error("{layer}: {rank}, {slot} does not exist")]
    UnknownSlot {
        /// The layer.
        layer: LayerId,
        /// The rank named.
        rank: RankId,
        /// The slot named.
        slot: SlotIndex,
    },
    /// A slot is changed twice.
    #[error("{layer}: {rank}, {slot} is changed twice")]
    SlotTwice {
        /// The layer.
        layer: LayerId,
        /// The rank.
        rank: RankId,
        /// The slot.
        slot: SlotIndex,
    },
    /// The transaction was made for another map.
    #[error("{layer}: {rank}, {slot} holds {found}, not {expected} as the transaction says")]
    OtherExpert {
        /// The layer.
        layer: LayerId,
        /// The rank.
        rank: RankId,
        /// The slot.
        slot: SlotIndex,
        /// The expert in the slot.
        found: ExpertId,
        /// The expert named by the transaction.
        expected: ExpertId,
    },
    /// The fill was made for other holdings.
    #[error(
        "{layer}: {rank}, {slot} holds {}, not {} as the fill says; plan anew from what ranks hold",
        words(*found),
        words(*expected)
    )]
    OtherHolding {
        /// The layer.
        layer: LayerId,
        /// The rank.
        rank: RankId,
        /// The slot.
        slot: SlotIndex,
        /// The expert in the slot, if there is one.
        found: Option<ExpertId>,
        /// The expert named by the fill, if it names one.
        expected: Option<ExpertId>,
    },
    /// The checkpoint need not be read.
    #[error("{layer}: {expert} is to come from the checkpoint though {holder} holds it; take its page")]
    HasCopy {
        /// The layer.
        layer: LayerId,
        /// The expert.
        expert: ExpertId,
        /// A rank that holds it.
        holder: RankId,
    },
    /// The page cannot come from there.
    #[error("{layer}: {source_rank} is named as the source of {expert} but does not hold it")]
    SourceLacks {
        /// The layer.
        layer: LayerId,
        /// The rank named.
        source_rank: RankId,
        /// The expert.
        expert: ExpertId,
    },
    /// The map after it would break an invariant.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// What a slot holds.
fn words(held: Option<ExpertId>) -> String {
    held.map_or_else(|| "no expert".to_owned(), |expert| expert.to_string())
}
