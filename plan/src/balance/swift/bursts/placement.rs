//! The experts in the slots of one layer's ranks, with the copies of each. Knows nothing of loads.

use std::ops::Range;

use super::super::ranks::Ranks;

/// Every expert has a copy; no rank has two of one.
#[derive(Clone, Debug)]
pub(super) struct Placement<'a> {
    ranks: &'a Ranks,
    experts: usize,
    /// Expert of each slot.
    slots: Vec<u16>,
    /// Rank of each slot.
    owners: Vec<u16>,
    /// Slots that hold each expert, ascending.
    copies: Vec<Vec<u32>>,
    /// Whether a rank holds an expert, `[ranks, experts]`.
    holds: Vec<bool>,
}

impl<'a> Placement<'a> {
    /// Takes over valid slots.
    pub(super) fn new(ranks: &'a Ranks, experts: usize, slots: Vec<u16>) -> Self {
        let owners = (0..ranks.len()).flat_map(|rank| ranks.slots(rank).map(move |_| rank as u16)).collect();
        let copies = vec![Vec::new(); experts];
        let holds = vec![false; ranks.len() * experts];
        let mut placement = Self { ranks, experts, slots, owners, copies, holds };
        for slot in 0..placement.slots.len() {
            placement.add(slot, placement.expert(slot));
        }
        placement
    }

    pub(super) const fn ranks(&self) -> &'a Ranks {
        self.ranks
    }

    pub(super) const fn experts(&self) -> usize {
        self.experts
    }

    pub(super) fn slots_of(&self, rank: usize) -> Range<usize> {
        self.ranks.slots(rank)
    }

    pub(super) const fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn expert(&self, slot: usize) -> usize {
        usize::from(self.slots[slot])
    }

    pub(super) fn rank(&self, slot: usize) -> usize {
        usize::from(self.owners[slot])
    }

    pub(super) fn count(&self, expert: usize) -> usize {
        self.copies[expert].len()
    }

    /// Slots that hold an expert, ascending.
    pub(super) fn copies(&self, expert: usize) -> impl Iterator<Item = usize> + '_ {
        self.copies[expert].iter().map(|&slot| slot as usize)
    }

    pub(super) fn holds(&self, rank: usize, expert: usize) -> bool {
        self.holds[rank * self.experts + expert]
    }

    /// Whether two slots may exchange their experts.
    pub(super) fn exchangeable(&self, a: usize, b: usize) -> bool {
        !self.holds(self.rank(a), self.expert(b)) && !self.holds(self.rank(b), self.expert(a))
    }

    /// Exchanges the experts of two slots.
    pub(super) fn exchange(&mut self, a: usize, b: usize) {
        let (expert_a, expert_b) = (self.expert(a), self.expert(b));
        self.remove(a);
        self.remove(b);
        self.add(a, expert_b);
        self.add(b, expert_a);
    }

    /// Gives a slot, whose expert has another copy, to an expert that the rank lacks.
    pub(super) fn replace(&mut self, slot: usize, expert: usize) {
        self.remove(slot);
        self.add(slot, expert);
    }

    pub(super) fn into_slots(self) -> Vec<u16> {
        self.slots
    }

    fn add(&mut self, slot: usize, expert: usize) {
        let copies = &mut self.copies[expert];
        copies.insert(copies.partition_point(|&other| (other as usize) < slot), slot as u32);
        self.slots[slot] = expert as u16;
        let rank = self.rank(slot);
        self.holds[rank * self.experts + expert] = true;
    }

    fn remove(&mut self, slot: usize) {
        let (rank, expert) = (self.rank(slot), self.expert(slot));
        self.copies[expert].retain(|&other| other as usize != slot);
        self.holds[rank * self.experts + expert] = false;
    }
}
