//! A load and a topology give a target map. Knows nothing of what moving to it costs in bytes or time, or of whether
//! that pays.

mod deepseek;
mod packing;
mod swift;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::load::ExpertLoad;
use crate::map::ExpertMap;
use crate::moves;
use crate::topology::Topology;

/// How a target map is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The published EPLB algorithm of DeepSeek: from scratch at every call, hierarchical where the router has groups
    /// that divide by the nodes, otherwise global. It may put two copies of an expert on one rank, which is a wasted
    /// slot and which no [`ExpertMap`] has: such a copy is exchanged with the slot of another rank whose load is
    /// closest, on the same node if there is one; where no exchange exists, because the expert has a copy on every
    /// rank, it gives its slot to the expert with the highest load per copy that the rank lacks.
    DeepSeek,
    /// From the placement in force: copies for the experts that stand out, then the busiest rank is improved by the
    /// change that gains most for each page it moves, until the layer is close to the best possible or no change is
    /// worth a page.
    #[default]
    Swift,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 2] = [Self::DeepSeek, Self::Swift];

    /// Its name on command lines and in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeepSeek => "deepseek",
            Self::Swift => "swift",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let known = Self::ALL.into_iter().find(|policy| policy.as_str() == text);
        known.ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

/// No policy has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no policy is called {0:?}; the policies are deepseek and swift")]
pub struct UnknownPolicy(pub String);

/// A map for the load, of the shape of the map in force. The slots of each rank are in the order in which
/// [`moves::transactions`] from `current` leave them, so applying those ends exactly in it.
///
/// # Errors
/// If load, topology and current map have different dimensions.
pub fn balance(
    policy: Policy,
    load: &ExpertLoad,
    topology: &Topology,
    current: &ExpertMap,
) -> Result<ExpertMap, BalanceError> {
    check(load, topology, current)?;
    let slots = match policy {
        Policy::DeepSeek => deepseek::balance(load, topology),
        Policy::Swift => swift::balance(load, current),
    };
    let target = ExpertMap::new(current.shape(), slots).expect("a policy keeps the invariants of a map");
    Ok(moves::destination(current, &target).expect("both maps have one shape"))
}

fn check(load: &ExpertLoad, topology: &Topology, current: &ExpertMap) -> Result<(), BalanceError> {
    let shape = current.shape();
    if (load.layers(), load.experts()) != (shape.layers, shape.experts) {
        return Err(BalanceError::Load {
            layers: load.layers(),
            experts: load.experts(),
            map_layers: shape.layers,
            map_experts: shape.experts,
        });
    }
    if (topology.ranks(), topology.slots_per_rank()) != (shape.ranks, shape.slots_per_rank) {
        return Err(BalanceError::Topology {
            ranks: topology.ranks(),
            slots_per_rank: topology.slots_per_rank(),
            map_ranks: shape.ranks,
            map_slots_per_rank: shape.slots_per_rank,
        });
    }
    Ok(())
}

/// Why no target map could be found. Trying again with the same input does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BalanceError {
    /// The load is of another model than the map.
    #[error(
        "the load has {layers} layers of {experts} experts, the map in force {map_layers} of {map_experts}; \
         they must be of one model"
    )]
    Load {
        /// Layers of the load.
        layers: usize,
        /// Experts of the load.
        experts: usize,
        /// Layers of the map.
        map_layers: usize,
        /// Experts of the map.
        map_experts: usize,
    },
    /// The topology is of another group than the map.
    #[error(
        "the topology has {ranks} ranks of {slots_per_rank} slots, the map in force {map_ranks} of {map_slots_per_rank}; \
         they must be of one group"
    )]
    Topology {
        /// Ranks of the topology.
        ranks: usize,
        /// Slots of each of them.
        slots_per_rank: usize,
        /// Ranks of the map.
        map_ranks: usize,
        /// Slots of each of them.
        map_slots_per_rank: usize,
    },
}

#[cfg(test)]
mod tests;
