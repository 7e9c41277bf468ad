//! How tests wait for what other threads do.

use std::time::{Duration, Instant};

/// More than any machine needs, so that what never comes is a failure and no hang.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}
