//! The coordinator's own thread: joins requests, the scheduler, the ranks and the rebalancer, step after step. It
//! blocks while there is nothing to do, and waits for nothing but the ranks while there is.

mod admin;
mod moving;
mod stepping;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, select};
use plan::topology::Topology;
use plan::wire::ModelIdentity;
use tokio::sync::watch;

use self::stepping::{STEPS_UNDER_WAY, UnderWay};
use super::fleet::FleetEvent;
use super::handle::{COMMANDS, Command, DriverHandle, HandleError, Health, SequenceError, Submission, Update};
use super::live::{self, Writer};
use super::metrics::DriverMetrics;
use super::ranks::{RankGroup, Ranks};
use super::unread::{Post, UpdateSender, post};
use crate::experts::planner::{Planned, Wanted};
use crate::experts::rebalance::{Event, Rebalancer};
use crate::experts::recorder::Recorder;
use crate::protocol::SequenceId;
use crate::scheduler::{Limits, Scheduler};

/// Pause between steps that carry no sequence, while experts move and nobody asks for anything: short enough for a plan
/// of some hundred steps to end in a second or two, long enough to cost next to nothing.
const PAUSE_WHILE_MOVING: Duration = Duration::from_millis(5);

/// What a driver is made of.
pub struct DriverSettings {
    /// Bounds of the scheduler.
    pub limits: Limits,
    /// Tokens of prompt and answer together that the model and the options allow.
    pub context: usize,
    /// The model that is served.
    pub model: ModelIdentity,
    /// Decides when experts move; holds the map in force.
    pub rebalancer: Rebalancer,
    /// Whether its first map was given.
    pub static_map: bool,
    /// To the thread that plans, and back.
    pub planner: (Sender<Wanted>, Receiver<Planned>),
    /// Writes recorded maps, if they are to be written.
    pub recorder: Option<Recorder>,
}

/// See the module's documentation.
pub struct Driver<R: Ranks> {
    settings: DriverSettings,
    ranks: R,
    group: Option<R::Group>,
    /// Which rank has failed for good, and why.
    failure: Option<String>,
    /// Where the ranks of the last group are.
    topology: Arc<Topology>,
    scheduler: Scheduler,
    /// Dropped before the readers: whoever is told that the server stops finds it so.
    health: Shown,
    readers: Readers,
    /// Steps sent since the start.
    steps: u64,
    /// Those that are not answered, the oldest first.
    under_way: VecDeque<UnderWay>,
    started: Instant,
    /// When the last step was sent.
    last_step: Instant,
    /// When the last answers came.
    answered: Instant,
    commands: Receiver<Command>,
    events: Receiver<FleetEvent<R::Group>>,
    capacity: watch::Sender<Option<usize>>,
    metrics: DriverMetrics,
    live: Writer,
}

/// What `/health` shows. It is never better than what is: a driver that ends, however it ends, serves nobody.
struct Shown(Arc<watch::Sender<Health>>);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.send_replace(Health::Stopping);
    }
}

/// Who waits for tokens, by sequence. Those who are left when the driver ends, however it ends, are told so.
struct Readers {
    waiting: BTreeMap<SequenceId, Reader>,
    post: Post,
}

impl Readers {
    /// Tells a reader why its sequence goes no further.
    fn fail(&self, reader: &Reader, error: SequenceError) {
        // One that is gone or full does not hear it; its channel ends all the same.
        self.post.send(reader.updates.address(Update::Failed(error)).into_iter().collect());
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for reader in self.waiting.values() {
            self.fail(reader, SequenceError::ShuttingDown);
        }
    }
}

/// Who waits for a sequence's tokens.
struct Reader {
    updates: UpdateSender,
    submitted: Instant,
    last_token: Option<Instant>,
}

enum Input<G> {
    Command(Command),
    Event(FleetEvent<G>),
    Planned(Box<Planned>),
    /// Nobody can send anything any more.
    Closed,
}

impl<R: Ranks> Driver<R> {
    /// A driver of `ranks`, whose events arrive on `events`, and the handle on it.
    pub fn new(
        settings: DriverSettings,
        ranks: R,
        events: Receiver<FleetEvent<R::Group>>,
        metrics: DriverMetrics,
    ) -> (Self, DriverHandle) {
        let (sender, commands) = crossbeam_channel::bounded(COMMANDS);
        let reason = "waiting for every rank to register".to_owned();
        let health = Arc::new(watch::Sender::new(Health::NotFormed { reason }));
        let (capacity, known_capacity) = watch::channel(None);
        let queued = settings.limits.queued;
        let (post, postman) = post();
        let shape = settings.rebalancer.map().shape();
        let map = (shape, settings.rebalancer.epoch());
        let (live, reader) = live::live(settings.model.clone(), map, metrics.counters(), Instant::now());
        let driver = Self {
            topology: Arc::new(Topology::single_node(shape.ranks, shape.slots_per_rank)),
            scheduler: Scheduler::new(settings.limits),
            settings,
            ranks,
            group: None,
            failure: None,
            readers: Readers { waiting: BTreeMap::new(), post },
            steps: 0,
            under_way: VecDeque::new(),
            started: Instant::now(),
            last_step: Instant::now(),
            answered: Instant::now(),
            commands,
            events,
            health: Shown(Arc::clone(&health)),
            capacity,
            metrics,
            live,
        };
        (driver, DriverHandle::new(sender, health, known_capacity, (queued, postman), reader))
    }

