//! What a group would have done over recorded windows: it decides at the end of each, with what it knows by then, and is
//! judged on the next, which it has not seen.

use crate::balance::BalanceError;
use crate::expected::Expected;
use crate::load::ExpertLoad;
use crate::map::ExpertMap;
use crate::policy::{Decision, History};
use crate::proposal::{Proposal, ProposalError, Rules, Situation, propose_with};
use crate::topology::Topology;
use crate::tuning::Tuning;

/// What is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// The windows, the oldest first.
    pub windows: &'a [ExpertLoad],
    /// The ranks.
    pub topology: &'a Topology,
    /// The placement before the first decision; the one that engines start with if there is none.
    pub start: Option<&'a ExpertMap>,
    /// The number of windows that are remembered, at least one.
    pub remembered: usize,
    /// What decisions are made by.
    pub rules: Rules,
}

/// What was done at the end of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decided {
    /// The window, from 0.
    pub window: usize,
    /// Whether to move, and why.
    pub decision: Decision,
    /// Balance ratio of the map that is then in force, on the window.
    pub seen: f64,
    /// Balance ratio of that map on the next window.
    pub next: f64,
    /// Pages that ranks receive.
    pub moved_slots: usize,
}

/// Decides at the end of every window but the last. Moves are made before the next window begins.
///
/// # Errors
/// If there are fewer than two windows, or windows, ranks and placement do not fit each other.
pub fn replay(request: &Replay<'_>) -> Result<Vec<Decided>, ProposalError> {
    replay_with(request, &Tuning::PRODUCT)
}

/// Replays with other numbers than the product's.
///
/// # Errors
/// As [`replay`].
pub fn replay_with(request: &Replay<'_>, tuning: &Tuning) -> Result<Vec<Decided>, ProposalError> {
    let Replay { windows, topology, start, remembered, rules } = *request;
    let [first, _, ..] = windows else { return Err(BalanceError::NoWindow.into()) };
    let mut current = match start {
        Some(map) => map.clone(),
        None => ExpertMap::contiguous_on(first.layers(), first.experts(), topology.slots().clone())
            .map_err(BalanceError::from)?,
    };
    let (mut decided, mut moved_after) = (Vec::new(), None);
    for window in 0..windows.len() - 1 {
        let known = &windows[(window + 1).saturating_sub(remembered.max(1))..=window];
        let history = History { windows_since_move: moved_after.map(|moved: usize| (window - moved) as u64) };
        let situation = Situation { current: &current, windows: known, topology, history };
        let Proposal { decision, transactions } = propose_with(&situation, &rules, tuning)?;
        for transaction in &transactions {
            current.apply_in_place(transaction)?;
        }
        let moved_slots = if decision.moves() { decision.figures.pages as usize } else { 0 };
        if moved_slots > 0 {
            moved_after = Some(window);
        }
        let (seen, next) =
            (ratio(&current, &windows[window], topology), ratio(&current, &windows[window + 1], topology));
        decided.push(Decided { window, decision, seen, next, moved_slots });
    }
    Ok(decided)
}

/// The balance ratio that a map gives a load on ranks that may differ: the mean time of those with slots over that of the busiest,
/// both summed over layers.
///
/// # Panics
/// If the map is of another model or for other ranks.
#[must_use]
pub fn ratio(map: &ExpertMap, load: &ExpertLoad, topology: &Topology) -> f64 {
    Expected::known(load).ratio(map, topology)
}

/// Means over the decisions of a replay after the first, whose moves away from where engines start are made once; of the
/// first alone if there is no other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Averages {
    /// Of [`Decided::seen`].
    pub seen: f64,
    /// Of [`Decided::next`].
    pub next: f64,
    /// Of [`Decided::moved_slots`].
    pub moved_slots: f64,
}

/// See [`Averages`].
///
/// # Panics
/// If there is no decision.
#[must_use]
pub fn averages(decided: &[Decided]) -> Averages {
    let counted = if decided.len() > 1 { &decided[1..] } else { decided };
    assert!(!counted.is_empty(), "a replay has a decision");
    let mean = |of: fn(&Decided) -> f64| counted.iter().map(of).sum::<f64>() / counted.len() as f64;
    Averages {
        seen: mean(|decided| decided.seen),
        next: mean(|decided| decided.next),
        moved_slots: mean(|decided| decided.moved_slots as f64),
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "ratios of small whole numbers are exact")]
mod tests {
    use super::*;
    use crate::balance::Policy;
    use crate::coverage::Coverage;
    use crate::policy::{Reason, Terms};

    /// Two layers of four experts on two ranks, of which the named two are hot in each window.
    fn windows(hot: &[(usize, usize)]) -> Vec<ExpertLoad> {
        let row = |a: usize, b: usize| (0..4).map(|expert| if expert == a || expert == b { 90 } else { 10 }).collect();
        hot.iter().map(|&(a, b)| ExpertLoad::from_rows(&[row(a, b), row(b, a)]).unwrap()).collect()
    }

