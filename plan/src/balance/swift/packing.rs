//! One layer's experts in the slots of its ranks, with the loads that follow, kept current through every change. Knows
//! nothing of what a change costs or of when to stop.

use super::ranks::Ranks;
use crate::holders::Holders;

/// Experts in the slots of one layer. Every expert has a copy; no rank has two of one expert.
///
/// Everything is in flat arrays, and a change touches what it changes: the slots of each rank are kept by descending
/// load, so that the best partner for an exchange is found by walking along two ranks at once, and the ranks are kept
/// by level, so that the busiest is the last and the candidates for its load are the first.
#[derive(Clone, Debug)]
pub(in crate::balance) struct Packing<'a> {
    ranks: &'a Ranks,
    weights: &'a [f64],
    /// Copies of each expert.
    counts: Vec<u16>,
    /// Load of each copy of an expert.
    copies: Vec<f64>,
    /// Copies that each expert is to keep.
    least: u16,
    /// Experts with more copies than that, ascending.
    spare: Vec<u16>,
    /// Expert of each slot.
    experts: Vec<u16>,
    /// Load of each slot.
    loads: Vec<f64>,
    holders: Holders,
    /// Load of each rank.
    sums: Vec<f64>,
    /// Time that each rank takes for its load.
    levels: Vec<f64>,
    /// Ranks by ascending level, equal ones by number: [`key`] of each.
    order: Vec<u64>,
}

/// A load and the number of what carries it as one number, which sorts like them: a load is not negative, so its bits are in
/// the order of values. The number takes the last 16, which are worth less than a part in 10^10.
const fn key(load: f64, number: usize) -> u64 {
    load.to_bits() & !0xffff | number as u64
}

/// The number in a [`key`].
const fn number_of(key: u64) -> usize {
    (key & 0xffff) as usize
}

impl<'a> Packing<'a> {
    /// Takes over valid slots, rank by rank. A copy is spare when its expert has more than `least`.
    pub(in crate::balance) fn new(ranks: &'a Ranks, weights: &'a [f64], slots: &[u16], least: usize) -> Self {
        let mut packing = Self {
            ranks,
            weights,
            counts: vec![0; weights.len()],
            copies: vec![0.0; weights.len()],
            least: least as u16,
            spare: Vec::new(),
            experts: slots.to_vec(),
            loads: vec![0.0; slots.len()],
            holders: Holders::new(weights.len(), ranks.len()),
            sums: vec![0.0; ranks.len()],
            levels: vec![0.0; ranks.len()],
            order: vec![0; ranks.len()],
        };
        packing.recount();
        packing
    }

    /// Everything that follows from the slots of a packing that is new.
    fn recount(&mut self) {
        for rank in 0..self.ranks.len() {
            for slot in self.ranks.slots(rank) {
                let expert = self.experts[slot] as usize;
                self.counts[expert] += 1;
                self.holders.insert(rank, expert);
            }
        }
        let spare = (0..self.counts.len()).filter(|&expert| self.counts[expert] > self.least);
        self.spare.clear();
        self.spare.extend(spare.map(|expert| expert as u16));
        for (copy, (weight, &count)) in self.copies.iter_mut().zip(self.weights.iter().zip(&self.counts)) {
            *copy = weight / f64::from(count);
        }
        let mut sorted = Vec::with_capacity(self.experts.len());
        for rank in 0..self.ranks.len() {
            let slots = self.ranks.slots(rank);
            // Of equal loads the first expert comes first.
            let load_and_expert = |expert: &u16| key(self.copies[usize::from(*expert)], usize::from(!expert));
            sorted.clear();
            // What was packed heaviest first is sorted already when it is read backwards.
            sorted.extend(self.experts[slots.clone()].iter().rev().map(load_and_expert));
            sorted.sort_unstable();
            for (slot, &key) in slots.zip(sorted.iter().rev()) {
                self.experts[slot] = !(number_of(key) as u16);
                self.loads[slot] = self.copies[usize::from(self.experts[slot])];
            }
            self.sums[rank] = self.sum(rank);
            self.levels[rank] = self.sums[rank] * self.ranks.pace(rank);
            self.order[rank] = key(self.levels[rank], rank);
        }
        self.order.sort_unstable();
    }

