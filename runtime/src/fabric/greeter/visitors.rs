//! Says in the log who was turned away, and why: once for each reason in a while, with how many more there were, so that
//! whoever keeps calling fills no disk.

use std::net::SocketAddr;
use std::time::Instant;

use crate::fabric::handshake::TurnedAway;
use crate::protocol::{FIRST_THAT_PROVES, PROTOCOL};
use crate::seldom::Seldom;

/// Those who were turned away from one port.
#[derive(Debug)]
pub(super) struct Visitors {
    port: &'static str,
    logged: Seldom<TurnedAway>,
}

impl Visitors {
    pub const fn new(port: &'static str) -> Self {
        Self { port, logged: Seldom::new() }
    }

    pub const fn port(&self) -> &'static str {
        self.port
    }

    /// Takes note of one.
    pub fn turned_away(&mut self, caller: SocketAddr, reason: TurnedAway) {
        let Some(more) = self.is_due(reason, Instant::now()) else { return };
        let (port, words) = (self.port, words(reason));
        if is_usual(reason) {
            tracing::debug!(port, %caller, more, reason = words, "a caller was turned away");
        } else {
            tracing::warn!(port, %caller, more, reason = words, "a caller was turned away");
        }
    }

    /// Whether to log it, and how many were not logged before.
    fn is_due(&mut self, reason: TurnedAway, now: Instant) -> Option<u64> {
        // One entry for all versions: a caller chooses the number that it sends.
        let kind = if let TurnedAway::OtherVersion(_) = reason { TurnedAway::OtherVersion(0) } else { reason };
        self.logged.is_due(kind, now)
    }
}

/// Whether it happens while everything is right: a rank calls others until they expect it, a probe hangs up at once.
const fn is_usual(reason: TurnedAway) -> bool {
    matches!(reason, TurnedAway::NotExpected | TurnedAway::Closed)
}

fn words(reason: TurnedAway) -> String {
    match reason {
        TurnedAway::Silent => "it did not prove in time that it belongs here".to_owned(),
        TurnedAway::Crowded => "it made room for callers that came later".to_owned(),
        TurnedAway::Closed => "it went away before it had proved anything".to_owned(),
        TurnedAway::NotOurs => format!("it speaks something else, or a version before {FIRST_THAT_PROVES}"),
        TurnedAway::OtherVersion(found) => {
            format!("it speaks protocol {found}, this process {PROTOCOL}; run the same version everywhere")
        }
        TurnedAway::NotExpected => "what it wants is not served here, or not now".to_owned(),
        TurnedAway::SecretDiffers => "the secret differs: both must read the same --secret-file".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_chooses_makes_no_kind_of_its_own() {
        let mut visitors = Visitors::new("steps");
        let now = Instant::now();
        let logged = (0..u16::MAX).filter_map(|version| visitors.is_due(TurnedAway::OtherVersion(version), now));
        assert_eq!(logged.count(), 1);
    }
}
