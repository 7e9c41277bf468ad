//! How fast pages may arrive.

use std::time::Duration;

/// Bytes that may arrive at once after a pause, as time: small against a step's share of the link.
const BURST: Duration = Duration::from_millis(50);

/// What is asked for at once, as time: no more, so that what goes the same way beside it waits no longer for that.
const PART: Duration = Duration::from_millis(1);

/// A token bucket: `bytes_per_second`, with bursts of at most [`BURST`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    bytes_per_second: u64,
    /// When everything that was taken so far is paid for.
    paid: Duration,
}

impl Budget {
    /// 0 is no limit.
    pub const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid: Duration::ZERO }
    }

    /// Bytes that are best asked for at once.
    pub fn at_once(self) -> usize {
        match self.bytes_per_second {
            0 => usize::MAX,
            each => (each as f64 * PART.as_secs_f64()) as usize,
        }
    }

    /// Takes bytes; they may be used after the returned time has passed.
    pub fn take(&mut self, bytes: usize, now: Duration) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.paid = self.paid.max(now.saturating_sub(BURST)) + cost;
        self.paid.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_at_the_rate_that_is_allowed() {
        let mut budget = Budget::new(1000);
        let mut now = Duration::from_secs(10);
        let start = now;
        for _ in 0..100 {
            now += budget.take(100, now);
        }
        let seconds = now.saturating_sub(start).as_secs_f64();
        assert!((9.9..=10.0).contains(&seconds), "10,000 bytes took {seconds} s");
    }

    #[test]
    fn a_pause_allows_no_more_than_one_burst() {
        let mut budget = Budget::new(1000);
        let now = Duration::from_hours(1);
        assert_eq!(budget.take(50, now), Duration::ZERO);
        assert_eq!(budget.take(50, now), Duration::from_millis(50));
    }

    #[test]
    fn what_is_asked_for_at_once_is_a_thousandth_of_what_arrives_in_a_second() {
        let at_once = [1, 1000, 43_000_000_000].map(|each| Budget::new(each).at_once());
        assert_eq!(at_once, [0, 1, 43_000_000]);
    }

    #[test]
    fn no_limit_never_waits() {
        assert_eq!(Budget::new(0).take(usize::MAX, Duration::ZERO), Duration::ZERO);
        assert_eq!(Budget::new(0).at_once(), usize::MAX);
    }
}
