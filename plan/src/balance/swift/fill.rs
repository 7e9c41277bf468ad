//! Packs copies from scratch, heaviest first. Knows nothing of how good the result is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::cover::cover;
use super::packing::Packing;
use super::ranks::Ranks;

/// Each copy goes onto the rank with the lowest level that has room and lacks the expert. The copies of an expert go
/// one after the other, onto that many different ranks. `counts` are from 1 to the number of ranks, together the number
/// of slots; ranks with unequal slots may have no place for some of the copies, and their slots go to other experts, but
/// each has `least`.
pub(in crate::balance) fn fill<'a>(ranks: &'a Ranks, weights: &'a [f64], counts: &[u16], least: usize) -> Packing<'a> {
    let mut filling = Filling::new(ranks, weights, counts);
    // Load and number as one that sorts like them; the number takes bits of the load that are worth less than a part in
    // 10^10.
    let key = |expert: usize| filling.copies[expert].to_bits() & !0xffff | (0xffff - expert as u64);
    let mut order: Vec<u64> = (0..weights.len()).map(key).collect();
    order.sort_unstable();
    for expert in order.iter().rev().map(|key| (0xffff - (key & 0xffff)) as usize) {
        filling.place(expert as u16, counts[expert]);
    }
    filling.top_up();
    let mut packing = Packing::new(ranks, weights, &filling.slots, least);
    cover(&mut packing, least);
    packing
}

struct Filling<'a> {
    ranks: &'a Ranks,
    /// Load of a copy of each expert.
    copies: Vec<f64>,
    slots: Vec<u16>,
    filled: Vec<u32>,
    sums: Vec<f64>,
    /// Ranks with room, the lowest level first, then the emptiest: [`key`] of each.
    lowest: BinaryHeap<Reverse<u128>>,
    /// Where the copies of one expert go.
    chosen: Vec<u16>,
}

/// Level, filled slots and number of a rank as one number, which sorts like them: a level is not negative, so its bits are
/// in the order of values.
fn key(level: f64, filled: u32, rank: usize) -> u128 {
    u128::from(level.to_bits()) << 64 | u128::from(filled) << 32 | rank as u128
}

/// The rank in a [`key`].
const fn rank_of(key: u128) -> usize {
    key as u32 as usize
}

impl<'a> Filling<'a> {
    fn new(ranks: &'a Ranks, weights: &[f64], counts: &[u16]) -> Self {
        let open = (0..ranks.len()).filter(|&rank| !ranks.slots(rank).is_empty());
        Self {
            ranks,
            copies: weights.iter().zip(counts).map(|(weight, &count)| weight / f64::from(count)).collect(),
            slots: vec![0; ranks.physical()],
            filled: vec![0; ranks.len()],
            sums: vec![0.0; ranks.len()],
            lowest: open.map(|rank| Reverse(key(0.0, 0, rank))).collect(),
            chosen: Vec::new(),
        }
    }

    fn content(&self, rank: usize) -> &[u16] {
        &self.slots[self.ranks.slots(rank).start..][..self.filled[rank] as usize]
    }

    fn place(&mut self, expert: u16, count: u16) {
        if count == 1 {
            self.place_alone(expert);
            return;
        }
        self.chosen.clear();
        while self.chosen.len() < usize::from(count) {
            let Some(Reverse(key)) = self.lowest.pop() else { break };
            self.chosen.push(rank_of(key) as u16);
        }
        for index in 0..self.chosen.len() {
            self.put(usize::from(self.chosen[index]), expert);
        }
        for _ in self.chosen.len()..usize::from(count) {
            self.make_place(expert);
        }
    }

    /// An expert with one copy, which most have: the rank stays in the heap.
    fn place_alone(&mut self, expert: u16) {
        let Some(&Reverse(lowest)) = self.lowest.peek() else { return };
        let key = self.take(rank_of(lowest), expert);
        let top = self.lowest.peek_mut().expect("it has just been seen");
        match key {
            Some(key) => *{ top } = Reverse(key),
            None => drop(PeekMut::pop(top)),
        }
    }

    /// Puts an expert into the next slot of a rank and the rank back among those with room.
    fn put(&mut self, rank: usize, expert: u16) {
        if let Some(key) = self.take(rank, expert) {
            self.lowest.push(Reverse(key));
        }
    }

    /// Puts an expert into the next slot of a rank; the rank's key if it still has room.
    fn take(&mut self, rank: usize, expert: u16) -> Option<u128> {
        let slots = self.ranks.slots(rank);
        self.slots[slots.start + self.filled[rank] as usize] = expert;
        self.filled[rank] += 1;
        self.sums[rank] += self.copies[usize::from(expert)];
        let level = self.sums[rank] * self.ranks.pace(rank);
        ((self.filled[rank] as usize) < slots.len()).then(|| key(level, self.filled[rank], rank))
    }

    /// Every rank with room holds the expert already. Where ranks have equal numbers of slots, a full rank that lacks
    /// it has two experts more that a rank with room lacks than the other way round, so one of them can make place.
    fn make_place(&mut self, expert: u16) {
        let Some(&Reverse(lowest)) = self.lowest.peek() else { return };
        let roomy = rank_of(lowest);
        let movable = |rank: usize| self.content(rank).iter().rposition(|other| !self.content(roomy).contains(other));
        let full = (0..self.ranks.len())
            .filter(|&rank| self.filled[rank] as usize == self.ranks.slots(rank).len())
            .filter(|&rank| !self.content(rank).contains(&expert))
            .filter_map(|rank| Some((rank, movable(rank)?)));
        let level = |rank: usize| self.sums[rank] * self.ranks.pace(rank);
        let Some((full, index)) = full.min_by(|&(a, _), &(b, _)| level(a).total_cmp(&level(b))) else { return };
        let slot = self.ranks.slots(full).start + index;
        let other = std::mem::replace(&mut self.slots[slot], expert);
        self.sums[full] = self.content(full).iter().map(|&held| self.copies[usize::from(held)]).sum();
        self.lowest.pop();
        self.put(roomy, other);
    }

    /// Gives slots that are left to the hottest experts that their ranks lack.
    fn top_up(&mut self) {
        if self.lowest.is_empty() {
            return;
        }
        let mut hottest: Vec<u16> = (0..self.copies.len() as u16).collect();
        hottest.sort_by(|&a, &b| self.copies[b as usize].total_cmp(&self.copies[a as usize]));
        while let Some(Reverse(lowest)) = self.lowest.pop() {
            let rank = rank_of(lowest);
            let lacking = hottest.iter().find(|expert| !self.content(rank).contains(expert));
            let expert = *lacking.expect("a rank has no more slots than there are experts");
            self.put(rank, expert);
        }
    }
}

#[cfg(test)]
mod tests;
