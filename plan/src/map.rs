//! Which logical expert each slot holds. Knows nothing of loads, of pages or of how a map came to be.

mod shares;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::slots::RankSlots;
use crate::words::counted;

pub use shares::{WHOLE, even as even_shares};

/// The largest value of each dimension of a [`MapShape`]: far above any model or cluster, and small enough that no
/// product of dimensions overflows.
pub const MAX_DIMENSION: usize = 1 << 14;

/// The dimensions of an expert map. `ranks * slots_per_rank >= experts`. Where ranks have unequal numbers of slots,
/// `slots_per_rank` is the largest of them and [`ExpertMap::slots_of_ranks`] tells each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MapShape {
    /// MoE layers.
    pub layers: usize,
    /// Logical experts of each layer, `E`.
    pub experts: usize,
    /// Ranks of the expert-parallel group, `N`.
    pub ranks: usize,
    /// Slots of each rank and layer, `S`.
    pub slots_per_rank: usize,
}

impl MapShape {
    /// The shape with `redundancy` extra physical experts per layer.
    ///
    /// # Errors
    /// If a dimension is out of range, or the physical experts do not divide by the ranks.
    pub fn with_redundancy(layers: usize, experts: usize, ranks: usize, redundancy: usize) -> Result<Self, MapError> {
        let physical = experts.saturating_add(redundancy);
        if ranks == 0 || !physical.is_multiple_of(ranks) {
            return Err(MapError::Indivisible { experts, redundancy, ranks });
        }
        let shape = Self { layers, experts, ranks, slots_per_rank: physical / ranks };
        shape.check()?;
        Ok(shape)
    }

    /// Physical experts of each layer, `P = N * S`.
    #[must_use]
    pub const fn physical(&self) -> usize {
        self.ranks * self.slots_per_rank
    }

    /// Pages that each rank holds: one for each slot of all layers.
    #[must_use]
    pub const fn pages_per_rank(&self) -> usize {
        self.layers * self.slots_per_rank
    }

    /// Physical experts beyond one copy of each, `R = P - E`.
    #[must_use]
    pub const fn redundancy(&self) -> usize {
        self.physical() - self.experts
    }

    /// # Errors
    /// If a dimension is 0 or above [`MAX_DIMENSION`], or the slots are too few or too many for the experts.
    pub fn check(&self) -> Result<(), MapError> {
        let Self { layers, experts, ranks, slots_per_rank } = *self;
        for (what, value) in
            [("layers", layers), ("experts", experts), ("ranks", ranks), ("slots per rank", slots_per_rank)]
        {
            if value == 0 || value > MAX_DIMENSION {
                return Err(MapError::Dimension { what, value });
            }
        }
        if self.physical() < experts {
            return Err(MapError::TooFewSlots { slots: self.physical(), experts });
        }
        if slots_per_rank > experts {
            return Err(MapError::TooManySlots { slots_per_rank, experts });
        }
        Ok(())
    }
}

/// A placement in which every expert of every layer has at least one slot and no rank holds an expert twice, with the
/// share of its expert's tokens that each slot takes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ExpertMap {
    shape: MapShape,
    of_ranks: RankSlots,
    /// `[layers, slots of all ranks]`
    slots: Vec<ExpertId>,
    /// Parts of [`WHOLE`], `[layers][slots of all ranks]`; `None` for a layer whose every expert's copies share evenly,
    /// so that equal maps are equal.
    shares: Vec<Option<Vec<u32>>>,
}

impl ExpertMap {
    /// Checks `slots`, given in the order `[layers, ranks, slots_per_rank]`.
    ///
    /// # Errors
    /// If the shape is impossible, the number of slots is not the shape's, or an invariant is broken; the error names
    /// the layer, the rank and the expert.
    pub fn new(shape: MapShape, slots: Vec<ExpertId>) -> Result<Self, MapError> {
        shape.check()?;
        Self::checked(shape, RankSlots::even(shape.ranks, shape.slots_per_rank), slots)
    }

    /// Checks `slots` of ranks that need not have equally many, given in the order `[layers, slots of all ranks]`.
    ///
    /// # Errors
    /// As [`ExpertMap::new`].
    pub fn with_slots_of_ranks(
        layers: usize,
        experts: usize,
        of_ranks: RankSlots,
        slots: Vec<ExpertId>,
    ) -> Result<Self, MapError> {
        let shape = Self::shape_on(layers, experts, &of_ranks)?;
        Self::checked(shape, of_ranks, slots)
    }

