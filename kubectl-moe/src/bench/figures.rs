//! What users of a server feel, in figures. Pure.

use std::time::Duration;

use serde::Serialize;

use super::answer::Sample;

/// How durations are spread, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spread {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub most: f64,
}

/// What was seen of a server.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    /// Requests answered, and those that failed.
    pub answered: usize,
    pub failed: usize,
    /// From the first request of a stretch to the last answer, over all stretches.
    pub seconds: f64,
    pub tokens: u64,
    pub tokens_per_second: f64,
    pub requests_per_second: f64,
    /// From sending a request to its first token.
    pub time_to_first_token: Option<Spread>,
    /// Of each request: from its first token to its last, by the tokens after the first.
    pub time_per_output_token: Option<Spread>,
    /// From one piece of text to the next.
    pub inter_token_latency: Option<Spread>,
    /// From sending a request to the end of its answer.
    pub end_to_end: Option<Spread>,
}

/// What happened in a stretch at one server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub samples: Vec<Sample>,
    /// Requests that failed.
    pub failed: usize,
    /// Why the first of them did.
    pub first_failure: Option<String>,
    /// From its begin to the last answer.
    pub took: Duration,
}

impl Seen {
    /// Takes what became of a request.
    pub fn keep(&mut self, outcome: Result<Sample, String>) {
        match outcome {
            Ok(sample) => self.samples.push(sample),
            Err(failure) => {
                self.failed += 1;
                self.first_failure.get_or_insert(failure);
            }
        }
    }
}

impl Figures {
    pub fn of(seen: &[Seen]) -> Self {
        let samples = || seen.iter().flat_map(|stretch| &stretch.samples);
        let seconds: f64 = seen.iter().map(|stretch| stretch.took.as_secs_f64()).sum();
        let (answered, tokens) = (samples().count(), samples().map(|sample| sample.tokens).sum());
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        Self {
            answered,
            failed: seen.iter().map(|stretch| stretch.failed).sum(),
            seconds,
            tokens,
            tokens_per_second: per_second(tokens as f64),
            requests_per_second: per_second(answered as f64),
            time_to_first_token: Spread::of(samples().filter_map(first_token).collect()),
            time_per_output_token: Spread::of(samples().filter_map(per_token).collect()),
            inter_token_latency: Spread::of(samples().flat_map(gaps).collect()),
            end_to_end: Spread::of(
                samples().map(|sample| sample.done.saturating_sub(sample.sent).as_secs_f64()).collect(),
            ),
        }
    }
}

fn first_token(sample: &Sample) -> Option<f64> {
    sample.pieces.first().map(|&first| first.saturating_sub(sample.sent).as_secs_f64())
}

fn per_token(sample: &Sample) -> Option<f64> {
    let (first, last) = (sample.pieces.first()?, sample.pieces.last()?);
    let after = sample.tokens.checked_sub(1).filter(|&after| after > 0)?;
    Some(last.saturating_sub(*first).as_secs_f64() / after as f64)
}

fn gaps(sample: &Sample) -> impl Iterator<Item = f64> {
    sample.pieces.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs_f64())
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_unstable_by(f64::total_cmp);
        let most = *seconds.last()?;
        // The least value that at least so many of a hundred do not exceed.
        let quantile =
            |share: f64| seconds[((seconds.len() as f64 * share).ceil() as usize).clamp(1, seconds.len()) - 1];
        Some(Self { p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99), most })
    }
}

/// Something over time: points at the ends of so many equal parts of each stretch, in seconds of traffic.
pub(super) struct Course {
    pub tokens_per_second: Vec<(f64, f64)>,
    pub first_token_p99: Vec<(f64, f64)>,
    pub inter_token_p99: Vec<(f64, f64)>,
}

/// Seconds of a part.
const PART: f64 = 2.0;

