//! What is sent, and when: synthetic traffic whose experts are skewed, shift, and come in bursts. Pure, and the same for the same seed.
//!
//! Which experts a model chooses depends on its tokens. So a topic is an order of the vocabulary, and its prompts draw tokens by Zipf's
//! law over that order: few tokens make up most of a topic, and with them few experts have most of the load. Time is cut into stretches;
//! each has the next topic, so that the load shifts where one ends, and every second stretch may be a burst.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// What decides all of the traffic: the same values send the same requests.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Workload {
    pub seed: u64,
    /// Seconds of all of it.
    pub seconds: u64,
    /// Seconds of a stretch.
    pub shift_seconds: u64,
    pub topics: u64,
    /// Exponent of Zipf's law: 0 draws every token alike.
    pub skew: f64,
    /// Token ids are below it.
    pub vocabulary: u32,
    pub prompt_tokens: usize,
    pub pace: Pace,
    /// How many times as much traffic every second stretch has.
    pub burst: f64,
}

/// How fast requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// So many are under way: who has an answer sends the next.
    Concurrency(usize),
    /// So many begin each second, whatever was answered, as independent users send them.
    Rate(f64),
}

/// A part of the traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stretch {
    pub number: u64,
    pub topic: u64,
    pub length: Duration,
    pub pace: Pace,
}

impl Workload {
    /// The parts, one after the other.
    pub fn stretches(&self) -> Vec<Stretch> {
        let count = self.seconds.div_ceil(self.shift_seconds);
        let stretch = |number: u64| {
            let left = self.seconds - number * self.shift_seconds;
            let times = if number % 2 == 1 { self.burst } else { 1.0 };
            let pace = match self.pace {
                Pace::Concurrency(requests) => Pace::Concurrency(((requests as f64 * times).round() as usize).max(1)),
                Pace::Rate(rate) => Pace::Rate(rate * times),
            };
            let length = Duration::from_secs(left.min(self.shift_seconds));
            Stretch { number, topic: number % self.topics, length, pace }
        };
        (0..count).map(stretch).collect()
    }

    /// The prompts of a topic.
    pub fn topic(&self, number: u64) -> Topic {
        let mut tokens: Vec<u32> = (0..self.vocabulary).collect();
        tokens.shuffle(&mut self.random(0, number));
        let mut sum = 0.0;
        let weight = |place: usize| ((place + 1) as f64).powf(-self.skew);
        let below = (0..tokens.len()).map(|place| {
            sum += weight(place);
            sum
        });
        let below = below.collect();
        Topic { tokens, below }
    }

    /// The prompt of a request.
    pub fn prompt(&self, topic: &Topic, stretch: &Stretch, request: u64) -> Vec<u32> {
        let mut random = self.random(1 + stretch.number, request);
        (0..self.prompt_tokens).map(|_| topic.draw(random.random())).collect()
    }

    /// When requests of a stretch begin that come whatever was answered, from its begin on: gaps are exponential, as between users who know
    /// nothing of each other.
    pub fn begins(&self, stretch: &Stretch, rate: f64) -> impl Iterator<Item = Duration> + use<> {
        let mut random = self.random(u64::MAX, stretch.number);
        let (mut at, length) = (0.0, stretch.length.as_secs_f64());
        let next = std::iter::repeat_with(move || {
            at -= (1.0 - random.random::<f64>()).ln() / rate;
            at
        });
        next.take_while(move |&at| at < length).map(Duration::from_secs_f64)
    }

