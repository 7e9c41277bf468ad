//! How many slots each rank has, and which of a layer's slots are whose. Knows nothing of what they hold.

use std::ops::Range;
use std::sync::Arc;

use crate::ids::{RankId, SlotIndex};

/// The slots of each rank in every layer. A layer's slots are counted through rank by rank: those of a rank are
/// [`RankSlots::of`] it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RankSlots {
    /// Slots before each rank, and all slots at the end, `[ranks + 1]`.
    starts: Arc<[u32]>,
}

impl RankSlots {
    /// Equally many for each rank.
    ///
    /// # Panics
    /// If `ranks * slots_per_rank` does not fit 32 bits, which no checked [`crate::map::MapShape`] allows.
    #[must_use]
    pub fn even(ranks: usize, slots_per_rank: usize) -> Self {
        Self::new((0..ranks).map(|_| slots_per_rank))
    }

    /// A number for each rank.
    ///
    /// # Panics
    /// If their sum does not fit 32 bits.
    #[must_use]
    pub fn new(counts: impl IntoIterator<Item = usize>) -> Self {
        let mut end = 0_usize;
        let ends = counts.into_iter().map(|count| {
            end += count;
            u32::try_from(end).expect("slots fit 32 bits")
        });
        Self { starts: std::iter::once(0).chain(ends).collect() }
    }

    /// Number of ranks.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.starts.len() - 1
    }

    /// All slots of a layer, `P`.
    #[must_use]
    pub fn total(&self) -> usize {
        self.starts[self.ranks()] as usize
    }

    /// The slots of a rank among those of a layer.
    #[must_use]
    pub fn of(&self, rank: RankId) -> Range<usize> {
        self.starts[rank.index()] as usize..self.starts[rank.index() + 1] as usize
    }

    /// Number of slots of a rank.
    #[must_use]
    pub fn count(&self, rank: RankId) -> usize {
        self.of(rank).len()
    }

    /// Number of slots of each rank, `[ranks]`.
    #[must_use]
    pub fn counts(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.starts.windows(2).map(|pair| (pair[1] - pair[0]) as usize)
    }

    /// The largest number of slots of a rank.
    #[must_use]
    pub fn most(&self) -> usize {
        self.counts().max().unwrap_or(0)
    }

    /// The number of slots of every rank, if they have equally many.
    #[must_use]
    pub fn per_rank(&self) -> Option<usize> {
        let most = self.most();
        (most * self.ranks() == self.total()).then_some(most)
    }

    /// The rank of one of a layer's slots, and the slot's place there.
    ///
    /// # Panics
    /// If there is no such slot.
    #[must_use]
    pub fn place(&self, slot: usize) -> (RankId, SlotIndex) {
        assert!(slot < self.total(), "slot {slot} of {}", self.total());
        let rank = self.starts.partition_point(|&start| start as usize <= slot) - 1;
        (rank.into(), (slot - self.starts[rank] as usize).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_through_rank_by_rank() {
        let slots = RankSlots::new([2, 0, 3]);
        assert_eq!((slots.ranks(), slots.total(), slots.most(), slots.per_rank()), (3, 5, 3, None));
        assert_eq!([0, 1, 2].map(|rank| slots.of(RankId(rank))), [0..2, 2..2, 2..5]);
        let places: Vec<(u32, u32)> =
            (0..5).map(|slot| slots.place(slot)).map(|(rank, slot)| (rank.0, slot.0)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]);
    }

    #[test]
    fn equally_many_slots_are_even_however_they_were_given() {
        assert_eq!(RankSlots::even(3, 2), RankSlots::new([2, 2, 2]));
        assert_eq!(RankSlots::even(3, 2).per_rank(), Some(2));
        assert_eq!(RankSlots::new([]).per_rank(), Some(0));
    }
}