impl Course {
    pub fn of(seen: &[Seen]) -> Self {
        let mut course =
            Self { tokens_per_second: Vec::new(), first_token_p99: Vec::new(), inter_token_p99: Vec::new() };
        let mut begin = 0.0;
        for stretch in seen {
            let took = stretch.took.as_secs_f64();
            let count = (took / PART).ceil().max(1.0) as usize;
            let part = took / count as f64;
            let place = |at: Duration| ((at.as_secs_f64() / part) as usize).min(count - 1);
            let (mut tokens, mut first, mut gaps) =
                (vec![0.0; count], vec![Vec::new(); count], vec![Vec::new(); count]);
            for sample in &stretch.samples {
                // A piece may be several tokens.
                let each = sample.tokens as f64 / sample.pieces.len() as f64;
                for &piece in &sample.pieces {
                    tokens[place(piece)] += each;
                }
                if let (Some(seconds), Some(&piece)) = (first_token(sample), sample.pieces.first()) {
                    first[place(piece)].push(seconds);
                }
                for pair in sample.pieces.windows(2) {
                    gaps[place(pair[1])].push(pair[1].saturating_sub(pair[0]).as_secs_f64());
                }
            }
            for (number, ((tokens, first), gaps)) in tokens.into_iter().zip(first).zip(gaps).enumerate() {
                let at = begin + (number + 1) as f64 * part;
                course.tokens_per_second.push((at, tokens / part));
                course.first_token_p99.extend(Spread::of(first).map(|spread| (at, spread.p99 * 1e3)));
                course.inter_token_p99.extend(Spread::of(gaps).map(|spread| (at, spread.p99 * 1e3)));
            }
            begin += took;
        }
        course
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the figures are of numbers that are exact")]
mod tests {
    use super::*;

    fn sample(sent: u64, pieces: &[u64], tokens: u64) -> Sample {
        let ms = Duration::from_millis;
        let pieces: Vec<Duration> = pieces.iter().map(|&at| ms(at)).collect();
        Sample { sent: ms(sent), done: *pieces.last().unwrap() + ms(10), pieces, tokens }
    }

    fn seen() -> [Seen; 2] {
        let one = Seen {
            samples: vec![sample(0, &[100, 200, 400], 3), sample(100, &[400, 450], 4)],
            failed: 1,
            first_failure: Some("no".to_owned()),
            took: Duration::from_secs(3),
        };
        let other = Seen { samples: vec![sample(0, &[50], 1)], took: Duration::from_secs(1), ..Seen::default() };
        [one, other]
    }

    #[test]
    fn figures_are_those_of_requests_and_tokens() {
        let figures = Figures::of(&seen());
        assert_eq!((figures.answered, figures.failed, figures.tokens, figures.seconds), (3, 1, 8, 4.0));
        assert_eq!((figures.tokens_per_second, figures.requests_per_second), (2.0, 0.75));
        let spread = |spread: Option<Spread>| spread.map(|spread| (spread.p50, spread.p99)).unwrap();
        assert_eq!(spread(figures.time_to_first_token), (0.1, 0.3));
        // One has two tokens in 0.3 s after its first, the other three in 0.05 s; a request of one token has no such time.
        assert_eq!(spread(figures.time_per_output_token), (0.05 / 3.0, 0.15));
        assert_eq!(spread(figures.inter_token_latency), (0.1, 0.2));
        assert_eq!(spread(figures.end_to_end).1, 0.41);
        assert!(Figures::of(&[]).time_to_first_token.is_none());
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let hundred = Spread::of((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!([hundred.p50, hundred.p90, hundred.p99, hundred.most], [50.0, 90.0, 99.0, 100.0]);
        assert_eq!(Spread::of(vec![2.0]).map(|spread| [spread.p50, spread.most]), Some([2.0, 2.0]));
    }

    #[test]
    fn a_course_goes_on_where_the_stretch_before_ended() {
        let course = Course::of(&seen());
        let rates = [(1.5, 7.0 / 1.5), (3.0, 0.0), (4.0, 1.0)];
        assert_eq!(course.tokens_per_second, rates);
        assert_eq!(course.first_token_p99, [(1.5, 300.0), (4.0, 50.0)]);
        assert_eq!(course.inter_token_p99, [(1.5, 200.0)]);
    }
}
