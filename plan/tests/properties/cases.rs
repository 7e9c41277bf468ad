//! The groups of ranks, loads and maps that properties are checked on.

use plan::coverage::Coverage;
use plan::ids::{ExpertId, LayerId, NodeId};
use plan::load::ExpertLoad;
use plan::map::{ExpertMap, MapShape};
use plan::moves::random_transaction;
use plan::slots::RankSlots;
use plan::topology::Topology;
use proptest::prelude::*;

/// A step of a generator of numbers, of which the highest bits are the most random.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    fn any(&mut self) -> u64 {
        (self.below(1 << 31) as u64) << 33 | (self.below(1 << 31) as u64) << 2
    }
}

/// Mostly small shapes, now and then one as large as deployments get; from no redundancy to twice the experts.
pub(crate) fn shapes() -> impl Strategy<Value = MapShape> {
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

pub(crate) fn loads(shape: MapShape) -> impl Strategy<Value = ExpertLoad> {
    let tokens = prop_oneof![4 => 0..2_u64, 4 => 0..10_000_u64, 1 => Just(u64::MAX), 1 => any::<u64>()];
    let mixed = prop::collection::vec(prop::collection::vec(tokens, shape.experts), shape.layers);
    let uniform = any::<u64>().prop_map(move |tokens| vec![vec![tokens; shape.experts]; shape.layers]);
    prop_oneof![mixed, uniform].prop_map(|rows| ExpertLoad::from_rows(&rows).expect("rows are even"))
}

/// What the loads of a layer look like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Traffic {
    /// None at all.
    Idle,
    /// One token, for one expert.
    OneToken,
    /// As many for every expert.
    Uniform,
    /// Everything for one expert, up to the most that is counted.
    OneExpert,
    /// A few thousand tokens, popular experts with far more than others.
    Skewed,
    /// Up to the most that is counted, for every expert.
    Full,
    /// Of everything some, from expert to expert.
    Mixed,
}

impl Traffic {
    pub(crate) const ALL: [Self; 7] =
        [Self::Idle, Self::OneToken, Self::Uniform, Self::OneExpert, Self::Skewed, Self::Full, Self::Mixed];

    /// The loads of a layer of so many experts. The popular experts are the same for every window.
    pub(crate) fn layer(self, experts: usize, popular: &mut Random, window: &mut Random) -> Vec<u64> {
        let one = popular.below(experts);
        let tokens = |expert: usize| match self {
            Self::OneToken => u64::from(expert == one),
            Self::Uniform => 1000,
            Self::OneExpert if expert == one => [u64::MAX, 1 << 40, 12][window.below(3)],
            Self::Idle | Self::OneExpert => 0,
            Self::Skewed => (window.below(500) + 100_000 / (1 + (expert + one) % experts)) as u64,
            Self::Full => u64::MAX - window.below(1000) as u64,
            Self::Mixed => match window.below(8) {
                0..3 => window.below(2) as u64,
                3..6 => window.below(10_000) as u64,
                6 => u64::MAX,
                _ => window.any(),
            },
        };
        (0..experts).map(tokens).collect()
    }
}

/// The load of a window.
pub(crate) fn window(traffic: Traffic, (layers, experts): (usize, usize), popular: u64, seed: u64) -> ExpertLoad {
    let (mut popular, mut random) = (Random(popular), Random(seed));
    let rows: Vec<Vec<u64>> = (0..layers).map(|_| traffic.layer(experts, &mut popular, &mut random)).collect();
    ExpertLoad::from_rows(&rows).expect("rows are even")
}

