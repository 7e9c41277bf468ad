//! Local search on the balance ratio itself, over windows that could have been. Exchanges copies only: how many copies
//! each expert has is decided before.

use std::cmp::Reverse;

use super::lanes::{self, LANES, Rows};
use super::placement::Placement;

/// The levels of a placement's ranks in each window and the busiest of them.
#[derive(Debug)]
pub(super) struct Polish<'a, 'r> {
    loads: &'a Rows,
    windows: usize,
    placement: Placement<'r>,
    /// Of each rank.
    levels: Rows,
    /// Levels of the three busiest ranks in each window, and which the first two are.
    tops: [Vec<f32>; 3],
    busiest: [Vec<u32>; 2],
    /// The windows in which each rank is the busiest.
    led: Vec<Vec<u32>>,
    /// What a unit of the busiest rank's level takes off the ratio of the window.
    weights: Vec<f32>,
}

impl<'a, 'r> Polish<'a, 'r> {
    /// `loads` are those of each expert in the windows; a rank of speed 1 has a mean load of 1 in each.
    pub(super) fn new(loads: &'a Rows, windows: usize, placement: Placement<'r>) -> Self {
        let (ranks, width) = (placement.ranks().len(), loads.width());
        let mut polish = Self {
            loads,
            windows,
            levels: Rows::zeros(ranks, windows),
            tops: std::array::from_fn(|_| vec![0.0; width]),
            busiest: std::array::from_fn(|_| vec![0; width]),
            led: vec![Vec::new(); ranks],
            weights: vec![0.0; width],
            placement,
        };
        for rank in 0..ranks {
            polish.add_up(rank);
        }
        polish.order();
        polish
    }

