//! What goes on now, for those who ask several times a second. The thread that runs steps writes down what happens, a few numbers a
//! step; documents are made by whoever asks, on its own thread. Decides nothing, and nobody waits for a step.

mod latencies;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plan::map::MapShape;
use plan::moves::SlotChange;
use plan::policy::Decision;
use plan::wire::{self, Happening, ModelIdentity, MonitorDocument, MonitorEvent, MoveTotals, MovedExpert, Phase};

use self::latencies::Latencies;
use super::handle::Health;
use crate::experts::rebalance::{Notice, decision_report};
use crate::protocol::StepDone;

/// Events that are kept: some rebalances of a large model.
const EVENTS_KEPT: usize = 512;

/// How long pairs of ranks are counted after somebody has asked.
const COUNTED_FOR: Duration = Duration::from_mins(1);

/// What goes on now, written by one thread and read by others.
#[derive(Clone)]
pub struct Live {
    started: Instant,
    model: Arc<ModelIdentity>,
    now: Arc<Mutex<Now>>,
}

/// What the driver is doing after a step.
#[derive(Clone, Debug)]
pub struct Doing {
    /// What the rebalancer does.
    pub phase: Phase,
    /// Epoch of the map in force.
    pub epoch: u64,
    /// Totals of moves.
    pub moves: MoveTotals,
    /// Sequences in the queue.
    pub waiting: usize,
    /// Sequences that run.
    pub running: usize,
}

/// How long the tokens of a step took.
#[derive(Debug, Default)]
pub struct Tokens {
    /// First tokens, each since its submission.
    pub first: Vec<Duration>,
    /// Others, each since the one before.
    pub next: Vec<Duration>,
}

struct Now {
    shape: MapShape,
    doing: Doing,
    generation: u64,
    steps: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    stalled: Duration,
    latencies: Latencies,
    /// When somebody asked last.
    asked: Option<Instant>,
    /// `[layers, ranks]`
    pairs: Vec<u64>,
    /// Room for the slots of a rank.
    slots: Vec<u64>,
    ratio: Option<f64>,
    decision: Option<Decision>,
    /// Of the last event.
    number: u64,
    events: VecDeque<(u64, Instant, Happening)>,
}

impl Live {
    /// Of a coordinator that starts now, with the map that it starts with.
    #[must_use]
    pub fn new(model: ModelIdentity, shape: MapShape, epoch: u64, now: Instant) -> Self {
        let moves = MoveTotals::default();
        let doing = Doing { phase: Phase::Off, epoch, moves, waiting: 0, running: 0 };
        let now_told = Now {
            shape,
            doing,
            generation: 0,
            steps: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            stalled: Duration::ZERO,
            latencies: Latencies::new(now),
            asked: None,
            pairs: vec![0; shape.layers * shape.ranks],
            slots: vec![0; shape.layers * shape.slots_per_rank],
            ratio: None,
            decision: None,
            number: 0,
            events: VecDeque::new(),
        };
        Self { started: now, model: Arc::new(model), now: Arc::new(Mutex::new(now_told)) }
    }

    /// A request was taken.
    pub fn taken(&self, prompt_tokens: usize) {
        self.lock().prompt_tokens += prompt_tokens as u64;
    }

    /// A step is done.
    pub fn stepped(&self, now: Instant, took: Duration, answers: &[StepDone]) {
        let mut live = self.lock();
        live.steps += 1;
        let stall = answers.iter().map(|answer| answer.timing.commit).max().unwrap_or(0);
        live.stalled += Duration::from_micros(stall.into());
        live.latencies.stepped(now, took);
        if live.asked.is_some_and(|asked| now.saturating_duration_since(asked) < COUNTED_FOR) {
            live.count(answers);
        }
    }

    /// A step gave tokens.
    pub fn gave(&self, now: Instant, tokens: &Tokens) {
        let mut live = self.lock();
        live.completion_tokens += (tokens.first.len() + tokens.next.len()) as u64;
        live.latencies.gave(now, tokens);
    }

    /// How everything is after a step.
    pub fn doing(&self, doing: Doing) {
        self.lock().doing = doing;
    }

    /// The ranks form a group.
    pub fn formed(&self, now: Instant, generation: u64) {
        let mut live = self.lock();
        live.generation = generation;
        live.happened(now, Happening::Formed { generation });
    }

    /// The group was lost.
    pub fn lost(&self, now: Instant, reason: &str) {
        self.lock().happened(now, Happening::Lost { reason: reason.to_owned() });
    }

