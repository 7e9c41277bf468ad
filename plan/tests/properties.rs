//! What must hold for every shape, load and pair of maps. A failing case prints its seed and its shrunken input.
#![allow(clippy::unwrap_used, reason = "the rule about tests does not reach functions that tests share")]

use plan::balance::{Policy, Request, balance};
use plan::coverage;
use plan::formats::{self, vllm_ascend};
use plan::ids::{ExpertId, LayerId, RankId};
use plan::load::{ExpertLoad, rank_loads};
use plan::map::{ExpertMap, MapShape};
use plan::moves::{best_first, destination, moved_slots, random_transaction, relabel, transactions};
use plan::policy::{Case, History, Terms, decide};
use plan::shares;
use plan::slots::RankSlots;
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

/// The same with random shares for half of the experts with several copies.
fn with_shares(map: &ExpertMap, seed: u64) -> ExpertMap {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u32
    };
    let mut shares = Vec::new();
    for layer in map.layers() {
        let mut parts = map.parts(layer);
        for (index, expert) in map.layer(layer).iter().enumerate() {
            let other = map.layer(layer)[index + 1..].iter().position(|other| other == expert);
            if let Some(other) = other.filter(|_| random().is_multiple_of(2)) {
                let given = random() % (parts[index] + 1);
                parts[index] -= given;
                parts[index + 1 + other] += given;
            }
        }
        shares.append(&mut parts);
    }
    map.clone().with_shares(&shares).expect("what one copy gives another takes")
}

fn shared_maps(shape: MapShape) -> impl Strategy<Value = ExpertMap> {
    (maps(shape), any::<u64>()).prop_map(|(map, seed)| with_shares(&map, seed))
}

/// Ranks with slots of their own, and a random map on them.
fn unequal_maps() -> impl Strategy<Value = (ExpertMap, ExpertMap)> {
    (prop::collection::vec(1..9_usize, 2..9), 1..30_usize).prop_flat_map(|(counts, experts)| {
        let counts: Vec<usize> = counts.into_iter().map(|count| count.min(experts)).collect();
        let experts = experts.min(counts.iter().sum());
        let counts: Vec<usize> = counts.into_iter().map(|count| count.min(experts)).collect();
        let slots = RankSlots::new(counts);
        let map = ExpertMap::contiguous_on(1, experts.min(slots.total()), slots).expect("the slots are enough");
        (any::<u64>(), any::<u64>()).prop_map(move |seeds| {
            let walk = |seed: u64| {
                let walked = (0..40).fold(map.clone(), |map, step| {
                    match random_transaction(&map, LayerId(0), seed.wrapping_add(step)) {
                        Some(transaction) => map.apply(&transaction).expect("a random transaction is valid"),
                        None => map,
                    }
                });
                with_shares(&walked, seed)
            };
            (walk(seeds.0), walk(seeds.1))
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

fn one_node(map: &ExpertMap) -> Topology {
    Topology::single_node(map.shape().ranks, map.shape().slots_per_rank)
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
            for transaction in transactions(&current, &target, &topology, 1).unwrap() {
                map = map.apply(&transaction).unwrap();
            }
            prop_assert_eq!(map, target);
        }
    }

    #[test]
    fn the_best_transactions_first_lead_to_the_same_map(
        (load, old, new) in shapes().prop_flat_map(|shape| (loads(shape), maps(shape), maps(shape))),
    ) {
        let ordered = best_first(&old, &new, &load, &one_node(&old), 1).unwrap();
        let map = ordered.iter().fold(old.clone(), |map, transaction| map.apply(transaction).unwrap());
        prop_assert_eq!(map, destination(&old, &new).unwrap());
    }

    #[test]
    fn transactions_fit_one_staging_page_and_end_in_the_target(
        (old, new, topology) in
            shapes().prop_flat_map(|shape| (shared_maps(shape), shared_maps(shape), topologies(shape))),
    ) {
        let mut map = old.clone();
        let mut received = 0;
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
    fn maps_of_unequal_ranks_are_reached_with_their_shares((old, new) in unequal_maps()) {
        let topology = Topology::single_node(old.shape().ranks, 1);
        let ordered = transactions(&old, &new, &topology, 1).unwrap();
        let map = ordered.iter().fold(old.clone(), |map, transaction| map.apply(transaction).unwrap());
        prop_assert_eq!(&map, &destination(&old, &new).unwrap());
        prop_assert_eq!(ordered.iter().map(|work| work.changes.len()).sum::<usize>(), moved_slots(&old, &new).unwrap());
        let shape = map.shape();
        let model = ModelIdentity { name: "any".to_owned(), digest: "any".to_owned(), layers: 1, experts: shape.experts };
        let json = serde_json::to_vec(&MapDocument::new(model.clone(), &map)).unwrap();
        prop_assert_eq!(MapDocument::from_json(&json).unwrap().to_map(&model), Ok(map));
    }

    #[test]
    fn relabelling_moves_no_more_pages_and_changes_no_multiset_of_rank_loads(
        (load, old, new, topology) in shapes().prop_flat_map(|shape| {
            (loads(shape), maps(shape), shared_maps(shape), topologies(shape))
        }),
    ) {
        let relabelled = relabel(&old, &new, &topology).unwrap();
        prop_assert!(moved_slots(&old, &relabelled).unwrap() <= moved_slots(&old, &new).unwrap());
        let sorted = |map: &ExpertMap| -> Vec<Vec<u64>> {
            let rank_loads = rank_loads(map, &load);
            rank_loads
                .into_iter()
                .map(|ranks| {
                    let mut bits: Vec<u64> = ranks.into_iter().map(f64::to_bits).collect();
                    bits.sort_unstable();
                    bits
                })
                .collect()
        };
        prop_assert_eq!(sorted(&relabelled), sorted(&new));
    }

    #[test]
    fn shares_that_suit_a_load_never_raise_the_busiest_rank(
        (load, map) in shapes().prop_flat_map(|shape| (loads(shape), maps(shape))),
        uncertainty in 0.0..1.0_f64,
    ) {
        let suited = shares::suit(&map, &load, &one_node(&map), uncertainty);
        prop_assert_eq!(suited.slots(), map.slots());
        let busiest = |map: &ExpertMap| -> Vec<f64> {
            rank_loads(map, &load).iter().map(|ranks| ranks.iter().copied().fold(0.0, f64::max)).collect()
        };
        for (shared, even) in busiest(&suited).iter().zip(busiest(&map)) {
            prop_assert!(*shared <= even * (1.0 + 1e-9), "{shared} instead of {even}");
        }
    }

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
        let topology = one_node(&old);
        let ordered = best_first(&old, &new, &load, &topology, 1).unwrap();
        let case = Case { load: &load, current: &old, topology: &topology, transactions: &ordered };
        let decision = decide(&case, &Terms::usual(1, 60.0), History::default());
        let figures = decision.figures;
        prop_assert_eq!(figures.pages as usize, moved_slots(&old, &new).unwrap());
        prop_assert!((0.0..=1.0 + 1e-9).contains(&figures.ratio_after), "{figures:?}");
        if decision.moves() {
            prop_assert!(figures.ratio_after >= figures.ratio_before + 0.02, "{figures:?}");
        }
    }
}
