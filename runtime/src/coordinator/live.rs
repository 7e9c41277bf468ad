//! What goes on now, for those who ask several times a second. Decides nothing.
//!
//! The thread that runs steps only hands over what it has: while somebody asks, each step's answers and times, and at any time what
//! happens seldom. Adding up, spreading and writing documents is the work of whoever asks, on its own thread, and under a lock of its
//! own. While nobody asks a step costs a comparison.

mod happening;
mod latencies;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plan::map::MapShape;
use plan::policy::Decision;
use plan::wire::{self, Happening, ModelIdentity, MonitorDocument, MonitorEvent, MoveTotals, Phase};

use self::happening::What;
use self::latencies::Latencies;
use super::handle::Health;
use super::metrics::Counters;
use crate::experts::rebalance::{Notice, decision_report};
use crate::protocol::StepDone;

/// Events that are kept: some rebalances of a large model.
const EVENTS_KEPT: usize = 512;

/// How long steps are handed over after somebody has asked: who asks once a second sees all of them.
const HEARD_FOR: Duration = Duration::from_secs(2);

/// Steps that may wait for who asks. More are left out: they are faster than any of a model that anybody looks at.
const STEPS_AT_MOST: usize = 2048;

/// What the thread that runs steps writes with.
pub struct Writer {
    shared: Arc<Shared>,
    phase: Phase,
}

/// What others read with.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
    model: Arc<ModelIdentity>,
    counters: Counters,
    sums: Arc<Mutex<Sums>>,
}

/// A step that was answered.
#[derive(Debug)]
pub struct Step {
    /// When every rank had answered.
    pub at: Instant,
    /// From sending it, or having the answers to the one before, to having every rank's answer.
    pub took: Duration,
    /// Of each rank; what they gave for sequences is no longer there.
    pub answers: Vec<StepDone>,
    /// How long its tokens took.
    pub tokens: Tokens,
}

/// How long the tokens of a step took.
#[derive(Debug, Default)]
pub struct Tokens {
    /// First tokens, each since its submission.
    pub first: Vec<Duration>,
    /// Others, each since the one before.
    pub next: Vec<Duration>,
}

struct Shared {
    started: Instant,
    /// Until when steps are handed over, milliseconds since the start.
    heard_until: AtomicU64,
    inbox: Mutex<Inbox>,
}

/// What is handed over. Whoever has it does no more than put something in or take it out.
struct Inbox {
    steps: Vec<Step>,
    /// The newest.
    events: VecDeque<Arc<Told>>,
    /// Of the last event.
    number: u64,
    phase: Phase,
    epoch: u64,
    generation: u64,
    moves: MoveTotals,
    ratio: Option<f64>,
    decision: Option<Decision>,
}

/// Something that happened.
struct Told {
    number: u64,
    at: Instant,
    what: What,
}

/// What those who ask have added up.
struct Sums {
    shape: MapShape,
    latencies: Latencies,
    /// `[ranks][layers]`
    pairs: Vec<Vec<u64>>,
}

/// Both ends, of a coordinator that starts now with the map that it starts with.
#[must_use]
pub fn live(model: ModelIdentity, (shape, epoch): (MapShape, u64), counters: Counters, now: Instant) -> (Writer, Live) {
    let inbox = Inbox {
        steps: Vec::new(),
        events: VecDeque::new(),
        number: 0,
        phase: Phase::Off,
        epoch,
        generation: 0,
        moves: MoveTotals::default(),
        ratio: None,
        decision: None,
    };
    let shared = Arc::new(Shared { started: now, heard_until: AtomicU64::new(0), inbox: Mutex::new(inbox) });
    let sums = Sums { shape, latencies: Latencies::new(now), pairs: vec![vec![0; shape.layers]; shape.ranks] };
    let writer = Writer { shared: Arc::clone(&shared), phase: Phase::Off };
    (writer, Live { shared, model: Arc::new(model), counters, sums: Arc::new(Mutex::new(sums)) })
}

impl Writer {
    /// Whether steps are to be handed over.
    #[must_use]
    pub fn is_heard(&self, now: Instant) -> bool {
        self.shared.since_start(now) < self.shared.heard_until.load(Ordering::Relaxed)
    }

    /// Hands over a step.
    pub fn stepped(&self, step: Step) {
        let mut inbox = locked(&self.shared.inbox);
        if inbox.steps.len() < STEPS_AT_MOST {
            inbox.steps.push(step);
        }
    }

