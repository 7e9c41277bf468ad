//! What live ranks held, completed: experts that only lost ranks held get a slot, and ranks that have returned something to
//! hold.

use super::ranks::Ranks;

/// The slots of ranks that held `content`, `[ranks]`, each as many experts as it has slots, or none. Every expert has a slot
/// then: what no rank held takes that of a copy, or an empty one.
pub(super) fn fit(ranks: &Ranks, weights: &[f64], content: &[Vec<u16>]) -> Vec<u16> {
    let mut keeper = Keeper::new(ranks, weights, content);
    keeper.bring_back();
    keeper.fill();
    keeper.slots.concat()
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
    fn new(ranks: &'a Ranks, weights: &'a [f64], content: &[Vec<u16>]) -> Self {
        let mut counts = vec![0_u16; weights.len()];
        for &expert in content.iter().flatten() {
            counts[usize::from(expert)] += 1;
        }
        Self { ranks, weights, slots: content.to_vec(), counts }
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

    #[test]
    fn an_expert_that_was_lost_takes_the_slot_of_a_copy_and_everything_else_stays() {
        let ranks = Ranks::new(&[2, 2, 0], &[1.0; 3]);
        let content = [vec![0, 1], vec![0, 1], vec![]];
        let slots = fit(&ranks, &[4.0, 3.0, 2.0], &content);
        assert!((0..3).all(|expert| slots.contains(&expert)), "{slots:?}");
        let held = content.concat();
        assert_eq!((slots.len(), slots.iter().zip(&held).filter(|(now, before)| now != before).count()), (4, 1));
    }

    #[test]
    fn a_rank_that_returned_gets_copies_of_what_carries_most() {
        let ranks = Ranks::new(&[2, 2], &[1.0; 2]);
        assert_eq!(fit(&ranks, &[9.0, 1.0, 5.0], &[vec![1, 2], vec![]]), [1, 2, 0, 2]);
    }
}