    /// Runs steps until it is told to stop.
    pub fn run(mut self) {
        loop {
            // Not more than fit the channel: whoever keeps asking does not hold up the steps.
            for _ in 0..COMMANDS {
                let Some(input) = self.next_input() else { break };
                match input {
                    Input::Command(Command::Submit(submission)) => self.submit(submission),
                    Input::Command(Command::Admin(command)) => self.administer(command),
                    Input::Command(Command::Stop) | Input::Closed => return self.stop(),
                    Input::Event(event) => self.on_event(event),
                    Input::Planned(planned) => self.on_planned(*planned),
                }
            }
            self.cancel_unread();
            if !self.send_step() || self.under_way.len() == STEPS_UNDER_WAY {
                self.receive_step();
            }
            self.show_fill();
        }
    }

    /// What has arrived. Blocks only if there is no step to run and none under way.
    fn next_input(&mut self) -> Option<Input<R::Group>> {
        if self.group.is_none() || self.scheduler.is_idle() && self.under_way.is_empty() {
            return self.wait_for_input();
        }
        match self.events.try_recv() {
            Ok(event) => return Some(Input::Event(event)),
            Err(TryRecvError::Disconnected) => return Some(Input::Closed),
            Err(TryRecvError::Empty) => {}
        }
        if let Ok(planned) = self.settings.planner.1.try_recv() {
            return Some(Input::Planned(Box::new(planned)));
        }
        match self.commands.try_recv() {
            Ok(command) => Some(Input::Command(command)),
            Err(TryRecvError::Disconnected) => Some(Input::Closed),
            Err(TryRecvError::Empty) => None,
        }
    }

    /// What arrives; `None` if nothing does and experts that move need a step.
    fn wait_for_input(&mut self) -> Option<Input<R::Group>> {
        let next_step = self.is_moving().then(|| self.last_step + PAUSE_WHILE_MOVING);
        let pause = next_step.map_or(Duration::MAX, |next| next.saturating_duration_since(Instant::now()));
        if pause.is_zero() {
            return None;
        }
        let closed = |_| Input::Closed;
        select! {
            recv(self.events) -> event => Some(event.map_or_else(closed, Input::Event)),
            recv(self.commands) -> command => Some(command.map_or_else(closed, Input::Command)),
            recv(self.settings.planner.1) -> planned => {
                if planned.is_err() {
                    // What is asked of it from now on is answered with a failure.
                    self.settings.planner.1 = crossbeam_channel::never();
                }
                planned.ok().map(|planned| Input::Planned(Box::new(planned)))
            }
            default(pause) => None,
        }
    }

    fn submit(&mut self, submission: Submission) {
        // A place that nobody waits in any more is free.
        self.cancel_unread();
        let Submission { sequences, reply } = submission;
        if let Some(reason) = &self.failure {
            // As below.
            let _ = reply.send(Err(HandleError::Failing { reason: reason.clone() }));
            return;
        }
        let (sequences, updates): (Vec<_>, Vec<_>) = sequences.into_iter().unzip();
        let prompt_tokens = sequences.iter().map(|sequence| sequence.prompt.len()).sum();
        let submitted = self.scheduler.submit(sequences).map(|ids| {
            let now = Instant::now();
            let reader = |updates| Reader { updates, submitted: now, last_token: None };
            self.readers.waiting.extend(ids.into_iter().zip(updates.into_iter().map(reader)));
            self.metrics.taken(prompt_tokens);
        });
        // A client that is gone already is noticed by its closed channels.
        let _ = reply.send(submitted.map_err(HandleError::Submit));
    }

    fn on_event(&mut self, event: FleetEvent<R::Group>) {
        match event {
            FleetEvent::Complete => self.form(),
            FleetEvent::Loading(loading) => match loading.take() {
                Some(reason) if self.group.is_none() => self.set_health(Health::NotFormed { reason }),
                _ => {}
            },
            FleetEvent::Formed(group) => self.serve(group),
            FleetEvent::Lost { generation, rank, reason } => {
                self.lose(generation, &format!("{rank} was lost: {reason}"));
            }
            FleetEvent::Failing(failure) => failure.take().into_iter().for_each(|failure| self.fail(failure)),
            FleetEvent::Refused(refused) => match refused.take() {
                Some(reason) if self.group.is_none() => {
                    self.set_health(Health::NotFormed { reason: format!("a rank was refused: {reason}") });
                }
                // A rank too many is none of the group's business.
                _ => {}
            },
            FleetEvent::Moved { rank, report } => self.tell_rebalancer(Event::Moved { rank, report }),
        }
    }