    /// The rebalancer has a notice.
    pub fn noticed(&self, now: Instant, notice: &Notice) {
        let mut live = self.lock();
        match notice {
            Notice::WindowClosed(closed) => live.ratio = Some(closed.report.ratio),
            Notice::Decided(decision) => live.decision = Some(*decision),
            _ => {}
        }
        live.happened(now, happening(notice));
    }

    /// All of it, for somebody who knows what happened up to the event of a number.
    #[must_use]
    pub fn document(&self, now: Instant, after: u64, health: Health) -> MonitorDocument {
        let reason = match health {
            Health::Serving => None,
            Health::NotFormed { reason } | Health::Failing { reason } => Some(reason),
            Health::Stopping => Some("the server is shutting down".to_owned()),
        };
        let seconds = |then: Instant| then.saturating_duration_since(self.started).as_secs_f64();
        let mut live = self.lock();
        live.asked = Some(now);
        // A number that has not been given is that of another process.
        let after = if after > live.number { 0 } else { after };
        let new = live.events.iter().skip_while(|(number, ..)| *number <= after);
        let event = |&(number, then, ref what): &(u64, Instant, Happening)| MonitorEvent {
            number,
            seconds: seconds(then),
            what: what.clone(),
        };
        let events = new.map(event).collect();
        MonitorDocument {
            version: wire::VERSION.to_owned(),
            model: (*self.model).clone(),
            ready: reason.is_none(),
            reason,
            seconds: seconds(now),
            generation: live.generation,
            epoch: live.doing.epoch,
            phase: live.doing.phase.into(),
            steps: live.steps,
            waiting: live.doing.waiting as u64,
            running: live.doing.running as u64,
            prompt_tokens: live.prompt_tokens,
            completion_tokens: live.completion_tokens,
            stall_seconds: live.stalled.as_secs_f64(),
            latency: live.latencies.over(now),
            pairs: live.pairs.chunks(live.shape.ranks).map(<[u64]>::to_vec).collect(),
            ratio: live.ratio,
            moves: live.doing.moves.clone(),
            decision: live.decision.as_ref().map(decision_report),
            events,
        }
    }

    /// What is written is whole after every call, so what a panicked thread left is too.
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn happened(&mut self, now: Instant, what: Happening) {
        self.number += 1;
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back((self.number, now, what));
    }

    /// Adds what each rank computed in each layer.
    fn count(&mut self, answers: &[StepDone]) {
        let Self { shape, pairs, slots, .. } = self;
        for (rank, answer) in answers.iter().enumerate().take(shape.ranks) {
            slots.fill(0);
            answer.slot_pairs.add_to(slots);
            for (sums, slots) in pairs.chunks_mut(shape.ranks).zip(slots.chunks(shape.slots_per_rank)) {
                sums[rank] += slots.iter().sum::<u64>();
            }
        }
    }
}

fn happening(notice: &Notice) -> Happening {
    match notice {
        Notice::WindowClosed(closed) => {
            let window = &closed.report;
            Happening::Window { number: window.number, steps: window.steps, ratio: window.ratio }
        }
        Notice::Decided(decision) => {
            let report = decision_report(decision);
            Happening::Decided {
                reason: report.reason,
                ratio_before: report.figures.ratio_before,
                ratio_after: report.figures.ratio_after,
                pages: report.figures.pages,
                bytes: report.figures.bytes,
            }
        }
        &Notice::Planned { transactions, pages } => Happening::Planned { transactions: transactions as u64, pages },
        Notice::Kept { reason } => Happening::Kept { reason: reason.clone() },
        Notice::Committed { layer, epoch, bytes, changes, .. } => {
            let between_ranks = |change: &&SlotChange| change.source != change.rank;
            let moved =
                |change: &SlotChange| MovedExpert { expert: change.to.0, from: change.source.0, to: change.rank.0 };
            let moved = changes.iter().filter(between_ranks).map(moved).collect();
            Happening::Committed { layer: layer.0, epoch: *epoch, bytes: *bytes, moved }
        }
        Notice::Aborted { reason, message, .. } => {
            Happening::Aborted { reason: format!("{}: {message}", reason.as_str()) }
        }
        &Notice::Completed { epoch, pages, bytes, steps } => Happening::Completed { epoch, pages, bytes, steps },
        Notice::Dropped { reason } => Happening::Dropped { reason: reason.clone() },
    }
}

#[cfg(test)]
mod tests;
