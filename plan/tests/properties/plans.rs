//! What must hold for every plan.

use std::collections::BTreeSet;

use plan::balance::{BalanceError, Plan, Policy, Request, balance};
use plan::bound;
use plan::coverage::Coverage;
use plan::expected::Expected;
use plan::ids::{ExpertId, RankId};
use plan::load::{ExpertLoad, rank_loads};
use plan::map::{ExpertMap, WHOLE};
use plan::moves::transactions;
use plan::shares;
use plan::topology::Topology;
use plan::wire::{MapDocument, ModelIdentity};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::cases::{Group, Traffic, coverages, groups, loads, maps, one_node, shapes, window, windows};
use super::pages::Pages;

/// What a plan is made from. Some groups have no placement in force.
#[derive(Clone, Debug)]
struct Case {
    group: Group,
    windows: Vec<ExpertLoad>,
    current: Option<ExpertMap>,
    min_coverage: Coverage,
}

impl Case {
    fn request(&self, policy: Policy) -> Request<'_> {
        let Self { group, windows, current, min_coverage } = self;
        Request { policy, windows, topology: &group.topology, current: current.as_ref(), min_coverage: *min_coverage }
    }
}

fn cases(groups: impl Strategy<Value = Group>, windows_count: std::ops::Range<usize>) -> impl Strategy<Value = Case> {
    groups.prop_flat_map(move |group| {
        let windows = windows(group.layers, group.experts, windows_count.clone());
        let current = prop_oneof![1 => Just(None), 3 => group.maps().prop_map(Some)];
        (windows, current, coverages()).prop_map(move |(windows, current, min_coverage)| Case {
            group: group.clone(),
            windows,
            current,
            min_coverage,
        })
    })
}

/// What no map can be without, counted here once more.
fn check_map(map: &ExpertMap, group: &Group) -> Result<(), TestCaseError> {
    prop_assert_eq!(map.slots_of_ranks(), group.slots());
    prop_assert_eq!((map.shape().layers, map.shape().experts), (group.layers, group.experts));
    for layer in map.layers() {
        let mut whole = vec![0_u64; group.experts];
        let parts = map.parts(layer);
        for rank in (0..group.topology.ranks()).map(RankId::from) {
            let mut held = map.rank(layer, rank).to_vec();
            held.sort_unstable();
            held.dedup();
            prop_assert_eq!(held.len(), group.slots().count(rank), "an expert twice on {}", rank);
        }
        for (expert, part) in map.layer(layer).iter().zip(&parts) {
            whole[expert.index()] += u64::from(*part);
        }
        prop_assert!(whole.iter().all(|&sum| sum == u64::from(WHOLE)), "{layer}: shares add up to {whole:?}");
    }
    Ok(())
}

/// Copies of each expert, layer by layer.
fn copies(map: &ExpertMap) -> Vec<usize> {
    let mut copies = vec![0; map.shape().layers * map.shape().experts];
    for (place, ExpertId(expert)) in map.slots().iter().enumerate() {
        copies[place / map.physical() * map.shape().experts + *expert as usize] += 1;
    }
    copies
}

/// The number of nodes that hold each expert, layer by layer.
fn nodes_of_experts(map: &ExpertMap, group: &Group) -> Vec<usize> {
    let mut nodes = vec![BTreeSet::new(); map.shape().layers * map.shape().experts];
    for layer in map.layers() {
        for rank in (0..group.topology.ranks()).map(RankId::from) {
            for expert in map.rank(layer, rank) {
                nodes[layer.index() * map.shape().experts + expert.index()].insert(group.topology.node(rank));
            }
        }
    }
    nodes.into_iter().map(|nodes| nodes.len()).collect()
}

fn json(map: &ExpertMap) -> Vec<u8> {
    let (layers, experts) = (map.shape().layers, map.shape().experts);
    let model = ModelIdentity { name: "any".to_owned(), digest: "any".to_owned(), layers, experts };
    serde_json::to_vec(&MapDocument::new(model, map)).expect("a document is plain data")
}

/// The plan, checked for everything that holds for all plans.
fn checked_plan(case: &Case, policy: Policy) -> Result<Option<Plan>, TestCaseError> {
    let found = balance(&case.request(policy));
    let mut live = case.group.slots().counts().filter(|&slots| slots > 0);
    let first = live.next();
    if policy == Policy::DeepSeek && live.any(|slots| Some(slots) != first) {
        prop_assert_eq!(found, Err(BalanceError::UnequalSlots { policy }));
        return Ok(None);
    }
    let plan = found.expect("the group has a slot for every expert");
    check_map(&plan.map, &case.group)?;
    prop_assert_eq!(json(&plan.map), json(&balance(&case.request(policy)).unwrap().map), "other bytes");
    let Coverage { ranks, nodes } = case.min_coverage;
    let on_nodes = nodes_of_experts(&plan.map, &case.group);
    let uncovered = |(copies, on): (usize, usize)| copies <= ranks || on <= nodes && nodes > 0;
    prop_assert_eq!(plan.uncovered, copies(&plan.map).into_iter().zip(on_nodes).filter(|&of| uncovered(of)).count());
    Ok(Some(plan))
}

