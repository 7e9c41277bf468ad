//! Where experts are, and how they change place.

pub mod load;
pub mod mover;
pub mod pages;
pub mod planner;
pub mod rebalance;
pub mod record;
pub mod recorder;
pub mod routing;

/// How much a background thread yields to the step path, as a nice value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yield {
    /// Bursts of microseconds that others wait for: they may wait a little, and must not starve on a busy machine.
    Moving = 10,
    /// Computation that nobody waits for.
    Planning = 19,
}

impl Yield {
    /// Makes the calling thread yield to every thread of the step path.
    pub fn apply(self) {
        // Linux knows priorities of threads; where it refuses, the thread merely competes like any other.
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), self as i32) {
            tracing::debug!(%error, "a background thread keeps its priority");
        }
    }
}