    pub(super) fn into_placement(self) -> Placement<'r> {
        self.placement
    }

    /// Mean over the windows of mean level / highest level.
    pub(super) fn ratio(&self) -> f64 {
        let ratios = self.tops[0][..self.windows].iter().map(|&top| if top > 0.0 { 1.0 / f64::from(top) } else { 1.0 });
        ratios.sum::<f64>() / self.windows as f64
    }

    /// Makes exchanges that take load off the ranks that cost most, until none is worth `worth` of the ratio for each
    /// of the two pages that it moves.
    pub(super) fn improve(&mut self, worth: f32) {
        let limit = 2.0 * worth * self.windows as f32;
        // Ranks for which there was no exchange: the others come first.
        let mut settled = vec![false; self.placement.ranks().len()];
        // Every step raises the ratio, so this ends anyway; rounding decides when.
        for _ in 0..4 * self.placement.len() {
            let costs = self.costs();
            let mut ranks: Vec<usize> = (0..costs.len()).filter(|&rank| costs[rank] > 0.0).collect();
            ranks.sort_by(|&a, &b| costs[b].total_cmp(&costs[a]));
            ranks.truncate(self.placement.ranks().tuning().busiest_at_the_end);
            ranks.sort_by_key(|&rank| settled[rank]);
            let found = ranks.into_iter().find_map(|rank| {
                let exchange = self.exchange_for(rank, &costs, limit);
                settled[rank] = exchange.is_none();
                exchange
            });
            let Some((mine, theirs)) = found else { return };
            self.placement.exchange(mine, theirs);
            for slot in [mine, theirs] {
                self.add_up(self.placement.rank(slot));
            }
            self.order();
        }
    }

    /// The level of a rank in each window.
    fn add_up(&mut self, rank: usize) {
        let pace = self.placement.ranks().pace(rank) as f32;
        let row = self.levels.row_mut(rank);
        row.fill(0.0);
        for slot in self.placement.slots_of(rank) {
            let expert = self.placement.expert(slot);
            let per_copy = pace / self.placement.count(expert) as f32;
            row.iter_mut().zip(self.loads.row(expert)).for_each(|(level, load)| *level += load * per_copy);
        }
    }

    /// The busiest ranks of each window, and what follows.
    fn order(&mut self) {
        self.tops.iter_mut().for_each(|top| top.fill(-1.0));
        let ([first, second, third], [who_first, who_second]) = (&mut self.tops, &mut self.busiest);
        for (rank, levels) in self.levels.iter().enumerate() {
            let tops = first.iter_mut().zip(second.iter_mut()).zip(third.iter_mut());
            let names = who_first.iter_mut().zip(who_second.iter_mut());
            for ((((first, second), third), (who_first, who_second)), &level) in tops.zip(names).zip(levels) {
                let (over_first, over_second) = (level > *first, level > *second);
                *third = if over_second { *second } else { lanes::larger(level, *third) };
                *who_second = if over_first {
                    *who_first
                } else if over_second {
                    rank as u32
                } else {
                    *who_second
                };
                *second = if over_first { *first } else { lanes::larger(level, *second) };
                *who_first = if over_first { rank as u32 } else { *who_first };
                *first = lanes::larger(level, *first);
            }
        }
        self.led.iter_mut().for_each(Vec::clear);
        for window in 0..self.windows {
            self.led[self.busiest[0][window] as usize].push(window as u32);
            // The ratio is 1 / top; its derivative is -1 / top^2.
            let top = self.tops[0][window];
            self.weights[window] = if top > 0.0 { 1.0 / (top * top) } else { 0.0 };
        }
    }

    /// What each rank costs: how far it is above the second in the windows in which it is the busiest.
    fn costs(&self) -> Vec<f32> {
        let cost = |&window: &u32| {
            let window = window as usize;
            self.weights[window] * (self.tops[0][window] - self.tops[1][window])
        };
        self.led.iter().map(|windows| windows.iter().map(cost).sum()).collect()
    }

    /// An exchange for a slot of a rank that lowers the weighted levels of the busiest ranks by more than `limit`.
    ///
    /// Only in windows in which one of its two ranks is the busiest has an exchange something to gain: at most what it
    /// takes off that rank there, and at most what the rank costs. The first in the order of this bound is taken; to look
    /// for the best takes longer and leads no further.
    fn exchange_for(&self, rank: usize, costs: &[f32], limit: f32) -> Option<(usize, usize)> {
        let mut promising: Vec<(Reverse<u32>, u32, u32)> = Vec::new();
        let mine: Vec<(usize, f32)> = self.placement.slots_of(rank).map(|slot| (slot, self.felt(slot, rank))).collect();
        for other in (0..costs.len()).filter(|&other| other != rank) {
            let theirs = self.placement.slots_of(other);
            let theirs: Vec<(usize, f32, f32)> =
                theirs.map(|slot| (slot, self.felt(slot, rank), self.felt(slot, other))).collect();
            for &(mine, mine_here) in &mine {
                let mine_there = self.felt(mine, other);
                for &(theirs, theirs_here, theirs_there) in &theirs {
                    let here = (mine_here - theirs_here).min(costs[rank]);
                    let bound = here + (theirs_there - mine_there).min(costs[other]);
                    if bound > limit && self.placement.exchangeable(mine, theirs) {
                        // Positive numbers are in the order of their bits.
                        promising.push((Reverse(bound.to_bits()), mine as u32, theirs as u32));
                    }
                }
            }
        }
        let mut others = vec![Vec::new(); costs.len()];
        let looks = self.placement.ranks().tuning().exchanges_at_the_end;
        if promising.len() > looks {
            promising.select_nth_unstable(looks);
            promising.truncate(looks);
        }
        promising.sort_unstable();
        for (Reverse(bound), mine, theirs) in promising {
            let (mine, theirs) = (mine as usize, theirs as usize);
            let other = self.placement.rank(theirs);
            if others[other].is_empty() {
                others[other] = self.highest_but(rank, other);
            }
            if self.gain(mine, theirs, &others[other], f32::from_bits(bound) - limit) > limit {
                return Some((mine, theirs));
            }
        }
        None
    }

    /// The weighted load of a slot's copy in the windows in which a rank is the busiest, in that rank's time.
    fn felt(&self, slot: usize, rank: usize) -> f32 {
        let expert = self.placement.expert(slot);
        let row = self.loads.row(expert);
        let felt: f32 = self.led[rank].iter().map(|&window| self.weights[window as usize] * row[window as usize]).sum();
        felt * self.placement.ranks().pace(rank) as f32 / self.placement.count(expert) as f32
    }

    /// The highest level of all ranks but two in each window.
    fn highest_but(&self, a: usize, b: usize) -> Vec<f32> {
        let ([first, second, third], [who_first, who_second]) = (&self.tops, &self.busiest);
        let (a, b) = (a as u32, b as u32);
        let tops = first.iter().zip(second).zip(third).zip(who_first.iter().zip(who_second));
        tops.map(|(((&first, &second), &third), (&who_first, &who_second))| {
            let next = if [a, b].contains(&who_second) { third } else { second };
            if [a, b].contains(&who_first) { next } else { first }
        })
        .collect()
    }

    /// How much an exchange lowers the weighted levels of the busiest ranks, or 0 as soon as windows in which it raises
    /// them outweigh `most`. `others` are the highest levels of the ranks but the two.
    fn gain(&self, mine: usize, theirs: usize, others: &[f32], most: f32) -> f32 {
        /// Lanes between two looks at what is lost, which changes no plan.
        const STRETCH: usize = 4;
        let side = |slot: usize| {
            let (rank, expert) = (self.placement.rank(slot), self.placement.expert(slot));
            let per_copy = 1.0 / self.placement.count(expert) as f32;
            let pace = self.placement.ranks().pace(rank) as f32;
            (lanes::lanes(self.loads.row(expert)), per_copy, lanes::lanes(self.levels.row(rank)), pace)
        };
        let ((loads_a, copy_a, levels_a, pace_a), (loads_b, copy_b, levels_b, pace_b)) = (side(mine), side(theirs));
        let tops = lanes::lanes(others).iter().zip(lanes::lanes(&self.tops[0])).zip(lanes::lanes(&self.weights));
        let rows = loads_a.iter().zip(loads_b).zip(levels_a.iter().zip(levels_b)).zip(tops);
        let (mut gained, mut lost) = ([0.0; LANES], [0.0; LANES]);
        for (index, (((load_a, load_b), (level_a, level_b)), ((other, top), weight))) in rows.enumerate() {
            for lane in 0..LANES {
                let less = load_a[lane] * copy_a - load_b[lane] * copy_b;
                let pair = lanes::larger(level_a[lane] - less * pace_a, level_b[lane] + less * pace_b);
                let gain = weight[lane] * (top[lane] - lanes::larger(pair, other[lane]));
                gained[lane] += gain;
                lost[lane] += lanes::larger(-gain, 0.0);
            }
            if index % STRETCH == STRETCH - 1 && lanes::total(lost) >= most {
                return 0.0;
            }
        }
        lanes::total(gained)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ranks::Ranks;
    use super::super::fluctuations::Fluctuations;
    use super::super::resample::resample;
    use super::super::tests::{Bursty, dealt};
    use super::*;
    use crate::tuning::Tuning;

    fn loads() -> Rows {
        resample(&Fluctuations::estimate(&Bursty::default().windows(40), 10.0, &Tuning::PRODUCT).unwrap(), 10.0, 1, 1)
    }

    fn ranks() -> Ranks {
        Ranks::new(&[5; 8], &[1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 2.0, 1.0])
    }

    #[test]
    fn an_exchange_gains_what_was_promised_and_no_more_than_its_bound() {
        let (loads, ranks) = (loads(), ranks());
        let polish = Polish::new(&loads, 40, Placement::new(&ranks, 32, dealt(&ranks, 32)));
        let costs = polish.costs();
        for mine in 0..40 {
            for theirs in (0..mine).filter(|&theirs| polish.placement.exchangeable(mine, theirs)) {
                let (a, b) = (polish.placement.rank(mine), polish.placement.rank(theirs));
                let promised = polish.gain(mine, theirs, &polish.highest_but(a, b), f32::INFINITY);
                let mut placement = polish.placement.clone();
                placement.exchange(mine, theirs);
                let after = Polish::new(&loads, 40, placement);
                let found: f32 = (0..40)
                    .map(|window| polish.weights[window] * (polish.tops[0][window] - after.tops[0][window]))
                    .sum();
                assert!((promised - found).abs() < 1e-3, "{promised} {found}");
                let here = (polish.felt(mine, a) - polish.felt(theirs, a)).min(costs[a]);
                let there = (polish.felt(theirs, b) - polish.felt(mine, b)).min(costs[b]);
                assert!(found <= here + there + 1e-3, "{found} {here} {there}");
            }
        }
    }

    #[test]
    fn it_ends_with_a_higher_ratio() {
        let (loads, ranks) = (loads(), ranks());
        let mut polish = Polish::new(&loads, 40, Placement::new(&ranks, 32, dealt(&ranks, 32)));
        let before = polish.ratio();
        polish.improve(1e-5);
        assert!(polish.ratio() > before * 1.1, "{before} {}", polish.ratio());
        let anew = Polish::new(&loads, 40, polish.placement.clone());
        assert!((polish.ratio() - anew.ratio()).abs() < 1e-6);
    }
}
