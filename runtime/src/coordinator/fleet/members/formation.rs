//! How registered ranks become a group: all are told the same, each loads and says what its pages are; when the last has, all
//! connect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plan::ids::RankId;
use plan::wire::MapDocument;
use plan::words::counted;

use super::super::agreement::{Agreement, Holding, agree};
use super::super::answer::Expected;
use super::super::group::Parts;
use super::super::loading::{self, Progress};
use super::super::{FleetEvent, FleetSettings, Group, GroupError};
use super::{Member, Members, State};
use crate::fabric::exchange::means::Means;
use crate::fabric::framing::{Broken, Closer, Connection, Fan};
use crate::fabric::purpose::GroupId;
use crate::fabric::secret::{Secret, random};
use crate::memory::MOST_BLOCKS;
use crate::protocol::{RankAddress, ToRank};
use crate::scheduler::RankCache;

/// How often the log is told how far loading is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What a fleet's group has come to.
#[derive(Debug)]
pub(super) enum Formation {
    None,
    Forming(Forming),
    Formed { id: GroupId, steps: Vec<Closer> },
}

/// A group that comes together.
#[derive(Debug)]
pub(super) struct Forming {
    id: GroupId,
    /// What its ranks prove themselves by.
    secret: Secret,
    /// Of its map: `[layers][ranks][slots]`.
    placement: Vec<Vec<Vec<u32>>>,
    /// How far each rank is, `[ranks]`.
    progress: Vec<Progress>,
    /// When the log was last told of it.
    told: Instant,
    /// What each rank that is loaded has, `[ranks]`.
    loaded: Vec<Option<Loaded>>,
    /// What they agree upon once all are and are told to connect.
    agreement: Option<Agreement>,
    /// Who is connected with the other ranks, `[ranks]`.
    ready: Vec<bool>,
    steps: Vec<Option<Connection>>,
}

/// What a rank has that is loaded.
#[derive(Debug)]
pub(in super::super) struct Loaded {
    /// Blocks of its KV cache.
    pub kv_blocks: u32,
    /// Fingerprints of its pages.
    pub fingerprints: Vec<u128>,
}

impl Forming {
    fn slots_per_rank(&self) -> usize {
        self.placement.first().and_then(|ranks| ranks.first()).map_or(0, Vec::len)
    }
}

impl Formation {
    pub const fn id(&self) -> Option<GroupId> {
        match self {
            Self::None => None,
            Self::Forming(Forming { id, .. }) | Self::Formed { id, .. } => Some(*id),
        }
    }
}

impl Members {
    pub fn form(&self, map: &MapDocument, epoch: u64) -> Result<u64, GroupError> {
        let mut state = self.lock();
        let missing = (0..self.settings.ranks).filter(|&rank| state.members[rank].is_none()).map(|rank| rank as u32);
        let missing: Vec<u32> = missing.collect();
        if !missing.is_empty() {
            return Err(GroupError::Incomplete { missing });
        }
        if let Some(id) = state.formation.id() {
            return Err(GroupError::Exists { generation: id.generation });
        }
        let (Ok(nonce), Ok(drawn)) = (random(), random()) else { return Err(GroupError::NoSecret) };
        state.generation += 1;
        let id = GroupId { generation: state.generation, nonce: u64::from_le_bytes(nonce) };
        let ranks: Vec<RankAddress> = state.members.iter().flatten().map(|member| member.address.clone()).collect();
        let order = ToRank::Form {
            generation: id.generation,
            nonce: id.nonce,
            drawn,
            ranks,
            map: Box::new(map.clone()),
            epoch,
            staging_pages: self.settings.staging_pages,
            kv_tokens: self.settings.kv_tokens,
            move_bytes_per_second: self.settings.move_bytes_per_second,
            step_tokens: u32::try_from(self.settings.step_tokens).unwrap_or(u32::MAX),
        };
        for member in state.members.iter().flatten() {
            // If its writer has ended, its reader is about to report the loss.
            let _ = member.outbox.send(order.clone());
        }
        let (ranks, told) = (self.settings.ranks, Instant::now());
        let (placement, secret) = (map.placement.clone(), self.settings.secret.of_group(&drawn));
        state.formation = Formation::Forming(Forming {
            id,
            secret,
            placement,
            progress: vec![Progress::new(told); ranks],
            told,
            loaded: (0..ranks).map(|_| None).collect(),
            agreement: None,
            ready: vec![false; ranks],
            steps: (0..ranks).map(|_| None).collect(),
        });
        Ok(id.generation)
    }

    /// Takes note of how far a rank is with loading.
    pub fn loading(&self, rank: RankId, read: u64, of: u64, now: Instant) {
        if let Formation::Forming(forming) = &mut self.lock().formation {
            forming.progress[rank.index()].read(read, of, now);
        }
    }

    /// Tells how far loading is, and loses a rank that lives and does not go on.
    pub fn watch_loading(&self, now: Instant) {
        let mut state = self.lock();
        let Formation::Forming(forming) = &mut state.formation else { return };
        let stalled = loading::stalled(&forming.progress, now, self.settings.stall_limit);
        if forming.agreement.is_some() && stalled.is_none() {
            return;
        }
        let words = loading::words(&forming.progress);
        if now.saturating_duration_since(forming.told) >= TELL_EVERY {
            forming.told = now;
            tracing::info!("{words}");
        }
        if let Some((rank, reason)) = stalled {
            return self.lose_locked(&mut state, rank, &reason);
        }
        if let Some(loading) = self.loading.put(words) {
            self.tell(FleetEvent::Loading(loading));
        }
    }

