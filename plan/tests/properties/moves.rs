//! What must hold for the way from one map to another.

use plan::balance::{Policy, Request, balance};
use plan::coverage::Coverage;
use plan::expected::Expected;
use plan::ids::{ExpertId, LayerId, RankId};
use plan::load::ExpertLoad;
use plan::map::ExpertMap;
use plan::moves::{Transaction, best_first, destination, moved_slots, transactions};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::cases::{Group, groups, loads, shapes, shared_maps, topologies, windows};
use super::pages::Pages;

/// Ranks' experts without the order of slots.
fn placement(map: &ExpertMap) -> Vec<Vec<ExpertId>> {
    let ranks = map.layers().flat_map(|layer| (0..map.shape().ranks).map(move |rank| (layer, RankId::from(rank))));
    ranks
        .map(|(layer, rank)| {
            let mut experts = map.rank(layer, rank).to_vec();
            experts.sort_unstable();
            experts
        })
        .collect()
}

/// Two maps of a group and a load.
fn ways() -> impl Strategy<Value = (Group, ExpertMap, ExpertMap, ExpertLoad)> {
    groups().prop_flat_map(|group| {
        let load = windows(group.layers, group.experts, 1..2).prop_map(|mut windows| windows.remove(0));
        (Just(group.clone()), group.maps(), group.maps(), load)
    })
}

/// Carries transactions out with so many staging pages, and applies them to the map, which they must lead to another.
pub(crate) fn check_way(
    old: &ExpertMap,
    new: &ExpertMap,
    ordered: &[Transaction],
    staging: usize,
) -> Result<(), TestCaseError> {
    let mut pages = Pages::new(old, staging);
    let mut map = old.clone();
    for transaction in ordered {
        pages.carry_out(transaction).map_err(TestCaseError::fail)?;
        map.apply_in_place(transaction).unwrap();
        prop_assert!(transaction.changes.iter().all(|change| change.source != change.rank), "{transaction:?}");
    }
    prop_assert!(pages.are_of(&map), "pages and map are two things");
    prop_assert!(pages.most_in_use <= staging);
    prop_assert_eq!(pages.received, moved_slots(old, new).unwrap(), "no page more than necessary");
    prop_assert_eq!(&map, &destination(old, new.clone()).unwrap());
    prop_assert_eq!(placement(&map), placement(new));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn transactions_fit_the_staging_pages_and_keep_every_expert_present_until_they_end_in_the_target(
        (group, old, new, load) in ways(),
        staging in 1..4_usize,
    ) {
        let topology = &group.topology;
        check_way(&old, &new, &transactions(&old, &new, topology, staging).unwrap(), staging)?;
        check_way(&old, &new, &best_first(&old, &new, &Expected::known(&load), topology, staging).unwrap(), staging)?;
    }

    #[test]
    fn each_transaction_is_the_smallest_that_is_valid_and_its_pages_come_from_near(
        (old, new, topology) in
            shapes().prop_flat_map(|shape| (shared_maps(shape), shared_maps(shape), topologies(shape))),
    ) {
        let mut map = old.clone();
        for transaction in transactions(&old, &new, &topology, 1).unwrap() {
            let mut ranks: Vec<_> = transaction.changes.iter().map(|change| change.rank).collect();
            ranks.dedup();
            prop_assert_eq!(ranks.len(), transaction.changes.len(), "one page for each rank at most");
            for change in &transaction.changes {
                let sources = (0..topology.ranks()).map(RankId::from);
                let near = |rank: RankId| topology.node(rank) == topology.node(change.rank);
                let mut holders = sources.filter(|&rank| map.rank(transaction.layer, rank).contains(&change.to));
                prop_assert!(near(change.source) || !holders.any(near), "a source on the node comes first");
            }
            for dropped in 0..transaction.changes.len() {
                let mut part = transaction.clone();
                part.changes.remove(dropped);
                part.shares.clear();
                prop_assert!(map.apply(&part).is_err(), "a transaction is the smallest set that is valid");
            }
            map.apply_in_place(&transaction).unwrap();
        }
        prop_assert_eq!(&map, &destination(&old, map.clone()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_published_algorithm_gives_ranks_the_parts_that_they_hold_most_of(
        (load, old, topology) in shapes().prop_flat_map(|shape| (loads(shape), shared_maps(shape), topologies(shape))),
    ) {
        let windows = std::slice::from_ref(&load);
        let plan = |current| {
            let policy = Policy::DeepSeek;
            balance(&Request { policy, windows, topology: &topology, current, min_coverage: Coverage::default() }).unwrap().map
        };
        let (published, relabelled) = (plan(None), plan(Some(&old)));
        prop_assert!(moved_slots(&old, &relabelled).unwrap() <= moved_slots(&old, &published).unwrap());
        let of_kind = |map: &ExpertMap| {
            let places = map.layers().flat_map(|layer| (0..topology.ranks()).map(move |rank| (layer, RankId::from(rank))));
            let part = |(layer, rank): (LayerId, RankId)| {
                let slots = map.slots_of_ranks().of(rank);
                let shares = map.shares(layer).map_or_else(|| vec![0; slots.len()], |shares| shares[slots.clone()].to_vec());
                let mut part: Vec<(ExpertId, u32)> = map.rank(layer, rank).iter().copied().zip(shares).collect();
                part.sort_unstable();
                (layer, topology.node(rank), part)
            };
            let mut parts: Vec<_> = places.map(part).collect();
            parts.sort_unstable();
            parts
        };
        prop_assert_eq!(of_kind(&relabelled), of_kind(&published));
    }
}
