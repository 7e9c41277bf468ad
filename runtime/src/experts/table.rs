//! Which page each of this rank's slots points at, and which slot of the group computes an expert for a token that starts on
//! this rank. The engine's thread
//! owns it; a [`Commit`] changes it between two steps. Knows nothing of what a page holds or how it got here.

use std::sync::Arc;

use plan::ids::{ExpertId, LayerId, RankId, SlotIndex};
use plan::map::{ExpertMap, MapShape, WHOLE};
use plan::moves::MoveError;
use plan::nearest;
use plan::topology::Topology;
use thiserror::Error;

use crate::protocol::{Commit, SequenceId, SlotAddress};

/// The expert map in force as one rank uses it. `P` is a page.
#[derive(Debug)]
pub struct ExpertTable<P> {
    map: ExpertMap,
    topology: Topology,
    rank: RankId,
    epoch: u64,
    layers: Vec<Layer<P>>,
    /// (token, expert) pairs computed in each slot of this rank, `[layers, slots_per_rank]`.
    pairs: Vec<u32>,
}

#[derive(Debug)]
struct Layer<P> {
    /// Where the copies of each expert are.
    copies: Copies,
    /// The page of each slot of this rank, `[slots_per_rank]`.
    pages: Vec<Arc<P>>,
}

/// The slots of each expert, all in one list.
#[derive(Debug, Default)]
struct Copies {
    /// Copies of expert `e` are `slots[starts[e]..starts[e + 1]]`: those that take nothing of what starts here, then those that
    /// take a part, both by ascending rank. So the last of them takes one.
    starts: Vec<u32>,
    slots: Vec<SlotAddress>,
    /// The least point of a token that each copy takes: the parts of the copies before it, of a whole of 2^32.
    bounds: Vec<u32>,
}

impl Copies {
    fn of(&self, expert: ExpertId) -> std::ops::Range<usize> {
        let expert = expert.index();
        self.starts[expert] as usize..self.starts[expert + 1] as usize
    }

    /// Counting sort of the slots of a layer by their expert, and by whether they take a part.
    fn rebuild(&mut self, map: &ExpertMap, layer: LayerId, topology: &Topology, rank: RankId) {
        let (shape, experts) = (map.shape(), map.layer(layer));
        let parts = nearest::parts(map, layer, topology, topology.node(rank));
        self.starts.clear();
        self.starts.resize(shape.experts + 1, 0);
        self.slots.resize(experts.len(), (RankId(0), SlotIndex(0)));
        self.bounds.resize(experts.len(), 0);
        for expert in experts {
            self.starts[expert.index() + 1] += 1;
        }
        for expert in 0..shape.experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        // `starts[e]` is where the next copy of `e` goes; afterwards it is where `e + 1` starts, one place too far.
        for takes_nothing in [true, false] {
            for (index, (expert, &part)) in experts.iter().zip(&parts).enumerate() {
                if (part == 0) != takes_nothing {
                    continue;
                }
                let next = &mut self.starts[expert.index()];
                let slot = (index / shape.slots_per_rank, index % shape.slots_per_rank);
                self.slots[*next as usize] = (slot.0.into(), slot.1.into());
                self.bounds[*next as usize] = part;
                *next += 1;
            }
        }
        self.starts.rotate_right(1);
        self.starts[0] = 0;
        for expert in 0..shape.experts {
            let mut before = 0;
            for bound in &mut self.bounds[self.starts[expert] as usize..self.starts[expert + 1] as usize] {
                // Less than a whole, as the last copy takes a part.
                before += std::mem::replace(bound, before * (u32::MAX / WHOLE + 1));
            }
        }
    }
}

impl<P> ExpertTable<P> {
    /// The table of a map for ranks on the nodes of a topology. `pages` are those of this rank's slots,
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
        let mut pages = pages.into_iter();
        let layers = map
            .layers()
            .map(|layer| {
                let mut copies = Copies::default();
                copies.rebuild(map, layer, topology, rank);
                Layer { copies, pages: pages.by_ref().take(shape.slots_per_rank).collect() }
            })
            .collect();
        Self {
            map: map.clone(),
            topology: topology.clone(),
            rank,
            epoch,
            layers,
            pairs: vec![0; shape.layers * shape.slots_per_rank],
        }
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

    /// The pages of this rank's slots of a layer, `[slots_per_rank]`.
    #[must_use]
    pub fn pages(&self, layer: LayerId) -> &[Arc<P>] {
        &self.layers[layer.index()].pages
    }

