//! Which page each of this rank's slots points at, and which slots of the group compute an expert for tokens that start on this
//! rank: what a [`Commit`] changes of it, for the device to be told. Knows nothing of what a page holds or how it got here.

use std::ops::Range;

use kernels::PageId;
use kernels::routing::{Copies, GroupShape, LayerRouting, Slot};
use plan::ids::{LayerId, RankId, SlotIndex};
use plan::map::{ExpertMap, MapShape, WHOLE};
use plan::moves::MoveError;
use plan::nearest;
use plan::topology::Topology;
use plan::words::counted;
use thiserror::Error;

use crate::protocol::Commit;

/// The expert map in force as one rank uses it.
#[derive(Debug)]
pub struct RankMap {
    map: ExpertMap,
    topology: Topology,
    rank: RankId,
    epoch: u64,
    /// The page of each slot of this rank, `[layers, slots_per_rank]`.
    pages: Vec<PageId>,
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

impl RankMap {
    /// The routing of a map for ranks on the nodes of a topology. `pages` are those of this rank's slots,
    /// `[layers, slots_per_rank]`.
    ///
    /// # Panics
    /// If map or topology has no such rank, ranks have unequal numbers of slots, or `pages` is not one page for each of its
    /// slots.
    #[must_use]
    pub fn new(map: &ExpertMap, topology: &Topology, rank: RankId, epoch: u64, pages: Vec<PageId>) -> Self {
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

    /// The group as a device sees it, where each token has `top_k` experts and a step so many tokens at most.
    #[must_use]
    pub const fn group(&self, top_k: usize, tokens: usize) -> GroupShape {
        let MapShape { ranks, layers, slots_per_rank: slots, .. } = self.map.shape();
        GroupShape { ranks, rank: self.rank.index(), layers, slots, top_k, tokens }
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

    /// Every layer in order, for the device.
    #[must_use]
    pub fn layers(&self) -> Vec<LayerRouting> {
        self.map.layers().map(|layer| self.layer(layer)).collect()
    }

    fn layer(&self, layer: LayerId) -> LayerRouting {
        let copies = copies(&self.map, layer, &self.topology, self.rank);
        LayerRouting { layer: layer.index(), copies, pages: self.pages[self.slots(layer)].to_vec() }
    }

    /// Where this rank's slots of a layer are among all of its slots.
    #[must_use]
    pub const fn slots(&self, layer: LayerId) -> Range<usize> {
        let slots = self.map.shape().slots_per_rank;
        layer.index() * slots..(layer.index() + 1) * slots
    }

    /// Applies a commit: changes the pages of this rank's slots that it names and gives the layer's routing from now on.
    /// `pages` are the new pages of exactly those slots.
    ///
    /// # Errors
    /// If its epoch is not the next one, a change does not fit the map in force, a page is missing or too many, or an expert would
    /// have no slot or two on one rank. Nothing is changed then.
    pub fn commit(&mut self, commit: &Commit, pages: &[(SlotIndex, PageId)]) -> Result<LayerRouting, CommitError> {
        let (layer, next) = (commit.work.layer, self.epoch + 1);
        if commit.epoch != next {
            return Err(CommitError::Epoch { layer, next, found: commit.epoch });
        }
        let mine = commit.work.changes.iter().filter(|change| change.rank == self.rank);
        let expected = mine.clone().count();
        if expected != pages.len() || !mine.clone().all(|change| pages.iter().any(|(slot, _)| *slot == change.slot)) {
            return Err(CommitError::Pages { layer, expected, found: pages.len() });
        }
        self.map.apply_in_place(&commit.work)?;
        self.epoch = next;
        let first = self.slots(layer).start;
        for (slot, page) in pages {
            self.pages[first + slot.index()] = *page;
        }
        Ok(self.layer(layer))
    }
}

/// Why a commit was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// It does not fit the map in force.
    #[error("the commit does not fit the map in force")]
    Map(#[from] MoveError),
    /// One before it was lost, or it came twice.
    #[error("{layer}: the commit is of epoch {found}, and the map in force is followed by epoch {next}")]
    Epoch {
        /// The MoE layer that it is about.
        layer: LayerId,
        /// Epoch of the next commit.
        next: u64,
        /// Epoch that it has.
        found: u64,
    },
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
