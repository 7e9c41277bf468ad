//! What a group does at the end of a window: finds a target for the load, decides whether moving there is worth it, and says
//! which transactions lead there. The runtime acts on it, and a replay of recorded windows asks the same.

use thiserror::Error;

use crate::balance::{BalanceError, Plan, Policy, Request, balance_with};
use crate::coverage::Coverage;
use crate::expected::Expected;
use crate::load::{self, ExpertLoad};
use crate::map::ExpertMap;
use crate::moves::{MoveError, Transaction, best_first};
use crate::policy::{Case, Decision, History, Terms, decide_with};
use crate::shares;
use crate::topology::Topology;
use crate::tuning::Tuning;

/// What proposals are made by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// How targets are found.
    pub policy: Policy,
    /// As in [`Request::min_coverage`].
    pub min_coverage: Coverage,
    /// Staging pages of each rank.
    pub staging_pages: usize,
    /// What targets are measured by.
    pub terms: Terms,
}

/// A group at the end of a window.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The map in force.
    pub current: &'a ExpertMap,
    /// The windows that are remembered, the oldest first; at least one.
    pub windows: &'a [ExpertLoad],
    /// The ranks.
    pub topology: &'a Topology,
    /// What was decided before.
    pub history: History,
}

/// What to do, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Whether to move, and everything that decided it.
    pub decision: Decision,
    /// What to carry out, in this order; nothing unless the decision is to move.
    pub transactions: Vec<Transaction>,
}

/// Proposes what to do.
///
/// # Errors
/// If there is no window, no staging page, or windows, ranks and map do not fit each other.
pub fn propose(situation: &Situation<'_>, rules: &Rules) -> Result<Proposal, ProposalError> {
    propose_with(situation, rules, &Tuning::PRODUCT)
}

/// [`propose`] with other numbers than the product's.
pub(crate) fn propose_with(
    situation: &Situation<'_>,
    rules: &Rules,
    tuning: &Tuning,
) -> Result<Proposal, ProposalError> {
    let Situation { current, windows, topology, .. } = *situation;
    let windows = load::kept(windows, tuning);
    let last = windows.last().ok_or(BalanceError::NoWindow)?;
    // The published algorithm knows one load; the last window says more of the next one than their sum.
    let planned_from = if rules.policy == Policy::DeepSeek { std::slice::from_ref(last) } else { &*windows };
    let (policy, min_coverage) = (rules.policy, rules.min_coverage);
    let request = Request { policy, windows: planned_from, topology, current: Some(current), min_coverage };
    let Plan { map, expected, .. } = balance_with(&request, tuning)?;
    let proposal = judge_with(situation, (rules, tuning), &map, &expected)?;
    if proposal.decision.moves() || policy != Policy::Swift {
        return Ok(proposal);
    }
    // What is not worth its bytes may be had in part without any.
    let suited = shares::suit_with(current.clone(), &expected, topology, tuning);
    let free = judge_with(situation, (rules, tuning), &suited, &expected)?;
    Ok(if free.decision.moves() { free } else { proposal })
}

/// Judges whether to move to a target, however it was found, by what it was made for.
///
/// # Errors
/// As [`propose`], or if the target has another shape than the map in force.
pub fn judge(
    situation: &Situation<'_>,
    rules: &Rules,
    target: &ExpertMap,
    expected: &Expected,
) -> Result<Proposal, ProposalError> {
    judge_with(situation, (rules, &Tuning::PRODUCT), target, expected)
}

fn judge_with(
    situation: &Situation<'_>,
    (rules, tuning): (&Rules, &Tuning),
    target: &ExpertMap,
    expected: &Expected,
) -> Result<Proposal, ProposalError> {
    let Situation { current, topology, history, .. } = *situation;
    let mut transactions = best_first(current, target, expected, topology, rules.staging_pages)?;
    let case = Case { expected, current, topology, transactions: &transactions, min_coverage: rules.min_coverage };
    let decision = decide_with(&case, &rules.terms, history, tuning);
    transactions.truncate(if decision.moves() { decision.figures.transactions } else { 0 });
    Ok(Proposal { decision, transactions })
}

/// Why nothing can be proposed. Trying again with the same input does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposalError {
    /// No target can be found.
    #[error(transparent)]
    Balance(#[from] BalanceError),
    /// No transactions lead to the target.
    #[error(transparent)]
    Moves(#[from] MoveError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage;
    use crate::ids::ExpertId;
    use crate::map::MapShape;
    use crate::policy::Reason;

    fn map(ranks: usize, slots: &[u32]) -> ExpertMap {
        let shape = MapShape { layers: 1, experts: 4, ranks, slots_per_rank: slots.len() / ranks };
        ExpertMap::new(shape, slots.iter().copied().map(ExpertId).collect()).unwrap()
    }

    fn proposed(current: &ExpertMap, tokens: [u64; 4], rules: &Rules) -> Proposal {
        let windows = [ExpertLoad::from_rows(&[tokens.to_vec()]).unwrap()];
        let topology = Topology::single_node(current.shape().ranks, current.shape().slots_per_rank);
        let situation = Situation { current, windows: &windows, topology: &topology, history: History::default() };
        propose(&situation, rules).unwrap()
    }

    fn rules(minimum_gain: f64, ranks: usize) -> Rules {
        Rules {
            policy: Policy::Swift,
            min_coverage: Coverage { ranks, nodes: 0 },
            staging_pages: 1,
            terms: Terms { minimum_gain, ..Terms::usual(1000, 60.0) },
        }
    }

    fn after(current: &ExpertMap, proposal: &Proposal) -> ExpertMap {
        proposal.transactions.iter().fold(current.clone(), |map, transaction| map.apply(transaction).unwrap())
    }

    #[test]
    fn what_does_not_pay_its_bytes_is_had_in_part_by_shares() {
        // Ranks carry 50 + 60 and 50 + 10; moving a copy would gain more than shares, and too little.
        let current = map(2, &[0, 1, 2, 0, 3, 2]);
        let proposal = proposed(&current, [60, 60, 40, 10], &rules(0.9, 0));
        assert_eq!((proposal.decision.reason, proposal.decision.figures.bytes), (Reason::SharesOnly, 0));
        assert!(proposal.decision.figures.ratio_after > proposal.decision.figures.ratio_before);
    }

    #[test]
    fn nothing_moves_for_a_gain_that_is_too_small() {
        let proposal = proposed(&map(2, &[0, 1, 2, 3]), [52, 50, 50, 50], &rules(0.02, 0));
        assert!(!proposal.decision.moves() && proposal.transactions.is_empty(), "{proposal:?}");
    }

    #[test]
    fn copies_for_the_coverage_come_though_they_gain_nothing() {
        // Experts 0 and 1 have three copies each, 2 and 3 one: two of each fit.
        let current = map(4, &[0, 1, 0, 1, 0, 2, 1, 3]);
        let proposal = proposed(&current, [50; 4], &rules(0.9, 1));
        assert_eq!(proposal.decision.reason, Reason::Covers);
        let topology = Topology::single_node(4, 2);
        let uncovered = |map: &ExpertMap| coverage::uncovered(map, &topology, Coverage { ranks: 1, nodes: 0 });
        assert_eq!((uncovered(&current), uncovered(&after(&current, &proposal))), (2, 0));
        assert_ne!(proposed(&current, [50; 4], &rules(0.9, 0)).decision.reason, Reason::Covers);
    }
}
