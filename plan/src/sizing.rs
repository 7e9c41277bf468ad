//! How many redundant experts a recorded load is worth: the balance ratio against redundancy, what it takes of memory, and
//! which one pays.

use thiserror::Error;

use crate::balance::{BalanceError, Policy, Request, balance};
use crate::bound;
use crate::coverage::Coverage;
use crate::load::{ExpertLoad, total};
use crate::map::{MapError, MapShape};
use crate::replay::ratio;
use crate::slots::RankSlots;
use crate::topology::{Topology, TopologyError};
use crate::words::counted;

/// What is to be sized.
#[derive(Clone, Copy, Debug)]
pub struct Sizing<'a> {
    /// How placements are found.
    pub policy: Policy,
    /// The recorded windows, the oldest first; at least one.
    pub windows: &'a [ExpertLoad],
    /// The ranks; the slots that they have are no matter.
    pub topology: &'a Topology,
    /// The largest redundancy that is tried.
    pub max_redundancy: usize,
    /// As in [`Request::min_coverage`].
    pub min_coverage: Coverage,
}

/// What one redundancy gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Physical experts of each layer beyond one copy of each.
    pub redundancy: usize,
    /// Slots of each rank and layer.
    pub slots_per_rank: usize,
    /// Balance ratio on the windows that the placement was planned from.
    pub seen: f64,
    /// Mean balance ratio on the windows after them, if there are any.
    pub unseen: Option<f64>,
    /// How far the busiest rank is above the best possible, mean over layers, on the windows seen.
    pub excess: f64,
    /// Experts that a loss which `min_coverage` names could take away.
    pub uncovered: usize,
}

impl Size {
    /// The ratio to judge by: on windows that the plan has not seen, where there are such.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.unseen.unwrap_or(self.seen)
    }
}

impl Sizing<'_> {
    /// Every redundancy with which the physical experts divide by the ranks, from the least to the largest asked for, as far as
    /// a rank has no more slots than there are experts.
    ///
    /// # Errors
    /// If there is no window, or no redundancy is possible.
    pub fn redundancies(&self) -> Result<Vec<usize>, SizingError> {
        let Self { windows, topology, max_redundancy, .. } = *self;
        let experts = windows.first().ok_or(BalanceError::NoWindow)?.experts();
        let ranks = topology.ranks();
        let least = experts.next_multiple_of(ranks.max(1)) - experts;
        if least > max_redundancy {
            return Err(SizingError::NonePossible { experts, ranks, least, most: max_redundancy });
        }
        let most = max_redundancy.min((ranks * experts).saturating_sub(experts));
        Ok((least..=most.max(least)).step_by(ranks.max(1)).collect())
    }

    /// Plans for a redundancy. Of several windows the plan sees the first half, rounded up.
    ///
    /// # Errors
    /// If there is no window, or the redundancy is not possible.
    pub fn size(&self, redundancy: usize) -> Result<Size, SizingError> {
        let Self { policy, windows, topology, min_coverage, .. } = *self;
        let first = windows.first().ok_or(BalanceError::NoWindow)?;
        let (layers, experts, ranks) = (first.layers(), first.experts(), topology.ranks());
        let (seen, unseen) = windows.split_at(windows.len().div_ceil(2));
        let shape = MapShape::with_redundancy(layers, experts, ranks, redundancy)?;
        let topology = topology.clone().with_slots(RankSlots::even(ranks, shape.slots_per_rank))?;
        let plan = balance(&Request { policy, windows: seen, topology: &topology, current: None, min_coverage })?;
        let load = total(seen);
        let of_unseen: f64 = unseen.iter().map(|window| ratio(&plan.map, window, &topology)).sum();
        Ok(Size {
            redundancy,
            slots_per_rank: shape.slots_per_rank,
            seen: ratio(&plan.map, &load, &topology),
            unseen: (!unseen.is_empty()).then(|| of_unseen / unseen.len() as f64),
            excess: bound::excess(&plan.map, &load, &topology).iter().sum::<f64>() / layers as f64,
            uncovered: plan.uncovered,
        })
    }
}

