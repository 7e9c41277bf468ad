//! Says in the log who was turned away, and why: once for each reason in a while, with how many more there were, so that
//! whoever keeps calling fills no disk.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::fabric::handshake::TurnedAway;
use crate::protocol::PROTOCOL;

/// How often each reason is logged at most.
const INTERVAL: Duration = Duration::from_secs(5);

/// Those who were turned away from one port.
#[derive(Debug)]
pub(super) struct Visitors {
    port: &'static str,
    /// When each reason was last logged, and how often it was not since.
    logged: BTreeMap<TurnedAway, (Instant, u64)>,
}

impl Visitors {
    pub const fn new(port: &'static str) -> Self {
        Self { port, logged: BTreeMap::new() }
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
        match self.logged.get_mut(&kind) {
            Some((last, more)) if now.saturating_duration_since(*last) < INTERVAL => {
                *more += 1;
                None
            }
            Some((last, more)) => {
                *last = now;
                Some(std::mem::take(more))
            }
            None => {
                self.logged.insert(kind, (now, 0));
                Some(0)
            }
        }
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
        TurnedAway::NotOurs => "it speaks something else, or a version before 4".to_owned(),
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
    fn each_reason_is_logged_at_once_and_then_once_in_a_while_with_how_many_more_there_were() {
        let (mut visitors, start) = (Visitors::new("steps"), Instant::now());
        assert_eq!(visitors.is_due(TurnedAway::Silent, start), Some(0));
        assert_eq!(visitors.is_due(TurnedAway::SecretDiffers, start), Some(0));
        for _ in 0..1000 {
            assert_eq!(visitors.is_due(TurnedAway::Silent, start + INTERVAL / 2), None);
        }
        assert_eq!(visitors.is_due(TurnedAway::Silent, start + INTERVAL), Some(1000));
        assert_eq!(visitors.is_due(TurnedAway::Silent, start + INTERVAL * 2), Some(0));
    }

    #[test]
    fn what_a_caller_chooses_takes_no_memory() {
        let mut visitors = Visitors::new("steps");
        let logged =
            (0..u16::MAX).filter_map(|version| visitors.is_due(TurnedAway::OtherVersion(version), Instant::now()));
        assert!(logged.count() < 100);
        assert_eq!(visitors.logged.len(), 1);
    }
}
