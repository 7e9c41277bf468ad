//! What must hold for every shape, load and pair of maps. A failing case prints its seed and its shrunken input.
#![allow(clippy::unwrap_used, reason = "the rule about tests does not reach functions that tests share")]

use plan::balance::{Policy, Request, balance};
use plan::coverage;
use plan::formats::{self, vllm_ascend};
use plan::ids::{ExpertId, LayerId, RankId};
use plan::load::ExpertLoad;
use plan::map::{ExpertMap, MapShape};
use plan::moves::{best_first, destination, moved_slots, random_transaction, transactions};
use plan::policy::{Terms, decide};
use plan::topology::Topology;
use plan::wire::{MapDocument, ModelIdentity};
use proptest::prelude::*;

/// Mostly small shapes, now and then one as large as deployments get; from no redundancy to twice the experts.
fn shapes() -> impl Strategy<Value = MapShape> {
    let small = (1..4_usize, 1..40_usize, 1..13_usize);
    let large = (Just(1_usize), 1..1025_usize, 1..513_usize);
    prop_oneof![40 => small, 1 => large].prop_flat_map(|(layers, experts, ranks)| {
        (experts.div_ceil(ranks)..=experts.min(3 * experts.div_ceil(ranks))).prop_map(move |slots_per_rank| MapShape {
            layers,
            experts,
            ranks,
            slots_per_rank,
        })
    })
}

fn loads(shape: MapShape) -> impl Strategy<Value = ExpertLoad> {
    let tokens = prop_oneof![4 => 0..2_u64, 4 => 0..10_000_u64, 1 => Just(u64::MAX), 1 => any::<u64>()];
    let mixed = prop::collection::vec(prop::collection::vec(tokens, shape.experts), shape.layers);
    let uniform = any::<u64>().prop_map(move |tokens| vec![vec![tokens; shape.experts]; shape.layers]);
    prop_oneof![mixed, uniform].prop_map(|rows| ExpertLoad::from_rows(&rows).expect("rows are even"))
}

/// Any valid map: the contiguous one, with the experts of each layer in another order, after random transactions.
fn maps(shape: MapShape) -> impl Strategy<Value = ExpertMap> {
    let experts: Vec<ExpertId> = (0..shape.experts).map(ExpertId::from).collect();
    let orders = prop::collection::vec(Just(experts).prop_shuffle(), shape.layers);
    (orders, any::<u64>(), 0..60_u64).prop_map(move |(orders, seed, steps)| {
        let contiguous = ExpertMap::contiguous(shape).expect("the shape is possible");
        let slots = contiguous.layers().flat_map(|layer| {
            let order = &orders[layer.index()];
            contiguous.layer(layer).iter().map(|expert| order[expert.index()])
        });
        let start = ExpertMap::new(shape, slots.collect()).expect("another order of experts breaks nothing");
        (0..steps).fold(start, |map, step| {
            let layer = LayerId((step % shape.layers as u64) as u32);
            match random_transaction(&map, layer, seed.wrapping_add(step)) {
                Some(transaction) => map.apply(&transaction).expect("a random transaction is valid"),
                None => map,
            }
        })
    })
}

fn topologies(shape: MapShape) -> impl Strategy<Value = Topology> {
    let nodes: Vec<usize> = (1..=shape.ranks).filter(|nodes| shape.ranks.is_multiple_of(*nodes)).collect();
    let groups: Vec<usize> = (1..=shape.experts).filter(|groups| shape.experts.is_multiple_of(*groups)).collect();
    (prop::sample::select(nodes), prop::sample::select(groups)).prop_map(move |(nodes, groups)| {
        Topology::even(nodes, shape.ranks, shape.slots_per_rank).expect("they divide").with_router_groups(groups)
    })
}

