//! A load and a topology give a target map. Knows nothing of what moving to it costs in bytes or time, or of whether
//! that pays.

mod deepseek;
mod packing;
mod swift;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::coverage;
use crate::load::ExpertLoad;
use crate::map::{ExpertMap, MapError};
use crate::moves;
use crate::shares;
use crate::topology::Topology;

/// How a target map is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The placement in force stays.
    Off,
    /// The published EPLB algorithm of DeepSeek: from scratch at every call, hierarchical where the router has groups
    /// that divide by the nodes, otherwise global. It may put two copies of an expert on one rank, which no
    /// [`ExpertMap`] has: the first takes the shares of both, which leaves every rank its load, and in the slot of the
    /// other an expert that the rank lacks stands by.
    DeepSeek,
    /// From the placement in force: copies for the experts that stand out, then the busiest rank is improved by the
    /// change that gains most for each page it moves, until the layer is close to the best possible or no change is
    /// worth a page.
    #[default]
    Swift,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Off, Self::DeepSeek, Self::Swift];

    /// Its name on command lines and in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
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
#[error("no policy is called {0:?}; the policies are off, deepseek and swift")]
pub struct UnknownPolicy(pub String);

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// How the target is found.
    pub policy: Policy,
    /// The load of closed windows, the oldest first; at least one.
    pub windows: &'a [ExpertLoad],
    /// The ranks that the target is for.
    pub topology: &'a Topology,
    /// The placement in force, if there is one; it need not have the topology's ranks and slots.
    pub current: Option<&'a ExpertMap>,
    /// The number of ranks of which any may be lost with every expert still present.
    pub min_coverage: usize,
}

/// A target map, and what it could not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The target. Where the placement in force has its ranks and slots, the slots of each rank are in the order in
    /// which [`moves::transactions`] from there leave them, so applying those ends exactly in it.
    pub map: ExpertMap,
    /// Experts, over all layers, that the loss of `min_coverage` ranks could take away all the same.
    pub uncovered: usize,
}

/// Makes a plan.
///
/// # Errors
/// If there is no window, or windows, topology and placement in force do not fit each other.
pub fn balance(request: &Request<'_>) -> Result<Plan, BalanceError> {
    let Request { policy, windows, topology, current, min_coverage } = *request;
    let load = total(windows)?;
    let (layers, experts) = (load.layers(), load.experts());
    let fresh = current.is_none_or(|current| current.slots_of_ranks() != topology.slots());
    let current = in_force(current, &load, topology)?;
    let per_rank = || topology.slots().per_rank().ok_or(BalanceError::UnequalSlots { policy });
    let placed = |slots| {
        ExpertMap::with_slots_of_ranks(layers, experts, topology.slots().clone(), slots)
            .expect("a policy keeps the invariants of a map")
    };
    let target = match policy {
        Policy::Off => return Ok(Plan { uncovered: coverage::uncovered(&current, min_coverage), map: current }),
        Policy::DeepSeek => {
            let (slots, shares) = deepseek::balance(&load, topology, per_rank()?);
            placed(slots).with_shares(&shares).expect("copies that are joined take all shares")
        }
        Policy::Swift => {
            let map = placed(swift::balance((windows, &load), topology, &current, fresh, per_rank()?));
            shares::suit(&map, &load, topology, shares::uncertainty(windows))
        }
    };
    let map = moves::destination(&current, &target).expect("both maps have one shape");
    Ok(Plan { uncovered: coverage::uncovered(&map, min_coverage), map })
}

fn total(windows: &[ExpertLoad]) -> Result<ExpertLoad, BalanceError> {
    let (first, rest) = windows.split_first().ok_or(BalanceError::NoWindow)?;
    let mut total = first.clone();
    for window in rest {
        if (window.layers(), window.experts()) != (total.layers(), total.experts()) {
            return Err(BalanceError::Windows {
                layers: window.layers(),
                experts: window.experts(),
                first_layers: total.layers(),
                first_experts: total.experts(),
            });
        }
        total.merge(window);
    }
    Ok(total)
}

/// The placement to start from: the one in force where it has the topology's ranks and slots, else the contiguous one.
fn in_force(current: Option<&ExpertMap>, load: &ExpertLoad, topology: &Topology) -> Result<ExpertMap, BalanceError> {
    let contiguous = || ExpertMap::contiguous_on(load.layers(), load.experts(), topology.slots().clone());
    let Some(current) = current else { return Ok(contiguous()?) };
    let shape = current.shape();
    if (load.layers(), load.experts()) != (shape.layers, shape.experts) {
        return Err(BalanceError::Load {
            layers: load.layers(),
            experts: load.experts(),
            map_layers: shape.layers,
            map_experts: shape.experts,
        });
    }
    if current.slots_of_ranks() == topology.slots() { Ok(current.clone()) } else { Ok(contiguous()?) }
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
    /// There is no load to plan for.
    #[error("there is no window to plan from; at least one is needed")]
    NoWindow,
    /// Windows are of different models.
    #[error(
        "a window has {layers} layers of {experts} experts, the first {first_layers} of {first_experts}; \
         they must be of one model"
    )]
    Windows {
        /// Layers of the window.
        layers: usize,
        /// Experts of the window.
        experts: usize,
        /// Layers of the first.
        first_layers: usize,
        /// Experts of the first.
        first_experts: usize,
    },
    /// The policy knows only ranks with equally many slots.
    #[error("the policy {policy} needs ranks with equally many slots")]
    UnequalSlots {
        /// The policy.
        policy: Policy,
    },
    /// The topology cannot hold the experts.
    #[error(transparent)]
    Map(#[from] MapError),
}

#[cfg(test)]
mod tests;
