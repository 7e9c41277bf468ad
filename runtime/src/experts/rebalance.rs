//! When experts move. A state machine without I/O: it is told what happened and says what is to be done.
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
mod moves;
mod view;
mod window;

use std::collections::VecDeque;
use std::time::Duration;

use plan::load::{ExpertLoad, WINDOWS_KEPT, balance_ratio, rank_loads};
use plan::map::ExpertMap;
use plan::moves::{Transaction, random_transaction};
use plan::policy::{Decision, History};
use plan::wire::{self, MapDocument, ModelIdentity, MoveTotals, Provenance, RecordedMap, WindowReport};

pub use self::contract::{AbortReason, Effect, Event, Goal, PlanOutcome, PlanRequest, Report, Settings, SettingsError};
use self::moves::{InFlight, Moment, Moves, page_count, receivers};
pub use self::view::Serving;
pub use self::window::ClosedWindow;
use self::window::Window;
use crate::protocol::{Commit, MoveFailure, StepDone, ToRank, TransactionId};

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
    Forced,
}

/// Decides when experts move; see the module.
#[derive(Clone, Debug)]
pub struct Rebalancer {
    settings: Settings,
    model: ModelIdentity,
    map: ExpertMap,
    epoch: u64,
    phase: Phase,
    /// The generation of the group that stands, and the steps that had been run when it was formed.
    group: Option<(u64, u64)>,
    moment: Moment,
    window: Window,
    windows: u64,
    first_window: Option<WindowReport>,
    last_window: Option<ClosedWindow>,
    /// Loads of the last windows, the oldest first.
    loads: VecDeque<ExpertLoad>,
    /// The window after which pages were last moved because it was worth it.
    moved_after: Option<u64>,
    last_decision: Option<Decision>,
    /// A map that was asked for while something else was under way.
    wanted: Option<ExpertMap>,
    recorded: Option<RecordedMap>,
    next_transaction: u64,
    next_request: u64,
    moved: (u64, u64),
    totals: MoveTotals,
    degraded: Option<String>,
}