/// Which size pays: the largest that makes the experts' part of a step shorter, than the last one that pays, by at least
/// `worth_per_slot` for each slot that a rank has more; the smallest if no other does. Of sizes in rising order; the time of
/// that part goes with 1 / ratio.
///
/// # Panics
/// If there is no size.
#[must_use]
pub fn worth_it(sizes: &[Size], worth_per_slot: f64) -> usize {
    assert!(!sizes.is_empty(), "there is a size");
    (1..sizes.len()).fold(0, |best, next| {
        let (smaller, larger) = (&sizes[best], &sizes[next]);
        let saved = 1.0 - smaller.ratio() / larger.ratio();
        let slots = larger.slots_per_rank - smaller.slots_per_rank;
        if saved >= worth_per_slot * slots as f64 { next } else { best }
    })
}

/// Why nothing can be sized.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SizingError {
    /// No redundancy asked for lets the physical experts divide by the ranks.
    #[error(
        "for {} to divide by {} a redundancy of {least} or more is needed, and at most {most} is asked for",
        counted(*experts, "expert"),
        counted(*ranks, "rank")
    )]
    NonePossible {
        /// Logical experts of each layer.
        experts: usize,
        /// Ranks.
        ranks: usize,
        /// The least redundancy that is possible.
        least: usize,
        /// The largest asked for.
        most: usize,
    },
    /// The dimensions are impossible.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The ranks cannot be arranged so.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// No plan can be made.
    #[error(transparent)]
    Balance(#[from] BalanceError),
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "ratios of small whole numbers are exact")]
mod tests {
    use super::*;

    fn load() -> ExpertLoad {
        ExpertLoad::from_rows(&[vec![70, 10, 10, 10]]).unwrap()
    }

    fn sized(windows: &[ExpertLoad], ranks: usize, max_redundancy: usize) -> Result<Vec<Size>, SizingError> {
        let (policy, min_coverage, topology) = (Policy::Swift, Coverage::default(), Topology::single_node(ranks, 0));
        let sizing = Sizing { policy, windows, topology: &topology, max_redundancy, min_coverage };
        sizing.redundancies()?.into_iter().map(|redundancy| sizing.size(redundancy)).collect()
    }

    #[test]
    fn redundancies_are_those_that_divide_by_the_ranks() {
        let tried = |ranks, most| -> Vec<(usize, usize)> {
            sized(&[load()], ranks, most).unwrap().iter().map(|size| (size.redundancy, size.slots_per_rank)).collect()
        };
        assert_eq!(tried(2, 5), [(0, 2), (2, 3), (4, 4)], "a rank has no more slots than there are experts");
        assert_eq!(tried(2, 3), [(0, 2), (2, 3)]);
        assert_eq!(tried(3, 5), [(2, 2), (5, 3)]);
        let none = sized(&[load()], 3, 1).unwrap_err().to_string();
        assert_eq!(
            none,
            "for 4 experts to divide by 3 ranks a redundancy of 2 or more is needed, and at most 1 is asked for"
        );
    }

    #[test]
    fn a_hot_expert_is_divided_by_its_copies() {
        let sizes = sized(&[load()], 2, 4).unwrap();
        assert_eq!(sizes[0].seen, 50.0 / 80.0);
        assert!(sizes[1].seen > 0.8 && sizes[2].seen == 1.0, "{sizes:?}");
        assert!(sizes.iter().all(|size| size.unseen.is_none()));
    }

    #[test]
    fn of_several_windows_the_later_half_is_not_seen() {
        let turned = ExpertLoad::from_rows(&[vec![10, 10, 10, 70]]).unwrap();
        let sizes = sized(&[load(), load(), turned], 2, 0).unwrap();
        assert_eq!((sizes[0].seen, sizes[0].unseen), (50.0 / 80.0, Some(50.0 / 80.0)));
        assert_eq!(sizes[0].ratio(), 50.0 / 80.0);
    }

    #[test]
    fn a_size_pays_that_saves_enough_for_each_slot() {
        let size = |slots_per_rank, seen| Size {
            redundancy: slots_per_rank,
            slots_per_rank,
            seen,
            unseen: None,
            excess: 0.0,
            uncovered: 0,
        };
        // 0.5 to 0.8 saves 37.5 % with a slot more, 0.8 to 0.805 0.6 %, 0.8 to 0.9 11.1 % with three more.
        let sizes = [size(4, 0.5), size(5, 0.8), size(6, 0.805), size(8, 0.9)];
        assert_eq!(worth_it(&sizes, 0.01), 3, "a step that does not pay may lead to one that does");
        assert_eq!(worth_it(&sizes, 0.05), 1);
        assert_eq!(worth_it(&sizes, 0.5), 0);
        assert_eq!(worth_it(&sizes[..1], 0.0), 0);
    }
}
