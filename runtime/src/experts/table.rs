//! Which page each of this rank's slots points at, and which slots of the group hold each expert. The engine's thread
//! owns it; a [`Commit`] changes it between two steps. Knows nothing of what a page holds or how it got here.

use std::sync::Arc;

use plan::ids::{ExpertId, LayerId, RankId, SlotIndex};
use plan::map::{ExpertMap, MapError, MapShape};
use thiserror::Error;

use crate::protocol::{Commit, SequenceId, SlotAddress};

/// The expert map in force as one rank uses it. `P` is a page.
#[derive(Debug)]
pub struct ExpertTable<P> {
    shape: MapShape,
    rank: RankId,
    epoch: u64,
    layers: Vec<Layer<P>>,
    /// (token, expert) pairs computed in each slot of this rank, `[layers, slots_per_rank]`.
    pairs: Vec<u32>,
}

#[derive(Debug)]
struct Layer<P> {
    /// The expert in every slot of the group, `[ranks, slots_per_rank]`.
    experts: Vec<ExpertId>,
    /// Where the copies of each expert are.
    copies: Copies,
    /// The page of each slot of this rank, `[slots_per_rank]`.
    pages: Vec<Arc<P>>,
}

/// The slots of each expert, all in one list.
#[derive(Debug, Default)]
struct Copies {
    /// Copies of expert `e` are `slots[starts[e]..starts[e + 1]]`, by ascending rank.
    starts: Vec<u32>,
    slots: Vec<SlotAddress>,
}

impl Copies {
    fn of(&self, expert: ExpertId) -> &[SlotAddress] {
        let expert = expert.index();
        &self.slots[self.starts[expert] as usize..self.starts[expert + 1] as usize]
    }

    /// Counting sort of the slots by their expert.
    fn rebuild(&mut self, experts: &[ExpertId], shape: MapShape) {
        self.starts.clear();
        self.starts.resize(shape.experts + 1, 0);
        self.slots.resize(experts.len(), (RankId(0), SlotIndex(0)));
        for expert in experts {
            self.starts[expert.index() + 1] += 1;
        }
        for expert in 0..shape.experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        // `starts[e]` is where the next copy of `e` goes; afterwards it is where `e + 1` starts, one place too far.
        for (index, expert) in experts.iter().enumerate() {
            let next = &mut self.starts[expert.index()];
            self.slots[*next as usize] = ((index / shape.slots_per_rank).into(), (index % shape.slots_per_rank).into());
            *next += 1;
        }
        self.starts.rotate_right(1);
        self.starts[0] = 0;
    }
}

impl<P> ExpertTable<P> {
    /// The table of a map. `pages` are those of this rank's slots, `[layers, slots_per_rank]`.
    ///
    /// # Panics
    /// If the map has no such rank, or `pages` is not one page for each of its slots.
    #[must_use]
    pub fn new(map: &ExpertMap, rank: RankId, epoch: u64, pages: Vec<Arc<P>>) -> Self {
        let shape = map.shape();
        assert!(rank.index() < shape.ranks, "{rank} of {} ranks", shape.ranks);
        assert_eq!(pages.len(), shape.layers * shape.slots_per_rank, "one page for each slot");
        let mut pages = pages.into_iter();
        let layers = map
            .layers()
            .map(|layer| {
                let experts = map.layer(layer).to_vec();
                let mut copies = Copies::default();
                copies.rebuild(&experts, shape);
                Layer { experts, copies, pages: pages.by_ref().take(shape.slots_per_rank).collect() }
            })
            .collect();
        Self { shape, rank, epoch, layers, pairs: vec![0; shape.layers * shape.slots_per_rank] }
    }

