//! Why maps cannot be reached and transactions do not apply.

use thiserror::Error;

use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::{MapError, MapShape};

/// Why there is no way to a map, or why a transaction does not apply. Trying the same again does not help: plan anew
/// from the map in force.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MoveError {
    /// The maps have different dimensions.
    #[error("a map of shape {new:?} cannot be reached from one of shape {old:?}; ranks must be restarted for it")]
    Shape {
        /// Dimensions of the map in force.
        old: MapShape,
        /// Dimensions of the target.
        new: MapShape,
    },
    /// The load is of another model than the maps.
    #[error(
        "the load has {layers} layers of {experts} experts, the map has the shape {map:?}; they must be of one model"
    )]
    Load {
        /// Layers of the load.
        layers: usize,
        /// Experts of the load.
        experts: usize,
        /// Dimensions of the map.
        map: MapShape,
    },
    /// Pages cannot be received.
    #[error("moving experts needs at least one staging page on each rank, there is none")]
    NoStagingPage,
    /// The topology is of another group than the maps.
    #[error("the topology has {found} ranks, the map {ranks}")]
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
        /// Where.
        layer: LayerId,
    },
    /// The slot does not exist.
    #[error("{layer}: {rank}, {slot} does not exist")]
    UnknownSlot {
        /// Where.
        layer: LayerId,
        /// The rank named.
        rank: RankId,
        /// The slot named.
        slot: SlotIndex,
    },
    /// A slot is changed twice.
    #[error("{layer}: {rank}, {slot} is changed twice")]
    SlotTwice {
        /// Where.
        layer: LayerId,
        /// Where.
        rank: RankId,
        /// The slot.
        slot: SlotIndex,
    },
    /// The transaction was made for another map.
    #[error("{layer}: {rank}, {slot} holds {found}, not {expected} as the transaction says")]
    OtherExpert {
        /// Where.
        layer: LayerId,
        /// Where.
        rank: RankId,
        /// Where.
        slot: SlotIndex,
        /// The expert in the slot.
        found: ExpertId,
        /// The expert named by the transaction.
        expected: ExpertId,
    },
    /// The page cannot come from there.
    #[error("{layer}: {source_rank} is named as the source of {expert} but does not hold it")]
    SourceLacks {
        /// Where.
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
