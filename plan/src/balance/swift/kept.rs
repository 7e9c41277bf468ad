//! A placement that other ranks held, on the ranks there are now: after the loss of some, with more of them, or with
//! other numbers of slots. What a rank holds stays, as far as it has slots.

use super::ranks::Ranks;

/// Slots of one layer that keep what ranks held.
pub(super) struct Kept {
    /// Every slot of every rank, each expert in one of them at least.
    pub(super) slots: Vec<u16>,
    /// Whether the slot's expert was on its rank before, `[slots]`.
    pub(super) held: Vec<bool>,
}

impl Kept {
    /// All of it, on the ranks that hold it.
    pub(super) fn whole(slots: Vec<u16>) -> Self {
        Self { held: vec![true; slots.len()], slots }
    }

    /// What is left of it in the slots of ranks that held `content` before, `[ranks]`.
    pub(super) fn of(ranks: &Ranks, slots: Vec<u16>, content: &[Vec<u16>]) -> Self {
        let mut held = vec![false; slots.len()];
        for (rank, before) in content.iter().enumerate() {
            for slot in ranks.slots(rank) {
                held[slot] = before.contains(&slots[slot]);
            }
        }
        Self { slots, held }
    }
}

/// As much as ranks have slots for of the `content` of each before, `[ranks]`; those that are new held nothing. Every expert has
/// a slot: what no rank held takes that of a copy.
pub(super) fn fit(ranks: &Ranks, weights: &[f64], content: &[Vec<u16>]) -> Vec<u16> {
    let mut keeper = Keeper::new(ranks, weights, content);
    keeper.bring_back();
    keeper.fill();
    keeper.slots.concat()
}

/// Puts the experts of each rank that it held before back into the slots in which it held them, where it still has those.
pub(super) fn arrange(ranks: &Ranks, content: &[Vec<u16>], slots: &mut [u16]) {
    for (rank, before) in content.iter().enumerate() {
        let slots = &mut slots[ranks.slots(rank)];
        for (place, expert) in before.iter().enumerate().take(slots.len()) {
            if let Some(now) = slots.iter().position(|other| other == expert) {
                slots.swap(now, place);
            }
        }
    }
}

struct Keeper<'a> {
    ranks: &'a Ranks,
    weights: &'a [f64],
    /// Experts of each rank, `[ranks]`.
    slots: Vec<Vec<u16>>,
    /// Copies of each expert, `[experts]`.
    counts: Vec<u16>,
}

impl<'a> Keeper<'a> {
    /// A rank with fewer slots than experts gives up those that others hold most often, of equals the lightest.
    fn new(ranks: &'a Ranks, weights: &'a [f64], content: &[Vec<u16>]) -> Self {
        let mut counts = vec![0_u16; weights.len()];
        for &expert in content.iter().flatten() {
            counts[usize::from(expert)] += 1;
        }
        let mut slots = content.to_vec();
        for (rank, experts) in slots.iter_mut().enumerate() {
            while experts.len() > ranks.slots(rank).len() {
                let missed = |&expert: &u16| (counts[usize::from(expert)].min(2), weights[usize::from(expert)]);
                let least = (0..experts.len()).min_by(|&a, &b| {
                    let (a, b) = (missed(&experts[a]), missed(&experts[b]));
                    b.0.cmp(&a.0).then(a.1.total_cmp(&b.1))
                });
                let expert = experts.remove(least.expect("there are more experts than slots"));
                counts[usize::from(expert)] -= 1;
            }
        }
        Self { ranks, weights, slots, counts }
    }

    /// Gives each expert that no rank holds a slot, the heaviest first: where that leaves the busiest of the ranks
    /// concerned with least.
    fn bring_back(&mut self) {
        let mut missing: Vec<usize> = (0..self.counts.len()).filter(|&expert| self.counts[expert] == 0).collect();
        missing.sort_by(|&a, &b| self.weights[b].total_cmp(&self.weights[a]).then(a.cmp(&b)));
        for expert in missing {
            let load = self.weights[expert];
            let best = self.places().min_by(|&a, &b| self.level_with(load, a).total_cmp(&self.level_with(load, b)));
            let (rank, place) = best.expect("there are at least as many slots as experts");
            self.counts[expert] += 1;
            match place {
                None => self.slots[rank].push(expert as u16),
                Some(place) => {
                    let old = std::mem::replace(&mut self.slots[rank][place], expert as u16);
                    self.counts[usize::from(old)] -= 1;
                }
            }
        }
    }