    /// The shape of a map on these ranks.
    ///
    /// # Errors
    /// If it is impossible.
    pub(crate) fn shape_on(layers: usize, experts: usize, of_ranks: &RankSlots) -> Result<MapShape, MapError> {
        let shape = MapShape { layers, experts, ranks: of_ranks.ranks(), slots_per_rank: of_ranks.most() };
        shape.check()?;
        if of_ranks.total() < experts {
            return Err(MapError::TooFewSlots { slots: of_ranks.total(), experts });
        }
        Ok(shape)
    }

    fn checked(shape: MapShape, of_ranks: RankSlots, slots: Vec<ExpertId>) -> Result<Self, MapError> {
        let expected = shape.layers * of_ranks.total();
        if slots.len() != expected {
            return Err(MapError::SlotCount { found: slots.len(), expected });
        }
        let map = Self { shape, of_ranks, slots, shares: vec![None; shape.layers] };
        for layer in map.layers() {
            map.check_layer(layer)?;
        }
        Ok(map)
    }

    /// Puts other experts into the slots of one layer, `[slots of all ranks]`, with other shares. Nothing is changed if
    /// they break an invariant.
    pub(crate) fn replace_layer(
        &mut self,
        layer: LayerId,
        slots: &[ExpertId],
        shares: Option<Vec<u32>>,
    ) -> Result<(), MapError> {
        let place = layer.index() * self.physical()..(layer.index() + 1) * self.physical();
        let old: Vec<ExpertId> = self.slots[place.clone()].to_vec();
        self.slots[place.clone()].copy_from_slice(slots);
        let checked = self.check_layer(layer).and_then(|()| self.set_shares(layer, shares));
        if checked.is_err() {
            self.slots[place].copy_from_slice(&old);
        }
        checked
    }

    fn check_layer(&self, layer: LayerId) -> Result<(), MapError> {
        let experts = self.layer(layer);
        // One more than the last rank seen to hold the expert.
        let mut last_rank = vec![0_u32; self.shape.experts];
        for rank in (0..self.shape.ranks).map(RankId::from) {
            for &expert in &experts[self.of_ranks.of(rank)] {
                let Some(last) = last_rank.get_mut(expert.index()) else {
                    return Err(MapError::UnknownExpert { layer, rank, expert, experts: self.shape.experts });
                };
                if *last == rank.0 + 1 {
                    return Err(MapError::Twice { layer, rank, expert });
                }
                *last = rank.0 + 1;
            }
        }
        match last_rank.iter().position(|&last| last == 0) {
            Some(missing) => Err(MapError::Missing { layer, expert: missing.into() }),
            None => Ok(()),
        }
    }

    /// The placement that engines start with: slot `p` of a layer holds expert `p mod E`, ranks filled in order.
    ///
    /// # Errors
    /// If the shape is impossible.
    pub fn contiguous(shape: MapShape) -> Result<Self, MapError> {
        shape.check()?;
        Self::contiguous_on(shape.layers, shape.experts, RankSlots::even(shape.ranks, shape.slots_per_rank))
    }

    /// The same on ranks that need not have equally many slots.
    ///
    /// # Errors
    /// If the shape is impossible.
    pub fn contiguous_on(layers: usize, experts: usize, of_ranks: RankSlots) -> Result<Self, MapError> {
        let layer = (0..of_ranks.total()).map(|slot| ExpertId::from(slot % experts.max(1)));
        let slots = (0..layers).flat_map(|_| layer.clone()).collect();
        Self::with_slots_of_ranks(layers, experts, of_ranks, slots)
    }

    /// Its dimensions.
    #[must_use]
    pub const fn shape(&self) -> MapShape {
        self.shape
    }

    /// The expert in a slot.
    #[must_use]
    pub fn expert(&self, layer: LayerId, rank: RankId, slot: SlotIndex) -> ExpertId {
        self.rank(layer, rank)[slot.index()]
    }

    /// How many slots each rank has.
    #[must_use]
    pub const fn slots_of_ranks(&self) -> &RankSlots {
        &self.of_ranks
    }

    /// Physical experts of each layer, `P`: the slots of all ranks.
    #[must_use]
    pub fn physical(&self) -> usize {
        self.of_ranks.total()
    }

    /// The experts of one rank and layer, in slot order.
    #[must_use]
    pub fn rank(&self, layer: LayerId, rank: RankId) -> &[ExpertId] {
        &self.layer(layer)[self.of_ranks.of(rank)]
    }

    /// All slots of one layer, `[slots of all ranks]`.
    #[must_use]
    pub fn layer(&self, layer: LayerId) -> &[ExpertId] {
        let physical = self.physical();
        &self.slots[layer.index() * physical..][..physical]
    }

