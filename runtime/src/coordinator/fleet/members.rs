//! Which ranks are registered and what group they are in: the fleet's state, under one lock that is never held while
//! anything waits for the network.

pub(super) mod formation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use plan::ids::RankId;
use plan::wire::RankState;

use self::formation::Formation;
use super::agreement::Agreement;
use super::alike::Traits;
use super::{FleetEvent, FleetSettings, Latest};
use crate::coordinator::ranks::Roll;
use crate::fabric::framing::Closer;
use crate::protocol::{MoveReport, ProcessId, RankAddress, ToRank, TransactionId};

/// How long the place of a rank that was let go with its group is kept for its process: it comes back within the longest
/// pause between two of its attempts.
const KEPT_FOR: Duration = Duration::from_secs(8);

/// Orders to stage for which a rank may still owe a report. It owes none for one that it was told to forget, of which nobody knows
/// whether the report was under way; so the oldest are forgotten here too.
const MOST_OWED: usize = 4096;

/// A rank that is registered.
#[derive(Debug)]
pub(super) struct Member {
    /// The process that it is.
    pub process: ProcessId,
    /// Where other ranks reach it.
    pub address: RankAddress,
    /// What must be the same of all ranks.
    pub traits: Traits,
    /// To the thread that writes to it.
    pub outbox: Sender<ToRank>,
    /// Ends its control connection.
    pub closer: Closer,
    /// When it last said something.
    pub heard: Instant,
    /// What is told of it, but for whether it is in a group.
    pub shown: Arc<RankState>,
    /// The transactions of which it has been told to stage and has not reported: one report of each is heard.
    pub owed: BTreeSet<TransactionId>,
}

/// A place that is kept for a process.
#[derive(Clone, Copy, Debug)]
struct Kept {
    process: ProcessId,
    until: Instant,
}

#[derive(Debug)]
struct State {
    /// `[ranks]`
    members: Vec<Option<Member>>,
    /// For whom a free place is kept, `[ranks]`.
    kept: Vec<Option<Kept>>,
    /// What the last group agreed upon.
    agreement: Option<Agreement>,
    /// Why a rank cannot serve; kept until its place is taken by one that can.
    failures: BTreeMap<RankId, String>,
    formation: Formation,
    generation: u64,
    closed: bool,
}

