//! A load and a topology give a target map. Knows nothing of what moving to it costs in bytes or time, or of whether
//! that pays.

mod deepseek;
mod forecast;
mod relabel;
mod swift;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::forecast::Forecast;
use self::swift::Found;
use crate::coverage::{self, Coverage};
use crate::expected::Expected;
use crate::load::{self, ExpertLoad, since_last_shift, total};
use crate::map::{ExpertMap, MapError};
use crate::membership::{Membership, MembershipError};
use crate::moves;
use crate::shares;
use crate::topology::Topology;
use crate::tuning::Tuning;
use crate::words::counted;

/// How a target map is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The placement in force stays. After a loss what no rank holds any more comes back, and nothing else moves.
    Off,
    /// The published EPLB algorithm of DeepSeek: from scratch at every call, hierarchical where the router has groups
    /// that divide by the nodes, otherwise global. It may put two copies of an expert on one rank, which no
    /// [`ExpertMap`] has: the first takes the shares of both, which leaves every rank its load, and in the slot of the
    /// other an expert that the rank lacks stands by. Each rank takes the part that it holds most of, among those of the ranks
    /// of its node.
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
    /// The load of closed windows, the oldest first; at least one. Those in which nothing was counted are left out.
    pub windows: &'a [ExpertLoad],
    /// The ranks that the target is for.
    pub topology: &'a Topology,
    /// The placement in force, if there is one. It is of the topology's ranks, of which other ones may be live
    /// ([`Membership`]): then the plan brings back what only lost ranks held and gives returned ranks something to hold, and
    /// moves little else.
    pub current: Option<&'a ExpertMap>,
    /// What may be lost with every expert still present.
    pub min_coverage: Coverage,
}

/// A target map, what it is for, and what it could not do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The target. The slots of each rank are in the order in which the way from the placement in force leaves them
    /// ([`moves::destination`]), so taking that ends exactly in it.
    pub map: ExpertMap,
    /// Which part of the planner answered, for each layer.
    pub branches: Vec<Branch>,
    /// What it was made for: whether moving there is worth it is to be judged by that.
    pub expected: Expected,
    /// Windows in which something was counted, of those that were given: the plan was made from these, or from the last
    /// [`load::WINDOWS_KEPT`] of them.
    pub windows: usize,
    /// Experts, over all layers, that a loss which `min_coverage` names could take away all the same.
    pub uncovered: usize,
}

/// A part of the planner that answers for a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Branch {
    /// The placement in force, as it is.
    Kept,
    /// The published algorithm.
    Published,
    /// A placement from nothing.
    Scratch,
    /// Few changes of the placement in force.
    InForce,
    /// A placement of other ranks, fitted to those there are.
    Recovered,
    /// A placement for loads that come in bursts, from nothing or from the one in force.
    Bursts,
}

/// Makes a plan.
///
/// # Errors
/// If there is no window, or windows, topology and placement in force do not fit each other.
pub fn balance(request: &Request<'_>) -> Result<Plan, BalanceError> {
    balance_with(request, &Tuning::PRODUCT)
}

/// Makes a plan with other numbers than the product's.
///
/// # Errors
/// As [`balance`].
pub fn balance_with(request: &Request<'_>, tuning: &Tuning) -> Result<Plan, BalanceError> {
    let Request { windows, topology, current, min_coverage, .. } = *request;
    let first = same_model(windows)?;
    check_model(current, first)?;
    if let Some(current) = current {
        Membership::between(current.slots_of_ranks(), topology.slots())?;
    }
    ExpertMap::shape_on(first.layers(), first.experts(), topology.slots())?;
    let kept = load::kept(windows, tuning);
    let (map, expected, branches) = target(&Request { windows: &kept, ..*request }, first, tuning)?;
    let uncovered = coverage::uncovered(&map, topology, min_coverage);
    let windows = windows.iter().filter(|window| !window.is_empty()).count();
    Ok(Plan { map, branches, expected, windows, uncovered })
}

