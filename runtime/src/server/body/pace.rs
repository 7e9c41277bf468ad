//! How fast a body must come. What has come at once buys no time for what comes later.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes that show that a body goes on; what is shorter has the time of its beginning.
pub const STRETCH: usize = 40 << 10;

/// How long a body may keep the server waiting.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long it may go without a byte.
    pub silence: Duration,
    /// How long it may take from its beginning to its first [`STRETCH`].
    pub beginning: Duration,
    /// How long it may take from there to the next one.
    pub stretch: Duration,
    /// How long a body may take from its first byte to its last.
    pub whole: Duration,
}

impl Times {
    /// Those of every server: 4 KiB a second, and the longest body that any server takes by default at 112.
    pub const USUAL: Self = Self {
        silence: Duration::from_secs(10),
        beginning: Duration::from_secs(30),
        stretch: Duration::from_secs(10),
        whole: Duration::from_mins(10),
    };
}

/// What has come of one body, and when.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    begun: Instant,
    last: Instant,
    there: usize,
    /// When the body last went on by a stretch, or gave its first byte; and what was there then.
    went_on: Instant,
    reached: usize,
}

impl Pace {
    /// Of a body that begins now.
    pub const fn new(now: Instant) -> Self {
        Self { begun: now, last: now, there: 0, went_on: now, reached: 0 }
    }

    /// So many further bytes are there.
    pub fn came(&mut self, bytes: usize, now: Instant) {
        if self.there == 0 {
            self.went_on = now;
        }
        self.there += bytes;
        self.last = now;
        if self.there - self.reached >= STRETCH {
            (self.reached, self.went_on) = (self.there, now);
        }
    }

    /// Bytes that are there.
    pub const fn there(&self) -> usize {
        self.there
    }

    /// When the body last went on by a stretch, or gave its first byte.
    pub const fn went_on(&self) -> Instant {
        self.went_on
    }

    /// Until when the next bytes must be there.
    pub fn due(&self, times: &Times) -> Instant {
        let stretch = if self.reached == 0 { self.begun + times.beginning } else { self.went_on + times.stretch };
        stretch.min(self.last + times.silence).min(self.begun + times.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many seconds a body that begins with `first` bytes and goes on with `then` bytes every `pause` is taken, if
    /// it never ends.
    fn taken(first: usize, then: usize, pause: u64) -> u64 {
        let start = Instant::now();
        let (mut pace, mut now) = (Pace::new(start), start);
        pace.came(first, now);
        loop {
            now += Duration::from_secs(pause);
            let due = pace.due(&Times::USUAL);
            if now > due {
                return (due - start).as_secs();
            }
            pace.came(then, now);
        }
    }

    #[test]
    fn what_came_at_once_buys_no_time_for_what_comes_later() {
        assert_eq!(taken(64 << 20, 1, 9), 10);
        assert_eq!(taken(1, 1, 9), 30);
        assert_eq!(taken(1, 1, 11), 10, "silence");
        assert_eq!(taken(STRETCH - 1, 1, 5), 15, "the stretch ended at 5");
    }

    #[test]
    fn a_slow_body_that_goes_on_is_taken_for_its_time_as_a_whole() {
        assert_eq!(taken(5 << 10, 5 << 10, 1), 600);
        assert_eq!(taken(STRETCH, STRETCH, 10), 600);
        assert_eq!(taken(STRETCH, STRETCH - 1, 6), 10, "less than a stretch in ten seconds");
    }
}