    fn form(&mut self) {
        let rebalancer = &self.settings.rebalancer;
        match self.ranks.form(&rebalancer.map_document(), rebalancer.epoch()) {
            Ok(generation) => {
                tracing::info!(generation, "every rank is registered, forming the group");
                self.set_health(Health::NotFormed { reason: "the ranks are loading".to_owned() });
            }
            // Whoever is missing registers again, and then every rank is complete again.
            Err(error) => tracing::warn!(%error, "the group cannot be formed"),
        }
    }

    fn serve(&mut self, group: R::Group) {
        let generation = group.generation();
        let caches = group.caches();
        let outgrow = self.scheduler.form(&caches);
        self.metrics.formed(caches.iter().map(|cache| cache.blocks as usize));
        let capacity = self.scheduler.capacity();
        let context_tokens = capacity.min(self.settings.context);
        tracing::info!(generation, context_tokens, "serving");
        if capacity < self.settings.context {
            let model_tokens = self.settings.context;
            tracing::warn!(
                context_tokens,
                model_tokens,
                "a rank's KV cache holds less than the model's context: prompt and answer together may be as long as the \
                 cache; raise --kv-blocks of the ranks, or lower --max-model-len"
            );
        }
        self.capacity.send_replace(Some(capacity));
        for id in outgrow {
            self.end(id, SequenceError::OutgrowsCache { capacity });
        }
        self.group = Some(group);
        let states = self.ranks.roll().states();
        let slots_per_rank = self.settings.rebalancer.map().shape().slots_per_rank;
        self.topology = Arc::new(Topology::named(states.iter().map(|rank| rank.node.as_str()), slots_per_rank));
        self.live.formed(Instant::now(), generation);
        self.tell_rebalancer(Event::GroupFormed { generation });
        self.set_health(Health::Serving);
    }

    /// Puts every sequence back until there is a group again.
    fn lose(&mut self, generation: u64, reason: &str) {
        if self.group.as_ref().is_some_and(|group| group.generation() == generation) {
            tracing::warn!(generation, reason, "the group is lost");
            self.group = None;
            self.under_way.clear();
            let running = self.scheduler.running();
            let ended = self.scheduler.lose();
            self.metrics.lost(running - ended.len());
            self.live.lost(Instant::now(), reason);
            for id in ended {
                self.end(id, SequenceError::LostGroups);
            }
            self.tell_rebalancer(Event::GroupLost);
        }
        if self.group.is_none() {
            self.set_health(Health::NotFormed { reason: format!("{reason}; waiting for every rank to register") });
        }
    }

    /// Tells whoever waits for a sequence why it goes no further.
    fn end(&mut self, id: SequenceId, error: SequenceError) {
        self.metrics.failed(&error);
        if let Some(reader) = self.readers.waiting.remove(&id) {
            self.readers.fail(&reader, error);
        }
    }

    /// Refuses requests, those that wait too, while a rank cannot serve whatever is tried.
    fn fail(&mut self, failure: Option<String>) {
        self.failure = failure;
        if let Some(reason) = &self.failure {
            let (reason, ids): (_, Vec<_>) = (reason.clone(), self.readers.waiting.keys().copied().collect());
            for id in ids {
                self.scheduler.abort(id);
                self.end(id, SequenceError::Failing { reason: reason.clone() });
            }
        }
        self.set_health(Health::NotFormed { reason: "waiting for every rank to register".to_owned() });
    }

    /// Cancels the sequences whose reader has gone away.
    fn cancel_unread(&mut self) {
        let Self { readers, scheduler, .. } = self;
        readers.waiting.retain(|&id, reader| {
            let read = !reader.updates.is_closed();
            if !read {
                scheduler.abort(id);
            }
            read
        });
    }

    fn show_fill(&self) {
        let Self { scheduler, metrics, .. } = self;
        metrics.fill(scheduler.waiting(), scheduler.running(), scheduler.blocks_used());
    }

    /// Tells how things are; a failure and a stop are told before anything else.
    fn set_health(&self, health: Health) {
        let health = self.failure.clone().map_or(health, |reason| Health::Failing { reason });
        self.health.0.send_if_modified(|shown| {
            let changed = *shown != Health::Stopping && *shown != health;
            if changed {
                *shown = health;
            }
            changed
        });
    }

    fn stop(self) {
        self.health.0.send_replace(Health::Stopping);
        drop(self.readers);
        // A bounded channel keeps what is sent while its receiver goes, and whoever sent it would wait for an answer for
        // ever. So commands are taken, and dropped, until nobody can send any.
        let commands = self.commands;
        std::thread::spawn(move || commands.iter().for_each(drop));
    }
}
