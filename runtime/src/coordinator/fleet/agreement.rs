//! What ranks say of the pages they hold, compared: every holder of an expert must have the same bytes of it. Pure.
//!
//! What was agreed upon stays known while a process of the group that agreed is still there. Where nothing is known the
//! majority of an expert's holders is right; where there is none, nobody is.

use std::collections::{BTreeMap, BTreeSet};

use plan::ids::{ExpertId, LayerId, RankId};

use crate::protocol::ProcessId;

/// What a group agreed upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    /// Fingerprints of every expert's page, `[layers, experts]`; none of one that nobody holds.
    pub fingerprints: Vec<Option<u128>>,
    /// The processes that were there.
    processes: BTreeSet<ProcessId>,
}

/// What a rank says of its pages.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    /// Its process.
    pub process: ProcessId,
    /// Of its slots, `[layers, slots_per_rank]`.
    pub fingerprints: Vec<u128>,
}

/// Compares what every rank, `[ranks]`, says of the pages that `placement`, `[layers][ranks][slots]`, gives it.
///
/// # Errors
/// If ranks hold other bytes than the rest: which, and why.
///
/// # Panics
/// If a rank says something of more or fewer pages than it has slots.
pub(super) fn agree(
    placement: &[Vec<Vec<u32>>],
    experts: usize,
    holdings: &[Holding],
    before: Option<&Agreement>,
) -> Result<Agreement, BTreeMap<RankId, String>> {
    let is_known =
        |agreement: &&Agreement| holdings.iter().any(|holding| agreement.processes.contains(&holding.process));
    let known = before.filter(is_known);
    let (mut agreed, mut wrong) = (Vec::with_capacity(placement.len() * experts), BTreeMap::new());
    for (layer, ranks) in placement.iter().enumerate() {
        let mut holders: Vec<Vec<(RankId, u128)>> = vec![Vec::new(); experts];
        for (rank, (slots, holding)) in ranks.iter().zip(holdings).enumerate() {
            let of_layer = &holding.fingerprints[layer * slots.len()..][..slots.len()];
            for (&expert, &fingerprint) in slots.iter().zip(of_layer) {
                holders[expert as usize].push((rank.into(), fingerprint));
            }
        }
        for (expert, holders) in holders.iter().enumerate() {
            let right =
                known.and_then(|known| known.fingerprints[layer * experts + expert]).or_else(|| majority(holders));
            agreed.push(right);
            for &(rank, _) in holders.iter().filter(|(_, fingerprint)| Some(*fingerprint) != right) {
                let (layer, expert): (LayerId, ExpertId) = (layer.into(), expert.into());
                wrong.entry(rank).or_insert_with(|| {
                    let others = holders.iter().map(|(other, _)| other).filter(|&&other| other != rank);
                    let others: Vec<String> = others.take(4).map(RankId::to_string).collect();
                    let others = if others.is_empty() { "the group before".to_owned() } else { others.join(", ") };
                    format!(
                        "{rank} holds other weights of {layer}, {expert} than {others}; give every rank the same checkpoint"
                    )
                });
            }
        }
    }
    if wrong.is_empty() {
        let processes = holdings.iter().map(|holding| holding.process).collect();
        Ok(Agreement { fingerprints: agreed, processes })
    } else {
        Err(wrong)
    }
}