/// Ranks' experts without the order of slots.
fn placement(map: &ExpertMap) -> Vec<Vec<ExpertId>> {
    let ranks = map.slots().chunks_exact(map.shape().slots_per_rank);
    ranks
        .map(|slots| {
            let mut experts = slots.to_vec();
            experts.sort_unstable();
            experts
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_plan_is_a_valid_map_that_can_be_reached(
        (load, topology, current) in shapes().prop_flat_map(|shape| (loads(shape), topologies(shape), maps(shape))),
    ) {
        for policy in Policy::ALL {
            let windows = std::slice::from_ref(&load);
            let request = Request { policy, windows, topology: &topology, current: Some(&current), min_coverage: 0 };
            let plan = balance(&request).unwrap();
            prop_assert_eq!(&plan, &balance(&request).unwrap());
            let target = plan.map;
            prop_assert_eq!(target.shape(), current.shape());
            let mut map = current.clone();
            for transaction in transactions(&current, &target, 1).unwrap() {
                map = map.apply(&transaction).unwrap();
            }
            prop_assert_eq!(map, target);
        }
    }

    #[test]
    fn the_best_transactions_first_lead_to_the_same_map(
        (load, old, new) in shapes().prop_flat_map(|shape| (loads(shape), maps(shape), maps(shape))),
    ) {
        let ordered = best_first(&old, &new, &load, 1).unwrap();
        let map = ordered.iter().fold(old.clone(), |map, transaction| map.apply(transaction).unwrap());
        prop_assert_eq!(map, destination(&old, &new).unwrap());
    }

    #[test]
    fn transactions_fit_one_staging_page_and_end_in_the_target(
        (old, new) in shapes().prop_flat_map(|shape| (maps(shape), maps(shape))),
    ) {
        let mut map = old.clone();
        let mut received = 0;
        for transaction in transactions(&old, &new, 1).unwrap() {
            let mut ranks: Vec<_> = transaction.changes.iter().map(|change| change.rank).collect();
            ranks.dedup();
            prop_assert_eq!(ranks.len(), transaction.changes.len(), "one page for each rank at most");
            for dropped in 0..transaction.changes.len() {
                let mut part = transaction.clone();
                part.changes.remove(dropped);
                prop_assert!(map.apply(&part).is_err(), "a transaction is the smallest set that is valid");
            }
            received += transaction.changes.len();
            map = map.apply(&transaction).unwrap();
        }
        prop_assert_eq!(received, moved_slots(&old, &new).unwrap(), "no page more than necessary");
        prop_assert_eq!(&map, &destination(&old, &new).unwrap());
        prop_assert_eq!(placement(&map), placement(&new));
        prop_assert_eq!(&map, &destination(&old, &map).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn maps_come_back_from_every_format_as_they_were(map in shapes().prop_flat_map(maps)) {
        let MapShape { layers, experts, .. } = map.shape();
        let model = ModelIdentity { name: "any".to_owned(), digest: "any".to_owned(), layers, experts };
        let document = MapDocument::new(model.clone(), &map);
        let json = serde_json::to_vec(&document).unwrap();
        prop_assert_eq!(formats::read(&json, &model), Ok(map.clone()));
        prop_assert_eq!(MapDocument::from_json(&json).unwrap().content_hash(), document.content_hash());
        prop_assert_eq!(formats::read(vllm_ascend::write(&map).as_bytes(), &model), Ok(map));
    }

    #[test]
    fn only_equal_placements_have_equal_hashes(
        (old, new) in shapes().prop_flat_map(|shape| (maps(shape), maps(shape))),
    ) {
        let MapShape { layers, experts, .. } = old.shape();
        let model = ModelIdentity { name: "any".to_owned(), digest: "any".to_owned(), layers, experts };
        let hash = |map: &ExpertMap| MapDocument::new(model.clone(), map).content_hash();
        prop_assert_eq!(hash(&old) == hash(&new), old == new);
    }

    #[test]
    fn an_expert_is_present_after_a_loss_within_the_coverage(
        (map, seed) in (shapes().prop_flat_map(maps), any::<u64>()),
    ) {
        let ranks = map.shape().ranks;
        let covered = coverage::coverage(&map);
        prop_assert!(covered <= coverage::most(map.shape()));
        prop_assert!(coverage::most(map.shape()) <= coverage::room(map.shape()));
        let dead: Vec<RankId> = (0..covered).map(|offset| RankId::from((seed as usize % ranks + offset) % ranks)).collect();
        prop_assert_eq!(coverage::lost(&map, &dead), Vec::new());
        prop_assert_eq!(coverage::uncovered(&map, covered), 0);
        prop_assert!(coverage::uncovered(&map, covered + 1) > 0);
    }

    #[test]
    fn a_decision_to_move_never_lowers_the_ratio(
        (load, old, new) in shapes().prop_flat_map(|shape| (loads(shape), maps(shape), maps(shape))),
    ) {
        let terms = Terms { minimum_gain: 0.02, page_bytes: 1, bytes_per_second: 1e9, lifetime_seconds: 60.0 };
        let decision = decide(&load, &old, &new, &terms);
        let figures = decision.figures();
        prop_assert_eq!(figures.pages as usize, moved_slots(&old, &new).unwrap());
        prop_assert!((0.0..=1.0 + 1e-9).contains(&figures.ratio_after), "{figures:?}");
        if decision.moves() {
            prop_assert!(figures.ratio_after >= figures.ratio_before + 0.02, "{figures:?}");
        }
    }
}
