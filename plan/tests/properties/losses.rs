//! What must hold when ranks or nodes are lost, and when ranks return.

use plan::balance::{BalanceError, Policy, Request, balance};
use plan::coverage::{self, Coverage};
use plan::ids::{NodeId, RankId};
use plan::load::ExpertLoad;
use plan::map::ExpertMap;
use plan::membership::{Membership, MembershipError};
use plan::moves::{Regrouping, destination, moved_slots, regroup, transactions};
use plan::slots::RankSlots;
use plan::topology::Topology;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::cases::{Group, Random, coverages, groups, maps, maps_on, shapes, windows, with_shares};
use super::moves::check_way;
use super::pages::Pages;

/// The group with some of its ranks, by the bits of a seed; as many more as its experts need.
fn live(group: &Group, seed: u64) -> Topology {
    let mut random = Random(seed);
    let all: Vec<RankId> = (0..group.topology.ranks()).map(RankId::from).collect();
    let few = 1 + random.below(4);
    let mut lost: Vec<RankId> = all.into_iter().filter(|_| random.below(few) == 0).collect();
    let room = |lost: &[RankId]| group.topology.clone().without(lost).slots().total();
    while room(&lost) < group.experts {
        lost.remove(random.below(lost.len()));
    }
    group.topology.clone().without(&lost)
}

/// A group, two maps of which each is of some of its ranks, and windows.
fn changes() -> impl Strategy<Value = (Group, [ExpertMap; 2], Topology, Vec<ExpertLoad>)> {
    (groups(), any::<[u64; 4]>()).prop_flat_map(|(group, seeds)| {
        let [before, after] = [live(&group, seeds[0]), live(&group, seeds[1])];
        let maps = |topology: &Topology, seed: u64| {
            let maps = maps_on(group.layers, group.experts, topology.slots().clone());
            maps.prop_map(move |map| if seed.is_multiple_of(2) { with_shares(&map, seed) } else { map })
        };
        let windows = windows(group.layers, group.experts, 1..4);
        let maps = (maps(&before, seeds[2]), maps(&after, seeds[3]));
        (maps, windows).prop_map(move |((old, new), windows)| (group.clone(), [old, new], after.clone(), windows))
    })
}