    /// Becomes another packing of the same layer, without allocating.
    pub(in crate::balance) fn copy_from(&mut self, other: &Self) {
        self.counts.copy_from_slice(&other.counts);
        self.copies.copy_from_slice(&other.copies);
        self.spare.clone_from(&other.spare);
        self.experts.copy_from_slice(&other.experts);
        self.loads.copy_from_slice(&other.loads);
        self.holders.copy_from(&other.holders);
        self.sums.copy_from_slice(&other.sums);
        self.levels.copy_from_slice(&other.levels);
        self.order.copy_from_slice(&other.order);
    }

    pub(in crate::balance) const fn ranks(&self) -> &'a Ranks {
        self.ranks
    }

    pub(in crate::balance) const fn experts(&self) -> usize {
        self.weights.len()
    }

    /// Expert of each slot; the slots of a rank by descending load.
    pub(in crate::balance) fn slots(&self) -> &[u16] {
        &self.experts
    }

    /// Gives up the loads for the slots.
    pub(in crate::balance) fn into_slots(self) -> Vec<u16> {
        self.experts
    }

    /// Experts of a rank by descending load.
    pub(in crate::balance) fn experts_of(&self, rank: usize) -> &[u16] {
        &self.experts[self.ranks.slots(rank)]
    }

    /// Loads of a rank's slots, descending.
    pub(in crate::balance) fn loads_of(&self, rank: usize) -> &[f64] {
        &self.loads[self.ranks.slots(rank)]
    }

    /// Whether a rank holds an expert.
    pub(in crate::balance) fn holds(&self, rank: usize, expert: usize) -> bool {
        self.holders.has(rank, expert)
    }

    /// The ranks that hold an expert, ascending.
    pub(in crate::balance) fn holders(&self, expert: usize) -> impl Iterator<Item = usize> + '_ {
        self.holders.of(expert)
    }

    /// Copies of an expert.
    pub(in crate::balance) fn count(&self, expert: usize) -> usize {
        usize::from(self.counts[expert])
    }

    /// Copies of an expert on a node.
    pub(in crate::balance) fn count_on(&self, expert: usize, node: usize) -> usize {
        self.holders.count_among(expert, self.ranks.of_node(node))
    }

    /// Experts with a copy to spare, ascending.
    pub(in crate::balance) fn spare(&self) -> &[u16] {
        &self.spare
    }

    /// Load of all copies of an expert.
    pub(in crate::balance) fn weight(&self, expert: usize) -> f64 {
        self.weights[expert]
    }

    /// Load of each copy of an expert if it had `count`.
    pub(in crate::balance) fn load_with(&self, expert: usize, count: usize) -> f64 {
        self.weights[expert] / count as f64
    }

    /// Load of each copy of an expert.
    pub(in crate::balance) fn load(&self, expert: usize) -> f64 {
        self.copies[expert]
    }

    /// Load of a rank.
    pub(in crate::balance) fn rank_load(&self, rank: usize) -> f64 {
        self.sums[rank]
    }

    /// Time that a rank takes for its load.
    pub(in crate::balance) fn level(&self, rank: usize) -> f64 {
        self.levels[rank]
    }

    /// Ranks by ascending level.
    pub(in crate::balance) fn by_level(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.order.iter().map(|&key| number_of(key))
    }

    /// The rank that takes longest.
    pub(in crate::balance) fn busiest(&self) -> usize {
        number_of(*self.order.last().expect("there is a rank"))
    }

    /// The time that the busiest rank takes.
    pub(in crate::balance) fn top(&self) -> f64 {
        self.levels[self.busiest()]
    }

    /// Exchanges two experts between two ranks, each of which lacks the other's.
    pub(in crate::balance) fn swap(&mut self, (rank_a, expert_a): (usize, usize), (rank_b, expert_b): (usize, usize)) {
        let (load_a, load_b) = (self.load(expert_a), self.load(expert_b));
        self.put(rank_a, expert_a, expert_b, load_b);
        self.put(rank_b, expert_b, expert_a, load_a);
        self.weigh(rank_a);
        self.weigh(rank_b);
    }

    /// Gives the slot of one copy of `old`, which has another, to `new`, which the rank lacks.
    pub(in crate::balance) fn replace(&mut self, rank: usize, old: usize, new: usize) {
        let load = self.load_with(new, self.count(new) + 1);
        self.put(rank, old, new, load);
        self.recount_expert(old, -1);
        self.recount_expert(new, 1);
        self.weigh(rank);
    }

    /// Puts `new` into the slot of `old` on a rank.
    fn put(&mut self, rank: usize, old: usize, new: usize, load: f64) {
        self.holders.remove(rank, old);
        self.holders.insert(rank, new);
        let slot = self.slot_of(rank, old);
        self.experts[slot] = new as u16;
        self.settle(rank, slot, load);
    }

    /// The load of every copy of an expert after one has come or gone.
    fn recount_expert(&mut self, expert: usize, change: i16) {
        let count = self.counts[expert].wrapping_add_signed(change);
        if (self.counts[expert] > self.least) != (count > self.least) {
            match self.spare.binary_search(&(expert as u16)) {
                Ok(place) => drop(self.spare.remove(place)),
                Err(place) => self.spare.insert(place, expert as u16),
            }
        }
        self.counts[expert] = count;
        let load = self.load_with(expert, usize::from(count));
        self.copies[expert] = load;
        for part in 0..self.holders.parts() {
            for rank in self.holders.of_part(expert, part) {
                let slot = self.slot_of(rank, expert);
                self.settle(rank, slot, load);
                self.weigh(rank);
            }
        }
    }

    fn slot_of(&self, rank: usize, expert: usize) -> usize {
        let slots = self.ranks.slots(rank);
        let index = self.experts[slots.clone()].iter().position(|&held| held as usize == expert);
        slots.start + index.expect("the rank holds the expert")
    }

    /// Sets the load of a slot and moves it to where it belongs among those of its rank.
    fn settle(&mut self, rank: usize, slot: usize, load: f64) {
        let slots = self.ranks.slots(rank);
        let expert = self.experts[slot];
        let mut place = slot;
        while place > slots.start && self.loads[place - 1] < load {
            self.loads[place] = self.loads[place - 1];
            self.experts[place] = self.experts[place - 1];
            place -= 1;
        }
        while place + 1 < slots.end && self.loads[place + 1] > load {
            self.loads[place] = self.loads[place + 1];
            self.experts[place] = self.experts[place + 1];
            place += 1;
        }
        self.loads[place] = load;
        self.experts[place] = expert;
    }

    /// The level of a rank after its slots have changed, and its place among the ranks.
    fn weigh(&mut self, rank: usize) {
        let old = key(self.levels[rank], rank);
        self.sums[rank] = self.sum(rank);
        self.levels[rank] = self.sums[rank] * self.ranks.pace(rank);
        let new = key(self.levels[rank], rank);
        let before = |limit: u64| self.order.partition_point(|&key| key < limit);
        let (place, new_place) = (before(old), before(new));
        if new > old {
            self.order.copy_within(place + 1..new_place, place);
            self.order[new_place - 1] = new;
        } else {
            self.order.copy_within(new_place..place, new_place + 1);
            self.order[new_place] = new;
        }
    }

    /// The load of a rank, added up anew so that no rounding error builds up over many changes; of one without slots 0,
    /// where the sum of an iterator would be -0, which sorts wrongly as bits.
    fn sum(&self, rank: usize) -> f64 {
        self.loads[self.ranks.slots(rank)].iter().fold(0.0, |sum, load| sum + load)
    }
}

#[cfg(test)]
mod tests;
