//! What a policy would have done over recorded windows: plans at the end of each, judged on the next, which it has not seen.

use crate::balance::{BalanceError, Policy, Request, balance};
use crate::load::{ExpertLoad, balance_ratio, rank_loads};
use crate::map::ExpertMap;
use crate::moves::moved_slots;
use crate::topology::Topology;

/// What is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// How targets are found.
    pub policy: Policy,
    /// The windows, the oldest first.
    pub windows: &'a [ExpertLoad],
    /// The ranks.
    pub topology: &'a Topology,
    /// The placement before the first plan; the one that engines start with if there is none.
    pub start: Option<&'a ExpertMap>,
    /// The number of windows that a plan is made from, at least one; the first plan is made when there are as many.
    pub history: usize,
    /// As in [`Request::min_coverage`].
    pub min_coverage: usize,
}

/// One plan of a replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rebalance {
    /// The window at the end of which it is made, from 0.
    pub window: usize,
    /// Balance ratio of the plan on the windows that it was made from.
    pub seen: f64,
    /// Balance ratio of the plan on the next window.
    pub next: f64,
    /// Pages that ranks receive.
    pub moved_slots: usize,
}

/// Plans at the end of every window but the last. Every plan that moves something is moved to.
///
/// # Errors
/// If there are no windows for even one plan, or windows, ranks and placement do not fit each other.
pub fn replay(request: &Replay<'_>) -> Result<Vec<Rebalance>, BalanceError> {
    let Replay { policy, windows, topology, start, history, min_coverage } = *request;
    let history = history.max(1);
    let first = windows.first().ok_or(BalanceError::NoWindow)?;
    let mut current = match start {
        Some(map) => map.clone(),
        None => ExpertMap::contiguous_on(first.layers(), first.experts(), topology.slots().clone())?,
    };
    let mut rebalances = Vec::new();
    for end in history..windows.len() {
        let seen = &windows[end - history..end];
        let plan = balance(&Request { policy, windows: seen, topology, current: Some(&current), min_coverage })?.map;
        rebalances.push(Rebalance {
            window: end - 1,
            seen: ratio(&plan, &total(seen)),
            next: ratio(&plan, &windows[end]),
            moved_slots: moved_slots(&current, &plan).expect("a plan has the shape of the placement in force"),
        });
        current = plan;
    }
    if rebalances.is_empty() { Err(BalanceError::NoWindow) } else { Ok(rebalances) }
}

/// The balance ratio that a map gives a load.
#[must_use]
pub fn ratio(map: &ExpertMap, load: &ExpertLoad) -> f64 {
    balance_ratio(&rank_loads(map, load))
}

/// The sum of windows of one model.
///
/// # Panics
/// If there are none, or they are of different models.
#[must_use]
pub fn total(windows: &[ExpertLoad]) -> ExpertLoad {
    let (first, rest) = windows.split_first().expect("there is a window");
    rest.iter().fold(first.clone(), |mut total, window| {
        total.merge(window);
        total
    })
}

/// Means over the plans of a replay after the first, whose moves away from where engines start are made once; of the first
/// alone if there is no other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Averages {
    /// Of [`Rebalance::seen`].
    pub seen: f64,
    /// Of [`Rebalance::next`].
    pub next: f64,
    /// Of [`Rebalance::moved_slots`].
    pub moved_slots: f64,
}

/// See [`Averages`].
///
/// # Panics
/// If there is no plan.
#[must_use]
pub fn averages(rebalances: &[Rebalance]) -> Averages {
    let counted = if rebalances.len() > 1 { &rebalances[1..] } else { rebalances };
    assert!(!counted.is_empty(), "a replay has a plan");
    let mean = |of: fn(&Rebalance) -> f64| counted.iter().map(of).sum::<f64>() / counted.len() as f64;
    Averages {
        seen: mean(|rebalance| rebalance.seen),
        next: mean(|rebalance| rebalance.next),
        moved_slots: mean(|rebalance| rebalance.moved_slots as f64),
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "ratios of small whole numbers are exact")]
mod tests {
    use super::*;

    /// Two layers of four experts on two ranks, of which another two are hot in each window.
    fn windows() -> Vec<ExpertLoad> {
        let hot = |a: usize, b: usize| (0..4).map(|expert| if expert == a || expert == b { 90 } else { 10 }).collect();
        [(0, 1), (0, 1), (2, 3), (0, 2)].map(|(a, b)| ExpertLoad::from_rows(&[hot(a, b), hot(b, a)]).unwrap()).to_vec()
    }

    fn of(policy: Policy, windows: &[ExpertLoad], history: usize) -> Result<Vec<Rebalance>, BalanceError> {
        let topology = Topology::single_node(2, 2);
        replay(&Replay { policy, windows, topology: &topology, start: None, history, min_coverage: 0 })
    }

    #[test]
    fn a_policy_that_is_off_keeps_the_first_placement() {
        let rebalances = of(Policy::Off, &windows(), 1).unwrap();
        assert_eq!(rebalances.len(), 3);
        assert!(rebalances.iter().all(|rebalance| rebalance.moved_slots == 0));
        // 0 and 1 are on rank 0, 2 and 3 on rank 1: 180 and 20 while 0 and 1 are hot, 100 and 100 while 0 and 2 are.
        let next: Vec<f64> = rebalances.iter().map(|rebalance| rebalance.next).collect();
        assert_eq!(next, [100.0 / 180.0, 100.0 / 180.0, 1.0]);
    }

    #[test]
    fn a_plan_is_judged_on_the_window_that_it_has_not_seen() {
        let rebalances = of(Policy::Swift, &windows(), 1).unwrap();
        assert_eq!(rebalances.iter().map(|rebalance| rebalance.window).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(rebalances.iter().all(|rebalance| rebalance.seen == 1.0), "{rebalances:?}");
        assert!(rebalances[0].moved_slots > 0 && rebalances[1].moved_slots == 0, "{rebalances:?}");
        let average = averages(&rebalances);
        let expected = f64::midpoint(rebalances[1].next, rebalances[2].next);
        assert_eq!(average.next, expected, "the first is left out");
    }

    #[test]
    fn too_few_windows_are_refused() {
        assert_eq!(of(Policy::Swift, &windows(), 4), Err(BalanceError::NoWindow));
        assert_eq!(of(Policy::Swift, &[], 1), Err(BalanceError::NoWindow));
        assert_eq!(of(Policy::Swift, &windows(), 3).unwrap().len(), 1);
        assert_eq!(averages(&of(Policy::Off, &windows(), 3).unwrap()).moved_slots, 0.0);
    }
}
