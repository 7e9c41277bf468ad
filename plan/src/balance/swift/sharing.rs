//! The ranks' loads of one layer when copies share as suits best, kept current while experts come and go. Knows nothing of
//! slots, or of what a change costs.

use super::ranks::Ranks;
use crate::shares::{self, Copy};

/// Which ranks hold which experts of a layer, and the shares that level them.
#[derive(Clone, Debug)]
pub(super) struct Sharing<'a> {
    weights: &'a [f64],
    /// Of each rank.
    speeds: Vec<f64>,
    loads: Vec<f64>,
    /// The copies of each expert; their first number has no meaning here.
    copies: Vec<Vec<Copy>>,
    /// Experts with several copies, those that became so last at the end.
    shared: Vec<u16>,
    /// Experts with a copy that came or went since this was equal to another.
    changed: Vec<u16>,
    /// A pass that moves no rank's load by more is the last.
    still: f64,
    /// How far off the weights are taken to be.
    uncertainty: f64,
    levels: Vec<(f64, f64)>,
}

impl<'a> Sharing<'a> {
    /// The experts in the slots of these ranks, rank by rank. Copies share evenly at first.
    pub(super) fn new(ranks: &Ranks, weights: &'a [f64], slots: &[u16]) -> Self {
        let mut copies = vec![Vec::new(); weights.len()];
        for rank in 0..ranks.len() {
            for &expert in &slots[ranks.slots(rank)] {
                copies[usize::from(expert)].push((0, rank, 0.0));
            }
        }
        let mut loads = vec![0.0; ranks.len()];
        for (copies, weight) in copies.iter_mut().zip(weights) {
            let even = 1.0 / copies.len() as f64;
            for (_, rank, share) in copies {
                *share = even;
                loads[*rank] += weight * even;
            }
        }
        let shared = (0..weights.len()).filter(|&expert| copies[expert].len() > 1).map(|expert| expert as u16);
        Self {
            weights,
            speeds: ranks.speeds(),
            shared: shared.collect(),
            still: ranks.tuning().still * loads.iter().sum::<f64>() / ranks.open() as f64,
            uncertainty: ranks.tuning().least_uncertainty,
            loads,
            copies,
            changed: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// Becomes equal to another that it was equal to before one of the two changed.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.loads.copy_from_slice(&other.loads);
        let changed = std::mem::take(&mut self.changed);
        for &expert in changed.iter().chain(&other.changed).chain(&other.shared) {
            self.copies[usize::from(expert)].clone_from(&other.copies[usize::from(expert)]);
        }
        self.shared.clone_from(&other.shared);
    }

    /// Number of ranks.
    pub(super) const fn ranks(&self) -> usize {
        self.speeds.len()
    }

    /// The time that a rank takes.
    pub(super) fn level(&self, rank: usize) -> f64 {
        self.loads[rank] / self.speeds[rank]
    }

    pub(super) fn speed(&self, rank: usize) -> f64 {
        self.speeds[rank]
    }

    /// The copies of an expert: rank and share of each.
    pub(super) fn copies(&self, expert: usize) -> impl ExactSizeIterator<Item = (usize, f64)> + '_ {
        self.copies[expert].iter().map(|&(_, rank, share)| (rank, share))
    }

    /// For each rank, the speed of all ranks that share load with it, itself included, at one remove or more: what one of
    /// them gains or loses all do.
    pub(super) fn speeds_of_groups(&self) -> Vec<f64> {
        let mut groups = Groups((0..self.speeds.len()).collect());
        for &expert in &self.shared {
            let mut tied = self.copies(expert.into()).filter(|&(_, share)| share > 0.0).map(|(rank, _)| rank);
            if let Some(first) = tied.next() {
                tied.for_each(|rank| groups.join(first, rank));
            }
        }
        let mut speeds = vec![0.0; self.speeds.len()];
        for rank in 0..self.speeds.len() {
            speeds[groups.of(rank)] += self.speeds[rank];
        }
        (0..self.speeds.len()).map(|rank| speeds[groups.of(rank)]).collect()
    }

