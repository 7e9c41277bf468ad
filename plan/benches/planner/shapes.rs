//! The models and groups of ranks that planners are judged on.

use plan::map::MapShape;
use plan::topology::Topology;

use crate::peers::{self, Quality, Time};

/// A model on a group of ranks, with what others reach there.
pub struct Shape {
    pub name: &'static str,
    /// Folder of the loads.
    pub model: &'static str,
    pub layers: usize,
    pub experts: usize,
    pub physical: usize,
    pub ranks: usize,
    pub nodes: usize,
    pub router_groups: usize,
    /// Families over which `synthetic` is averaged: for the largest shape those that the peers were run on.
    pub compared: &'static [&'static str],
    pub synthetic: Quality,
    /// On the two matrices of [`TWO_RECORDED`], where the model has recorded loads.
    pub recorded: Option<Quality>,
    pub time: Time,
}

/// The families over which synthetic figures are averaged.
pub const FIVE: [&str; 5] = ["logn10", "uniform", "zipf12", "hot20", "corrgroup"];
const THREE: [&str; 3] = ["logn10", "uniform", "zipf12"];
/// The recorded matrices over which figures are averaged.
pub const TWO_RECORDED: [&str; 2] = ["real_decode_in1000out1000", "real_prefill_in4096"];

impl Shape {
    pub const fn slots(&self) -> usize {
        self.physical / self.ranks
    }

    pub const fn map(&self) -> MapShape {
        MapShape { layers: self.layers, experts: self.experts, ranks: self.ranks, slots_per_rank: self.slots() }
    }

    /// Its ranks on its nodes; the router's groups are those of one that has none.
    pub fn topology(&self) -> Topology {
        Topology::even(self.nodes, self.ranks, self.slots()).expect("ranks divide by nodes")
    }
}

const fn shape(
    name: &'static str,
    model: (&'static str, usize, usize),
    [physical, ranks, nodes, router_groups]: [usize; 4],
    (synthetic, recorded): (Quality, Option<Quality>),
    time: Time,
) -> Shape {
    let (model, layers, experts) = model;
    let compared: &[&str] = if ranks == 512 { &THREE } else { &FIVE };
    Shape { name, model, layers, experts, physical, ranks, nodes, router_groups, compared, synthetic, recorded, time }
}

const DSV3: (&str, usize, usize) = ("dsv3", 58, 256);
const QWEN30: (&str, usize, usize) = ("qwen30", 48, 128);
const KIMI: (&str, usize, usize) = ("kimi", 61, 384);

/// Every shape; experts, ranks and nodes are those of published deployments.
pub const SHAPES: [Shape; 11] = [
    shape("dsv3-32", DSV3, [288, 32, 4, 8], peers::DSV3_32, peers::DSV3_32_TIME),
    shape("dsv3-64", DSV3, [320, 64, 8, 8], peers::DSV3_64, peers::DSV3_64_TIME),
    shape("dsv3-72", DSV3, [288, 72, 9, 8], peers::DSV3_72, peers::DSV3_72_TIME),
    shape("dsv3-144", DSV3, [288, 144, 18, 8], peers::DSV3_144, peers::DSV3_144_TIME),
    shape("qwen235-16", ("qwen235", 94, 128), [144, 16, 2, 1], peers::QWEN235_16, peers::QWEN235_16_TIME),
    shape("qwen30-8a", QWEN30, [136, 8, 1, 1], peers::QWEN30_8A, peers::QWEN30_8A_TIME),
    shape("qwen30-8b", QWEN30, [144, 8, 1, 1], peers::QWEN30_8B, peers::QWEN30_8B_TIME),
    shape("kimi-32", KIMI, [416, 32, 4, 1], peers::KIMI_32, peers::KIMI_32_TIME),
    shape("kimi-64", KIMI, [448, 64, 8, 1], peers::KIMI_64, peers::KIMI_64_TIME),
    shape("kimi-128", KIMI, [512, 128, 16, 1], peers::KIMI_128, peers::KIMI_128_TIME),
    shape("stress-512", ("stress", 64, 1024), [1536, 512, 64, 1], peers::STRESS_512, peers::STRESS_512_TIME),
];

/// The shape of a name.
pub fn named(name: &str) -> &'static Shape {
    SHAPES.iter().find(|shape| shape.name == name).expect("a known shape")
}
