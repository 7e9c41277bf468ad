//! What goes into the rebalancer and what comes out of it. Plain data.

use std::sync::Arc;
use std::time::Duration;

use plan::ids::{LayerId, RankId};
use plan::load::ExpertLoad;
use plan::map::{ExpertMap, MapShape};
use plan::moves::{SlotChange, Transaction};
use plan::policy::{Decision, History};
use plan::wire::RecordedMap;
use plan::words::counted;
use thiserror::Error;

use super::window::ClosedWindow;
use crate::bounds::{self, OutOfBounds};
use crate::protocol::{MoveFailure, MoveReport, StepDone, ToRank, TransactionId};

/// How the rebalancer is set up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// `dynamic_eplb`: plan after each window. Without it load is counted, and experts move only when asked for.
    pub dynamic: bool,
    /// `num_iterations_eplb_update`: steps of a window.
    pub window_steps: u64,
    /// `num_wait_worker_iterations`: steps after the group was formed, and after a window has closed, before a plan is
    /// applied.
    pub wait_steps: u64,
    /// Staging pages of each rank.
    pub staging_pages: u32,
    /// How long a rank may take to stage a transaction.
    pub deadline: Duration,
}

impl Settings {
    /// Whether every number is within its bounds.
    pub(super) fn check(&self) -> Result<(), OutOfBounds> {
        bounds::WAIT.check(self.wait_steps)?;
        bounds::WINDOW.check(self.window_steps)?;
        bounds::STAGING.check(self.staging_pages.into())?;
        // Tests are less patient than a whole second.
        bounds::MOVE_DEADLINE.check(self.deadline.as_secs().max(1))
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Every rank has answered a step.
    StepDone {
        /// Its number.
        number: u64,
        /// The time, from any fixed start.
        now: Duration,
        /// The answers, `[ranks]`.
        answers: &'a [StepDone],
    },
    /// A plan is ready.
    Planned {
        /// [`PlanRequest::number`].
        request: u64,
        /// What came of it.
        outcome: PlanOutcome,
    },
    /// A rank has reported what became of a transaction.
    Moved {
        /// Which rank.
        rank: RankId,
        /// What it says.
        report: MoveReport,
    },
    /// A group of ranks stands under the map in force.
    GroupFormed {
        /// Its generation.
        generation: u64,
    },
    /// The group is no more; steps that were under way have not happened.
    GroupLost,
}

/// Why a wish is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The map is for other ranks.
    #[error(
        "the map has {} of {} on {} of {}, the ranks have {} of {} on {} of {}",
        counted(found.layers, "layer"), counted(found.experts, "expert"),
        counted(found.ranks, "rank"), counted(found.slots_per_rank, "slot"),
        ranks.layers, ranks.experts, ranks.ranks, ranks.slots_per_rank
    )]
    OtherShape {
        /// The map's.
        found: MapShape,
        /// The one that the map must have.
        ranks: MapShape,
    },
    /// There is no group.
    #[error("the ranks are not formed into a group; wait until the deployment is ready")]
    NotReady,
    /// There is nothing to plan from.
    #[error("no load has been counted since the last window; send requests first")]
    NoLoad,
    /// A plan is made or carried out.
    #[error("a rebalance is under way; wait until it has ended")]
    UnderWay,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make a plan away from the step path and say [`Event::Planned`].
    Plan(PlanRequest),
    /// Send an order to a rank.
    Order {
        /// Which rank.
        rank: RankId,
        /// What the rank is to do.
        order: ToRank,
    },
    /// Keep this map for later starts.
    Record(RecordedMap),
    /// Make it known.
    Notice(Notice),
}

/// A plan that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRequest {
    /// Its number.
    pub number: u64,
    /// The map in force.
    pub map: ExpertMap,
    /// Where to.
    pub goal: Goal,
}

/// Where a plan leads.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// To a map that balances a load, if it is worth it.
    Balance {
        /// The load of the last windows in which something was counted, the oldest first; the last is the one that has just
        /// closed. They share their counts with those that are kept.
        windows: Vec<ExpertLoad>,
        /// How long the last was: the plan is expected to be in force as long.
        lifetime: Duration,
        /// What was decided before.
        history: History,
    },
    /// To this map.
    Reach(ExpertMap),
}

/// What came of planning.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanOutcome {
    /// Transactions, in an order in which each applies to the map that the ones before it leave.
    Move {
        /// The transactions, in the order in which they are to be applied.
        transactions: Vec<Transaction>,
        /// Why they are worth it; `None` for a map that was asked for.
        decision: Option<Decision>,
    },
    /// Better stay.
    Keep {
        /// The decision, with the figures that it rests on.
        decision: Decision,
    },
    /// No plan could be made.
    Failed {
        /// The reason, in words for people.
        reason: String,
    },
}

/// What people and metrics are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A window has closed.
    WindowClosed(Arc<ClosedWindow>),
    /// Whether a plan is worth it has been decided.
    Decided(Decision),
    /// Experts will move.
    Planned {
        /// How many transactions the plan has.
        transactions: usize,
        /// Pages between ranks.
        pages: u64,
    },
    /// Nothing moves.
    Kept {
        /// The reason, in words for people.
        reason: String,
    },
    /// A transaction is in force.
    Committed {
        /// The number of the transaction.
        transaction: TransactionId,
        /// Its layer.
        layer: LayerId,
        /// The epoch since.
        epoch: u64,
        /// Pages between ranks.
        pages: u64,
        /// Bytes of them.
        bytes: u64,
        /// The slots that hold another expert.
        changes: Vec<SlotChange>,
    },
    /// A transaction was taken back.
    Aborted {
        /// The number of the transaction.
        transaction: TransactionId,
        /// The kind of reason, as metrics count it.
        reason: AbortReason,
        /// What failed, in words for people.
        message: String,
    },
    /// Every transaction of a plan is in force.
    Completed {
        /// The epoch since.
        epoch: u64,
        /// Pages between ranks.
        pages: u64,
        /// Bytes of them.
        bytes: u64,
        /// Steps from its first order to its last commit.
        steps: u64,
    },
    /// The rest of a plan was given up; what was committed stays, everything else serves as before.
    Dropped {
        /// The reason, in words for people.
        reason: String,
    },
}

/// Why a transaction was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbortReason {
    /// A rank could not stage it.
    Move(MoveFailure),
    /// The group was lost.
    GroupLost,
    /// The plan that it belongs to was given up.
    PlanDropped,
}

impl AbortReason {
    /// Its name as a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Move(failure) => failure.into(),
            Self::GroupLost => "group_lost",
            Self::PlanDropped => "plan_dropped",
        }
    }
}
