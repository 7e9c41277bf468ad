use proptest::prelude::*;

use super::super::lowest::{exchange, improve};
use super::super::tests::{Layer, copies, layers, levels};
use super::*;

/// Less than this share of the busiest rank is no help.
const HELP: f64 = 1e-6;

fn top(levels: &[f64]) -> f64 {
    levels.iter().copied().fold(0.0, f64::max)
}

/// The slots with other experts in some of them.
fn with(slots: &[u16], changes: &[(usize, u16)]) -> Vec<u16> {
    let mut after = slots.to_vec();
    for &(slot, expert) in changes {
        after[slot] = expert;
    }
    after
}

/// The slots after each exchange between a rank and any other that breaks nothing, with the ranks that it touches.
fn exchanges(layer: &Layer, slots: &[u16], rank: usize) -> Vec<(Vec<u16>, Vec<usize>)> {
    let mut all = Vec::new();
    for other in (0..layer.ranks.len()).filter(|&other| other != rank) {
        for mine in layer.ranks.slots(rank) {
            for theirs in layer.ranks.slots(other) {
                let changed = with(slots, &[(mine, slots[theirs]), (theirs, slots[mine])]);
                if copies(&layer.ranks, layer.weights.len(), &changed).is_some() {
                    all.push((changed, vec![rank, other]));
                }
            }
        }
    }
    all
}

/// The same for every copy more, elsewhere, of an expert of a rank.
fn copies_more(layer: &Layer, slots: &[u16], rank: usize) -> Vec<(Vec<u16>, Vec<usize>)> {
    let of = copies(&layer.ranks, layer.weights.len(), slots).expect("the slots are valid");
    let mut all = Vec::new();
    for other in (0..layer.ranks.len()).filter(|&other| other != rank) {
        for &hot in &slots[layer.ranks.slots(rank)] {
            for slot in layer.ranks.slots(other).filter(|&slot| of[usize::from(slots[slot])] > layer.least) {
                let changed = with(slots, &[(slot, hot)]);
                if copies(&layer.ranks, layer.weights.len(), &changed).is_some() {
                    let holds = |rank: &usize| slots[layer.ranks.slots(*rank)].contains(&slots[slot]);
                    let mut touched: Vec<usize> = (0..layer.ranks.len()).filter(holds).collect();
                    touched.extend([rank, other]);
                    all.push((changed, touched));
                }
            }
        }
    }
    all
}

/// The same for every expert that may come to a rank instead of a copy to spare.
fn reliefs(layer: &Layer, slots: &[u16], rank: usize) -> Vec<(Vec<u16>, Vec<usize>)> {
    let of = copies(&layer.ranks, layer.weights.len(), slots).expect("the slots are valid");
    let mut all = Vec::new();
    for slot in layer.ranks.slots(rank).filter(|&slot| of[usize::from(slots[slot])] > layer.least) {
        for new in 0..layer.weights.len() as u16 {
            let changed = with(slots, &[(slot, new)]);
            if new != slots[slot] && copies(&layer.ranks, layer.weights.len(), &changed).is_some() {
                let holds = |rank: &usize| slots[layer.ranks.slots(*rank)].contains(&slots[slot]);
                all.push((changed, (0..layer.ranks.len()).filter(holds).collect()));
            }
        }
    }
    all
}