/// The least number of copies that a group has slots for.
fn coverable(group: &Group, min_coverage: Coverage) -> usize {
    let wanted = min_coverage.ranks.max(min_coverage.nodes);
    let open = group.slots().counts().filter(|&count| count > 0).count();
    wanted.saturating_add(1).min(group.slots().total() / group.experts).min(open)
}

fn check_all_policies(case: &Case) -> Result<(), TestCaseError> {
    for policy in Policy::ALL {
        let Some(plan) = checked_plan(case, policy)? else { continue };
        if policy == Policy::Swift {
            let least = coverable(&case.group, case.min_coverage);
            let fewest = copies(&plan.map).into_iter().min().unwrap();
            prop_assert!(fewest >= least, "{fewest} copies where there are slots for {least}: {:?}", plan.map);
        }
        let Some(current) = &case.current else { continue };
        if policy == Policy::Off {
            prop_assert_eq!(current, &plan.map);
        }
        let mut pages = Pages::new(current, 1);
        let mut map = current.clone();
        for transaction in transactions(current, &plan.map, &case.group.topology, 1).unwrap() {
            pages.carry_out(&transaction).map_err(TestCaseError::fail)?;
            map.apply_in_place(&transaction).unwrap();
        }
        prop_assert!(pages.are_of(&plan.map));
        prop_assert_eq!(&map, &plan.map);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_plan_is_valid_made_again_the_same_and_can_be_reached(case in cases(groups(), 1..9)) {
        check_all_policies(&case)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn plans_that_look_at_bursts_are_as_valid(case in cases(groups().prop_filter("they take long", small), 16..24)) {
        check_all_policies(&case)?;
    }

    #[test]
    fn windows_without_load_change_no_plan(case in cases(groups().prop_filter("they take long", small), 1..8), place in 0..8_usize) {
        let idle = ExpertLoad::zero(case.group.layers, case.group.experts);
        let mut windows = case.windows.clone();
        windows.insert(place.min(windows.len()), idle);
        let with_idle = Case { windows, ..case.clone() };
        for policy in Policy::ALL {
            prop_assert_eq!(checked_plan(&with_idle, policy)?, checked_plan(&case, policy)?);
        }
    }

    #[test]
    fn no_map_is_below_the_bound((map, load) in shapes().prop_flat_map(|shape| (maps(shape), loads(shape)))) {
        for excess in bound::excess(&map, &load, &one_node(&map)) {
            prop_assert!(excess >= -1e-9, "{excess}");
        }
    }

    #[test]
    fn shares_that_suit_a_load_never_raise_the_busiest_rank(
        (group, map, windows) in groups().prop_flat_map(|group| {
            (Just(group.clone()), group.maps(), windows(group.layers, group.experts, 1..2))
        }),
        uncertainty in 0.0..1.0_f64,
    ) {
        let load = &windows[0];
        let suited = shares::suit(map.clone(), &Expected::known(load).give_or_take(uncertainty), &group.topology);
        prop_assert_eq!(suited.slots(), map.slots());
        check_map(&suited, &group)?;
        let busiest = |map: &ExpertMap| -> Vec<f64> {
            let level = |ranks: &Vec<f64>| {
                ranks.iter().zip(group.topology.speeds()).map(|(load, speed)| load / speed).fold(0.0, f64::max)
            };
            rank_loads(map, load).iter().map(level).collect()
        };
        for (shared, even) in busiest(&suited).iter().zip(busiest(&map.with_even_shares())) {
            prop_assert!(*shared <= even * (1.0 + 1e-9), "{shared} instead of {even}");
        }
    }
}

fn small(group: &Group) -> bool {
    group.slots().total() <= 200
}

/// Shapes at the ends of what deployments get: (experts, ranks, slots of each rank).
const CORNERS: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 512, 1),
    (2, 2, 2),
    (1024, 1, 1024),
    (1024, 2, 512),
    (1024, 2, 1024),
    (7, 512, 1),
    (7, 512, 3),
    (512, 512, 1),
    (513, 512, 2),
    (1024, 512, 3),
    (1024, 512, 6),
];

#[test]
fn the_largest_and_smallest_shapes_are_planned_for_under_every_kind_of_traffic() {
    for (experts, ranks, slots_per_rank) in CORNERS {
        for traffic in Traffic::ALL {
            let load = window(traffic, (1, experts), 1, 2);
            let group = Group { layers: 1, experts, topology: Topology::single_node(ranks, slots_per_rank) };
            let current = ExpertMap::contiguous_on(1, experts, group.slots().clone()).unwrap();
            for policy in [Policy::DeepSeek, Policy::Swift] {
                let request = |current| Request {
                    policy,
                    windows: std::slice::from_ref(&load),
                    topology: &group.topology,
                    current,
                    min_coverage: Coverage::default(),
                };
                for start in [None, Some(&current)] {
                    let plan = balance(&request(start)).unwrap();
                    if let Err(refused) = check_map(&plan.map, &group) {
                        panic!("{experts} experts on {ranks} x {slots_per_rank}, {traffic:?}, {policy}: {refused}");
                    }
                }
            }
        }
    }
}
