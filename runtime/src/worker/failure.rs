//! A rank that can never serve: it tells the coordinator why for as long as it runs, and tries nothing again. Ending
//! instead would have it started again, for ever.

use std::error::Error;

use plan::ids::RankId;

use super::{FIRST_BACK_OFF, LONGEST_BACK_OFF, Stop};
use crate::fabric::framing::{CONNECT_TIMEOUT, Connection, ConnectionError};
use crate::fabric::hello::Purpose;
use crate::protocol::{FromRank, ToRank};

/// What is told, and to whom.
pub(super) struct Failure {
    /// `host:port` of the coordinator's control connection.
    pub coordinator: String,
    /// The rank it was to be.
    pub rank: RankId,
    /// As in [`Purpose::Control`].
    pub process: u64,
    /// Why it cannot serve.
    pub reason: String,
}

impl Failure {
    /// Tells it, again to each coordinator that comes, until `stop`.
    pub fn tell_until(&self, stop: &Stop) {
        let mut back_off = FIRST_BACK_OFF;
        while !stop.cancel.is_cancelled() {
            match self.tell(stop) {
                Ok(ToRank::Refused { reason }) => tracing::warn!(reason, "the coordinator does not take note"),
                // The connection was held until the coordinator or this process ended.
                Ok(_) | Err(ConnectionError::Closed { .. }) => back_off = FIRST_BACK_OFF,
                Err(error) => tracing::debug!(%error, "the coordinator does not know yet"),
            }
            stop.cancel.wait(back_off);
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    /// Tells one coordinator and waits until it says something, or is gone.
    fn tell(&self, stop: &Stop) -> Result<ToRank, ConnectionError> {
        let mut control = Connection::connect(&self.coordinator, "the coordinator", CONNECT_TIMEOUT)?;
        stop.guard(control.closer()?);
        Purpose::Control { process: self.process }.introduce(&mut control)?;
        control.send(&FromRank::Failed { rank: self.rank, reason: self.reason.clone() })?;
        control.receive()
    }
}

/// An error with what caused it, in one line.
pub(super) fn in_full(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
