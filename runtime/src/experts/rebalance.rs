//! When experts move. A state machine without I/O: it is told what happened, or what somebody wants, and says what is to be done.
//!
//! ```text
//!               window full            plan ready           its time has come
//!  Collecting --------------> Planning -----------> Waiting ----------------> Moving
//!      ^                          | not worth it       |                        | all committed,
//!      +--------------------------+--------------------+------------------------+ or given up
//! ```
//! Steps are counted in every phase, and a window closes only while collecting. Whatever goes wrong, the map in force
//! is the last one that a finished step was run under.

mod contract;
mod documents;
mod failure;
mod in_force;
mod moves;
mod seen;
mod window;

use std::time::Duration;

use plan::load::{balance_ratio, rank_loads};
use plan::map::ExpertMap;
use plan::moves::Transaction;
use plan::policy::{Decision, History};
use plan::wire::{ModelIdentity, MoveTotals, Provenance, RecordedMap};
use plan::words::counted;

pub use self::contract::{AbortReason, Effect, Event, Goal, Notice, PlanOutcome, PlanRequest, Refusal, Settings};
pub use self::documents::decision as decision_report;
use self::in_force::{Hashed, InForce};
use self::moves::{InFlight, Moment, Moves, page_count, receivers};
pub use self::seen::{Seen, Service};
pub use self::window::ClosedWindow;
use self::window::Windows;
use crate::bounds::OutOfBounds;
use crate::protocol::{Commit, MoveFailure, MoveReport, NotStaged, StepDone, ToRank, TransactionId};

#[derive(Clone, Debug)]
enum Phase {
    Collecting,
    Planning { request: u64, origin: Origin },
    Waiting { transactions: Vec<Transaction>, origin: Origin, not_before: u64 },
    Moving { moves: Moves, origin: Origin, since: u64, dropped: Option<String> },
}

/// Who wants the moves.
#[derive(Clone, Debug)]
enum Origin {
    Window,
    Given(ExpertMap),
}

/// The group that stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    generation: u64,
    /// Steps that had been run when it was formed.
    since: u64,
}

/// What ranks have received.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    pages: u64,
    bytes: u64,
}

/// Decides when experts move; see the module.
#[derive(Clone, Debug)]
pub struct Rebalancer {
    settings: Settings,
    model: ModelIdentity,
    in_force: InForce,
    phase: Phase,
    group: Option<Standing>,
    moment: Moment,
    windows: Windows,
    /// The window after which pages were last moved because it was worth it.
    moved_after: Option<u64>,
    last_decision: Option<Decision>,
    /// A map that was asked for while something else was under way.
    wanted: Option<ExpertMap>,
    recorded: Option<Hashed<RecordedMap>>,
    next_transaction: u64,
    next_request: u64,
    /// By the plan that is carried out.
    moved: Moved,
    totals: MoveTotals,
    degraded: Option<String>,
    /// What is to be done about what happens now.
    effects: Vec<Effect>,
}

