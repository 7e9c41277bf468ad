//! The ranks as the driver sees them. [`Fleet`](super::fleet::Fleet) is the real thing; tests script their own.

use std::sync::Arc;

use plan::ids::RankId;
use plan::wire::{MapDocument, RankState};

use super::fleet::{GroupError, RankLost};
use crate::protocol::{Batch, Commit, StepDone, ToRank};
use crate::scheduler::RankCache;

/// All ranks of a coordinator, in a group or on the way to one. What happens to them arrives as
/// [`FleetEvent`](super::fleet::FleetEvent)s.
pub trait Ranks: Send + 'static {
    /// A group that runs steps.
    type Group: RankGroup;

    /// Orders every rank to form the next group under this map;
    /// [`FleetEvent::Formed`](super::fleet::FleetEvent::Formed) or [`FleetEvent::Lost`](super::fleet::FleetEvent::Lost) follows.
    /// Gives its generation.
    ///
    /// # Errors
    /// If a rank is missing or there is a group.
    fn form(&self, map: &MapDocument, epoch: u64) -> Result<u64, GroupError>;

    /// Sends an order of the move path; one for a rank that is gone is dropped, and its group is lost anyway.
    fn order(&self, rank: RankId, order: ToRank);

    /// Who is registered now.
    fn roll(&self) -> Roll;

    /// The number of the last group, formed, being formed or lost; 0 before the first.
    fn generation(&self) -> u64;
}

/// Who was registered at one moment. It shares what is known of each rank, so that the thread that runs steps only gives it:
/// whoever asks makes the document.
#[derive(Clone, Debug)]
pub struct Roll {
    /// Whether they are a group.
    pub formed: bool,
    /// What is known of each, `[ranks]`.
    pub members: Vec<Option<Arc<RankState>>>,
}

impl Roll {
    /// Every rank, in order.
    #[must_use]
    pub fn states(&self) -> Vec<RankState> {
        let state = |(rank, member): (usize, &Option<Arc<RankState>>)| match member {
            Some(member) => RankState { connected: self.formed, ..RankState::clone(member) },
            None => RankState {
                rank: rank as u32,
                connected: false,
                address: String::new(),
                node: String::new(),
                device: String::new(),
                memory: 0,
                exchange: String::new(),
            },
        };
        self.members.iter().enumerate().map(state).collect()
    }
}

/// A group of ranks.
pub trait RankGroup: Send + 'static {
    /// Its number.
    fn generation(&self) -> u64;

    /// Each rank's KV cache, `[ranks]`; all of it is free when the group is new.
    fn caches(&self) -> Vec<RankCache>;

    /// Sends a step, `batches[r]` to rank `r`. Ranks run it when they have answered those that were sent before.
    ///
    /// # Errors
    /// If a rank is lost, and with it the group; whether ranks ran the step is unknown.
    ///
    /// # Panics
    /// If there is not one batch for each rank.
    fn send(&mut self, number: u64, batches: Vec<Batch>, commits: &[Commit]) -> Result<(), RankLost>;

    /// Waits for every answer, `[ranks]`, to the oldest step that is not answered.
    ///
    /// # Errors
    /// If a rank is lost, or has not answered within the settings' step deadline; the group is lost with it.
    ///
    /// # Panics
    /// If every step is answered.
    fn receive(&mut self) -> Result<Vec<StepDone>, RankLost>;
}
