//! What anybody outside can bring about is logged once in a while, with how often it was not, so that whoever keeps at it
//! fills no disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often each kind is logged at most.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// What was logged lately, by its kind. There must be few kinds, of which nobody outside can make more.
#[derive(Debug)]
pub struct Seldom<K> {
    /// When each kind was last logged, and how often it was not since.
    logged: BTreeMap<K, (Instant, u64)>,
}

impl<K: Ord> Seldom<K> {
    /// Nothing was logged yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { logged: BTreeMap::new() }
    }

    /// Whether to log what has happened now, and how many of its kind were not logged before.
    pub fn is_due(&mut self, kind: K, now: Instant) -> Option<u64> {
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

impl<K: Ord> Default for Seldom<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_logged_at_once_and_then_once_in_a_while_with_how_many_more_there_were() {
        let (mut seldom, start) = (Seldom::new(), Instant::now());
        assert_eq!(seldom.is_due("silent", start), Some(0));
        assert_eq!(seldom.is_due("crowded", start), Some(0));
        for _ in 0..1000 {
            assert_eq!(seldom.is_due("silent", start + INTERVAL / 2), None);
        }
        assert_eq!(seldom.is_due("silent", start + INTERVAL), Some(1000));
        assert_eq!(seldom.is_due("silent", start + INTERVAL * 2), Some(0));
    }
}