impl Rebalancer {
    /// A rebalancer of a group that starts with `map`.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(settings: Settings, model: ModelIdentity, map: ExpertMap, epoch: u64) -> Result<Self, OutOfBounds> {
        settings.check()?;
        Ok(Self {
            settings,
            model,
            windows: Windows::open(map.shape(), epoch),
            in_force: InForce::new(map, epoch),
            phase: Phase::Collecting,
            group: None,
            moment: Moment { steps: 0, now: Duration::ZERO },
            moved_after: None,
            last_decision: None,
            wanted: None,
            recorded: None,
            next_transaction: 1,
            next_request: 1,
            moved: Moved::default(),
            totals: MoveTotals::default(),
            degraded: None,
            effects: Vec::new(),
        })
    }

    /// Takes note of what happened; the effects are to be carried out in order.
    pub fn on(&mut self, event: Event<'_>) -> Vec<Effect> {
        match event {
            Event::StepDone { number, now, answers } => self.step_done(number, now, answers),
            Event::Planned { request, outcome } => self.planned(request, outcome),
            Event::Moved { rank, report } => self.moved(rank, report),
            Event::GroupFormed { generation } => self.group_formed(generation),
            Event::GroupLost => self.group_lost(),
        }
        self.go_on()
    }

    /// Moves to this map, whatever is under way; the effects are as [`Self::on`]'s.
    ///
    /// # Errors
    /// If the map is for other ranks.
    pub fn apply_map(&mut self, map: ExpertMap) -> Result<Vec<Effect>, Refusal> {
        let (found, ranks) = (map.shape(), self.map().shape());
        if map.slots_of_ranks() != self.map().slots_of_ranks() || found != ranks {
            return Err(Refusal::OtherShape { found, ranks });
        }
        self.wanted = Some(map);
        match self.phase {
            Phase::Moving { .. } => self.drop_plan("another map was asked for".to_owned()),
            Phase::Collecting | Phase::Planning { .. } | Phase::Waiting { .. } => self.settle(),
        }
        Ok(self.go_on())
    }

    /// Closes the window now and plans; the effects are as [`Self::on`]'s.
    ///
    /// # Errors
    /// If there is nothing to plan from, or something is under way.
    pub fn trigger(&mut self) -> Result<Vec<Effect>, Refusal> {
        match (&self.phase, self.group) {
            (_, None) => Err(Refusal::NotReady),
            (Phase::Collecting, Some(_)) if self.windows.pairs() == 0 => Err(Refusal::NoLoad),
            (Phase::Collecting, Some(_)) => {
                self.close_window();
                self.plan_for_window();
                Ok(self.go_on())
            }
            _ => Err(Refusal::UnderWay),
        }
    }

    /// The commits of the step that is about to be sent: transactions that every receiver has staged. They are in force
    /// once [`Event::StepDone`] of that step says so, and are void if the group is lost instead.
    pub fn commits_for(&mut self, step: u64) -> Vec<Commit> {
        let Phase::Moving { moves, .. } = &mut self.phase else { return Vec::new() };
        // Steps that are under way and commit something come before this one.
        let epoch = self.in_force.epoch() + moves.committing() as u64;
        let committed = moves.commit(step).into_iter().zip(epoch + 1..);
        committed.map(|((transaction, work), epoch)| Commit { transaction, epoch, work }).collect()
    }

    fn step_done(&mut self, number: u64, now: Duration, answers: &[StepDone]) {
        self.moment = Moment { steps: self.moment.steps + 1, now };
        if let Phase::Moving { moves, .. } = &mut self.phase {
            let committed = moves.committed(number);
            if !committed.is_empty() {
                self.windows.ran_under(self.in_force.map());
            }
            for (transaction, done) in committed {
                self.in_force.apply(&done.work);
                let (pages, bytes) = (page_count(&done.work), done.bytes);
                self.moved.pages += pages;
                self.moved.bytes += bytes;
                self.totals.committed += 1;
                self.totals.experts_moved += pages;
                self.totals.bytes_moved += bytes;
                let (layer, epoch, changes) = (done.work.layer, self.in_force.epoch(), done.work.changes);
                let notice = Notice::Committed { transaction, layer, epoch, pages, bytes, changes };
                self.effects.push(Effect::Notice(notice));
            }
        }
        self.windows.count(answers);
    }

    fn moved(&mut self, rank: plan::ids::RankId, report: MoveReport) {
        let MoveReport { generation, transaction, staged } = report;
        match (&mut self.phase, self.group) {
            (Phase::Moving { moves, .. }, Some(group)) if group.generation == generation => match staged {
                Ok(bytes) => moves.staged(transaction, rank, bytes),
                Err(NotStaged { reason, message }) => {
                    let why = NotStaged { reason, message: format!("{rank}: {message}") };
                    self.failed(transaction, Some(rank), why);
                }
            },
            // It is about a group or a plan that is no more.
            _ => {}
        }
    }

    fn group_formed(&mut self, generation: u64) {
        self.group = Some(Standing { generation, since: self.moment.steps });
        self.take_wish();
    }

    /// Does whatever has become due, and gives what is to be done about everything.
    fn go_on(&mut self) -> Vec<Effect> {
        self.advance();
        std::mem::take(&mut self.effects)
    }

    fn advance(&mut self) {
        let Some(Standing { generation, .. }) = self.group else { return };
        match &mut self.phase {
            Phase::Planning { .. } => {}
            Phase::Collecting => {
                if self.windows.steps() >= self.settings.window_steps {
                    self.close_window();
                    if self.settings.dynamic {
                        self.plan_for_window();
                    }
                }
            }
            Phase::Waiting { not_before, .. } => {
                if *not_before <= self.moment.steps {
                    self.begin_moving();
                }
            }
            Phase::Moving { moves, .. } => {
                for transaction in moves.expired(self.moment.now) {
                    let (reason, message) = (MoveFailure::Deadline, "a rank did not report".to_owned());
                    self.failed(transaction, None, NotStaged { reason, message });
                }
                self.start_transactions(generation);
                self.finish_if_done();
            }
        }
    }

    fn close_window(&mut self) {
        let closed = self.windows.close(self.in_force.map(), self.in_force.epoch(), self.moment.now);
        self.notice(Notice::WindowClosed(closed));
    }

    fn plan_for_window(&mut self) {
        if let Some((windows, lifetime)) = self.windows.to_plan_from() {
            let windows_since_move = self.moved_after.map(|window| self.windows.closed() - window);
            let goal = Goal::Balance { windows, lifetime, history: History { windows_since_move } };
            self.request_plan(Origin::Window, goal);
        }
    }

    fn request_plan(&mut self, origin: Origin, goal: Goal) {
        let number = self.next_request;
        self.next_request += 1;
        self.phase = Phase::Planning { request: number, origin };
        self.effects.push(Effect::Plan(PlanRequest { number, map: self.map().clone(), goal }));
    }

    fn planned(&mut self, number: u64, outcome: PlanOutcome) {
        let Phase::Planning { request, origin } = &self.phase else { return };
        if *request != number {
            return;
        }
        let origin = origin.clone();
        if let PlanOutcome::Move { decision: Some(decision), .. } | PlanOutcome::Keep { decision } = &outcome {
            self.last_decision = Some(*decision);
            self.notice(Notice::Decided(*decision));
        }
        match outcome {
            PlanOutcome::Move { transactions, .. } if transactions.is_empty() => {
                self.keep("the map in force is the one that is wanted".to_owned());
            }
            PlanOutcome::Move { transactions, .. } => self.wait(transactions, origin),
            PlanOutcome::Keep { decision } => self.keep(decision.reason.to_string()),
            PlanOutcome::Failed { reason } => {
                self.degraded = Some(format!("no plan could be made: {reason}"));
                self.notice(Notice::Dropped { reason });
                self.settle();
            }
        }
    }

    fn wait(&mut self, transactions: Vec<Transaction>, origin: Origin) {
        let (count, pages) = (transactions.len(), transactions.iter().map(page_count).sum());
        self.notice(Notice::Planned { transactions: count, pages });
        // A window closes, or a map is asked for, at or after the group was formed.
        let formed = self.group.map_or(self.moment.steps, |group| group.since);
        let since = match origin {
            Origin::Window => self.moment.steps.saturating_sub(self.windows.steps()).max(formed),
            Origin::Given(_) => formed,
        };
        self.phase = Phase::Waiting { transactions, origin, not_before: since + self.settings.wait_steps };
    }

    fn keep(&mut self, reason: String) {
        self.totals.skipped += 1;
        self.degraded = None;
        self.notice(Notice::Kept { reason });
        if self.recorded.is_none() {
            self.record();
        }
        self.settle();
    }

    fn begin_moving(&mut self) {
        let Phase::Waiting { transactions, origin, .. } = std::mem::replace(&mut self.phase, Phase::Collecting) else {
            return;
        };
        let moves = Moves::new(transactions);
        let too_large = moves.too_large(self.settings.staging_pages);
        self.moved = Moved::default();
        self.phase = Phase::Moving { moves, origin, since: self.moment.steps, dropped: None };
        if let Some(layer) = too_large {
            let pages = counted(self.settings.staging_pages as usize, "staging page");
            self.drop_plan(format!("a transaction of {layer} needs more than {pages}"));
        }
        self.advance();
    }

    fn start_transactions(&mut self, generation: u64) {
        let Phase::Moving { moves, .. } = &mut self.phase else { return };
        let next_transaction = &mut self.next_transaction;
        let next = || {
            *next_transaction += 1;
            TransactionId(*next_transaction - 1)
        };
        let started = moves.start(&self.settings, self.moment, next);
        let deadline_ms = self.settings.deadline.as_millis() as u64;
        for (transaction, InFlight { work, .. }) in moves.in_flight().filter(|(id, _)| started.contains(id)) {
            for rank in receivers(work) {
                let order = ToRank::Stage { generation, transaction, work: work.clone(), deadline_ms };
                self.effects.push(Effect::Order { rank, order });
            }
        }
    }

    fn finish_if_done(&mut self) {
        let Phase::Moving { moves, origin, since, dropped } = &mut self.phase else { return };
        if !moves.is_finished() {
            return;
        }
        if matches!(origin, Origin::Window) && self.moved.pages > 0 {
            self.moved_after = Some(self.windows.closed());
        }
        match (dropped.take(), *since) {
            (Some(reason), _) => {
                self.degraded = Some(reason.clone()).filter(|_| self.wanted.is_none());
                self.notice(Notice::Dropped { reason });
            }
            (None, since) => {
                self.totals.rebalances += 1;
                self.degraded = None;
                let (epoch, Moved { pages, bytes }, steps) = (self.epoch(), self.moved, self.moment.steps - since);
                self.notice(Notice::Completed { epoch, pages, bytes, steps });
                self.record();
            }
        }
        self.settle();
    }

    /// Back to collecting. What was counted under several maps says nothing of the one in force.
    fn settle(&mut self) {
        self.phase = Phase::Collecting;
        self.windows.are_under(self.in_force.epoch(), self.moment.now);
        self.take_wish();
    }

    fn take_wish(&mut self) {
        if self.group.is_some()
            && let Some(map) = self.wanted.take()
        {
            self.request_plan(Origin::Given(map.clone()), Goal::Reach(map));
        }
    }

    fn record(&mut self) {
        let Some(ClosedWindow { report, load, .. }) = self.windows.last() else { return };
        let provenance = Provenance {
            window: report.number,
            window_steps: report.steps,
            window_pairs: report.pairs,
            epoch: self.epoch(),
            ratio: balance_ratio(&rank_loads(self.map(), load)),
        };
        let recorded = RecordedMap { map: self.map_document(), provenance };
        self.recorded = Some(Hashed::new(recorded.clone()));
        self.effects.push(Effect::Record(recorded));
    }

    fn notice(&mut self, notice: Notice) {
        self.effects.push(Effect::Notice(notice));
    }
}

#[cfg(test)]
mod tests;
