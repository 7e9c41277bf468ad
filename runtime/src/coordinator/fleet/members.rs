//! Which ranks are registered and what group they are in: the fleet's state, under one lock that is never held while
//! anything waits for the network.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use plan::ids::RankId;
use plan::wire::{MapDocument, RankState};

use super::{FleetEvent, FleetSettings, FormError, Group};
use crate::fabric::framing::{Closer, Connection};
use crate::fabric::hello::{GroupId, draw};
use crate::protocol::{RankAddress, ToRank};

/// A rank that is registered.
#[derive(Debug)]
pub(super) struct Member {
    /// The process that it is.
    pub process: u64,
    /// Where other ranks reach it.
    pub address: RankAddress,
    /// Blocks of its KV cache.
    pub kv_blocks: u32,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// To the thread that writes to it.
    pub outbox: Sender<ToRank>,
    /// Ends its control connection.
    pub closer: Closer,
    /// When it last said something.
    pub heard: Instant,
}

#[derive(Debug)]
enum Formation {
    None,
    Forming { id: GroupId, ready: Vec<bool>, steps: Vec<Option<Connection>> },
    Formed { id: GroupId, steps: Vec<Closer> },
}

#[derive(Debug)]
struct State {
    /// `[ranks]`
    members: Vec<Option<Member>>,
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
    nonce: u64,
    events: Sender<FleetEvent>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Members {
    pub fn new(settings: FleetSettings, events: Sender<FleetEvent>) -> Self {
        let members = (0..settings.ranks).map(|_| None).collect();
        let (failures, formation) = (BTreeMap::new(), Formation::None);
        let state = State { members, failures, formation, generation: 0, closed: false };
        let nonce = draw();
        Self { settings, nonce, events, state: Mutex::new(state), changed: Condvar::new() }
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
        Self::check_blocks(&self.lock(), &member)?;
        let mut state = self.free_place(rank, member.process, &member.address.moves)?;
        Self::check_blocks(&state, &member)?;
        // Its signs of life during the wait are still unread.
        member.heard = Instant::now();
        tracing::info!(%rank, address = member.address.moves, node = member.address.node, "rank registered");
        state.members[rank.index()] = Some(member);
        if state.failures.remove(&rank).is_some() {
            self.tell_failure(&state);
        }
        if state.members.iter().all(Option::is_some) && matches!(state.formation, Formation::None) {
            self.tell(FleetEvent::Complete);
        }
        Ok(())
    }

    /// Takes note of a rank that cannot serve, if its place is free or gets free.
    pub fn fail(&self, rank: RankId, process: u64, peer: &str, reason: &str) -> Result<(), String> {
        let mut state = self.free_place(rank, process, peer)?;
        tracing::error!(%rank, reason, "a rank cannot serve");
        state.failures.insert(rank, reason.to_owned());
        self.tell_failure(&state);
        Ok(())
    }

    /// A rank's place, once nobody has it. Whoever wants a place that is taken waits until the rank there is lost, and
    /// is refused if that one shows that it lives: a process that is replaced may be noticed as gone only after its
    /// successor has come.
    fn free_place(&self, rank: RankId, process: u64, address: &str) -> Result<MutexGuard<'_, State>, String> {
        let mut state = self.lock();
        if state.members[rank.index()].as_ref().is_some_and(|other| other.process == process) {
            self.lose_locked(&mut state, rank, "it registered again");
        }
        let limit = Instant::now() + self.settings.silence_limit + Duration::from_secs(1);
        while let Some(other) = &state.members[rank.index()] {
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let other = &other.address.moves;
                return Err(format!(
                    "{rank} is alive at {other}, so {address} cannot be it; start each rank once, with a number of its own"
                ));
            }
            (state, _) =
                self.changed.wait_timeout(state, left).expect("no thread panics while it holds the fleet's state");
        }
        if state.closed {
            return Err("the coordinator is shutting down".to_owned());
        }
        Ok(state)
    }

    fn tell_failure(&self, state: &State) {
        let first = state.failures.first_key_value();
        self.tell(FleetEvent::Failing(first.map(|(rank, reason)| format!("{rank} cannot serve: {reason}"))));
    }

    fn check_blocks(state: &State, member: &Member) -> Result<(), String> {
        let differs =
            |other: &&Member| other.address.rank != member.address.rank && other.block_tokens != member.block_tokens;
        match state.members.iter().flatten().find(differs) {
            Some(other) => Err(format!(
                "{} has KV blocks of {} tokens and {} of {}; start all with the same --block-tokens",
                member.address.rank, member.block_tokens, other.address.rank, other.block_tokens
            )),
            None => Ok(()),
        }
    }

    pub fn heard(&self, rank: RankId, process: u64, now: Instant) {
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
    pub fn lose(&self, rank: RankId, process: u64, connection: &Sender<ToRank>, reason: &str) {
        let mut state = self.lock();
        let is_this = |member: &Member| member.process == process && member.outbox.same_channel(connection);
        if state.members[rank.index()].as_ref().is_some_and(is_this) {
            self.lose_locked(&mut state, rank, reason);
        }
    }

    pub fn lose_group(&self, generation: u64, rank: RankId, reason: &str) {
        let mut state = self.lock();
        let current = match &state.formation {
            Formation::None => None,
            Formation::Forming { id, .. } | Formation::Formed { id, .. } => Some(id.generation),
        };
        if current == Some(generation) {
            self.lose_locked(&mut state, rank, reason);
        }
    }

    /// Drops a rank and the group that it is in. The others' connections are closed too: a rank then has one way
    /// back from any state that the loss has left it in, which is to register again.
    fn lose_locked(&self, state: &mut State, rank: RankId, reason: &str) {
        tracing::warn!(%rank, reason, "rank lost");
        if let Some(member) = state.members[rank.index()].take() {
            member.closer.close();
        }
        let generation = match std::mem::replace(&mut state.formation, Formation::None) {
            Formation::None => None,
            Formation::Forming { id, .. } => Some(id.generation),
            Formation::Formed { id, steps } => {
                steps.iter().for_each(Closer::close);
                Some(id.generation)
            }
        };
        if let Some(generation) = generation {
            state.members.iter_mut().filter_map(Option::take).for_each(|member| member.closer.close());
            self.tell(FleetEvent::Lost { generation, rank, reason: reason.to_owned() });
        }
        self.changed.notify_all();
    }

    pub fn form(&self, map: &MapDocument, epoch: u64) -> Result<u64, FormError> {
        let mut state = self.lock();
        let missing = (0..self.settings.ranks).filter(|&rank| state.members[rank].is_none()).map(|rank| rank as u32);
        let missing: Vec<u32> = missing.collect();
        if !missing.is_empty() {
            return Err(FormError::Incomplete { missing });
        }
        if let Formation::Forming { id, .. } | Formation::Formed { id, .. } = &state.formation {
            return Err(FormError::Exists { generation: id.generation });
        }
        state.generation += 1;
        let id = GroupId { generation: state.generation, nonce: self.nonce };
        let ranks: Vec<RankAddress> = state.members.iter().flatten().map(|member| member.address.clone()).collect();
        let order = ToRank::Form {
            generation: id.generation,
            nonce: id.nonce,
            ranks,
            map: map.clone(),
            epoch,
            staging_pages: self.settings.staging_pages,
            move_bytes_per_second: self.settings.move_bytes_per_second,
        };
        for member in state.members.iter().flatten() {
            // If its writer has ended, its reader is about to report the loss.
            let _ = member.outbox.send(order.clone());
        }
        let (ready, steps) = (vec![false; self.settings.ranks], (0..self.settings.ranks).map(|_| None).collect());
        state.formation = Formation::Forming { id, ready, steps };
        Ok(id.generation)
    }

    pub fn ready(self: &Arc<Self>, rank: RankId, generation: u64) {
        let mut state = self.lock();
        if let Formation::Forming { id, ready, .. } = &mut state.formation
            && id.generation == generation
        {
            ready[rank.index()] = true;
            self.complete(&mut state);
        }
    }

    pub fn attach_steps(self: &Arc<Self>, group: GroupId, rank: RankId, mut connection: Connection) {
        let mut state = self.lock();
        if let Formation::Forming { id, steps, .. } = &mut state.formation
            && *id == group
            && rank.index() < steps.len()
        {
            connection.rename(rank.to_string());
            steps[rank.index()] = Some(connection);
            self.complete(&mut state);
        }
    }

    fn complete(self: &Arc<Self>, state: &mut State) {
        let Formation::Forming { id, ready, steps } = &mut state.formation else { return };
        if !ready.iter().all(|&ready| ready) || !steps.iter().all(Option::is_some) {
            return;
        }
        let (id, connections): (GroupId, Vec<Connection>) = (*id, steps.iter_mut().filter_map(Option::take).collect());
        let closers: Result<Vec<Closer>, _> = connections.iter().map(Connection::closer).collect();
        let steps = match closers {
            Ok(closers) => closers,
            Err(error) => return self.lose_locked(state, RankId(0), &error.to_string()),
        };
        let kv_blocks = state.members.iter().flatten().map(|member| member.kv_blocks).collect();
        let block_tokens = state.members.iter().flatten().next().map_or(0, |member| member.block_tokens);
        state.formation = Formation::Formed { id, steps };
        tracing::info!(generation = id.generation, "group formed");
        let group = Group::new(id.generation, (kv_blocks, block_tokens), connections, Arc::clone(self));
        self.tell(FleetEvent::Formed(group));
    }

    pub fn report(&self, event: FleetEvent) {
        self.tell(event);
    }

    pub fn order(&self, rank: RankId, order: ToRank) {
        if let Some(member) = self.lock().members.get(rank.index()).and_then(Option::as_ref) {
            // As in `form`.
            let _ = member.outbox.send(order);
        }
    }

    pub fn states(&self) -> Vec<RankState> {
        let state = self.lock();
        let formed = matches!(state.formation, Formation::Formed { .. });
        let describe = |(rank, member): (usize, &Option<Member>)| RankState {
            rank: rank as u32,
            connected: formed && member.is_some(),
            address: member.as_ref().map(|member| member.address.moves.clone()).unwrap_or_default(),
            node: member.as_ref().map(|member| member.address.node.clone()).unwrap_or_default(),
        };
        state.members.iter().enumerate().map(describe).collect()
    }

    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Ends the fleet: its threads, and every connection.
    pub fn close(&self, listening: SocketAddr) {
        let mut state = self.lock();
        state.closed = true;
        if let Formation::Formed { steps, .. } = std::mem::replace(&mut state.formation, Formation::None) {
            steps.iter().for_each(Closer::close);
        }
        state.members.iter_mut().filter_map(Option::take).for_each(|member| member.closer.close());
        self.changed.notify_all();
        drop(state);
        // Wakes the thread that accepts, which then sees that the fleet is closed.
        let _ = TcpStream::connect_timeout(&crate::fabric::reachable(listening), Duration::from_secs(1));
    }
}