    /// Dimensions of the map.
    #[must_use]
    pub const fn shape(&self) -> MapShape {
        self.shape
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
    ///
    /// # Errors
    /// Never: every commit keeps the invariants of a map.
    pub fn map(&self) -> Result<ExpertMap, MapError> {
        ExpertMap::new(self.shape, self.layers.iter().flat_map(|layer| layer.experts.iter().copied()).collect())
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
        if expert.index() >= self.shape.experts {
            return None;
        }
        let (_, slot) = layer.copies.of(expert).iter().find(|(rank, _)| *rank == self.rank)?;
        layer.pages.get(slot.index())
    }

    /// The slot that computes an expert for one token. Copies share an expert's tokens evenly: the choice is a
    /// low-discrepancy function of the token's sequence and position, so any run of positions of one sequence, and any
    /// run of sequences at one position, is spread over the copies to within a token or two. All ranks choose alike.
    #[must_use]
    #[inline]
    pub fn choose(&self, layer: LayerId, expert: ExpertId, sequence: SequenceId, position: u32) -> SlotAddress {
        let copies = self.layers[layer.index()].copies.of(expert);
        if let [only] = copies {
            return *only;
        }
        copies[share(expert, sequence, position, copies.len())]
    }

    /// Counts pairs that a slot of this rank computed.
    pub fn count(&mut self, layer: LayerId, slot: SlotIndex, pairs: u32) {
        self.pairs[layer.index() * self.shape.slots_per_rank + slot.index()] += pairs;
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
        let shape = self.shape;
        let layer =
            self.layers.get_mut(commit.layer.index()).ok_or(CommitError::UnknownLayer { layer: commit.layer })?;
        let mut experts = layer.experts.clone();
        for change in &commit.changes {
            let unknown = change.rank.index() >= shape.ranks || change.slot.index() >= shape.slots_per_rank;
            let place = change.rank.index() * shape.slots_per_rank + change.slot.index();
            if unknown || layer.experts[place] != change.from || change.to.index() >= shape.experts {
                return Err(CommitError::Stale { layer: commit.layer, rank: change.rank, slot: change.slot });
            }
            experts[place] = change.to;
        }
        check(commit.layer, &experts, shape)?;
        let mine = commit.changes.iter().filter(|change| change.rank == self.rank);
        let expected = mine.clone().count();
        if expected != pages.len() || !mine.clone().all(|change| pages.iter().any(|(slot, _)| *slot == change.slot)) {
            return Err(CommitError::Pages { layer: commit.layer, expected, found: pages.len() });
        }
        layer.experts = experts;
        layer.copies.rebuild(&layer.experts, shape);
        self.epoch = commit.epoch;
        let swap = |(slot, page): (SlotIndex, Arc<P>)| (slot, std::mem::replace(&mut layer.pages[slot.index()], page));
        Ok(pages.into_iter().map(swap).collect())
    }
}

/// The two-dimensional additive recurrence of the plastic number: `frac(sequence / p + position / p^2)` scaled to
/// `copies`. An odd multiple of the expert shifts each expert's sequence, so that a token's experts do not all fall on
/// their first copies.
#[inline]
fn share(expert: ExpertId, sequence: SequenceId, position: u32, copies: usize) -> usize {
    const PLASTIC: u32 = 0xC13F_A9A9;
    const PLASTIC_SQUARED: u32 = 0x91E1_0DA5;
    const GOLDEN: u32 = 0x9E37_79B9;
    let point = (sequence.0 as u32)
        .wrapping_mul(PLASTIC)
        .wrapping_add(position.wrapping_mul(PLASTIC_SQUARED))
        .wrapping_add(expert.0.wrapping_mul(GOLDEN));
    ((u64::from(point) * copies as u64) >> 32) as usize
}

fn check(layer: LayerId, experts: &[ExpertId], shape: MapShape) -> Result<(), CommitError> {
    let mut last_rank = vec![u32::MAX; shape.experts];
    for (index, expert) in experts.iter().enumerate() {
        let rank = (index / shape.slots_per_rank) as u32;
        if std::mem::replace(&mut last_rank[expert.index()], rank) == rank {
            return Err(CommitError::Twice { layer, rank: RankId(rank), expert: *expert });
        }
    }
    match last_rank.iter().position(|&rank| rank == u32::MAX) {
        Some(expert) => Err(CommitError::Missing { layer, expert: expert.into() }),
        None => Ok(()),
    }
}

/// Why a commit was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// It names a layer that does not exist.
    #[error("commit for {layer}, which the map does not have")]
    UnknownLayer {
        /// The layer.
        layer: LayerId,
    },
    /// A slot does not exist or does not hold what the commit says.
    #[error("{layer}, {rank}, {slot}: the commit was made for another map than the one in force")]
    Stale {
        /// Where.
        layer: LayerId,
        /// Where.
        rank: RankId,
        /// Where.
        slot: SlotIndex,
    },
    /// An expert would be twice on one rank.
    #[error("{layer}: the commit would put {expert} on {rank} twice")]
    Twice {
        /// Where.
        layer: LayerId,
        /// Where.
        rank: RankId,
        /// The expert.
        expert: ExpertId,
    },
    /// An expert would be on no rank.
    #[error("{layer}: the commit would leave {expert} on no rank")]
    Missing {
        /// Where.
        layer: LayerId,
        /// The expert.
        expert: ExpertId,
    },
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
