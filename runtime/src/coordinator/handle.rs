//! How the HTTP side talks to the driver's thread: bounded channels, no lock.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, TrySendError};
use plan::wire::{MapDocument, MonitorDocument, State};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use super::live::Live;
use super::ranks::Roll;
use super::unread::{Postman, Unread, UpdateSender, Updates, updates};
use crate::experts::rebalance::{Refusal, Seen, Service};
use crate::protocol::TokenScore;
use crate::room::Room;
use crate::scheduler::{Finish, LOSSES_IN_A_ROW, LOSSES_IN_ALL, NewSequence, SubmitError};

/// Bytes of one request's answers that may wait to be read before they are ended: some 10,000 tokens. Their memory is
/// what a reader that pauses costs.
pub const UNREAD_BYTES: usize = 1 << 20;

/// Bytes of all requests' answers that may wait to be read: a hundred readers that pause as long as they may. Beyond, the
/// request of which most waits is ended.
pub const UNREAD_IN_ALL: usize = 128 << 20;

/// Bytes of an update of one token, and of each other token that is reported beside it.
const UPDATE_BYTES: usize = 96;
const REPORTED_BYTES: usize = 8;

/// Updates that one choice may have unread, however many choices share the bound: a reader that is there is never so far
/// behind.
const LEAST_UNREAD: usize = 64;

/// Commands that may wait for the next step boundary.
pub const COMMANDS: usize = 1024;

/// What a sequence gave in a step, or how it ended otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// It went on.
    Output {
        /// Scores of further tokens of the prompt, in order.
        prompt_scores: Vec<TokenScore>,
        /// The next token.
        token: Option<TokenScore>,
        /// Whether this is its end.
        finish: Option<Finish>,
    },
    /// It cannot go on: nothing follows.
    Failed(SequenceError),
}

impl Update {
    /// Bytes that it costs until it is read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Self::Output { prompt_scores, token, .. } = self else { return UPDATE_BYTES };
        let beside = |score: &TokenScore| REPORTED_BYTES * score.top.len();
        let of_prompt = |score| size_of::<TokenScore>() + beside(score);
        UPDATE_BYTES + token.as_ref().map_or(0, beside) + prompt_scores.iter().map(of_prompt).sum::<usize>()
    }
}

/// Why a sequence was ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SequenceError {
    /// The ranks' caches turned out to be smaller than it may become.
    #[error(
        "This model's maximum context length is {capacity} tokens, as much as the KV cache of the ranks that serve now \
         holds; shorten prompt or answer"
    )]
    OutgrowsCache {
        /// Tokens of the smallest cache.
        capacity: usize,
    },
    /// What the model computed for it is no answer.
    #[error("the model gave results that are no numbers for this request, so that there is no answer to it")]
    NoNumbers,
    /// It may be what the ranks die of.
    #[error(
        "a rank was lost {LOSSES_IN_A_ROW} times in a row, or {LOSSES_IN_ALL} times in all, while it computed this \
         request, which is not tried again"
    )]
    LostGroups,
    /// A rank has failed for good.
    #[error("{reason}")]
    Failing {
        /// Which, and why.
        reason: String,
    },
    /// The server stops.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Sequences of one request on their way to the driver.
pub struct Submission {
    /// Each with where its updates go. A closed channel cancels the sequence.
    pub sequences: Vec<(NewSequence, UpdateSender)>,
    /// Whether they were taken.
    pub reply: oneshot::Sender<Result<(), HandleError>>,
}

/// What the admin API asks of the driver.
pub enum AdminCommand {
    /// How everything is.
    Look(oneshot::Sender<Look>),
    /// Move to a map.
    ApplyMap(Box<MapDocument>, oneshot::Sender<Result<(), AdminError>>),
    /// Close the window and plan.
    Rebalance(oneshot::Sender<Result<(), AdminError>>),
}

/// How everything is at a moment; documents are made of it where they are wanted.
#[derive(Clone, Debug)]
pub struct Look {
    /// The rebalancer.
    pub seen: Seen,
    /// What is beside it.
    pub service: Service,
    /// The ranks.
    pub roll: Roll,
}

impl Look {
    /// The state as the admin API tells it.
    #[must_use]
    pub fn state(self) -> State {
        self.seen.state(self.service, self.roll.states())
    }
}

/// Why an admin command was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdminError {
    /// The document is of another model, or no valid map.
    #[error(transparent)]
    Map(#[from] plan::wire::WireError),
    /// The rebalancer does not grant it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// To the driver.
pub enum Command {
    /// New sequences.
    Submit(Submission),
    /// Something of the admin API.
    Admin(AdminCommand),
    /// End every sequence and return.
    Stop,
}

/// Whether requests are served, and if not why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every rank is part of the group.
    Serving,
    /// Requests wait.
    NotFormed {
        /// What is missing.
        reason: String,
    },
    /// Requests are refused until somebody changes something.
    Failing {
        /// Which rank has failed for good, and why.
        reason: String,
    },
    /// The server stops.
    Stopping,
}

