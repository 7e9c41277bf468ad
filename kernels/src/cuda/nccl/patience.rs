//! How long a step waits for other ranks: anew with each layer that it has exchanged, so that what the ranks compute themselves in a
//! whole step takes nothing from it. Pure.

use std::time::{Duration, Instant};

/// Of a rank's steps, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waited {
    /// When a step that is under way began, or last had another layer.
    since: Option<Instant>,
    /// Layers that had passed by then.
    passed: u32,
}

impl Waited {
    /// A step begins.
    pub const fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// It is over.
    pub const fn end(&mut self) {
        self.since = None;
    }

    /// What is left of the patience now that so many layers have passed; none without a step, when there is nothing to wait for.
    pub fn left(&mut self, patience: Duration, passed: u32, now: Instant) -> Option<Duration> {
        let since = self.since.as_mut()?;
        if self.passed != passed {
            (self.passed, *since) = (passed, now);
        }
        Some(patience.saturating_sub(now.saturating_duration_since(*since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_may_take_longer_than_it_waits_for_any_of_its_layers() {
        let (start, patience) = (Instant::now(), Duration::from_secs(30));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut waited = Waited::default();
        assert_eq!(waited.left(patience, 0, at(0)), None);
        waited.begin(at(0));
        assert_eq!(waited.left(patience, 0, at(20)), Some(Duration::from_secs(10)));
        assert_eq!(waited.left(patience, 1, at(25)), Some(patience), "a layer has passed");
        assert_eq!(waited.left(patience, 3, at(50)), Some(patience), "two more have");
        assert_eq!(waited.left(patience, 3, at(70)), Some(Duration::from_secs(10)));
        assert_eq!(waited.left(patience, 3, at(81)), Some(Duration::ZERO));
        waited.end();
        assert_eq!(waited.left(patience, 3, at(90)), None);
        waited.begin(at(100));
        assert_eq!(waited.left(patience, 3, at(101)), Some(Duration::from_secs(29)), "of the step before");
    }
}