    /// What the rebalancer does.
    pub fn doing(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            locked(&self.shared.inbox).phase = phase;
        }
    }

    /// The ranks form a group.
    pub fn formed(&self, now: Instant, generation: u64) {
        let mut inbox = locked(&self.shared.inbox);
        inbox.generation = generation;
        inbox.happened(now, What::Told(Happening::Formed { generation }));
    }

    /// The group was lost.
    pub fn lost(&self, now: Instant, reason: &str) {
        locked(&self.shared.inbox).happened(now, What::Told(Happening::Lost { reason: reason.to_owned() }));
    }

    /// The rebalancer has a notice, after which its totals are these.
    pub fn noticed(&self, now: Instant, notice: Notice, totals: &MoveTotals) {
        let mut inbox = locked(&self.shared.inbox);
        inbox.moves.clone_from(totals);
        match &notice {
            Notice::WindowClosed(closed) => inbox.ratio = Some(closed.report.ratio),
            Notice::Decided(decision) => inbox.decision = Some(*decision),
            Notice::Committed { epoch, .. } => inbox.epoch = *epoch,
            _ => {}
        }
        inbox.happened(now, What::of(notice));
    }
}

impl Live {
    /// All of it, for somebody who knows what happened up to the event of a number.
    #[must_use]
    pub fn document(&self, now: Instant, after: u64, health: Health) -> MonitorDocument {
        let reason = match health {
            Health::Serving => None,
            Health::NotFormed { reason } | Health::Failing { reason } => Some(reason),
            Health::Stopping => Some("the server is shutting down".to_owned()),
        };
        let heard_until = self.shared.since_start(now + HEARD_FOR);
        self.shared.heard_until.store(heard_until, Ordering::Relaxed);
        let mut sums = locked(&self.sums);
        let room = Vec::with_capacity(16);
        let mut inbox = locked(&self.shared.inbox);
        let steps = std::mem::replace(&mut inbox.steps, room);
        // A number that has not been given is that of another process.
        let after = if after > inbox.number { 0 } else { after };
        let new = (inbox.number - after).min(inbox.events.len() as u64) as usize;
        let events: Vec<_> = inbox.events.range(inbox.events.len() - new..).cloned().collect();
        let (phase, epoch, generation, moves) = (inbox.phase, inbox.epoch, inbox.generation, inbox.moves.clone());
        let (ratio, decision) = (inbox.ratio, inbox.decision);
        drop(inbox);
        sums.add(&steps);
        let latency = sums.latencies.over(now);
        let of_layer = |layer: usize| sums.pairs.iter().map(|layers| layers[layer]).collect();
        let pairs = (0..sums.shape.layers).map(of_layer).collect();
        drop(sums);
        let seconds = |then: Instant| then.saturating_duration_since(self.shared.started).as_secs_f64();
        let event = |told: Arc<Told>| MonitorEvent {
            number: told.number,
            seconds: seconds(told.at),
            what: told.what.happening(),
        };
        MonitorDocument {
            version: wire::VERSION.to_owned(),
            model: (*self.model).clone(),
            ready: reason.is_none(),
            reason,
            seconds: seconds(now),
            generation,
            epoch,
            phase: phase.into(),
            steps: self.counters.steps.get_sample_count(),
            waiting: self.counters.waiting.get() as u64,
            running: self.counters.running.get() as u64,
            prompt_tokens: self.counters.prompt_tokens.get(),
            completion_tokens: self.counters.completion_tokens.get(),
            stall_seconds: self.counters.stall.get(),
            latency,
            pairs,
            ratio,
            moves,
            decision: decision.as_ref().map(decision_report),
            events: events.into_iter().map(event).collect(),
        }
    }
}

impl Shared {
    /// Milliseconds from the start to a moment.
    fn since_start(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }
}

impl Inbox {
    fn happened(&mut self, at: Instant, what: What) {
        self.number += 1;
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(Told { number: self.number, at, what }));
    }
}

impl Sums {
    fn add(&mut self, steps: &[Step]) {
        for step in steps {
            self.latencies.add(step);
            for (layers, answer) in self.pairs.iter_mut().zip(&step.answers) {
                answer.slot_pairs.add_rows_to(self.shape.slots_per_rank, layers);
            }
        }
    }
}

/// What is written is whole after every call, so what a panicked thread left is too.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
