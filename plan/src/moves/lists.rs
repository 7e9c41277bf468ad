//! A list for each rank, no longer than the rank has slots, all in one array. Knows nothing of what is listed.

use std::ops::Range;

use crate::slots::RankSlots;

/// Lists that items are added to at the end and taken from anywhere; those that stay keep their order.
#[derive(Clone, Debug)]
pub(super) struct Lists<'a, T> {
    of_ranks: &'a RankSlots,
    /// As many places for each rank as it has slots, the first of them taken.
    items: Vec<T>,
    lengths: Vec<usize>,
}

impl<'a, T: Copy> Lists<'a, T> {
    /// Empty lists. Places that are not taken hold `filler`.
    pub(super) fn new(of_ranks: &'a RankSlots, filler: T) -> Self {
        Self { of_ranks, items: vec![filler; of_ranks.total()], lengths: vec![0; of_ranks.ranks()] }
    }

    fn places(&self, rank: usize) -> Range<usize> {
        let start = self.of_ranks.of(rank.into()).start;
        start..start + self.lengths[rank]
    }

    pub(super) fn of(&self, rank: usize) -> &[T] {
        &self.items[self.places(rank)]
    }

    pub(super) fn of_mut(&mut self, rank: usize) -> &mut [T] {
        let places = self.places(rank);
        &mut self.items[places]
    }

    pub(super) fn push(&mut self, rank: usize, item: T) {
        let end = self.places(rank).end;
        self.items[end] = item;
        self.lengths[rank] += 1;
    }

    /// The item at an index of a rank's list, which is then off it.
    pub(super) fn take(&mut self, rank: usize, index: usize) -> T {
        let list = self.of_mut(rank);
        let item = list[index];
        list.copy_within(index + 1.., index);
        self.lengths[rank] -= 1;
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_on_a_list_keeps_its_order_and_other_lists_are_not_touched() {
        let of_ranks = RankSlots::new([3, 0, 2]);
        let mut lists = Lists::new(&of_ranks, '-');
        for (rank, item) in [(0, 'a'), (2, 'x'), (0, 'b'), (0, 'c'), (2, 'y')] {
            lists.push(rank, item);
        }
        assert_eq!((lists.take(0, 1), lists.take(2, 0)), ('b', 'x'));
        assert_eq!((lists.of(0), lists.of(1), lists.of(2)), (&['a', 'c'][..], &[][..], &['y'][..]));
        lists.push(0, 'd');
        assert_eq!(lists.of(0), ['a', 'c', 'd']);
    }
}