/// Of the changes the one after which the ranks that it touches take least, if that is less than the busiest takes now.
fn best(layer: &Layer, changes: Vec<(Vec<u16>, Vec<usize>)>, top: f64) -> Option<(f64, Vec<u16>)> {
    let level = |(slots, touched): (Vec<u16>, Vec<usize>)| {
        let levels = levels(&layer.ranks, &layer.weights, &slots);
        (touched.iter().map(|&rank| levels[rank]).fold(0.0, f64::max), slots)
    };
    let best = changes.into_iter().map(level).min_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 < top * (1.0 - HELP)).then_some(best)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_ends_where_no_single_change_helps_and_never_raises_the_busiest_rank(layer in layers()) {
        let mut packing = layer.packing();
        let before = packing.top();
        improve(&mut packing, 0.0, 0.0);
        let after = levels(&layer.ranks, &layer.weights, packing.slots());
        let found = copies(&layer.ranks, layer.weights.len(), packing.slots()).expect("the slots are valid");
        let given = copies(&layer.ranks, layer.weights.len(), &layer.slots).expect("the slots are valid");
        for (found, given) in found.iter().zip(given) {
            prop_assert!(*found >= given.min(layer.least), "{found} of {given} copies are left");
        }
        prop_assert!(top(&after) <= before * (1.0 + HELP), "{} from {before}", top(&after));
        let (slots, busiest) = (packing.slots(), packing.busiest());
        let exchange = best(&layer, exchanges(&layer, slots, busiest), top(&after));
        prop_assert!(exchange.is_none(), "{exchange:?} is better than {} of {slots:?}", top(&after));
        let copy = best(&layer, copies_more(&layer, slots, busiest), top(&after));
        prop_assert!(copy.is_none(), "{copy:?} is better than {} of {slots:?}", top(&after));
        let relief = best(&layer, reliefs(&layer, slots, busiest), top(&after));
        prop_assert!(relief.is_none(), "{relief:?} is better than {} of {slots:?}", top(&after));
    }

    #[test]
    fn an_exchange_is_the_best_there_is(layer in layers()) {
        let mut packing = layer.packing();
        let (busiest, before) = (packing.busiest(), packing.top());
        let expected = best(&layer, exchanges(&layer, packing.slots(), busiest), before);
        exchange(&mut packing, 0.0, 1);
        let after = levels(&layer.ranks, &layer.weights, packing.slots());
        let Some((level, slots)) = expected else {
            prop_assert!((top(&after) - before).abs() <= HELP * before);
            return Ok(());
        };
        // The ranks that are not touched may still be the busiest.
        let expected = top(&levels(&layer.ranks, &layer.weights, &slots));
        prop_assert!(top(&after) <= expected.max(level) * (1.0 + HELP), "{} instead of {expected}", top(&after));
    }

    #[test]
    fn a_replacement_is_foreseen_as_it_turns_out(layer in layers()) {
        let packing = layer.packing();
        for rank in 0..layer.ranks.len() {
            for &old in packing.experts_of(rank).iter().filter(|&old| packing.count((*old).into()) > 1) {
                for new in (0..packing.experts()).filter(|&new| !packing.holds(rank, new)) {
                    let foreseen = replaced(&packing, rank, old.into(), new, f64::INFINITY);
                    let mut after = packing.clone();
                    after.replace(rank, old.into(), new);
                    let touched = packing.holders(old.into()).chain([rank, packing.busiest()]);
                    let expected = touched.map(|rank| after.level(rank)).fold(0.0, f64::max);
                    let near = |level: f64| (level - expected).abs() <= 1e-9 * expected;
                    prop_assert!(foreseen.is_some_and(near), "{foreseen:?} instead of {expected}");
                    prop_assert!(replaced(&packing, rank, old.into(), new, expected * (1.0 - HELP)).is_none());
                }
            }
        }
    }
}

#[test]
fn it_ends_as_soon_as_the_goal_is_reached() {
    let ranks = super::super::ranks::Ranks::even(2, 2);
    let weights = [9.0, 8.0, 3.0, 2.0];
    let mut packing = Packing::new(&ranks, &weights, &[0, 1, 2, 3], 1);
    improve(&mut packing, 17.0, 17.0);
    assert_eq!(packing.slots(), [0, 1, 2, 3], "nothing is better than what is good enough");
    improve(&mut packing, 12.0, 12.0);
    assert!((packing.top() - 11.0).abs() < 1e-9, "{}", packing.top());
}