    /// Where an expert may go: (rank, place) of each copy whose expert has another, and each rank with a free slot.
    fn places(&self) -> impl Iterator<Item = (usize, Option<usize>)> + '_ {
        let of_rank = |rank: usize| {
            let spare = self.slots[rank].iter().enumerate().filter(|(_, old)| self.counts[usize::from(**old)] > 1);
            let free = self.has_room(rank).then_some((rank, None));
            spare.map(move |(place, _)| (rank, Some(place))).chain(free)
        };
        (0..self.ranks.len()).flat_map(of_rank)
    }

    /// Gives the slots that are left to the experts whose copies carry most, on the ranks that carry least.
    fn fill(&mut self) {
        while let Some(rank) = (0..self.ranks.len())
            .filter(|&rank| self.has_room(rank))
            .min_by(|&a, &b| self.level(a).total_cmp(&self.level(b)))
        {
            let lacking = (0..self.counts.len()).filter(|&expert| !self.slots[rank].contains(&(expert as u16)));
            let hottest = lacking.max_by(|&a, &b| self.copy(a).total_cmp(&self.copy(b)).then(b.cmp(&a)));
            let hottest = hottest.expect("a rank has no more slots than there are experts");
            self.slots[rank].push(hottest as u16);
            self.counts[hottest] += 1;
        }
    }

    fn has_room(&self, rank: usize) -> bool {
        self.slots[rank].len() < self.ranks.slots(rank).len()
    }

    /// Load of each copy of an expert.
    fn copy(&self, expert: usize) -> f64 {
        self.weights[expert] / f64::from(self.counts[expert].max(1))
    }

    fn level(&self, rank: usize) -> f64 {
        let load: f64 = self.slots[rank].iter().map(|&expert| self.copy(expert.into())).sum();
        load * self.ranks.pace(rank)
    }

    /// The highest level of the ranks concerned when a load comes to a rank, in a free slot or in place of a copy.
    fn level_with(&self, load: f64, (rank, slot): (usize, Option<usize>)) -> f64 {
        let pace = self.ranks.pace(rank);
        let Some(slot) = slot else { return self.level(rank) + load * pace };
        let old = self.slots[rank][slot];
        let count = f64::from(self.counts[usize::from(old)]);
        let rise = self.weights[usize::from(old)] * (1.0 / (count - 1.0) - 1.0 / count);
        let here = self.level(rank) + (load - self.copy(old.into())) * pace;
        let others = (0..self.slots.len()).filter(|&other| other != rank && self.slots[other].contains(&old));
        others.map(|other| self.level(other) + rise * self.ranks.pace(other)).fold(here, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(ranks: &Ranks, weights: &[f64], content: &[Vec<u16>]) -> Kept {
        Kept::of(ranks, fit(ranks, weights, content), content)
    }

    #[test]
    fn an_expert_that_was_lost_takes_the_slot_of_a_copy_and_everything_else_stays() {
        let ranks = Ranks::new(&[2, 2, 0], &[1.0; 3]);
        let kept = kept(&ranks, &[4.0, 3.0, 2.0], &[vec![0, 1], vec![0, 1], vec![]]);
        assert_eq!(kept.slots.len(), 4);
        assert!((0..3).all(|expert| kept.slots.contains(&expert)));
        assert_eq!(kept.held.iter().filter(|&&held| !held).count(), 1);
    }

    #[test]
    fn a_rank_with_fewer_slots_keeps_what_no_other_holds() {
        let ranks = Ranks::new(&[1, 2], &[1.0; 2]);
        let kept = kept(&ranks, &[9.0, 1.0, 5.0], &[vec![0, 1], vec![0, 2]]);
        assert_eq!(kept.slots, [1, 0, 2]);
        assert_eq!(kept.held, [true; 3]);
    }

    #[test]
    fn what_a_rank_keeps_stays_in_its_slot() {
        let ranks = Ranks::new(&[3, 2], &[1.0; 2]);
        let mut slots = [4, 2, 0, 1, 3];
        arrange(&ranks, &[vec![0, 1, 2], vec![3, 4, 1]], &mut slots);
        assert_eq!(slots, [0, 4, 2, 3, 1]);
    }

    #[test]
    fn a_new_rank_gets_copies_of_what_carries_most() {
        let ranks = Ranks::new(&[2, 2], &[1.0; 2]);
        let kept = kept(&ranks, &[9.0, 1.0, 5.0], &[vec![0, 1], vec![2]]);
        assert_eq!(kept.slots, [0, 1, 2, 0]);
        assert_eq!(kept.held, [true, true, true, false]);
    }
}
