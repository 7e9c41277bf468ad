//! What goes into the rebalancer and what comes out of it. Plain data.

use std::time::Duration;

use plan::ids::{LayerId, RankId};
use plan::load::ExpertLoad;
use plan::map::ExpertMap;
use plan::moves::Transaction;
use plan::policy::{Decision, History};
use plan::wire::{RecordedMap, WindowReport};
use thiserror::Error;

use crate::bounds::{self, OutOfBounds};
use crate::protocol::{MoveFailure, StepDone, ToRank, TransactionId};

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
    /// Failures of one transaction after which the rest of its plan is dropped.
    pub max_failures: u32,
    /// Steps until a transaction that failed is tried again; doubles with each failure.
    pub back_off_steps: u64,
    /// For tests: commit a random valid transaction every so many steps, whatever the load.
    pub forced_interval: Option<u64>,
    /// What the random transactions are drawn from.
    pub forced_seed: u64,
}

impl Settings {
    /// Whether every number is within its bounds.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        bounds::WAIT.check(self.wait_steps)?;
        bounds::WINDOW.check(self.window_steps)?;
        bounds::STAGING.check(self.staging_pages.into())?;
        self.forced_interval.map_or(Ok(()), |steps| bounds::FORCED.check(steps))?;
        // Tests are less patient than a whole second.
        bounds::MOVE_DEADLINE.check(self.deadline.as_secs().max(1))?;
        if self.max_failures == 0 {
            return Err(SettingsError::NoAttempt);
        }
        Ok(())
    }
}

/// Why the rebalancer cannot be set up so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// A number is out of bounds.
    #[error(transparent)]
    Bounds(#[from] OutOfBounds),
    /// No transaction would ever be tried.
    #[error("failures of a transaction must be at least 1")]
    NoAttempt,
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
    /// A rank holds every page that it receives in a transaction.
    Staged {
        /// The generation of the order.
        generation: u64,
        /// Which rank.
        rank: RankId,
        /// Which transaction.
        transaction: TransactionId,
        /// Bytes that it received.
        bytes: u64,
    },
    /// A rank cannot stage a transaction.
    MoveFailed {
        /// The generation of the order.
        generation: u64,
        /// Which rank.
        rank: RankId,
        /// Which transaction.
        transaction: TransactionId,
        /// Why.
        reason: MoveFailure,
        /// The same for people.
        message: String,
    },
    /// A group of ranks stands under the map in force.
    GroupFormed {
        /// Its generation.
        generation: u64,
    },
    /// The group is no more; a step that was running has not happened.
    GroupLost,
    /// Move to this map; it is of the shape of the map in force.
    ApplyMap(ExpertMap),
    /// Close the window now and plan.
    Trigger,
    /// Time has passed.
    Tick {
        /// The time, from the same start as the steps'.
        now: Duration,
    },
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
        /// What.
        order: ToRank,
    },
    /// Keep this map for later starts.
    Record(RecordedMap),
    /// Make it known.
    Report(Report),
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
        /// Them.
        transactions: Vec<Transaction>,
        /// Why they are worth it; `None` for a map that was asked for.
        decision: Option<Decision>,
    },
    /// Better stay.
    Keep {
        /// Why.
        decision: Decision,
    },
    /// No plan could be made.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What people and metrics are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A window has closed.
    WindowClosed(WindowReport),
    /// Whether a plan is worth it has been decided.
    Decided(Decision),
    /// Experts will move.
    Planned {
        /// Transactions.
        transactions: usize,
        /// Pages between ranks.
        pages: u64,
    },
    /// Nothing moves.
    Kept {
        /// Why.
        reason: String,
    },
    /// A transaction is in force.
    Committed {
        /// Which.
        transaction: TransactionId,
        /// Its layer.
        layer: LayerId,
        /// The epoch since.
        epoch: u64,
        /// Pages between ranks.
        pages: u64,
        /// Bytes of them.
        bytes: u64,
    },
    /// A transaction was taken back.
    Aborted {
        /// Which.
        transaction: TransactionId,
        /// Why.
        reason: AbortReason,
        /// The same for people.
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
        /// Why.
        reason: String,
    },
    /// A wish cannot be granted now.
    Refused {
        /// Why, and what to do.
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