    /// Takes an expert's copy off a rank. The others take over what it had.
    pub(super) fn remove(&mut self, rank: usize, expert: usize) {
        self.changed.push(expert as u16);
        let (copies, weight) = (&mut self.copies[expert], self.weights[expert]);
        let place = copies.iter().position(|&(_, holder, _)| holder == rank).expect("the rank holds the expert");
        let (_, _, gone) = copies.remove(place);
        self.loads[rank] -= weight * gone;
        let more = gone / copies.len() as f64;
        for (_, holder, share) in &mut *copies {
            *share += more;
            self.loads[*holder] += weight * more;
        }
        if copies.len() == 1 {
            self.shared.retain(|&other| usize::from(other) != expert);
        }
    }

    /// Gives a rank a copy of an expert that it lacks: with all tokens if there is no other, else with none until shares are
    /// levelled.
    pub(super) fn add(&mut self, rank: usize, expert: usize) {
        self.changed.push(expert as u16);
        let copies = &mut self.copies[expert];
        let share = if copies.is_empty() { 1.0 } else { 0.0 };
        copies.push((0, rank, share));
        self.loads[rank] += self.weights[expert] * share;
        if copies.len() == 2 {
            self.shared.push(expert as u16);
        }
    }

    /// Gives copies the shares that suit best, as far as that many passes get.
    pub(super) fn level_out(&mut self, passes: usize) {
        for _ in 0..passes {
            let mut moved = 0.0_f64;
            for expert in self.shared.iter().rev().map(|&expert| usize::from(expert)) {
                let (weight, copies) = (self.weights[expert], &mut self.copies[expert]);
                if weight > 0.0 {
                    let of_ranks = (&self.speeds[..], self.uncertainty);
                    moved = moved.max(shares::level(weight, copies, &mut self.loads, of_ranks, &mut self.levels));
                }
            }
            if moved <= self.still {
                break;
            }
        }
    }
}

/// Ranks that belong together: for each one that it belongs to.
struct Groups(Vec<usize>);

impl Groups {
    /// The rank that stands for a rank's group.
    fn of(&self, mut rank: usize) -> usize {
        while self.0[rank] != rank {
            rank = self.0[rank];
        }
        rank
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.of(a), self.of(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(sharing: &Sharing<'_>) -> Vec<f64> {
        (0..sharing.loads.len()).map(|rank| (sharing.level(rank) * 1000.0).round() / 1000.0).collect()
    }

    #[test]
    fn a_copy_that_comes_takes_load_and_leaves_it_to_the_others_when_it_goes() {
        let ranks = Ranks::new(&[2, 1, 1], &[1.0; 3]);
        let mut sharing = Sharing::new(&ranks, &[6.0, 2.0, 1.0], &[0, 1, 0, 2]);
        sharing.level_out(9);
        // 8 tokens on two ranks, to within what keeps shares together.
        assert!(levels(&sharing).iter().zip([4.0, 4.0, 1.0]).all(|(found, level)| (found - level).abs() < 0.02));
        sharing.remove(2, 2);
        sharing.add(0, 2);
        sharing.remove(0, 1);
        sharing.add(2, 1);
        sharing.level_out(9);
        assert!(levels(&sharing).iter().zip([3.5, 3.5, 2.0]).all(|(found, level)| (found - level).abs() < 0.02));
        sharing.remove(1, 0);
        assert_eq!(levels(&sharing), [7.0, 0.0, 2.0]);
    }

    #[test]
    fn a_trial_is_undone_by_a_copy_of_what_it_began_as() {
        let ranks = Ranks::even(2, 2);
        let mut sharing = Sharing::new(&ranks, &[5.0, 2.0, 1.0], &[0, 1, 0, 2]);
        sharing.level_out(9);
        let mut trial = sharing.clone();
        trial.remove(1, 0);
        trial.add(1, 1);
        trial.level_out(9);
        assert_ne!(levels(&trial), levels(&sharing));
        trial.copy_from(&sharing);
        assert_eq!((&trial.copies, &trial.loads, &trial.shared), (&sharing.copies, &sharing.loads, &sharing.shared));
    }

    #[test]
    fn ranks_are_one_group_with_those_that_they_share_load_with() {
        let ranks = Ranks::new(&[2, 2, 1, 1], &[1.0, 2.0, 4.0, 8.0]);
        let sharing = Sharing::new(&ranks, &[1.0; 4], &[0, 1, 1, 2, 2, 3]);
        assert_eq!(sharing.speeds_of_groups(), [7.0, 7.0, 7.0, 8.0]);
    }
}