/// Goes the whole way, with one staging page: every expert that has a copy keeps one, those that lost ranks alone held are loaded
/// once, and no page moves that need not.
fn check_change(old: &ExpertMap, new: &ExpertMap, topology: &Topology) -> Result<(), TestCaseError> {
    let Regrouping { start, fills, filled } = regroup(old, new, topology, 1).unwrap();
    let membership = Membership::between(old.slots_of_ranks(), new.slots_of_ranks()).unwrap();
    let mut pages = Pages::left_of(old, new.slots_of_ranks(), 1);
    let mut held = start;
    prop_assert_eq!(held.absent(), coverage::lost(old, membership.lost()));
    for fill in &fills {
        pages.fill(fill).map_err(TestCaseError::fail)?;
        held.apply_in_place(fill).unwrap();
    }
    prop_assert_eq!(pages.loaded, coverage::floor_of_moves(old, membership.lost()));
    prop_assert!(pages.most_in_use <= 1);
    prop_assert_eq!(&held.to_map().unwrap(), &filled);
    prop_assert!(pages.are_of(&filled));
    let rest = transactions(&filled, new, topology, 1).unwrap();
    check_way(&filled, new, &rest, 1)?;
    prop_assert_eq!(pages.received + moved_slots(&filled, new).unwrap(), moved_slots(old, new).unwrap());
    let end = destination(old, new.clone()).unwrap();
    prop_assert_eq!(&destination(&filled, new.clone()).unwrap(), &end);
    prop_assert_eq!(moved_slots(&end, new), Ok(0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_map_of_other_ranks_of_a_group_can_be_reached((group, [old, new], after, _) in changes()) {
        prop_assert_eq!(after.ranks(), group.topology.ranks());
        check_change(&old, &new, &after)?;
    }

    #[test]
    fn plans_for_other_ranks_of_a_group_bring_back_what_was_lost(
        (_, [old, _], after, windows) in changes(),
        min_coverage in coverages(),
    ) {
        let membership = Membership::between(old.slots_of_ranks(), after.slots()).unwrap();
        let returned: usize = membership.returned().iter().map(|&rank| after.slots().count(rank)).sum();
        let floor = coverage::floor_of_moves(&old, membership.lost());
        for policy in Policy::ALL {
            let request = Request { policy, windows: &windows, topology: &after, current: Some(&old), min_coverage };
            let mut live = after.slots().counts().filter(|&slots| slots > 0);
            let first = live.next();
            if policy == Policy::DeepSeek && live.any(|slots| Some(slots) != first) {
                prop_assert_eq!(balance(&request), Err(BalanceError::UnequalSlots { policy }));
                continue;
            }
            let plan = balance(&request).unwrap().map;
            prop_assert_eq!(plan.slots_of_ranks(), after.slots());
            prop_assert_eq!(&destination(&old, plan.clone()).unwrap(), &plan, "slots are in the order of the way");
            check_change(&old, &plan, &after)?;
            let free = returned * old.shape().layers;
            let moved = moved_slots(&old, &plan).unwrap();
            let pure = min_coverage == Coverage::default() && !membership.is_unchanged();
            if pure && policy == Policy::Swift {
                prop_assert!(moved <= free + 2 * floor, "{moved} pages for {floor} lost experts and {free} empty slots");
            }
            if pure && policy == Policy::Off {
                prop_assert!(moved <= free + floor, "{moved} pages for {floor} lost experts and {free} empty slots");
            }
        }
    }

    #[test]
    fn a_placement_of_another_group_is_refused(
        (group, other) in (groups(), groups()),
    ) {
        let slots = RankSlots::new(other.slots().counts().map(|count| count.min(group.experts)));
        prop_assume!(slots.total() >= group.experts && slots.ranks() != group.topology.ranks());
        let current = ExpertMap::contiguous_on(group.layers, group.experts, slots).unwrap();
        let (before, after) = (current.shape().ranks, group.topology.ranks());
        let windows = [ExpertLoad::zero(group.layers, group.experts)];
        for policy in Policy::ALL {
            let (topology, min_coverage) = (&group.topology, Coverage::default());
            let found = balance(&Request { policy, windows: &windows, topology, current: Some(&current), min_coverage });
            prop_assert_eq!(found, Err(BalanceError::Membership(MembershipError::Ranks { before, after })));
        }
    }
}

/// Most pages after a loss for each expert that only the lost rank held, over the ranks of a shape; where ranks have up to four
/// slots, more.
const MOST: [f64; 2] = [1.5, 2.0];

/// Shapes of deployments: (experts, ranks, slots of each rank, nodes). Those of eight ranks have no room for a loss.
const SHAPES: [(usize, usize, usize, usize); 9] = [
    (256, 32, 9, 4),
    (256, 64, 5, 8),
    (256, 72, 4, 9),
    (256, 144, 2, 18),
    (128, 16, 9, 2),
    (384, 32, 13, 4),
    (384, 64, 7, 8),
    (384, 128, 4, 16),
    (1024, 512, 3, 64),
];

/// Popularities of a few experts far above the rest, `[layers][experts]`.
fn popularities(layers: usize, experts: usize, seed: u64) -> ExpertLoad {
    let mut random = Random(seed);
    let mut tokens = || {
        let uniform = (1 + random.below(1_000_000)) as f64 / 1e6;
        (1000.0 * (-uniform.ln()).powf(1.5)) as u64
    };
    let rows: Vec<Vec<u64>> = (0..layers).map(|_| (0..experts).map(|_| tokens()).collect()).collect();
    ExpertLoad::from_rows(&rows).unwrap()
}

#[test]
fn at_every_shape_a_rank_is_lost_and_returns_for_few_pages() {
    const LAYERS: usize = 4;
    for (number, (experts, ranks, slots, nodes)) in SHAPES.into_iter().enumerate() {
        let topology = Topology::even(nodes, ranks, slots).unwrap();
        let (mut moved, mut floor) = (0, 0);
        for loss in 0..3 {
            let seed = (10 * number + loss) as u64;
            let case = format!("{experts} experts on {ranks} x {slots}, seed {seed}");
            let windows = [popularities(LAYERS, experts, seed)];
            let plan = |topology: &Topology, current: Option<&ExpertMap>| {
                let (policy, min_coverage) = (Policy::Swift, Coverage::default());
                balance(&Request { policy, windows: &windows, topology, current, min_coverage }).unwrap().map
            };
            let whole = plan(&topology, None);
            let lost = [RankId::from(Random(seed).below(ranks))];
            let left = topology.clone().without(&lost);
            let survivors = plan(&left, Some(&whole));
            check_change(&whole, &survivors, &left).unwrap_or_else(|error| panic!("{case}: {error}"));
            moved += moved_slots(&whole, &survivors).unwrap();
            floor += coverage::floor_of_moves(&whole, &lost);
            let back = plan(&topology, Some(&survivors));
            check_change(&survivors, &back, &topology).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(
                moved_slots(&survivors, &back).unwrap(),
                LAYERS * slots,
                "{case}: what left comes back, no more"
            );
        }
        let most = MOST[usize::from(slots <= 4)] * floor as f64;
        assert!(moved as f64 <= most, "{experts} experts on {ranks} x {slots}: {moved} pages for {floor} lost experts");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

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
        let topology = Topology::single_node(ranks, map.shape().slots_per_rank);
        let uncovered = |ranks| coverage::uncovered(&map, &topology, Coverage { ranks, nodes: 0 });
        prop_assert_eq!(uncovered(covered), 0);
        prop_assert!(uncovered(covered + 1) > 0);
    }

    #[test]
    fn what_some_nodes_take_away_is_lost_with_the_worst_of_them(
        (group, map) in groups().prop_flat_map(|group| (Just(group.clone()), group.maps())),
    ) {
        let topology = &group.topology;
        let mut nodes: Vec<NodeId> = (0..topology.ranks()).map(|rank| topology.node(rank.into())).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let alone = |node: &NodeId| coverage::lost(&map, &coverage::ranks_of(topology, &[*node])).len();
        prop_assert_eq!(nodes.iter().map(alone).sum::<usize>(), coverage::uncovered(&map, topology, Coverage { ranks: 0, nodes: 1 }));
        let covered = coverage::coverage_of_nodes(&map, topology);
        let dead = coverage::ranks_of(topology, &nodes[..covered]);
        prop_assert_eq!(coverage::lost(&map, &dead), Vec::new());
        prop_assert!(covered <= coverage::coverage(&map));
    }
}
