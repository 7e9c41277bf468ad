//! The planners that are judged, behind one call.

use anyhow::Result;
use plan::balance::{Policy, Request, balance_with};
use plan::coverage::Coverage;
use plan::load::ExpertLoad;
use plan::map::ExpertMap;
use plan::topology::Topology;
use plan::tuning::Tuning;

use crate::shapes::Shape;

/// A way to get a map.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Planner {
    /// The map in force stays.
    Keep,
    /// The published algorithm, global unless the topology has router groups: what vLLM and `SGLang` run.
    DeepSeek,
    /// Ours, without a map in force.
    Scratch,
    /// Ours, from the map in force.
    InForce,
}

impl Planner {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "no rebalance",
            Self::DeepSeek => "deepseek",
            Self::Scratch => "swift from scratch",
            Self::InForce => "swift",
        }
    }

    /// A map for the windows, from the map in force.
    pub fn plan(self, windows: &[ExpertLoad], topology: &Topology, current: &ExpertMap) -> Result<ExpertMap> {
        let current = if self == Self::Scratch { None } else { Some(current) };
        self.plan_with(windows, topology, current, &Tuning::PRODUCT)
    }

    /// The same with other numbers.
    pub fn plan_with(
        self,
        windows: &[ExpertLoad],
        topology: &Topology,
        current: Option<&ExpertMap>,
        tuning: &Tuning,
    ) -> Result<ExpertMap> {
        let policy = match self {
            Self::Keep => Policy::Off,
            Self::DeepSeek => Policy::DeepSeek,
            Self::Scratch | Self::InForce => Policy::Swift,
        };
        let request = Request { policy, windows, topology, current, min_coverage: Coverage::default() };
        Ok(balance_with(&request, tuning)?.map)
    }
}

/// The usual initial layout: every expert in order, then copies of the first ones.
pub fn initial(shape: &Shape) -> ExpertMap {
    ExpertMap::contiguous(shape.map()).expect("a possible shape")
}

/// The first layers of a map.
pub fn first_layers(map: &ExpertMap, layers: usize) -> ExpertMap {
    let slots = map.slots()[..layers * map.physical()].to_vec();
    ExpertMap::with_slots_of_ranks(layers, map.shape().experts, map.slots_of_ranks().clone(), slots)
        .expect("layers of a map are valid")
}
