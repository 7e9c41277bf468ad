//! The coordinator's ranks: who is registered, the group they form, the steps it runs and the orders it gets. Knows
//! nothing of requests, and nothing of why an expert moves.
//!
//! Every connection begins with both ends proving that they belong, see [`crate::fabric::handshake`]. A rank then registers on
//! its control connection. When all are registered the fleet says [`FleetEvent::Complete`] and
//! the driver calls [`Ranks::form`]; when all are loaded they are told to connect, and when all are connected the driver
//! receives a [`Group`] and runs steps on it. A rank
//! that is lost ends its group: every connection of the group is closed, the ranks keep their experts, register again,
//! and the story starts anew under the next generation.

mod agreement;
mod alike;
mod answer;
mod group;
mod latest;
mod loading;
mod members;
mod registration;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use plan::ids::RankId;
use plan::wire::{MapDocument, ModelIdentity};
use thiserror::Error;

pub use self::group::{Group, RankLost};
pub use self::latest::Latest;
use self::members::Members;
use super::ranks::{Ranks, Roll};
use crate::fabric::greeter::{Greeter, Stopper};
use crate::fabric::secret::Secret;
use crate::protocol::{MoveReport, ToRank};
use crate::threads::VitalThreads;

/// What a fleet is made of and how patient it is.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// Ranks of the group.
    pub ranks: usize,
    /// What ranks and coordinator prove themselves by.
    pub secret: Secret,
    /// The model that every rank must have found.
    pub model: ModelIdentity,
    /// Tokens that the model has.
    pub vocabulary: usize,
    /// Experts that it sends each token to in each MoE layer.
    pub top_k: usize,
    /// Tokens that each rank computes in one step at most.
    pub step_tokens: usize,
    /// Staging pages that each rank holds.
    pub staging_pages: u32,
    /// Tokens of all the sequences that a rank may have at a time.
    pub kv_tokens: u64,
    /// Bytes per second that moves to one rank may use; 0 is no limit. What suits its device if there is none.
    pub move_bytes_per_second: Option<u64>,
    /// A rank that is silent for longer is lost. It speaks every second.
    pub silence_limit: Duration,
    /// A rank that loads is waited for while it goes on; one that lives and came no further for so long is lost.
    pub stall_limit: Duration,
    /// A rank that has not answered a step for so long is lost, whatever else it says.
    pub step_deadline: Duration,
}

impl FleetSettings {
    /// Silence after which a rank counts as lost: five missed signs of life, and as long as TCP needs to notice a cut.
    pub const SILENCE_LIMIT: Duration = Duration::from_secs(6);

    /// How long a rank may take for its next bytes of weights: one tensor of the slowest volume that anybody would wait for.
    pub const STALL_LIMIT: Duration = Duration::from_mins(10);
}

/// What happens to the fleet, in order. Ranks cannot bring about more of it than the driver hears: a group is lost once, a move
/// is reported once for each order, and of failures and refusals only the last is kept.
#[derive(Debug)]
pub enum FleetEvent<G = Group> {
    /// Every rank is registered and there is no group: time for [`Ranks::form`].
    Complete,
    /// How far the ranks that load are, for people. Told again and again until they connect.
    Loading(Latest<String>),
    /// Every rank is ready; the driver runs steps on the group until it is lost.
    Formed(G),
    /// The group, formed or being formed, is no more.
    Lost {
        /// Its generation.
        generation: u64,
        /// The rank that was lost first.
        rank: RankId,
        /// The reason, in words for people.
        reason: String,
    },
    /// What keeps ranks from serving until somebody changes something is another: the rank of the lowest number that
    /// has failed so, and its words. `None`: no rank has any more.
    Failing(Latest<Option<String>>),
    /// A rank was refused, for this reason and with what to do; it may come back as one that is not.
    Refused(Latest<String>),
    /// What became of a transaction on a rank.
    Moved {
        /// Which rank.
        rank: RankId,
        /// What it says.
        report: MoveReport,
    },
}

/// Why there is no group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GroupError {
    /// Ranks are missing.
    #[error("ranks {missing:?} are not registered")]
    Incomplete {
        /// Numbers of the ranks that are missing.
        missing: Vec<u32>,
    },
    /// There is one already.
    #[error("generation {generation} is there already")]
    Exists {
        /// Its generation.
        generation: u64,
    },
    /// No secret can be drawn for it.
    #[error("the system gives no random numbers")]
    NoSecret,
}

/// The ranks of one coordinator. Everything that waits for a rank happens on threads of its own; its methods return
/// at once.
#[derive(Debug)]
pub struct Fleet {
    members: Arc<Members>,
    address: SocketAddr,
    /// Dropped with the fleet, which ends the threads that accept and that watch for silence.
    _stop: (Stopper, Sender<()>),
}

impl Fleet {
    /// Starts to accept ranks on `listener`; what happens arrives on the channel.
    ///
    /// # Errors
    /// If the system gives no threads or no address.
    pub fn start(
        settings: FleetSettings,
        listener: TcpListener,
        threads: &VitalThreads,
    ) -> std::io::Result<(Self, Receiver<FleetEvent>)> {
        let address = listener.local_addr()?;
        let (events, received) = crossbeam_channel::unbounded();
        let members = Arc::new(Members::new(settings, events));
        let accepting = Arc::clone(&members);
        let (greeter, stop_greeter) = Greeter::new(listener, "control")?;
        threads.spawn("fleet-accept", move || registration::accept(&accepting, greeter))?;
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let watched = Arc::clone(&members);
        threads.spawn("fleet-watch", move || registration::watch_for_silence(&watched, &stopped))?;
        Ok((Self { members, address, _stop: (stop_greeter, stop) }, received))
    }

    /// Where ranks register.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Ranks for Fleet {
    type Group = Group;

    fn form(&self, map: &MapDocument, epoch: u64) -> Result<u64, GroupError> {
        self.members.form(map, epoch)
    }

    fn order(&self, rank: RankId, order: ToRank) {
        self.members.order(rank, order);
    }

    fn roll(&self) -> Roll {
        self.members.roll()
    }

    fn generation(&self) -> u64 {
        self.members.generation()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.members.close();
    }
}

#[cfg(test)]
mod tests;