    /// All slots, `[layers, slots of all ranks]`.
    #[must_use]
    pub fn slots(&self) -> &[ExpertId] {
        &self.slots
    }

    /// Every layer, in order.
    pub fn layers(&self) -> impl Iterator<Item = LayerId> + use<> {
        (0..self.shape.layers).map(LayerId::from)
    }

    /// Every (rank, slot) of a layer, in order.
    pub fn slots_of_layer(&self) -> impl Iterator<Item = (RankId, SlotIndex)> + use<> {
        let of_ranks = self.of_ranks.clone();
        (0..self.shape.ranks).flat_map(move |rank| {
            let rank = RankId::from(rank);
            (0..of_ranks.count(rank)).map(move |slot| (rank, slot.into()))
        })
    }

    /// Where an expert's copies are, by ascending rank; never empty.
    #[must_use]
    pub fn copies(&self, layer: LayerId, expert: ExpertId) -> Vec<(RankId, SlotIndex)> {
        self.slots_of_layer().filter(|&(rank, slot)| self.expert(layer, rank, slot) == expert).collect()
    }

    /// The number of copies of each expert of a layer, `[experts]`.
    #[must_use]
    pub fn copy_counts(&self, layer: LayerId) -> Vec<u32> {
        let mut counts = vec![0; self.shape.experts];
        for expert in self.layer(layer) {
            counts[expert.index()] += 1;
        }
        counts
    }
}

impl std::fmt::Debug for ExpertMap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut list = formatter.debug_list();
        for layer in self.layers() {
            let ranks: Vec<Vec<u32>> = (0..self.shape.ranks)
                .map(|rank| self.rank(layer, rank.into()).iter().map(|expert| expert.0).collect())
                .collect();
            list.entry(&ranks);
        }
        list.finish()
    }
}

/// Why something is no expert map.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    /// A dimension is out of range.
    #[error("{what} must be between 1 and {MAX_DIMENSION}, not {value}")]
    Dimension {
        /// Which dimension.
        what: &'static str,
        /// Its value.
        value: usize,
    },
    /// `P % N != 0`.
    #[error(
        "{} and {} do not divide by {}; choose a redundancy so that experts + redundancy is a multiple of the ranks",
        counted(*experts, "expert"),
        counted(*redundancy, "redundant one"),
        counted(*ranks, "rank")
    )]
    Indivisible {
        /// Logical experts per layer.
        experts: usize,
        /// Redundant experts per layer.
        redundancy: usize,
        /// Ranks.
        ranks: usize,
    },
    /// `P < E`.
    #[error("{} per layer cannot hold {}", counted(*slots, "slot"), counted(*experts, "expert"))]
    TooFewSlots {
        /// Slots of each layer.
        slots: usize,
        /// Logical experts per layer.
        experts: usize,
    },
    /// `S > E`: a rank would have to hold an expert twice.
    #[error("{slots_per_rank} slots per rank are more than the {}; lower the redundancy", counted(*experts, "expert"))]
    TooManySlots {
        /// Slots of each rank and layer.
        slots_per_rank: usize,
        /// Logical experts per layer.
        experts: usize,
    },
    /// The list of slots has another length than the shape says.
    #[error("found {} instead of {expected}", counted(*found, "slot"))]
    SlotCount {
        /// Slots given.
        found: usize,
        /// Slots of the shape.
        expected: usize,
    },
    /// A slot names an expert that the model does not have.
    #[error("{layer}, {rank}: {expert} does not exist, the model has {experts}")]
    UnknownExpert {
        /// The layer.
        layer: LayerId,
        /// The rank.
        rank: RankId,
        /// The expert named.
        expert: ExpertId,
        /// Logical experts per layer.
        experts: usize,
    },
    /// A rank holds an expert twice.
    #[error("{layer}, {rank}: {expert} is there twice")]
    Twice {
        /// The layer.
        layer: LayerId,
        /// The rank.
        rank: RankId,
        /// The expert.
        expert: ExpertId,
    },
    /// The shares of an expert's copies do not make a whole.
    #[error(
        "{layer}: the copies of {expert} take {found} of {WHOLE} parts of its tokens; their shares must add up to it"
    )]
    Shares {
        /// The layer.
        layer: LayerId,
        /// The expert.
        expert: ExpertId,
        /// Sum of its copies' shares.
        found: u64,
    },
    /// An expert has no slot.
    #[error("{layer}: {expert} is on no rank")]
    Missing {
        /// The layer.
        layer: LayerId,
        /// The expert.
        expert: ExpertId,
    },
}

#[cfg(test)]
mod tests;