fn target(
    request: &Request<'_>,
    load: &ExpertLoad,
    tuning: &Tuning,
) -> Result<(ExpertMap, Expected, Vec<Branch>), BalanceError> {
    let Request { policy, windows, topology, current, min_coverage } = *request;
    let (layers, experts, of_ranks) = (load.layers(), load.experts(), topology.slots().clone());
    let placed = |slots| {
        ExpertMap::with_slots_of_ranks(layers, experts, of_ranks.clone(), slots)
            .expect("a policy keeps the invariants of a map")
    };
    let in_force = same_ranks(current, topology);
    let arranged = |map| match current {
        Some(current) => moves::destination(current, map).expect("both maps are of one group"),
        None => map,
    };
    let known = |map, branch| (map, Expected::known(&total(windows)), vec![branch; layers]);
    Ok(match policy {
        Policy::Off => match current {
            Some(current) if in_force.is_some() => known(current.clone(), Branch::Kept),
            Some(current) => {
                let restored = swift::restored(&Forecast::new(windows, tuning), (topology, tuning), current);
                known(arranged(placed(restored)), Branch::Recovered)
            }
            None => known(ExpertMap::contiguous_on(layers, experts, of_ranks)?, Branch::Kept),
        },
        Policy::DeepSeek => {
            let live = topology.live();
            let per_rank = live.slots().per_rank().ok_or(BalanceError::UnequalSlots { policy })?;
            let (slots, shares) = deepseek::balance(&total(windows), &live, per_rank);
            let target = placed(slots).with_shares(&shares).expect("copies that are joined take all shares");
            let target = match current {
                Some(current) => relabel::all_layers(current, target, topology, tuning),
                None => target,
            };
            known(arranged(target), Branch::Published)
        }
        Policy::Swift => {
            let windows = since_last_shift(windows, tuning);
            let Found { slots, expected, branches } =
                swift::balance(windows, (topology, tuning), current, min_coverage);
            let map = shares::suit_with(arranged(placed(slots)), &expected, topology, tuning);
            (map, expected, branches)
        }
    })
}

/// The first window, if all are of its model.
fn same_model(windows: &[ExpertLoad]) -> Result<&ExpertLoad, BalanceError> {
    let first = windows.first().ok_or(BalanceError::NoWindow)?;
    let dimensions = |window: &ExpertLoad| (window.layers(), window.experts());
    match windows.iter().find(|window| dimensions(window) != dimensions(first)) {
        None => Ok(first),
        Some(window) => Err(BalanceError::Windows {
            layers: window.layers(),
            experts: window.experts(),
            first_layers: first.layers(),
            first_experts: first.experts(),
        }),
    }
}

/// The placement in force, if it has the topology's ranks and slots.
fn same_ranks<'a>(current: Option<&'a ExpertMap>, topology: &Topology) -> Option<&'a ExpertMap> {
    current.filter(|map| map.slots_of_ranks() == topology.slots())
}

fn check_model(current: Option<&ExpertMap>, load: &ExpertLoad) -> Result<(), BalanceError> {
    let Some(shape) = current.map(ExpertMap::shape) else { return Ok(()) };
    if (load.layers(), load.experts()) == (shape.layers, shape.experts) {
        return Ok(());
    }
    Err(BalanceError::Load {
        layers: load.layers(),
        experts: load.experts(),
        map_layers: shape.layers,
        map_experts: shape.experts,
    })
}

/// Why no target map could be found. Trying again with the same input does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BalanceError {
    /// The load is of another model than the map.
    #[error(
        "the load has {} of {}, the map in force {map_layers} of {map_experts}; they must be of one model",
        counted(*layers, "layer"),
        counted(*experts, "expert")
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
        "a window has {} of {}, the first {first_layers} of {first_experts}; they must be of one model",
        counted(*layers, "layer"),
        counted(*experts, "expert")
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
    #[error("the policy {policy} needs live ranks with equally many slots; choose another policy or give each as many")]
    UnequalSlots {
        /// The policy.
        policy: Policy,
    },
    /// The placement in force is of another group.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The topology cannot hold the experts.
    #[error(transparent)]
    Map(#[from] MapError),
}

#[cfg(test)]
mod tests;
