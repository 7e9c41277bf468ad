//! Which page each of this rank's slots points at, and which slots of the group compute an expert for tokens that start on this
//! rank: what a [`Commit`] changes of it, for the device to be told. Knows nothing of what a page holds or how it got here.

use std::ops::Range;
use std::sync::Arc;

use kernels::routing::{Copies, LayerChange, Slot};
use plan::ids::{ExpertId, LayerId, RankId, SlotIndex};
use plan::map::{ExpertMap, MapShape, WHOLE};
use plan::moves::MoveError;
use plan::nearest;
use plan::topology::Topology;
use plan::words::counted;
use thiserror::Error;

use crate::protocol::Commit;

/// The expert map in force as one rank uses it. `P` is a page.
#[derive(Debug)]
pub struct Routing<P> {
    map: ExpertMap,
    topology: Topology,
    rank: RankId,
    epoch: u64,
    /// The page of each slot of this rank, `[layers, slots_per_rank]`.
    pages: Vec<Arc<P>>,
}

/// The copies of a layer's experts, as a rank chooses among them: by a counting sort of the slots by their expert, and by
/// whether they take a part of what starts there. Copies of its node come first ([`nearest::parts`]), and over all ranks each
/// takes its share of the expert's tokens. All ranks of a node choose alike.
#[must_use]
pub fn copies(map: &ExpertMap, layer: LayerId, topology: &Topology, rank: RankId) -> Copies {
    let (shape, experts) = (map.shape(), map.layer(layer));
    let parts = nearest::parts(map, layer, topology, topology.node(rank));
    let mut starts = vec![0_u32; shape.experts + 1];
    let mut slots = vec![Slot::default(); experts.len()];
    let mut bounds = vec![0; experts.len()];
    for expert in experts {
        starts[expert.index() + 1] += 1;
    }
    for expert in 0..shape.experts {
        starts[expert + 1] += starts[expert];
    }
    // `starts[e]` is where the next copy of `e` goes; afterwards it is where `e + 1` starts, one place too far.
    for takes_nothing in [true, false] {
        for (index, (expert, &part)) in experts.iter().zip(&parts).enumerate() {
            if (part == 0) != takes_nothing {
                continue;
            }
            let next = &mut starts[expert.index()];
            let (rank, index) = (index / shape.slots_per_rank, index % shape.slots_per_rank);
            slots[*next as usize] = Slot { rank: rank as u32, index: index as u32 };
            bounds[*next as usize] = part;
            *next += 1;
        }
    }
    starts.rotate_right(1);
    starts[0] = 0;
    for expert in 0..shape.experts {
        let mut before = 0;
        for bound in &mut bounds[starts[expert] as usize..starts[expert + 1] as usize] {
            // Less than a whole, as the last copy takes a part.
            before += std::mem::replace(bound, before * (u32::MAX / WHOLE + 1));
        }
    }
    Copies { starts, slots, bounds }
}

/// What a commit changes on one rank.
#[derive(Debug)]
pub struct Change<P> {
    /// The routing of its layer, for the device.
    pub layer: LayerChange,
    /// The pages that were replaced.
    pub replaced: Vec<(SlotIndex, Arc<P>)>,
}

impl<P> Routing<P> {
    /// The routing of a map for ranks on the nodes of a topology. `pages` are those of this rank's slots,
    /// `[layers, slots_per_rank]`.
    ///
    /// # Panics
    /// If map or topology has no such rank, ranks have unequal numbers of slots, or `pages` is not one page for each of its
    /// slots.
    #[must_use]
    pub fn new(map: &ExpertMap, topology: &Topology, rank: RankId, epoch: u64, pages: Vec<Arc<P>>) -> Self {
        let shape = map.shape();
        assert!(rank.index() < shape.ranks, "{rank} of {} ranks", shape.ranks);
        assert!(map.slots_of_ranks().per_rank().is_some(), "ranks are alike");
        assert_eq!(pages.len(), shape.layers * shape.slots_per_rank, "one page for each slot");
        Self { map: map.clone(), topology: topology.clone(), rank, epoch, pages }
    }

    /// Dimensions of the map.
    #[must_use]
    pub const fn shape(&self) -> MapShape {
        self.map.shape()
    }

    /// This rank.
    #[must_use]
    pub const fn rank(&self) -> RankId {
        self.rank
    }

    /// Epoch of the map in force.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The map in force.
    #[must_use]
    pub const fn map(&self) -> &ExpertMap {
        &self.map
    }

    /// The copies of every layer's experts.
    #[must_use]
    pub fn layers(&self) -> Vec<Copies> {
        self.map.layers().map(|layer| self.copies(layer)).collect()
    }

    fn copies(&self, layer: LayerId) -> Copies {
        copies(&self.map, layer, &self.topology, self.rank)
    }

    fn slots(&self, layer: LayerId) -> Range<usize> {
        let slots = self.shape().slots_per_rank;
        layer.index() * slots..(layer.index() + 1) * slots
    }

    /// The pages of this rank's slots of a layer, `[slots_per_rank]`.
    #[must_use]
    pub fn pages(&self, layer: LayerId) -> &[Arc<P>] {
        &self.pages[self.slots(layer)]
    }

    /// The page of an expert, if this rank holds it.
    #[must_use]
    pub fn page_of(&self, layer: LayerId, expert: ExpertId) -> Option<&Arc<P>> {
        let slot = self.map.rank(layer, self.rank).iter().position(|held| *held == expert)?;
        self.pages(layer).get(slot)
    }

    /// Applies a commit: swaps the pages of this rank's slots that it names and updates the layer's routing. `pages`
    /// are the new pages of exactly those slots.
    ///
    /// # Errors
    /// If a change does not fit the map in force, a page is missing or too many, or an expert would have no slot or
    /// two on one rank. Nothing is changed then.
    pub fn commit(&mut self, commit: &Commit, pages: Vec<(SlotIndex, Arc<P>)>) -> Result<Change<P>, CommitError> {
        let mine = commit.work.changes.iter().filter(|change| change.rank == self.rank);
        let expected = mine.clone().count();
        if expected != pages.len() || !mine.clone().all(|change| pages.iter().any(|(slot, _)| *slot == change.slot)) {
            return Err(CommitError::Pages { layer: commit.work.layer, expected, found: pages.len() });
        }
        self.map.apply_in_place(&commit.work)?;
        self.epoch = commit.epoch;
        let slots = self.slots(commit.work.layer);
        let own = &mut self.pages[slots];
        let swap = |(slot, page): (SlotIndex, Arc<P>)| (slot, std::mem::replace(&mut own[slot.index()], page));
        let replaced = pages.into_iter().map(swap).collect();
        Ok(Change {
            layer: LayerChange { layer: commit.work.layer.index(), copies: self.copies(commit.work.layer) },
            replaced,
        })
    }
}

/// Why a commit was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// It does not fit the map in force.
    #[error("the commit does not fit the map in force")]
    Map(#[from] MoveError),
    /// The pages given are not those of the slots changed.
    #[error("{layer}: the commit changes {} of this rank, pages staged for it: {found}", counted(*expected, "slot"))]
    Pages {
        /// The MoE layer that it is about.
        layer: LayerId,
        /// Slots of this rank that it changes.
        expected: usize,
        /// Pages given.
        found: usize,
    },
}

#[cfg(test)]
mod tests;