    /// The page of an expert, if this rank holds it.
    #[must_use]
    pub fn page_of(&self, layer: LayerId, expert: ExpertId) -> Option<&Arc<P>> {
        let layer = self.layers.get(layer.index())?;
        if expert.index() >= self.shape().experts {
            return None;
        }
        let (_, slot) = layer.copies.slots[layer.copies.of(expert)].iter().find(|(rank, _)| *rank == self.rank)?;
        layer.pages.get(slot.index())
    }

    /// The slot that computes an expert for one token that starts on this rank. Copies of its node come first
    /// ([`nearest::parts`]), and over all ranks each takes its share of the expert's tokens: the choice is a low-discrepancy
    /// function of the token's sequence and position, so any run of positions of one sequence, and any run of sequences at one
    /// position, is spread over the copies by their parts to within a token or two. All ranks of a node choose alike.
    #[must_use]
    #[inline]
    pub fn choose(&self, layer: LayerId, expert: ExpertId, sequence: SequenceId, position: u32) -> SlotAddress {
        let copies = &self.layers[layer.index()].copies;
        let places = copies.of(expert);
        let first = places.start;
        if places.len() == 1 {
            return copies.slots[first];
        }
        let point = point(expert, sequence, position);
        // Bounds rise, so as many further copies are passed as have bounds up to the point.
        let passed =
            copies.bounds[first + 1..places.end].iter().map(|&bound| usize::from(bound <= point)).sum::<usize>();
        copies.slots[first + passed]
    }

    /// Counts pairs that a slot of this rank computed.
    pub fn count(&mut self, layer: LayerId, slot: SlotIndex, pairs: u32) {
        self.pairs[layer.index() * self.map.shape().slots_per_rank + slot.index()] += pairs;
    }

    /// The pairs counted since the last call, `[layers, slots_per_rank]`.
    pub fn take_pairs(&mut self) -> Vec<u32> {
        let zero = vec![0; self.pairs.len()];
        std::mem::replace(&mut self.pairs, zero)
    }

    /// Applies a commit: swaps the pages of this rank's slots that it names and updates the layer's routing. `pages`
    /// are the new pages of exactly those slots. Returns the pages that were replaced.
    ///
    /// # Errors
    /// If a change does not fit the map in force, a page is missing or too many, or an expert would have no slot or
    /// two on one rank. Nothing is changed then.
    pub fn commit(
        &mut self,
        commit: &Commit,
        pages: Vec<(SlotIndex, Arc<P>)>,
    ) -> Result<Vec<(SlotIndex, Arc<P>)>, CommitError> {
        let mine = commit.work.changes.iter().filter(|change| change.rank == self.rank);
        let expected = mine.clone().count();
        if expected != pages.len() || !mine.clone().all(|change| pages.iter().any(|(slot, _)| *slot == change.slot)) {
            return Err(CommitError::Pages { layer: commit.work.layer, expected, found: pages.len() });
        }
        self.map.apply_in_place(&commit.work)?;
        let layer = &mut self.layers[commit.work.layer.index()];
        layer.copies.rebuild(&self.map, commit.work.layer, &self.topology, self.rank);
        self.epoch = commit.epoch;
        let swap = |(slot, page): (SlotIndex, Arc<P>)| (slot, std::mem::replace(&mut layer.pages[slot.index()], page));
        Ok(pages.into_iter().map(swap).collect())
    }
}

/// Where a token is among all tokens of an expert, of a whole of 2^32: the two-dimensional additive recurrence of the
/// plastic number, `frac(sequence / p + position / p^2)`. An odd multiple of the expert shifts each expert's sequence, so
/// that a token's experts do not all fall on their first copies.
#[inline]
const fn point(expert: ExpertId, sequence: SequenceId, position: u32) -> u32 {
    const PLASTIC: u32 = 0xC13F_A9A9;
    const PLASTIC_SQUARED: u32 = 0x91E1_0DA5;
    const GOLDEN: u32 = 0x9E37_79B9;
    (sequence.0 as u32)
        .wrapping_mul(PLASTIC)
        .wrapping_add(position.wrapping_mul(PLASTIC_SQUARED))
        .wrapping_add(expert.0.wrapping_mul(GOLDEN))
}

/// Why a commit was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// It does not fit the map in force.
    #[error("the commit does not fit the map in force")]
    Map(#[from] MoveError),
    /// The pages given are not those of the slots changed.
    #[error("{layer}: the commit changes {expected} slots of this rank, {found} pages are staged for it")]
    Pages {
        /// Where.
        layer: LayerId,
        /// Slots of this rank that it changes.
        expected: usize,
        /// Pages given.
        found: usize,
    },
}

#[cfg(test)]
mod tests;
