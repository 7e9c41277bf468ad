//! How long tokens and steps took in the last seconds: a histogram for each second, so that what is old can be left out.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use plan::wire::{Latency, Quantiles};

use super::Step;

/// Seconds that are told of.
const SECONDS: usize = 10;

/// Longest duration that is told apart, microseconds.
const LONGEST: u64 = 600_000_000;

/// Significant digits of what is told.
const DIGITS: u8 = 2;

/// What is measured. Each is `[SECONDS]`, of which one is being filled.
pub(super) struct Latencies {
    first: Ring,
    next: Ring,
    step: Ring,
    began: Instant,
    /// The second that is being filled, since it began.
    second: u64,
}

/// One kind of duration: of each second, and of all of them together.
struct Ring {
    seconds: Vec<Histogram<u32>>,
    all: Histogram<u32>,
}

impl Latencies {
    pub fn new(now: Instant) -> Self {
        Self { first: Ring::new(), next: Ring::new(), step: Ring::new(), began: now, second: 0 }
    }

    /// Adds a step and its tokens, which may be as old as what is told of.
    pub fn add(&mut self, step: &Step) {
        self.reach(step.at);
        let second = self.since(step.at);
        if second + SECONDS as u64 > self.second {
            self.step.record(second, step.took);
            for &took in &step.tokens.first {
                self.first.record(second, took);
            }
            for &took in &step.tokens.next {
                self.next.record(second, took);
            }
        }
    }

    /// The last seconds.
    pub fn over(&mut self, now: Instant) -> Latency {
        self.reach(now);
        let seconds = now.saturating_duration_since(self.began).as_secs_f64();
        // The second that is being filled is not whole.
        let over_seconds = seconds.min(SECONDS as f64 - 1.0 + seconds.fract());
        Latency {
            over_seconds,
            first_token: self.first.quantiles(),
            inter_token: self.next.quantiles(),
            step: self.step.quantiles(),
        }
    }

    fn since(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs()
    }

    /// Empties the seconds that have come since.
    fn reach(&mut self, now: Instant) {
        let second = self.since(now);
        let passed = second.saturating_sub(self.second).min(SECONDS as u64);
        for old in second + 1 - passed..=second {
            for ring in [&mut self.first, &mut self.next, &mut self.step] {
                ring.begin(old);
            }
        }
        self.second = self.second.max(second);
    }
}

impl Ring {
    fn new() -> Self {
        let empty = Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are in order");
        Self { seconds: vec![empty.clone(); SECONDS], all: empty }
    }

    fn record(&mut self, second: u64, took: Duration) {
        let microseconds = took.as_micros().try_into().unwrap_or(u64::MAX);
        self.seconds[second as usize % SECONDS].saturating_record(microseconds);
        self.all.saturating_record(microseconds);
    }

    /// Nothing is known yet of a second, whose place another had.
    fn begin(&mut self, second: u64) {
        let old = &mut self.seconds[second as usize % SECONDS];
        if !old.is_empty() {
            self.all.subtract(&*old).expect("all that is in a second is in all of them");
            old.reset();
        }
    }

    fn quantiles(&self) -> Option<Quantiles> {
        let Self { all, .. } = self;
        let at = |quantile| seconds(all.value_at_quantile(quantile));
        (!all.is_empty()).then(|| Quantiles {
            count: all.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            most: seconds(all.max()),
        })
    }
}

fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}