/// What more than half of the holders say.
fn majority(holders: &[(RankId, u128)]) -> Option<u128> {
    let count = |wanted: u128| holders.iter().filter(|(_, fingerprint)| *fingerprint == wanted).count();
    holders.iter().map(|&(_, fingerprint)| fingerprint).find(|&fingerprint| count(fingerprint) * 2 > holders.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three ranks, one layer, four experts: expert 0 on all, 1 on ranks 0 and 1, 2 and 3 on rank 2.
    fn placement() -> Vec<Vec<Vec<u32>>> {
        vec![vec![vec![0, 1], vec![1, 0], vec![0, 2]], vec![vec![3, 0], vec![2, 1], vec![1, 3]]]
    }

    /// Each expert's fingerprint is its layer and number, but for what `change` makes of it.
    fn holdings(first_process: u128, change: impl Fn(usize, usize, u32) -> u128) -> Vec<Holding> {
        holdings_of(&placement(), first_process, change)
    }

    fn holdings_of(
        placement: &[Vec<Vec<u32>>],
        first_process: u128,
        change: impl Fn(usize, usize, u32) -> u128,
    ) -> Vec<Holding> {
        let of_rank = |rank: usize| {
            let slots = placement.iter().cloned().enumerate().flat_map(|(layer, ranks)| {
                ranks[rank].iter().map(|&expert| change(layer, rank, expert)).collect::<Vec<_>>()
            });
            Holding { process: ProcessId(first_process + rank as u128), fingerprints: slots.collect() }
        };
        (0..3).map(of_rank).collect()
    }

    fn right(layer: usize, _rank: usize, expert: u32) -> u128 {
        (layer * 100) as u128 + u128::from(expert) + 1
    }

    fn wrong_ranks(holdings: &[Holding], before: Option<&Agreement>) -> BTreeMap<RankId, String> {
        agree(&placement(), 4, holdings, before).unwrap_err()
    }

    #[test]
    fn ranks_that_hold_the_same_agree_on_every_expert() {
        let agreed = agree(&placement(), 4, &holdings(1, right), None).unwrap();
        // Nobody holds expert 3 of layer 0.
        let expected = [Some(1), Some(2), Some(3), None, Some(101), Some(102), Some(103), Some(104)];
        assert_eq!(agreed.fingerprints, expected);
        // Whoever holds it later, beside those who were there, is the first to say what it is.
        let mut later = placement();
        later[0][2] = vec![0, 3];
        let after = agree(&later, 4, &holdings_of(&later, 1, right), Some(&agreed)).unwrap();
        assert_eq!(after.fingerprints[2..4], [Some(3), Some(4)]);
    }

    #[test]
    fn a_rank_that_differs_from_the_majority_is_named_with_layer_and_expert() {
        let differs =
            |layer, rank, expert| if (layer, rank, expert) == (0, 1, 0) { 77 } else { right(layer, rank, expert) };
        let wrong = wrong_ranks(&holdings(1, differs), None);
        assert_eq!(wrong.len(), 1);
        let reason = &wrong[&RankId(1)];
        assert!(reason.contains("layer 0") && reason.contains("expert 0 than rank 0, rank 2"), "{reason}");
    }

    #[test]
    fn where_there_is_no_majority_nobody_is_right() {
        let differs =
            |layer, rank, expert| if (layer, rank, expert) == (0, 0, 1) { 77 } else { right(layer, rank, expert) };
        let wrong = wrong_ranks(&holdings(1, differs), None);
        assert_eq!(wrong.into_keys().collect::<Vec<_>>(), [RankId(0), RankId(1)]);
    }

    #[test]
    fn what_is_known_goes_before_any_majority_while_somebody_is_there_who_knows() {
        let known = agree(&placement(), 4, &holdings(1, right), None).unwrap();
        let other = |layer, rank, expert| right(layer, rank, expert) + u128::from(rank > 0);
        let mut later = holdings(10, other);
        later[0].process = ProcessId(1);
        let wrong = wrong_ranks(&later, Some(&known));
        assert_eq!(wrong.keys().collect::<Vec<_>>(), [&RankId(1), &RankId(2)]);
        // Expert 2 of layer 0 is held by one rank alone: a majority of itself, but not what it was.
        let changed = |layer, rank, expert| if (layer, expert) == (0, 2) { 77 } else { right(layer, rank, expert) };
        let mut later = holdings(10, changed);
        later[0].process = ProcessId(1);
        let reason = &wrong_ranks(&later, Some(&known))[&RankId(2)];
        assert!(reason.contains("expert 2 than the group before"), "{reason}");
        // A group of new processes alone may serve a new checkpoint.
        assert!(agree(&placement(), 4, &holdings(20, changed), Some(&known)).is_ok());
    }
}
