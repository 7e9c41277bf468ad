//! How registered ranks become a group: all are told the same, each says what its pages are and connects its steps.

use std::sync::Arc;

use plan::ids::RankId;
use plan::wire::MapDocument;

use super::super::agreement::{Report, agree};
use super::super::answer::Expected;
use super::super::group::Parts;
use super::super::{FleetEvent, FleetSettings, FormError, Group};
use super::{Member, Members, State};
use crate::fabric::framing::{Broken, Closer, Connection, Fan};
use crate::fabric::purpose::GroupId;
use crate::fabric::secret::{Secret, random};
use crate::protocol::{RankAddress, ToRank};
use crate::scheduler::CacheSize;

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
    /// What each rank that is ready says of its pages, `[ranks]`.
    ready: Vec<Option<Vec<u128>>>,
    steps: Vec<Option<Connection>>,
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
    pub fn form(&self, map: &MapDocument, epoch: u64) -> Result<u64, FormError> {
        let mut state = self.lock();
        let missing = (0..self.settings.ranks).filter(|&rank| state.members[rank].is_none()).map(|rank| rank as u32);
        let missing: Vec<u32> = missing.collect();
        if !missing.is_empty() {
            return Err(FormError::Incomplete { missing });
        }
        if let Some(id) = state.formation.id() {
            return Err(FormError::Exists { generation: id.generation });
        }
        let (Ok(nonce), Ok(drawn)) = (random(), random()) else { return Err(FormError::NoSecret) };
        state.generation += 1;
        let id = GroupId { generation: state.generation, nonce: u64::from_le_bytes(nonce) };
        let ranks: Vec<RankAddress> = state.members.iter().flatten().map(|member| member.address.clone()).collect();
        let order = ToRank::Form {
            generation: id.generation,
            nonce: id.nonce,
            drawn,
            ranks,
            map: map.clone(),
            epoch,
            staging_pages: self.settings.staging_pages,
            move_bytes_per_second: self.settings.move_bytes_per_second,
            step_tokens: u32::try_from(self.settings.step_tokens).unwrap_or(u32::MAX),
        };
        for member in state.members.iter().flatten() {
            // If its writer has ended, its reader is about to report the loss.
            let _ = member.outbox.send(order.clone());
        }
        let (ready, steps) = (vec![None; self.settings.ranks], (0..self.settings.ranks).map(|_| None).collect());
        let (placement, secret) = (map.placement.clone(), self.settings.secret.of_group(&drawn));
        state.formation = Formation::Forming(Forming { id, secret, placement, ready, steps });
        Ok(id.generation)
    }

    /// Takes note of what a rank that is ready holds; why it is lost, if that cannot be.
    pub fn ready(self: &Arc<Self>, rank: RankId, generation: u64, fingerprints: Vec<u128>) -> Result<(), String> {
        let mut state = self.lock();
        if let Formation::Forming(forming) = &mut state.formation
            && forming.id.generation == generation
        {
            let slots = forming.placement.len() * forming.slots_per_rank();
            if fingerprints.len() != slots {
                return Err(format!("it is ready with {} pages instead of {slots}", fingerprints.len()));
            }
            forming.ready[rank.index()] = Some(fingerprints);
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

    /// Makes it a group once every rank is ready and connected, if they hold the same.
    fn complete(self: &Arc<Self>, state: &mut State) {
        let Formation::Forming(forming) = &mut state.formation else { return };
        if !forming.ready.iter().all(Option::is_some) || !forming.steps.iter().all(Option::is_some) {
            return;
        }
        let processes = state.members.iter().flatten().map(|member| member.process);
        let ready = forming.ready.iter_mut().filter_map(Option::take);
        let reports: Vec<Report> =
            processes.zip(ready).map(|(process, fingerprints)| Report { process, fingerprints }).collect();
        let experts = self.settings.model.experts;
        let agreement = match agree(&forming.placement, experts, &reports, state.agreement.as_ref()) {
            Ok(agreement) => agreement,
            Err(wrong) => return self.refuse_locked(state, &wrong),
        };
        let (id, expected) = (forming.id, self.expected(forming));
        let fan = Fan::new(forming.steps.iter_mut().filter_map(Option::take).collect());
        let (fan, steps) = match fan.and_then(|fan| fan.closers().map(|steps| (fan, steps))) {
            Ok(connected) => connected,
            Err(Broken { place, error }) => return self.lose_locked(state, place.into(), &error.to_string()),
        };
        let (generation, fingerprints) = (id.generation, &agreement.fingerprints);
        for member in state.members.iter().flatten() {
            // As in `form`.
            let _ = member.outbox.send(ToRank::Agreed { generation, fingerprints: fingerprints.clone() });
        }
        state.agreement = Some(agreement);
        let cache = |member: &Member| CacheSize { blocks: member.kv_blocks, block_tokens: member.block_tokens };
        let caches = state.members.iter().flatten().map(cache).collect();
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