    /// 0 and 1 begin on rank 0: 180 and 20 while both are hot, 100 and 100 while 0 and 2 are.
    const HOT: [(usize, usize); 4] = [(0, 1), (0, 1), (2, 3), (0, 2)];

    const TERMS: Terms = Terms::usual(1000, 10.0);

    fn of(
        policy: Policy,
        terms: Terms,
        windows: &[ExpertLoad],
        remembered: usize,
    ) -> Result<Vec<Decided>, ProposalError> {
        let topology = Topology::single_node(2, 2);
        let rules = Rules { policy, min_coverage: Coverage::default(), staging_pages: 2, terms };
        replay(&Replay { windows, topology: &topology, start: None, remembered, rules })
    }

    fn reasons(terms: Terms, hot: &[(usize, usize)]) -> Vec<Reason> {
        of(Policy::DeepSeek, terms, &windows(hot), 1).unwrap().iter().map(|decided| decided.decision.reason).collect()
    }

    #[test]
    fn a_policy_that_is_off_keeps_the_first_placement() {
        let decided = of(Policy::Off, TERMS, &windows(&HOT), 1).unwrap();
        assert!(decided.iter().all(|decided| decided.moved_slots == 0));
        assert!(decided.iter().all(|decided| decided.decision.reason == Reason::SamePlacement));
        let next: Vec<f64> = decided.iter().map(|decided| decided.next).collect();
        assert_eq!(next, [100.0 / 180.0, 100.0 / 180.0, 1.0]);
    }

    #[test]
    fn a_decision_is_judged_on_the_window_that_it_has_not_seen() {
        let decided = of(Policy::Swift, TERMS, &windows(&HOT), 1).unwrap();
        assert_eq!(decided.iter().map(|decided| decided.window).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(decided.iter().all(|decided| decided.seen == 1.0), "{decided:?}");
        assert!(decided[0].moved_slots > 0 && decided[1].moved_slots == 0, "{decided:?}");
        let average = averages(&decided);
        assert_eq!(average.next, f64::midpoint(decided[1].next, decided[2].next), "the first is left out");
        assert_eq!(averages(&decided[..1]).next, decided[0].next);
    }

    /// Each window makes two other experts hot that one rank then holds both of.
    const TURNING: [(usize, usize); 5] = [(0, 1), (0, 2), (0, 1), (0, 2), (0, 1)];

    #[test]
    fn what_is_not_worth_it_is_not_moved() {
        let dear = Terms { minimum_gain: 0.9, ..TERMS };
        assert!(reasons(dear, &TURNING).iter().all(|&reason| !reason.moves()));
        let decided = of(Policy::Swift, dear, &windows(&HOT), 1).unwrap();
        assert!(decided.iter().all(|decided| decided.moved_slots == 0), "{decided:?}");
        assert_eq!(decided[0].next, 100.0 / 180.0, "the map in force is judged, not the target");
    }

    #[test]
    fn a_move_cools_down_for_windows_that_are_counted_from_it() {
        // Whatever is moved for one window is wrong in the next.
        let eager = reasons(TERMS, &TURNING);
        assert_eq!(eager[..2], [Reason::WorthIt, Reason::WorthIt], "{eager:?}");
        let cooling = reasons(Terms { cool_down: 2, ..TERMS }, &TURNING);
        assert_eq!(cooling[0], Reason::WorthIt);
        assert!(!cooling[1].moves() && !cooling[2].moves(), "{cooling:?}");
        assert_eq!(cooling.iter().filter(|&&reason| reason == Reason::CoolingDown).count(), 1, "{cooling:?}");
    }

    #[test]
    fn a_budget_bounds_what_each_window_moves() {
        let decided = of(Policy::Swift, Terms { byte_budget: Some(2000), ..TERMS }, &windows(&[(0, 1); 4]), 1).unwrap();
        let moved: Vec<usize> = decided.iter().map(|decided| decided.moved_slots).collect();
        assert!(moved.iter().all(|&moved| moved <= 2), "{moved:?}");
        assert_eq!(decided[0].decision.reason, Reason::CutToBudget);
        assert!(decided[0].seen < 1.0, "half of the layers are level");
    }

    #[test]
    fn fewer_than_two_windows_are_refused() {
        let refused = Err(BalanceError::NoWindow.into());
        assert_eq!(of(Policy::Swift, TERMS, &windows(&HOT[..1]), 4), refused);
        assert_eq!(of(Policy::Swift, TERMS, &[], 1), refused);
        assert_eq!(of(Policy::Swift, TERMS, &windows(&HOT[..2]), 4).unwrap().len(), 1);
    }
}