/// Windows that follow each other: of one kind of traffic with the same popular experts, but now and then one of another
/// kind, or with other popular experts.
pub(crate) fn windows(
    layers: usize,
    experts: usize,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<ExpertLoad>> {
    let kind = || prop::sample::select(Traffic::ALL.to_vec());
    let other = || prop_oneof![4 => Just(None), 1 => (kind(), any::<u64>()).prop_map(Some)];
    (kind(), any::<u64>(), prop::collection::vec((other(), any::<u64>()), count)).prop_map(
        move |(kind, popular, seeds)| {
            let of = |(other, seed): &(Option<(Traffic, u64)>, u64)| {
                let (kind, popular) = other.unwrap_or((kind, popular));
                window(kind, (layers, experts), popular, *seed)
            };
            seeds.iter().map(of).collect()
        },
    )
}

/// Any valid map: the contiguous one, with the experts of each layer in another order, after random transactions.
pub(crate) fn maps(shape: MapShape) -> impl Strategy<Value = ExpertMap> {
    maps_on(shape.layers, shape.experts, RankSlots::even(shape.ranks, shape.slots_per_rank))
}

/// The same on ranks that need not have equally many slots.
pub(crate) fn maps_on(layers: usize, experts: usize, of_ranks: RankSlots) -> impl Strategy<Value = ExpertMap> {
    let in_order: Vec<ExpertId> = (0..experts).map(ExpertId::from).collect();
    let orders = prop::collection::vec(Just(in_order).prop_shuffle(), layers);
    (orders, any::<u64>(), 0..60_u64).prop_map(move |(orders, seed, steps)| {
        let contiguous =
            ExpertMap::contiguous_on(layers, experts, of_ranks.clone()).expect("the slots hold every expert");
        let slots = contiguous.layers().flat_map(|layer| {
            let order = &orders[layer.index()];
            contiguous.layer(layer).iter().map(|expert| order[expert.index()])
        });
        let start = ExpertMap::with_slots_of_ranks(layers, experts, of_ranks.clone(), slots.collect())
            .expect("another order of experts breaks nothing");
        (0..steps).fold(start, |map, step| {
            let layer = LayerId((step % layers as u64) as u32);
            match random_transaction(&map, layer, seed.wrapping_add(step)) {
                Some(transaction) => map.apply(&transaction).expect("a random transaction is valid"),
                None => map,
            }
        })
    })
}

/// The map with random shares for half of the experts with several copies.
pub(crate) fn with_shares(map: &ExpertMap, seed: u64) -> ExpertMap {
    let mut random = Random(seed);
    let mut shares = Vec::new();
    for layer in map.layers() {
        let mut parts = map.parts(layer);
        for (index, expert) in map.layer(layer).iter().enumerate() {
            let other = map.layer(layer)[index + 1..].iter().position(|other| other == expert);
            if let Some(other) = other.filter(|_| random.below(2) == 0) {
                let given = random.below(parts[index] as usize + 1) as u32;
                parts[index] -= given;
                parts[index + 1 + other] += given;
            }
        }
        shares.append(&mut parts);
    }
    map.clone().with_shares(&shares).expect("what one copy gives another takes")
}

pub(crate) fn shared_maps(shape: MapShape) -> impl Strategy<Value = ExpertMap> {
    (maps(shape), any::<u64>()).prop_map(|(map, seed)| with_shares(&map, seed))
}

pub(crate) fn topologies(shape: MapShape) -> impl Strategy<Value = Topology> {
    let nodes: Vec<usize> = (1..=shape.ranks).filter(|nodes| shape.ranks.is_multiple_of(*nodes)).collect();
    let groups: Vec<usize> = (1..=shape.experts).filter(|groups| shape.experts.is_multiple_of(*groups)).collect();
    (prop::sample::select(nodes), prop::sample::select(groups)).prop_map(move |(nodes, groups)| {
        Topology::even(nodes, shape.ranks, shape.slots_per_rank).expect("they divide").with_router_groups(groups)
    })
}

pub(crate) fn one_node(map: &ExpertMap) -> Topology {
    Topology::single_node(map.shape().ranks, map.shape().slots_per_rank)
}

/// A group of ranks and the model that it serves.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) layers: usize,
    pub(crate) experts: usize,
    pub(crate) topology: Topology,
}

impl Group {
    pub(crate) fn slots(&self) -> &RankSlots {
        self.topology.slots()
    }

    pub(crate) fn maps(&self) -> impl Strategy<Value = ExpertMap> + use<> {
        let maps = maps_on(self.layers, self.experts, self.slots().clone());
        (maps, any::<u64>()).prop_map(|(map, seed)| if seed.is_multiple_of(2) { with_shares(&map, seed) } else { map })
    }
}

/// Ranks that are alike, or that differ: in slots, from none to all experts, in speed, and in how many share a node.
pub(crate) fn groups() -> impl Strategy<Value = Group> {
    prop_oneof![1 => alike(), 2 => unlike()]
}

pub(crate) fn alike() -> impl Strategy<Value = Group> {
    shapes().prop_flat_map(|shape| {
        topologies(shape).prop_map(move |topology| Group { layers: shape.layers, experts: shape.experts, topology })
    })
}

fn unlike() -> impl Strategy<Value = Group> {
    let small = (1..3_usize, 1..40_usize, 1..13_usize);
    let large = (Just(1_usize), 1..1025_usize, 1..513_usize);
    prop_oneof![60 => small, 1 => large].prop_flat_map(|(layers, experts, ranks)| {
        let most = experts.min(3 * experts.div_ceil(ranks));
        let slots = prop::collection::vec(prop_oneof![1 => Just(0), 8 => 0..=most], ranks);
        let speed = prop_oneof![3 => Just(1.0), 1 => prop::sample::select(vec![0.25, 0.5, 2.0]), 1 => 0.01..100.0_f64];
        let speeds = prop_oneof![Just(vec![1.0; ranks]), prop::collection::vec(speed, ranks)];
        let nodes = prop::collection::vec((0..4_u32).prop_map(NodeId), ranks);
        (slots, speeds, nodes).prop_map(move |(mut slots, speeds, nodes)| {
            // Ranks get slots, one after the other, until there is one for every expert.
            for rank in (0..ranks).cycle() {
                if slots.iter().sum::<usize>() >= experts {
                    break;
                }
                slots[rank] = (slots[rank] + experts.div_ceil(ranks)).min(experts);
            }
            let topology = Topology::new(nodes, 1).with_slots(RankSlots::new(slots)).expect("a number for each rank");
            let topology = topology.with_speeds(speeds).expect("speeds are positive");
            Group { layers, experts, topology }
        })
    })
}

/// Numbers of ranks that are to be lost without losing an expert; mostly none.
pub(crate) fn coverages() -> impl Strategy<Value = Coverage> {
    let some = || prop_oneof![4 => Just(0), 4 => 1..4_usize, 1 => Just(usize::MAX)];
    (some(), some()).prop_map(|(ranks, nodes)| Coverage { ranks, nodes })
}
