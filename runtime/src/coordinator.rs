//! The coordinator: joins requests, the scheduler, the ranks and the rebalancer. Holds no weights.

pub mod driver;
#[cfg(test)]
pub(crate) mod fake;
pub mod fleet;
pub mod handle;
pub mod live;
pub mod metrics;
pub mod ranks;
pub mod settings;
pub mod start;
pub mod unread;
