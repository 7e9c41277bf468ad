//! A rank that can never serve: it tells the coordinator why for as long as it runs, and tries nothing again. Ending
//! instead would have it started again, for ever.

use plan::ids::RankId;

use super::{FIRST_BACK_OFF, LONGEST_BACK_OFF, Stop};
use crate::fabric::framing::{CONNECT_TIMEOUT, ConnectionError};
use crate::fabric::handshake::call;
use crate::fabric::purpose::Purpose;
use crate::fabric::secret::Secret;
use crate::protocol::{FromRank, MOST_WORDS, ProcessId, ToRank};
use crate::quoted::shortened;

/// What is told, and to whom.
pub(super) struct Failure {
    /// `host:port` of the coordinator's control connection.
    pub coordinator: String,
    /// The deployment's.
    pub secret: Secret,
    /// The rank it was to be.
    pub rank: RankId,
    /// As in [`FromRank::Failed`].
    pub process: ProcessId,
    /// Why it cannot serve.
    pub reason: String,
}

impl Failure {
    /// Tells it, again to each coordinator that comes, until `stop`.
    pub fn tell_until(&self, stop: &Stop) {
        let mut back_off = FIRST_BACK_OFF;
        while !stop.cancel.is_cancelled() {
            match self.tell(stop) {
                Ok(ToRank::Refused { reason }) => {
                    tracing::warn!(reason = shortened(&reason, MOST_WORDS), "the coordinator does not take note");
                }
                // The connection was held until the coordinator or this process ended.
                Ok(_) | Err(ConnectionError::Closed { .. }) => back_off = FIRST_BACK_OFF,
                Err(error @ (ConnectionError::SecretDiffers { .. } | ConnectionError::OtherVersion { .. })) => {
                    tracing::warn!(%error, "the coordinator cannot be told");
                }
                Err(error) => tracing::debug!(%error, "the coordinator does not know yet"),
            }
            stop.cancel.wait(back_off);
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    /// Tells one coordinator and waits until it says something, or is gone.
    fn tell(&self, stop: &Stop) -> Result<ToRank, ConnectionError> {
        let purpose = (Purpose::Control, &self.secret);
        let mut control = call(&self.coordinator, "the coordinator", purpose, CONNECT_TIMEOUT)?;
        let Self { process, rank, .. } = *self;
        stop.guard(rank, control.closer()?);
        control.send(&FromRank::Failed { process, rank, reason: shortened(&self.reason, MOST_WORDS) })?;
        control.receive()
    }
}