/// The fleet's state, shared by its threads.
#[derive(Debug)]
pub(super) struct Members {
    pub settings: FleetSettings,
    events: Sender<FleetEvent>,
    failing: Latest<Option<String>>,
    refused: Latest<String>,
    loading: Latest<String>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Members {
    pub fn new(settings: FleetSettings, events: Sender<FleetEvent>) -> Self {
        let members = (0..settings.ranks).map(|_| None).collect();
        let (kept, failures, formation) = (vec![None; settings.ranks], BTreeMap::new(), Formation::None);
        let state = State { members, kept, agreement: None, failures, formation, generation: 0, closed: false };
        Self {
            settings,
            events,
            failing: Latest::new(),
            refused: Latest::new(),
            loading: Latest::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the fleet's state")
    }

    fn tell(&self, event: FleetEvent) {
        // Nobody listens any more when the driver has ended.
        let _ = self.events.send(event);
    }

    /// Takes a rank in, if its place is free or gets free; see [`Self::free_place`].
    pub fn register(&self, mut member: Member) -> Result<(), String> {
        let rank = member.address.rank;
        Self::check_alike(&self.lock(), &member)?;
        let mut state = self.free_place(rank, member.process, &member.address.moves)?;
        Self::check_alike(&state, &member)?;
        // Its signs of life during the wait are still unread.
        member.heard = Instant::now();
        let RankState { rank: _, connected: _, address, node, device, memory, exchange: _ } = &*member.shown;
        tracing::info!(%rank, address, node, device, memory, "rank registered");
        state.members[rank.index()] = Some(member);
        state.kept[rank.index()] = None;
        if state.failures.remove(&rank).is_some() {
            self.tell_failure(&state);
        }
        if state.members.iter().all(Option::is_some) && matches!(state.formation, Formation::None) {
            self.tell(FleetEvent::Complete);
        }
        Ok(())
    }

    /// Takes note of a rank that cannot serve, if its place is free or gets free.
    pub fn fail(&self, rank: RankId, process: ProcessId, peer: &str, reason: &str) -> Result<(), String> {
        let mut state = self.free_place(rank, process, peer)?;
        tracing::error!(%rank, reason, "a rank cannot serve");
        state.failures.insert(rank, reason.to_owned());
        self.tell_failure(&state);
        Ok(())
    }

    /// A rank's place, once nobody has it. Whoever wants a place that is taken waits until the rank there is lost, and
    /// is refused if that one shows that it lives: a process that is replaced may be noticed as gone only after its
    /// successor has come. A place whose rank was let go with its group waits for that rank first.
    fn free_place(&self, rank: RankId, process: ProcessId, address: &str) -> Result<MutexGuard<'_, State>, String> {
        let mut state = self.lock();
        if state.members[rank.index()].as_ref().is_some_and(|other| other.process == process) {
            self.lose_locked(&mut state, rank, "it registered again");
        }
        let limit = Instant::now() + self.settings.silence_limit + Duration::from_secs(1);
        loop {
            let now = Instant::now();
            let kept = state.kept[rank.index()].filter(|kept| kept.process != process && now < kept.until);
            let until = match (&state.members[rank.index()], kept) {
                _ if state.closed => return Err("the coordinator is shutting down".to_owned()),
                (None, None) => return Ok(state),
                (None, Some(kept)) => kept.until,
                (Some(other), _) if limit <= now => {
                    let other = &other.address.moves;
                    return Err(format!(
                        "{rank} is alive at {other}, so {address} cannot be it; start each rank once, with a number of its own"
                    ));
                }
                (Some(_), _) => limit,
            };
            let left = until.saturating_duration_since(now);
            (state, _) =
                self.changed.wait_timeout(state, left).expect("no thread panics while it holds the fleet's state");
        }
    }

    fn tell_failure(&self, state: &State) {
        let first = state.failures.first_key_value();
        let failing = first.map(|(rank, reason)| format!("{rank} cannot serve: {reason}"));
        if let Some(failing) = self.failing.put(failing) {
            self.tell(FleetEvent::Failing(failing));
        }
    }

    /// Tells why somebody was refused.
    pub fn tell_refusal(&self, reason: &str) {
        if let Some(refused) = self.refused.put(reason.to_owned()) {
            self.tell(FleetEvent::Refused(refused));
        }
    }

    /// A rank that is there already stays: whoever comes later has to fit.
    fn check_alike(state: &State, Member { address, traits, .. }: &Member) -> Result<(), String> {
        let others = state.members.iter().flatten().filter(|other| other.address.rank != address.rank);
        others.map(|other| (other.address.rank, &other.traits)).try_for_each(|other| traits.fit(address.rank, other))
    }

    pub fn heard(&self, rank: RankId, process: ProcessId, now: Instant) {
        if let Some(member) = &mut self.lock().members[rank.index()]
            && member.process == process
        {
            member.heard = now;
        }
    }

    /// Loses every rank that has been silent for too long.
    pub fn lose_silent(&self, now: Instant) {
        let mut state = self.lock();
        let limit = self.settings.silence_limit;
        for rank in 0..state.members.len() {
            let silent = |member: &Member| now.saturating_duration_since(member.heard) > limit;
            if state.members[rank].as_ref().is_some_and(silent) {
                self.lose_locked(&mut state, rank.into(), &format!("silent for more than {} s", limit.as_secs_f32()));
            }
        }
    }

    /// Forgets a rank whose control connection ended, unless it has registered again meanwhile.
    pub fn lose(&self, rank: RankId, process: ProcessId, connection: &Sender<ToRank>, reason: &str) {
        let mut state = self.lock();
        let is_this = |member: &Member| member.process == process && member.outbox.same_channel(connection);
        if state.members[rank.index()].as_ref().is_some_and(is_this) {
            self.lose_locked(&mut state, rank, reason);
        }
    }

    pub fn lose_group(&self, generation: u64, rank: RankId, reason: &str) {
        let mut state = self.lock();
        if state.formation.id().is_some_and(|id| id.generation == generation) {
            self.lose_locked(&mut state, rank, reason);
        }
    }

    /// Drops a rank and the group that it is in.
    fn lose_locked(&self, state: &mut State, rank: RankId, reason: &str) {
        if let Some(member) = state.members[rank.index()].take() {
            member.closer.close();
        }
        self.end_group(state, rank, reason);
    }

    /// Drops ranks that have no place here, each told why, and the group that they are in.
    fn refuse_locked(&self, state: &mut State, refused: &BTreeMap<RankId, String>) {
        for (rank, reason) in refused {
            if let Some(member) = state.members[rank.index()].take() {
                // The thread that writes to it closes its connection when it has been told.
                let _ = member.outbox.send(ToRank::Refused { reason: reason.clone() });
            }
            self.tell_refusal(reason);
        }
        if let Some((rank, reason)) = refused.first_key_value() {
            self.end_group(state, *rank, reason);
        }
    }

    /// Ends the group that a lost rank was in. The others' connections are closed too: a rank then has one way back from any
    /// state that the loss has left it in, which is to register again, and for a while its place is kept for it.
    fn end_group(&self, state: &mut State, rank: RankId, reason: &str) {
        tracing::warn!(%rank, reason, "rank lost");
        let formation = std::mem::replace(&mut state.formation, Formation::None);
        let generation = formation.id().map(|id| id.generation);
        if let Formation::Formed { steps, .. } = formation {
            steps.iter().for_each(Closer::close);
        }
        if let Some(generation) = generation {
            let until = Instant::now() + KEPT_FOR;
            for (member, kept) in state.members.iter_mut().zip(&mut state.kept) {
                if let Some(member) = member.take() {
                    *kept = Some(Kept { process: member.process, until });
                    member.closer.close();
                }
            }
            self.tell(FleetEvent::Lost { generation, rank, reason: reason.to_owned() });
        }
        self.changed.notify_all();
    }

    /// Why a rank cannot serve.
    #[cfg(test)]
    pub fn failure_of(&self, rank: RankId) -> Option<String> {
        self.lock().failures.get(&rank).cloned()
    }

    /// The process that has a rank's place.
    #[cfg(test)]
    pub fn process_of(&self, rank: RankId) -> Option<ProcessId> {
        self.lock().members[rank.index()].as_ref().map(|member| member.process)
    }

    /// Passes on what a rank reports of a transaction; why it is lost, if nothing of it was asked.
    pub fn moved(&self, (rank, process): (RankId, ProcessId), report: MoveReport) -> Result<(), String> {
        let mut state = self.lock();
        // One that is lost already is not heard.
        if let Some(member) = state.members[rank.index()].as_mut().filter(|member| member.process == process) {
            if !member.owed.remove(&report.transaction) {
                return Err(format!("it reports of transaction {}, of which nothing was asked", report.transaction.0));
            }
            self.tell(FleetEvent::Moved { rank, report });
        }
        Ok(())
    }

    pub fn order(&self, rank: RankId, order: ToRank) {
        if let Some(member) = self.lock().members.get_mut(rank.index()).and_then(Option::as_mut) {
            if let ToRank::Stage { transaction, .. } = &order {
                member.owed.insert(*transaction);
                if member.owed.len() > MOST_OWED {
                    member.owed.pop_first();
                }
            }
            // As in `form`.
            let _ = member.outbox.send(order);
        }
    }

    pub fn roll(&self) -> Roll {
        let state = self.lock();
        let formed = matches!(state.formation, Formation::Formed { .. });
        let shown = |member: &Option<Member>| member.as_ref().map(|member| Arc::clone(&member.shown));
        Roll { formed, members: state.members.iter().map(shown).collect() }
    }

    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Ends the fleet: its threads, and every connection.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        if let Formation::Formed { steps, .. } = std::mem::replace(&mut state.formation, Formation::None) {
            steps.iter().for_each(Closer::close);
        }
        state.members.iter_mut().filter_map(Option::take).for_each(|member| member.closer.close());
        self.changed.notify_all();
    }
}
