//! When a step's parts began, and how long those before took: work is done when it is enqueued, so the host's clock tells.

use std::time::Instant;

use crate::times::{Activity, StepTimes};

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    activity: Activity,
    since: Instant,
    times: StepTimes,
}

impl Clock {
    /// A step begins.
    pub fn new(now: Instant) -> Self {
        Self { activity: Activity::Other, since: now, times: StepTimes::default() }
    }

    /// Another part of it begins.
    pub fn begin(&mut self, activity: Activity, now: Instant) {
        *self = Self { activity, since: now, times: self.times(now) };
    }

    /// What it took so far.
    pub fn times(&self, now: Instant) -> StepTimes {
        self.times.with(self.activity, now.saturating_duration_since(self.since))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_of_a_part_add_up_to_its_end_or_to_the_question() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut clock = Clock::new(start);
        clock.begin(Activity::Experts, at(1));
        clock.begin(Activity::Exchange, at(3));
        clock.begin(Activity::Other, at(8));
        clock.begin(Activity::Experts, at(100));
        let [exchange, experts] = [5, 3].map(Duration::from_millis);
        assert_eq!(clock.times(at(101)), StepTimes { exchange, experts });
        assert_eq!(clock.times(start), StepTimes { exchange, experts: Duration::from_millis(2) });
    }
}
