//! Where experts are, and how they change place.

pub mod load;
pub mod mover;
pub mod pages;
pub mod planner;
pub mod rebalance;
pub mod record;
pub mod table;

/// Makes the calling thread yield to every other: planning and moving are never in a hurry, a step always is.
pub(crate) fn yield_to_steps() {
    // Linux knows priorities of threads; where it refuses, the thread merely competes like any other.
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19) {
        tracing::debug!(%error, "a background thread keeps its priority");
    }
}
