//! What is computed when it is read: latencies over a sliding window, for the two figures that users of EPLB watch, and
//! ages.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Gauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

/// Time over which `ttft_p99` and `tpot_avg` are taken.
const WINDOW: Duration = Duration::from_mins(1);

/// First tokens kept of the window; with more of them than this the window is shorter.
const FIRST_TOKENS_AT_MOST: usize = 8192;

/// Latencies of the last [`WINDOW`].
#[derive(Default)]
pub(super) struct Latencies {
    first_tokens: VecDeque<(Instant, Duration)>,
    /// Sum and number of the times between tokens, for each second that had some.
    between: VecDeque<(Instant, Duration, u32)>,
}

impl Latencies {
    pub fn first_token(&mut self, now: Instant, after: Duration) {
        if self.first_tokens.len() == FIRST_TOKENS_AT_MOST {
            self.first_tokens.pop_front();
        }
        self.first_tokens.push_back((now, after));
    }

    pub fn next_token(&mut self, now: Instant, after: Duration) {
        match self.between.back_mut() {
            Some((second, sum, count)) if now.duration_since(*second) < Duration::from_secs(1) => {
                *sum += after;
                *count += 1;
            }
            _ => {
                self.between.push_back((now, after, 1));
                self.between.retain(|&(second, ..)| now.duration_since(second) < WINDOW);
            }
        }
    }

    /// `(ttft_p99, tpot_avg)` at a time, seconds; `None` where nothing was measured.
    fn at(&self, now: Instant) -> (Option<f64>, Option<f64>) {
        let recent = |&then: &Instant| now.saturating_duration_since(then) < WINDOW;
        let mut first: Vec<Duration> =
            self.first_tokens.iter().filter(|(then, _)| recent(then)).map(|&(_, after)| after).collect();
        // The smallest value that at least 99 % of the values do not exceed.
        let index = (first.len() * 99).div_ceil(100).saturating_sub(1);
        let p99 = (!first.is_empty()).then(|| first.select_nth_unstable(index).1.as_secs_f64());
        let between = self.between.iter().filter(|(then, ..)| recent(then));
        let (sum, count) = between.fold((Duration::ZERO, 0), |(sum, count), next| (sum + next.1, count + next.2));
        (p99, (count > 0).then(|| sum.as_secs_f64() / f64::from(count)))
    }
}

/// What is computed when it is read.
#[derive(Default)]
pub(super) struct Scraped {
    pub latencies: Latencies,
    /// Of the last window; `None` before one has closed.
    pub ratio: Option<f64>,
    /// When the map in force came into force; `None` while it is the first.
    pub map_changed: Option<Instant>,
}

/// `expert_load_balance_ratio`, `ttft_p99`, `tpot_avg` and the age of the map.
pub(super) struct ScrapedGauges {
    started: Instant,
    scraped: Arc<Mutex<Scraped>>,
    ratio: Gauge,
    first_token: Gauge,
    per_token: Gauge,
    map_age: Gauge,
}

impl ScrapedGauges {
    pub fn new(scraped: Arc<Mutex<Scraped>>) -> prometheus::Result<Self> {
        let ratio = Gauge::new(
            "expert_load_balance_ratio",
            "Sum over layers of mean rank load by sum of maximum rank load, of the last window; 1 is perfect.",
        )?;
        let first_token =
            Gauge::new("ttft_p99", "99th percentile of the time to the first token over the last minute, seconds.")?;
        let per_token = Gauge::new("tpot_avg", "Mean time per token after the first over the last minute, seconds.")?;
        let map_age = Gauge::new("swiftbalancer_map_age_seconds", "Time since the map in force came into force.")?;
        Ok(Self { started: Instant::now(), scraped, ratio, first_token, per_token, map_age })
    }
}

impl Collector for ScrapedGauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.ratio.desc(), self.first_token.desc(), self.per_token.desc(), self.map_age.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Instant::now();
        let (ratio, first_token, per_token, changed) = {
            let scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
            let (first_token, per_token) = scraped.latencies.at(now);
            (scraped.ratio, first_token, per_token, scraped.map_changed)
        };
        let age = now.saturating_duration_since(changed.unwrap_or(self.started)).as_secs_f64();
        let values = [
            (&self.ratio, ratio),
            (&self.first_token, first_token),
            (&self.per_token, per_token),
            (&self.map_age, Some(age)),
        ];
        // A value that does not exist is not shown as some number.
        let existing = values.into_iter().filter_map(|(gauge, value)| Some((gauge, value?)));
        existing
            .flat_map(|(gauge, value)| {
                gauge.set(value);
                gauge.collect()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_forgets_what_is_older_than_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut latencies = Latencies::default();
        assert_eq!(latencies.at(start), (None, None));
        for milliseconds in 1..=100 {
            latencies.first_token(at(0), Duration::from_millis(milliseconds));
        }
        latencies.next_token(at(0), Duration::from_millis(10));
        latencies.next_token(at(30), Duration::from_millis(30));
        assert_eq!(latencies.at(at(59)), (Some(0.099), Some(0.02)));
        assert_eq!(latencies.at(at(61)), (None, Some(0.03)));
    }
}