    /// Numbers of their own for each pair of numbers.
    fn random(&self, one: u64, other: u64) -> StdRng {
        let mut seed = [0; 32];
        for (part, number) in seed.chunks_exact_mut(8).zip([self.seed, one, other]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        StdRng::from_seed(seed)
    }
}

/// What a topic's prompts are drawn from.
pub(super) struct Topic {
    /// The most frequent first.
    tokens: Vec<u32>,
    /// Sums of the weights up to each.
    below: Vec<f64>,
}

impl Topic {
    /// The token at a place between 0 and 1 of all weights.
    fn draw(&self, place: f64) -> u32 {
        let sought = place * self.below.last().copied().unwrap_or(0.0);
        let found = self.below.partition_point(|&sum| sum <= sought);
        self.tokens[found.min(self.tokens.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn workload() -> Workload {
        Workload {
            seed: 7,
            seconds: 50,
            shift_seconds: 20,
            topics: 2,
            skew: 1.2,
            vocabulary: 500,
            prompt_tokens: 64,
            pace: Pace::Concurrency(8),
            burst: 4.0,
        }
    }

    /// The share that the ten most frequent tokens of some hundred prompts have, and the most frequent one.
    fn frequent(workload: &Workload, topic: u64) -> (f64, u32) {
        let (drawn, stretch) = (workload.topic(topic), workload.stretches()[0]);
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for token in (0..200).flat_map(|request| workload.prompt(&drawn, &stretch, request)) {
            assert!(token < workload.vocabulary);
            *counts.entry(token).or_default() += 1;
        }
        let mut order: Vec<(usize, u32)> = counts.into_iter().map(|(token, count)| (count, token)).collect();
        order.sort_unstable_by(|one, other| other.cmp(one));
        let ten: usize = order.iter().take(10).map(|&(count, _)| count).sum();
        (ten as f64 / (200.0 * workload.prompt_tokens as f64), order[0].1)
    }

    #[test]
    fn few_tokens_make_up_most_of_a_skewed_topic_and_each_topic_has_its_own() {
        let skewed = workload();
        let even = Workload { skew: 0.0, ..workload() };
        assert!((0.55..0.7).contains(&frequent(&skewed, 0).0), "{:?}", frequent(&skewed, 0));
        assert!(frequent(&even, 0).0 < 0.04, "{:?}", frequent(&even, 0));
        assert_ne!(frequent(&skewed, 0).1, frequent(&skewed, 1).1);
    }

    #[test]
    fn the_same_seed_sends_the_same_and_another_another() {
        let one = workload();
        let other = Workload { seed: 8, ..workload() };
        let prompts = |workload: &Workload| {
            let (topic, stretch) = (workload.topic(1), workload.stretches()[1]);
            [0, 1].map(|request| workload.prompt(&topic, &stretch, request))
        };
        assert_eq!(prompts(&one), prompts(&one));
        assert_ne!(prompts(&one)[0], prompts(&one)[1]);
        assert_ne!(prompts(&one), prompts(&other));
    }

    #[test]
    fn time_is_cut_into_stretches_and_every_second_one_is_a_burst() {
        let paces = |workload: Workload| {
            let told = |stretch: &Stretch| (stretch.topic, stretch.length.as_secs(), stretch.pace);
            workload.stretches().iter().map(told).collect::<Vec<_>>()
        };
        let requests = Pace::Concurrency;
        assert_eq!(paces(workload()), [(0, 20, requests(8)), (1, 20, requests(32)), (0, 10, requests(8))]);
        let rates = paces(Workload { pace: Pace::Rate(3.0), seconds: 40, ..workload() });
        assert_eq!(rates, [(0, 20, Pace::Rate(3.0)), (1, 20, Pace::Rate(12.0))]);
    }

    #[test]
    fn requests_begin_at_their_rate_and_in_no_rhythm() {
        let workload = workload();
        let stretch = Stretch { length: Duration::from_secs(1000), ..workload.stretches()[0] };
        let begins: Vec<Duration> = workload.begins(&stretch, 5.0).collect();
        assert!((4700..5300).contains(&begins.len()), "{}", begins.len());
        assert!(begins.is_sorted() && begins.last().unwrap() < &stretch.length);
        let gaps: Vec<f64> = begins.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((deviation / mean - 1.0).abs() < 0.1, "exponential gaps deviate by their mean: {deviation} {mean}");
    }
}