impl Rebalancer {
    /// A rebalancer of a group that starts with `map`.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(settings: Settings, model: ModelIdentity, map: ExpertMap, epoch: u64) -> Result<Self, SettingsError> {
        settings.check()?;
        let window = Window::open(map.shape(), epoch, Duration::ZERO);
        Ok(Self {
            settings,
            model,
            map,
            epoch,
            phase: Phase::Collecting,
            group: None,
            moment: Moment { steps: 0, now: Duration::ZERO },
            window,
            windows: 0,
            first_window: None,
            last_window: None,
            loads: VecDeque::new(),
            moved_after: None,
            last_decision: None,
            wanted: None,
            recorded: None,
            next_transaction: 1,
            next_request: 1,
            moved: (0, 0),
            totals: MoveTotals::default(),
            degraded: None,
        })
    }

    /// Takes note of what happened; the effects are to be carried out in order.
    pub fn on(&mut self, event: Event<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::StepDone { number, now, answers } => {
                self.moment.now = now;
                self.step_done(number, answers, &mut effects);
            }
            Event::Planned { request, outcome } => self.planned(request, outcome, &mut effects),
            Event::Staged { generation, rank, transaction, bytes } => {
                if let Some(moves) = self.moves_of(generation) {
                    moves.staged(transaction, rank, bytes);
                }
            }
            Event::MoveFailed { generation, rank, transaction, reason, message } => {
                if self.moves_of(generation).is_some() {
                    self.failed(transaction, Some(rank), (reason, format!("{rank}: {message}")), &mut effects);
                }
            }
            Event::GroupFormed { generation } => {
                self.group = Some((generation, self.moment.steps));
                self.take_wish(&mut effects);
            }
            Event::GroupLost => self.group_lost(&mut effects),
            Event::ApplyMap(map) => self.apply_map(map, &mut effects),
            Event::Trigger => self.trigger(&mut effects),
            Event::Tick { now } => self.moment.now = now,
        }
        self.advance(&mut effects);
        effects
    }

    /// The commits of the step that is about to run: transactions that every receiver has staged. They are in force
    /// once [`Event::StepDone`] of that step says so, and are void if the group is lost instead.
    pub fn commits_for(&mut self, step: u64) -> Vec<Commit> {
        let Phase::Moving { moves, .. } = &mut self.phase else { return Vec::new() };
        // Steps that are under way and commit something come before this one.
        let epoch = self.epoch + moves.committing() as u64;
        let committed = moves.commit(step).into_iter().zip(epoch + 1..);
        let commit = |((transaction, work), epoch)| {
            let Transaction { layer, changes, shares } = work;
            Commit { transaction, epoch, layer, changes, shares }
        };
        committed.map(commit).collect()
    }

    fn step_done(&mut self, number: u64, answers: &[StepDone], effects: &mut Vec<Effect>) {
        self.moment.steps += 1;
        if let Phase::Moving { moves, .. } = &mut self.phase {
            for (transaction, done) in moves.committed(number) {
                self.map.apply_in_place(&done.work).expect("transactions of a layer are committed in order");
                self.epoch += 1;
                let (pages, bytes) = (page_count(&done.work), done.bytes);
                self.moved = (self.moved.0 + pages, self.moved.1 + bytes);
                self.totals.committed += 1;
                self.totals.experts_moved += pages;
                self.totals.bytes_moved += bytes;
                let (layer, epoch) = (done.work.layer, self.epoch);
                effects.push(Effect::Report(Report::Committed { transaction, layer, epoch, pages, bytes }));
            }
        }
        self.window.count(&self.map, answers);
    }

    /// Does whatever has become due.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        let Some((generation, _)) = self.group else { return };
        match &mut self.phase {
            Phase::Planning { .. } => {}
            Phase::Collecting => self.collect(effects),
            Phase::Waiting { not_before, .. } => {
                if *not_before <= self.moment.steps {
                    self.begin_moving(effects);
                }
            }
            Phase::Moving { moves, .. } => {
                for transaction in moves.expired(self.moment.now) {
                    let failure = (MoveFailure::Deadline, "a rank did not report".to_owned());
                    self.failed(transaction, None, failure, effects);
                }
                self.start_transactions(generation, effects);
                self.finish_if_done(effects);
            }
        }
    }

    fn collect(&mut self, effects: &mut Vec<Effect>) {
        if self.window.steps >= self.settings.window_steps {
            self.close_window(effects);
            if self.settings.dynamic {
                return self.plan_for_window(effects);
            }
        }
        let steps = self.moment.steps;
        if self.settings.forced_interval.is_some_and(|interval| steps > 0 && steps.is_multiple_of(interval)) {
            let seed = self.settings.forced_seed.wrapping_add(steps);
            let layer = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % self.map.shape().layers;
            if let Some(work) = random_transaction(&self.map, layer.into(), seed) {
                self.phase = Phase::Waiting { transactions: vec![work], origin: Origin::Forced, not_before: 0 };
                self.begin_moving(effects);
            }
        }
    }

    fn close_window(&mut self, effects: &mut Vec<Effect>) {
        self.windows += 1;
        let closed = self.window.close(self.windows, self.moment.now);
        effects.push(Effect::Report(Report::WindowClosed(closed.report.clone())));
        self.first_window.get_or_insert_with(|| closed.report.clone());
        // A window in which nothing was counted says nothing of any placement.
        if closed.report.pairs > 0 {
            if self.loads.len() == WINDOWS_KEPT {
                self.loads.pop_front();
            }
            self.loads.push_back(closed.load.clone());
        }
        self.last_window = Some(closed);
        self.open_window();
    }

    fn open_window(&mut self) {
        self.window = Window::open(self.map.shape(), self.epoch, self.moment.now);
    }

    fn plan_for_window(&mut self, effects: &mut Vec<Effect>) {
        if let Some(ClosedWindow { length, report, .. }) = &self.last_window
            && report.pairs > 0
        {
            let windows_since_move = self.moved_after.map(|window| self.windows - window);
            let goal = Goal::Balance {
                windows: self.loads.iter().cloned().collect(),
                lifetime: *length,
                history: History { windows_since_move },
            };
            self.request_plan(Origin::Window, goal, effects);
        }
    }

    fn request_plan(&mut self, origin: Origin, goal: Goal, effects: &mut Vec<Effect>) {
        let number = self.next_request;
        self.next_request += 1;
        self.phase = Phase::Planning { request: number, origin };
        effects.push(Effect::Plan(PlanRequest { number, map: self.map.clone(), goal }));
    }

    fn planned(&mut self, number: u64, outcome: PlanOutcome, effects: &mut Vec<Effect>) {
        let Phase::Planning { request, origin } = &self.phase else { return };
        if *request != number {
            return;
        }
        let origin = origin.clone();
        if let PlanOutcome::Move { decision: Some(decision), .. } | PlanOutcome::Keep { decision } = &outcome {
            self.last_decision = Some(*decision);
            effects.push(Effect::Report(Report::Decided(*decision)));
        }
        match outcome {
            PlanOutcome::Move { transactions, .. } if transactions.is_empty() => {
                self.keep("the map in force is the one that is wanted".to_owned(), effects);
            }
            PlanOutcome::Move { transactions, .. } => {
                let (count, pages) = (transactions.len(), transactions.iter().map(page_count).sum());
                effects.push(Effect::Report(Report::Planned { transactions: count, pages }));
                // A window closes, or a map is asked for, at or after the group was formed.
                let formed = self.group.map_or(self.moment.steps, |(_, steps)| steps);
                let since = self.moment.steps.saturating_sub(self.window.steps).max(formed);
                let not_before = match origin {
                    Origin::Window => since + self.settings.wait_steps,
                    Origin::Given(_) | Origin::Forced => formed + self.settings.wait_steps,
                };
                self.phase = Phase::Waiting { transactions, origin, not_before };
            }
            PlanOutcome::Keep { decision } => self.keep(decision.reason.to_string(), effects),
            PlanOutcome::Failed { reason } => {
                self.degraded = Some(format!("no plan could be made: {reason}"));
                effects.push(Effect::Report(Report::Dropped { reason }));
                self.settle(effects);
            }
        }
    }

    fn keep(&mut self, reason: String, effects: &mut Vec<Effect>) {
        self.totals.skipped += 1;
        self.degraded = None;
        effects.push(Effect::Report(Report::Kept { reason }));
        if self.recorded.is_none() {
            self.record(effects);
        }
        self.settle(effects);
    }

    fn begin_moving(&mut self, effects: &mut Vec<Effect>) {
        let Phase::Waiting { transactions, origin, .. } = std::mem::replace(&mut self.phase, Phase::Collecting) else {
            return;
        };
        let moves = Moves::new(transactions);
        let too_large = moves.too_large(self.settings.staging_pages);
        self.moved = (0, 0);
        self.phase = Phase::Moving { moves, origin, since: self.moment.steps, dropped: None };
        if let Some(layer) = too_large {
            let reason =
                format!("a transaction of {layer} needs more than {} staging pages", self.settings.staging_pages);
            self.drop_plan(reason, effects);
        }
        self.advance(effects);
    }

    fn start_transactions(&mut self, generation: u64, effects: &mut Vec<Effect>) {
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
                effects.push(Effect::Order { rank, order });
            }
        }
    }

    fn finish_if_done(&mut self, effects: &mut Vec<Effect>) {
        let Phase::Moving { moves, origin, since, dropped } = &mut self.phase else { return };
        if !moves.is_finished() {
            return;
        }
        let (forced, since, dropped) = (matches!(origin, Origin::Forced), *since, dropped.take());
        if matches!(origin, Origin::Window) && self.moved.0 > 0 {
            self.moved_after = Some(self.windows);
        }
        match dropped {
            Some(reason) => {
                self.degraded = Some(reason.clone()).filter(|_| self.wanted.is_none());
                effects.push(Effect::Report(Report::Dropped { reason }));
            }
            None if forced => {}
            None => {
                self.totals.rebalances += 1;
                self.degraded = None;
                let ((pages, bytes), steps) = (self.moved, self.moment.steps - since);
                effects.push(Effect::Report(Report::Completed { epoch: self.epoch, pages, bytes, steps }));
                self.record(effects);
            }
        }
        if forced {
            // A window may span forced transactions: its load is counted by expert, whatever slot computed it.
            self.window.epoch = self.epoch;
        }
        self.settle(effects);
    }

    /// Back to collecting. What was counted under several maps says nothing of the one in force.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        self.phase = Phase::Collecting;
        if self.window.epoch != self.epoch {
            self.open_window();
        }
        self.take_wish(effects);
    }

    fn take_wish(&mut self, effects: &mut Vec<Effect>) {
        if self.group.is_some()
            && let Some(map) = self.wanted.take()
        {
            self.request_plan(Origin::Given(map.clone()), Goal::Reach(map), effects);
        }
    }

    fn apply_map(&mut self, map: ExpertMap, effects: &mut Vec<Effect>) {
        if map.slots_of_ranks() != self.map.slots_of_ranks() || map.shape() != self.map.shape() {
            let reason = format!("the map has shape {:?}, the ranks have {:?}", map.shape(), self.map.shape());
            return effects.push(Effect::Report(Report::Refused { reason }));
        }
        self.wanted = Some(map);
        match self.phase {
            Phase::Moving { .. } => self.drop_plan("another map was asked for".to_owned(), effects),
            Phase::Collecting | Phase::Planning { .. } | Phase::Waiting { .. } => self.settle(effects),
        }
    }

    fn trigger(&mut self, effects: &mut Vec<Effect>) {
        let reason = match (&self.phase, self.group) {
            (_, None) => "the ranks are not formed into a group; wait until the deployment is ready",
            (Phase::Collecting, Some(_)) if self.window.pairs() == 0 => {
                "no load has been counted since the last window; send requests first"
            }
            (Phase::Collecting, Some(_)) => {
                self.close_window(effects);
                return self.plan_for_window(effects);
            }
            _ => "a rebalance is under way; wait until it has ended",
        };
        effects.push(Effect::Report(Report::Refused { reason: reason.to_owned() }));
    }

    fn record(&mut self, effects: &mut Vec<Effect>) {
        let Some(ClosedWindow { report, load, .. }) = &self.last_window else { return };
        let provenance = Provenance {
            window: report.number,
            window_steps: report.steps,
            window_pairs: report.pairs,
            epoch: self.epoch,
            ratio: balance_ratio(&rank_loads(&self.map, load)),
        };
        let recorded = RecordedMap { map: self.map_document(), provenance };
        self.recorded = Some(recorded.clone());
        effects.push(Effect::Record(recorded));
    }

    fn moves_of(&mut self, generation: u64) -> Option<&mut Moves> {
        match (&mut self.phase, self.group) {
            (Phase::Moving { moves, .. }, Some((current, _))) if current == generation => Some(moves),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
