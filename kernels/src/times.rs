//! How long a device was at which part of a step, by its own clock: what the host sees of an asynchronous device is only how long it
//! took to ask.

use std::time::Duration;

/// A part of a step whose time is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// What is told with the whole step alone.
    #[default]
    Other,
    /// Rows between ranks, and the wait for those of other ranks.
    Exchange,
    /// Arithmetic of experts.
    Experts,
}

/// How long a step took for some of its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// See [`Activity::Exchange`].
    pub exchange: Duration,
    /// See [`Activity::Experts`].
    pub experts: Duration,
}

impl StepTimes {
    /// The same after some more of an activity.
    #[must_use]
    pub(crate) fn with(mut self, activity: Activity, more: Duration) -> Self {
        match activity {
            Activity::Other => {}
            Activity::Exchange => self.exchange += more,
            Activity::Experts => self.experts += more,
        }
        self
    }
}
