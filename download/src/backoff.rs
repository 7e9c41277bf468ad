//! How long to wait before something is tried again. Pure.

use std::time::Duration;

/// How failures are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure; each in a row doubles it.
    pub first: Duration,
    /// The longest wait that nobody asked for.
    pub longest: Duration,
    /// The longest wait that is granted to a source that asks for one.
    pub longest_asked: Duration,
    /// Failures in a row, with nothing new between them, after which it is given up.
    pub attempts: usize,
}

impl Default for Backoff {
    /// Some six minutes of failures. A container that ends is started again by its kubelet, later each time, and goes on where it was.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_mins(1),
            longest_asked: Duration::from_mins(15),
            attempts: 12,
        }
    }
}

impl Backoff {
    /// Wait after this many failures in a row, the first being 1. Files that fail together are spread by `file`.
    #[must_use]
    pub fn wait(&self, failures: usize, asked: Option<Duration>, file: usize) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        let spread = doubled.mul_f64(0.1 * (file % 8) as f64);
        asked.map_or(doubled, |asked| asked.min(self.longest_asked).max(self.first)) + spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_a_wait_that_is_asked_for_is_kept() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (1..9).map(|failures| backoff.wait(failures, None, 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.wait(1, Some(Duration::from_mins(2)), 0), Duration::from_mins(2));
        assert_eq!(backoff.wait(1, Some(Duration::from_hours(24)), 0), Duration::from_mins(15));
        assert_eq!(backoff.wait(usize::MAX, None, 7), Duration::from_mins(1).mul_f64(1.7));
    }
}
