//! As many copies of each expert as coverage asks for. Knows nothing of what a placement is made from.

use super::packing::Packing;
use super::ranks::Ranks;

/// The slots with `least` copies of each expert, which there are slots for.
pub(in crate::balance) fn covered(ranks: &Ranks, weights: &[f64], slots: &[u16], least: usize) -> Vec<u16> {
    let mut packing = Packing::new(ranks, weights, slots, least);
    cover(&mut packing, least);
    packing.into_slots()
}

/// Gives copies to experts that have fewer than `least`, as far as others have copies to spare: one of those has more
/// copies, so one of its ranks lacks the expert.
pub(in crate::balance) fn cover(packing: &mut Packing<'_>, least: usize) {
    for expert in 0..packing.experts() {
        while packing.count(expert) < least {
            let Some((rank, old)) = spare_slot(packing, expert, f64::INFINITY) else { break };
            packing.replace(rank, old, expert);
        }
    }
}

/// (rank, expert): the copy, of an expert that has one to spare and whose copies carry less than `limit` without it, that
/// is missed least, on the lowest of the ranks that lack `new`.
pub(in crate::balance) fn spare_slot(packing: &Packing<'_>, new: usize, limit: f64) -> Option<(usize, usize)> {
    let mut best: Option<(f64, f64, usize, usize)> = None;
    for old in packing.spare().iter().map(|&old| usize::from(old)).filter(|&old| old != new) {
        let without = packing.load_with(old, packing.count(old) - 1);
        if without >= limit {
            continue;
        }
        for rank in packing.holders(old).filter(|&rank| !packing.holds(rank, new)) {
            let level = packing.level(rank);
            if best.is_none_or(|best| (without, level) < (best.0, best.1)) {
                best = Some((without, level, rank, old));
            }
        }
    }
    best.map(|(_, _, rank, old)| (rank, old))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{copies, layers, moved};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn covering_moves_a_page_for_each_copy_that_is_missing(layer in layers()) {
            let before = copies(&layer.ranks, layer.weights.len(), &layer.slots).unwrap_or_default();
            let covered = covered(&layer.ranks, &layer.weights, &layer.slots, layer.least);
            let after = copies(&layer.ranks, layer.weights.len(), &covered).unwrap_or_default();
            prop_assert!(after.iter().all(|&count| count >= layer.least), "{after:?} of {}", layer.least);
            let missing: usize = before.iter().map(|&count| layer.least.saturating_sub(count)).sum();
            prop_assert_eq!(moved(&layer.ranks, &layer.slots, &covered), missing);
        }
    }
}