    /// Takes note of what a rank that is loaded has; why it is lost, if that cannot be.
    pub fn loaded(&self, rank: RankId, generation: u64, loaded: Loaded) -> Result<(), String> {
        let mut state = self.lock();
        let Formation::Forming(forming) = &mut state.formation else { return Ok(()) };
        if forming.id.generation != generation {
            return Ok(());
        }
        let (slots, pages) = (forming.placement.len() * forming.slots_per_rank(), loaded.fingerprints.len());
        if pages != slots {
            return Err(format!("it has loaded {} instead of {slots}", counted(pages, "page")));
        }
        if !(1..=MOST_BLOCKS).contains(&loaded.kv_blocks) {
            return Err(format!("it has a KV cache of {} blocks; there must be 1 to {MOST_BLOCKS}", loaded.kv_blocks));
        }
        if forming.loaded[rank.index()].is_some() {
            return Err("it says again that it is loaded".to_owned());
        }
        forming.progress[rank.index()].done();
        forming.loaded[rank.index()] = Some(loaded);
        if forming.loaded.iter().all(Option::is_some) {
            self.connect(&mut state);
        }
        Ok(())
    }

    /// Tells all ranks to connect once the last is loaded, if they hold the same.
    fn connect(&self, state: &mut State) {
        let Formation::Forming(forming) = &mut state.formation else { return };
        let processes = state.members.iter().flatten().map(|member| member.process);
        let fingerprints = forming.loaded.iter().flatten().map(|loaded| loaded.fingerprints.clone());
        let holdings: Vec<Holding> =
            processes.zip(fingerprints).map(|(process, fingerprints)| Holding { process, fingerprints }).collect();
        let experts = self.settings.model.experts;
        let agreement = match agree(&forming.placement, experts, &holdings, state.agreement.as_ref()) {
            Ok(agreement) => agreement,
            Err(wrong) => return self.refuse_locked(state, &wrong),
        };
        let now = Instant::now();
        tracing::info!("{}, and connect", loading::words(&forming.progress));
        forming.progress.iter_mut().for_each(|progress| progress.next(now));
        let (generation, fingerprints) = (forming.id.generation, &agreement.fingerprints);
        for member in state.members.iter().flatten() {
            // As in `form`.
            let _ = member.outbox.send(ToRank::Connect { generation, fingerprints: fingerprints.clone() });
        }
        forming.agreement = Some(agreement);
    }

    /// Takes note of a rank that is connected with all others; why it is lost, if that cannot be.
    pub fn ready(self: &Arc<Self>, rank: RankId, generation: u64, exchange: Option<Means>) -> Result<(), String> {
        let mut state = self.lock();
        if let Formation::Forming(forming) = &mut state.formation
            && forming.id.generation == generation
        {
            if forming.agreement.is_none() {
                return Err("it is ready before it was told to connect".to_owned());
            }
            forming.progress[rank.index()].done();
            forming.ready[rank.index()] = true;
            if let Some(member) = &mut state.members[rank.index()] {
                Arc::make_mut(&mut member.shown).exchange = exchange.map(|by| by.to_string()).unwrap_or_default();
            }
            self.complete(&mut state);
        }
        Ok(())
    }

    /// What who connects a rank's steps has to prove itself by.
    pub fn secret_of(&self, group: GroupId, rank: RankId) -> Option<Secret> {
        match &self.lock().formation {
            Formation::Forming(forming) if forming.id == group && rank.index() < self.settings.ranks => {
                Some(forming.secret.clone())
            }
            _ => None,
        }
    }

    pub fn attach_steps(self: &Arc<Self>, group: GroupId, rank: RankId, mut connection: Connection) {
        let mut state = self.lock();
        if let Formation::Forming(forming) = &mut state.formation
            && forming.id == group
            && let Some(steps) = forming.steps.get_mut(rank.index())
        {
            connection.rename(rank.to_string());
            *steps = Some(connection);
            self.complete(&mut state);
        }
    }

    /// Makes it a group once every rank is connected with the others and the coordinator.
    fn complete(self: &Arc<Self>, state: &mut State) {
        let Formation::Forming(forming) = &mut state.formation else { return };
        if !forming.ready.iter().all(|ready| *ready) || !forming.steps.iter().all(Option::is_some) {
            return;
        }
        let (id, expected) = (forming.id, self.expected(forming));
        let fan = Fan::new(forming.steps.iter_mut().filter_map(Option::take).collect());
        let steps = match fan.closers() {
            Ok(steps) => steps,
            Err(Broken { place, error }) => return self.lose_locked(state, place.into(), &error.to_string()),
        };
        let generation = id.generation;
        state.agreement = forming.agreement.take();
        let cache = |(loaded, member): (&Loaded, &Member)| RankCache {
            blocks: loaded.kv_blocks,
            block_tokens: member.traits.block_tokens,
        };
        let caches = forming.loaded.iter().flatten().zip(state.members.iter().flatten()).map(cache).collect();
        state.formation = Formation::Formed { id, steps };
        tracing::info!(generation, "group formed");
        let parts = Parts { generation, caches, expected, fan };
        self.tell(FleetEvent::Formed(Group::new(parts, Arc::clone(self))));
    }

    fn expected(&self, forming: &Forming) -> Expected {
        let FleetSettings { vocabulary, top_k, .. } = self.settings;
        Expected { vocabulary, top_k, layers: forming.placement.len(), slots_per_rank: forming.slots_per_rank() }
    }
}