/// Why no sequence was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandleError {
    /// The scheduler refused.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// Too many commands wait; a retry helps.
    #[error("too many requests are waiting to be looked at")]
    Busy,
    /// A rank has failed for good.
    #[error("{reason}")]
    Failing {
        /// Which, and why.
        reason: String,
    },
    /// The driver has stopped.
    #[error("the server is shutting down")]
    Stopped,
}

/// The driver as the rest of the process sees it.
#[derive(Clone)]
pub struct DriverHandle {
    commands: Sender<Command>,
    health: Arc<watch::Sender<Health>>,
    capacity: watch::Receiver<Option<usize>>,
    queued: usize,
    unread: Room,
    postman: Postman,
    live: Live,
}

impl DriverHandle {
    /// A handle on the driver that reads `commands`, writes `health`, `capacity` and `live`, lets `queued` sequences wait, and posts
    /// updates for `postman`.
    #[must_use]
    pub fn new(
        commands: Sender<Command>,
        health: Arc<watch::Sender<Health>>,
        capacity: watch::Receiver<Option<usize>>,
        (queued, postman): (usize, Postman),
        live: Live,
    ) -> Self {
        Self { commands, health, capacity, queued, unread: Room::of(UNREAD_IN_ALL), postman, live }
    }

    /// Tokens of the longest sequence that the ranks' KV caches hold, as the last group said; `None` before the first.
    #[must_use]
    pub fn capacity(&self) -> Option<usize> {
        *self.capacity.borrow()
    }

    /// What tells, each time that it is asked, whether a group has formed since it was asked before.
    pub fn formations(&self) -> impl FnMut() -> bool + Send + 'static {
        // It is said anew of each group.
        let mut capacity = self.capacity.clone();
        move || {
            let formed = capacity.has_changed().unwrap_or(false);
            capacity.mark_unchanged();
            formed
        }
    }

    /// Sequences of one request, at most: as many as may wait.
    #[must_use]
    pub const fn sequences_at_most(&self) -> usize {
        self.queued
    }

    /// Submits the sequences of one request, all or none. Dropping a receiver cancels its sequence.
    ///
    /// # Errors
    /// If they are refused.
    pub async fn submit(&self, sequences: Vec<NewSequence>) -> Result<Vec<Updates>, HandleError> {
        self.postman.begin();
        let unread = Arc::new(Unread::of(self.unread.empty_share()));
        let share = UNREAD_BYTES / sequences.len().max(1);
        let channel = |sequence: &NewSequence| {
            let update = UPDATE_BYTES + REPORTED_BYTES * sequence.top_logprobs as usize;
            updates((share / update).max(LEAST_UNREAD), &unread)
        };
        let (senders, receivers): (Vec<_>, Vec<_>) = sequences.iter().map(channel).unzip();
        let (reply, answer) = oneshot::channel();
        let sequences = sequences.into_iter().zip(senders).collect();
        self.send(Command::Submit(Submission { sequences, reply }))?;
        answer.await.map_err(|_| HandleError::Stopped)??;
        Ok(receivers)
    }

    /// Asks something for the admin API.
    ///
    /// # Errors
    /// If the driver is busy or has stopped.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> AdminCommand) -> Result<T, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Admin(command(reply)))?;
        answer.await.map_err(|_| HandleError::Stopped)
    }

    /// Whether requests are served.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// What goes on now, for somebody who knows what happened up to the event of a number. The driver is not asked.
    #[must_use]
    pub fn monitor(&self, after: u64) -> MonitorDocument {
        self.live.document(Instant::now(), after, self.health())
    }

    /// Waits until a rank has failed for good; which, and why.
    pub async fn failure(&self) -> String {
        let mut health = self.health.subscribe();
        loop {
            if let Health::Failing { reason } = &*health.borrow_and_update() {
                return reason.clone();
            }
            // Its sender lives as long as this handle, so it never ends.
            let _ = health.changed().await;
        }
    }

    /// Says that the server stops: `/health` tells so from now on. Sequences go on until [`Self::stop`].
    pub fn announce_stop(&self) {
        self.health.send_replace(Health::Stopping);
    }

    /// Ends the driver and every sequence left. Blocks while commands wait.
    pub fn stop(&self) {
        // An error means that it has stopped already.
        let _ = self.commands.send(Command::Stop);
    }

    /// Commands that the driver has not looked at.
    #[cfg(test)]
    #[must_use]
    pub fn commands_waiting(&self) -> usize {
        self.commands.len()
    }

    /// The same with another room for what waits to be read.
    #[cfg(test)]
    #[must_use]
    pub fn with_room_for_unread(self, bytes: usize) -> Self {
        Self { unread: Room::of(bytes), ..self }
    }

    fn send(&self, command: Command) -> Result<(), HandleError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => HandleError::Busy,
            TrySendError::Disconnected(_) => HandleError::Stopped,
        })
    }
}
