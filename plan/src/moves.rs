//! From one map to another: ordered transactions, each keeping every expert present, that fit the staging pages.
//! Knows nothing of bytes, pages' addresses or time.

mod layer;
mod order;
mod random;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::{ExpertMap, MapError, MapShape};

pub use order::best_first;
pub use random::random_transaction;

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

/// The transactions that lead from `old` to `new`, in the order in which they must be applied; each is valid in the map
/// that the ones before it lead to. They end in [`destination`]`(old, new)`: the placement `new`, with the slots of
/// each rank in the order that moves the fewest pages. That order has no effect on any load, and maps made by
/// [`crate::balance::balance`] have it already.
///
/// The pages received are as few as can be, one for each expert that a rank holds in `new` and not in `old`. A slot
/// whose expert has another copy changes alone. When no such slot is left, the experts still to move have one copy
/// each, and as many leave each rank as arrive there: they form cycles over ranks, each taken as short as it can be. No
/// cycle visits a rank twice, so one staging page on each rank is enough for any two maps.
///
/// # Errors
/// If the maps have different shapes, or there is no staging page.
pub fn transactions(
    old: &ExpertMap,
    new: &ExpertMap,
    staging_pages_per_rank: usize,
) -> Result<Vec<Transaction>, MoveError> {
    if staging_pages_per_rank == 0 {
        return Err(MoveError::NoStagingPage);
    }
    check_shapes(old, new)?;
    Ok(old.layers().flat_map(|layer| layer::moves(old, new, layer).transactions).collect())
}

/// The map in which [`transactions`] from `old` to `new` end.
///
/// # Errors
/// If the maps have different shapes.
pub fn destination(old: &ExpertMap, new: &ExpertMap) -> Result<ExpertMap, MoveError> {
    check_shapes(old, new)?;
    let slots = old.layers().flat_map(|layer| layer::moves(old, new, layer).slots).collect();
    let MapShape { layers, experts, .. } = old.shape();
    Ok(ExpertMap::with_slots_of_ranks(layers, experts, old.slots_of_ranks().clone(), slots)?)
}

/// Pages that ranks receive on the way from `old` to `new`: experts that a rank holds in `new` and not in `old`, over
/// all layers.
///
/// # Errors
/// If the maps have different shapes.
pub fn moved_slots(old: &ExpertMap, new: &ExpertMap) -> Result<usize, MoveError> {
    check_shapes(old, new)?;
    let places = old.layers().flat_map(|layer| (0..old.shape().ranks).map(move |rank| (layer, RankId::from(rank))));
    let received = |(layer, rank)| {
        let held = old.rank(layer, rank);
        new.rank(layer, rank).iter().filter(|expert| !held.contains(expert)).count()
    };
    Ok(places.map(received).sum())
}

fn check_shapes(old: &ExpertMap, new: &ExpertMap) -> Result<(), MoveError> {
    if old.shape() == new.shape() && old.slots_of_ranks() == new.slots_of_ranks() {
        return Ok(());
    }
    Err(MoveError::Shape { old: old.shape(), new: new.shape() })
}

impl ExpertMap {
    /// The map after a transaction.
    ///
    /// # Errors
    /// If the transaction names what the map does not have, was made for another map, or would leave an expert without
    /// a copy or on a rank twice.
    pub fn apply(&self, transaction: &Transaction) -> Result<Self, MoveError> {
        let Transaction { layer, changes } = transaction;
        let (layer, shape) = (*layer, self.shape());
        if layer.index() >= shape.layers {
            return Err(MoveError::UnknownLayer { layer, layers: shape.layers });
        }
        if changes.is_empty() {
            return Err(MoveError::Empty { layer });
        }
        let mut slots = self.layer(layer).to_vec();
        for (index, change) in changes.iter().enumerate() {
            let SlotChange { rank, slot, from, to, source } = *change;
            if rank.index() >= shape.ranks || slot.index() >= self.slots_of_ranks().count(rank) {
                return Err(MoveError::UnknownSlot { layer, rank, slot });
            }
            if changes[..index].iter().any(|other| (other.rank, other.slot) == (rank, slot)) {
                return Err(MoveError::SlotTwice { layer, rank, slot });
            }
            let found = self.expert(layer, rank, slot);
            if found != from {
                return Err(MoveError::OtherExpert { layer, rank, slot, found, expected: from });
            }
            if source.index() >= shape.ranks || !self.rank(layer, source).contains(&to) {
                return Err(MoveError::SourceLacks { layer, source_rank: source, expert: to });
            }
            slots[self.slots_of_ranks().of(rank).start + slot.index()] = to;
        }
        Ok(self.with_layer(layer, &slots)?)
    }
}

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

#[cfg(test)]
mod tests;
