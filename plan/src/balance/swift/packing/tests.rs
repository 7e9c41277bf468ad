use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::super::tests::{Layer, copies, layers, levels};
use super::*;

/// A change that a packing allows, if the numbers name one.
fn change(packing: &mut Packing<'_>, [kind, a, b, c]: [usize; 4]) {
    let ranks = packing.ranks().len();
    if kind == 0 {
        let (rank_a, rank_b) = (a % ranks, b % ranks);
        let mine: Vec<u16> = packing.experts_of(rank_a).to_vec();
        let mine = mine.into_iter().find(|&expert| !packing.holds(rank_b, expert.into()));
        let theirs: Vec<u16> = packing.experts_of(rank_b).to_vec();
        let theirs: Vec<u16> = theirs.into_iter().filter(|&expert| !packing.holds(rank_a, expert.into())).collect();
        if let Some(mine) = mine.filter(|_| !theirs.is_empty()) {
            packing.swap((rank_a, mine.into()), (rank_b, theirs[c % theirs.len()].into()));
        }
    } else if !packing.spare().is_empty() {
        let old = usize::from(packing.spare()[a % packing.spare().len()]);
        let holders: Vec<usize> = packing.holders(old).collect();
        let rank = holders[b % holders.len()];
        let lacking: Vec<usize> = (0..packing.experts()).filter(|&expert| !packing.holds(rank, expert)).collect();
        if !lacking.is_empty() {
            packing.replace(rank, old, lacking[c % lacking.len()]);
        }
    }
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-9 * expected.abs().max(f64::MIN_POSITIVE)
}

/// Everything that a packing says, against what follows from its slots.
fn check(packing: &Packing<'_>, layer: &Layer) -> Result<(), TestCaseError> {
    let (ranks, weights) = (&layer.ranks, &layer.weights);
    let copies = copies(ranks, weights.len(), packing.slots());
    prop_assert!(copies.is_some(), "{:?}", packing.slots());
    let copies = copies.unwrap_or_default();
    let levels = levels(ranks, weights, packing.slots());
    for (expert, &count) in copies.iter().enumerate() {
        prop_assert_eq!(packing.count(expert), count);
        prop_assert!(close(packing.load(expert), weights[expert] / count as f64));
        let holders: Vec<usize> =
            (0..ranks.len()).filter(|&rank| packing.experts_of(rank).contains(&(expert as u16))).collect();
        prop_assert_eq!(packing.holders(expert).collect::<Vec<_>>(), holders.clone());
        prop_assert!((0..ranks.len()).all(|rank| packing.holds(rank, expert) == holders.contains(&rank)));
    }
    let spare: Vec<u16> =
        (0..weights.len() as u16).filter(|&expert| copies[usize::from(expert)] > layer.least).collect();
    prop_assert_eq!(packing.spare(), spare);
    for (rank, &level) in levels.iter().enumerate() {
        prop_assert!(close(packing.level(rank), level), "rank {rank}: {} instead of {level}", packing.level(rank));
        prop_assert!(close(packing.rank_load(rank) * ranks.pace(rank), level));
        let loads = packing.loads_of(rank);
        prop_assert!(loads.windows(2).all(|pair| pair[0] >= pair[1]), "{loads:?}");
        for (&expert, &load) in packing.experts_of(rank).iter().zip(loads) {
            prop_assert!(close(load, weights[usize::from(expert)] / copies[usize::from(expert)] as f64));
        }
    }
    let order: Vec<usize> = packing.by_level().collect();
    let mut ranks_once = order.clone();
    ranks_once.sort_unstable();
    prop_assert!(ranks_once.into_iter().eq(0..ranks.len()));
    let levels_in_order: Vec<f64> = order.iter().map(|&rank| packing.level(rank)).collect();
    // Levels that differ by less than a part in 10^10 are in the order of their ranks.
    prop_assert!(levels_in_order.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-10)), "{levels_in_order:?}");
    prop_assert_eq!(Some(packing.busiest()), order.last().copied());
    prop_assert!(close(packing.top(), levels.iter().copied().fold(0.0, f64::max)));
    Ok(())
}

fn changes() -> impl Strategy<Value = Vec<[usize; 4]>> {
    prop::collection::vec((0..2_usize, 0..1000_usize, 0..1000_usize, 0..1000_usize), 0..60)
        .prop_map(|changes| changes.into_iter().map(|(kind, a, b, c)| [kind, a, b, c]).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn after_any_changes_everything_is_as_if_it_were_counted_anew(layer in layers(), changes in changes()) {
        let mut packing = layer.packing();
        check(&packing, &layer)?;
        for numbers in changes {
            change(&mut packing, numbers);
            check(&packing, &layer)?;
        }
        let anew = Packing::new(&layer.ranks, &layer.weights, packing.slots(), layer.least);
        for rank in 0..layer.ranks.len() {
            prop_assert_eq!(packing.loads_of(rank), anew.loads_of(rank));
        }
        prop_assert!(packing.by_level().eq(anew.by_level()));
        prop_assert_eq!(packing.spare(), anew.spare());
    }

    #[test]
    fn a_packing_that_became_another_is_that_one(layer in layers(), before in changes(), after in changes()) {
        let mut kept = layer.packing();
        for numbers in before {
            change(&mut kept, numbers);
        }
        let mut packing = kept.clone();
        for numbers in after {
            change(&mut packing, numbers);
        }
        packing.copy_from(&kept);
        check(&packing, &layer)?;
        prop_assert_eq!(packing.slots(), kept.slots());
    }
}

#[test]
fn an_expert_that_gets_its_spare_copy_from_another_changes_places_with_it_among_the_spare() {
    let (ranks, weights) = (Ranks::even(2, 3), [9.0, 6.0, 3.0, 2.0]);
    let mut packing = Packing::new(&ranks, &weights, &[0, 1, 2, 0, 1, 3], 1);
    assert_eq!(packing.spare(), [0, 1]);
    packing.replace(0, 1, 3);
    assert_eq!((packing.spare(), packing.count(1), packing.count(3)), (&[0, 3][..], 1, 2));
    assert_eq!(packing.experts_of(0), [0, 2, 3]);
}
