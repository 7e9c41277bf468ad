//! What is asked of rows of logits.

use std::ops::Range;
use std::time::Instant;

use super::clock::Clock;
use super::threads::Threads;
use crate::batch::{Asked, Draw, MOST_BEST, Sampled, Scored, Span, StepArea, StepLimits};
use crate::error::DeviceError;
use crate::host::{bytes_of, list};

/// What a step computes, and what it left.
#[derive(Debug)]
pub struct Batch {
    limits: StepLimits,
    pub(crate) area: StepArea,
    pub(crate) clock: Clock,
    sampled: Vec<Sampled>,
    best: Vec<Scored>,
}

/// Passes over the vocabulary that answering a row takes, for how it is worth splitting.
const PASSES: usize = 8;

impl Batch {
    pub(crate) fn new(limits: StepLimits) -> Result<Self, DeviceError> {
        let (area, tokens) = (StepArea::with_room(&limits)?, limits.tokens);
        let clock = Clock::new(Instant::now());
        Ok(Self { limits, area, clock, sampled: list(tokens)?, best: list(tokens.saturating_mul(MOST_BEST))? })
    }

    /// What one of these limits takes.
    pub(crate) const fn bytes(limits: StepLimits) -> u64 {
        let StepLimits { tokens, blocks, .. } = limits;
        let each = 3 * size_of::<u32>() + size_of::<Span>() + size_of::<Asked>() + size_of::<Sampled>();
        let each = each + MOST_BEST * size_of::<Scored>();
        bytes_of::<u8>(tokens.saturating_mul(each)).saturating_add(bytes_of::<u32>(blocks))
    }

    /// A step begins.
    ///
    /// # Panics
    /// If it is larger than a step may be.
    pub(crate) fn begin(&mut self, area: &StepArea) {
        let StepArea { ids, positions, sequences, spans, blocks, asked, changes: _, bucket: _ } = area;
        let StepLimits { tokens, blocks: most, .. } = self.limits;
        assert!(ids.len() <= tokens && asked.len() <= tokens && blocks.len() <= most, "a step within its limits");
        self.clock = Clock::new(Instant::now());
        self.area.ids.clone_from(ids);
        self.area.positions.clone_from(positions);
        self.area.sequences.clone_from(sequences);
        self.area.spans.clone_from(spans);
        self.area.blocks.clone_from(blocks);
        self.area.asked.clone_from(asked);
        self.sampled.clear();
        self.sampled.resize(asked.len(), Sampled::default());
        self.best.resize(asked.len() * MOST_BEST, Scored::default());
    }

    /// Those of what operations are prepared to be asked that there are.
    pub(crate) fn of_asked(&self, prepared: Range<usize>) -> Range<usize> {
        let count = self.area.asked.len();
        prepared.start.min(count)..prepared.end.min(count)
    }

    pub(crate) fn sampled(&self) -> (&[Sampled], &[Scored]) {
        (&self.sampled, &self.best)
    }

    /// Answers some of what is asked, one row of `logits` for each.
    ///
    /// # Panics
    /// If they are longer than a row may be.
    pub(crate) fn sample(&mut self, threads: &Threads, logits: &[f32], asked: Range<usize>) {
        let asked = self.of_asked(asked);
        let (first, rows) = (asked.start, asked.len());
        if rows == 0 {
            return;
        }
        let vocabulary = logits.len() / rows;
        assert!(vocabulary <= self.limits.vocabulary, "a row of {vocabulary} logits");
        let most = threads.rows(rows, PASSES * vocabulary);
        let questions = Questions {
            asked: &self.area.asked[first..first + rows],
            sampled: &mut self.sampled[first..first + rows],
            best: &mut self.best[first * MOST_BEST..][..rows * MOST_BEST],
            logits,
            vocabulary,
        };
        threads.each(
            questions,
            |questions| questions.halve(most),
            |questions, scratch| questions.answer(&mut scratch.tokens),
        );
    }
}

/// Questions with the rows of logits that they are about, and where their answers go.
struct Questions<'a> {
    asked: &'a [Asked],
    sampled: &'a mut [Sampled],
    best: &'a mut [Scored],
    logits: &'a [f32],
    vocabulary: usize,
}

impl Questions<'_> {
    /// Two parts of them, if they are more than so many.
    fn halve(self, most: usize) -> (Self, Option<Self>) {
        let count = self.asked.len();
        if count <= most {
            return (self, None);
        }
        let (vocabulary, half) = (self.vocabulary, count / 2);
        let (asked, asked_rest) = self.asked.split_at(half);
        let (sampled, sampled_rest) = self.sampled.split_at_mut(half);
        let (best, best_rest) = self.best.split_at_mut(half * MOST_BEST);
        let (logits, logits_rest) = self.logits.split_at(half * vocabulary);
        let first = Self { asked, sampled, best, logits, vocabulary };
        let rest = Self { asked: asked_rest, sampled: sampled_rest, best: best_rest, logits: logits_rest, vocabulary };
        (first, Some(rest))
    }

    fn answer(self, scratch: &mut Vec<Scored>) {
        let answers = self.sampled.iter_mut().zip(self.best.chunks_exact_mut(MOST_BEST));
        let rows = self.logits.chunks_exact(self.vocabulary);
        for ((asked, (sampled, best)), logits) in self.asked.iter().zip(answers).zip(rows) {
            if let Some(row) = Row::of(logits) {
                *sampled = row.answer(asked, best, scratch);
            }
        }
    }
}

/// Logits by which tokens can be chosen: none is NaN or plus infinity, and one is more than minus infinity.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    logits: &'a [f32],
    largest: f32,
}

impl<'a> Row<'a> {
    pub fn of(logits: &'a [f32]) -> Option<Self> {
        const LANES: usize = 16;
        let (parts, rest) = logits.as_chunks::<LANES>();
        // NaN is no larger than anything, but a sum that it is in is no number; so is one of infinities, and then each is looked at.
        let (mut largest, mut sum) = ([f32::NEG_INFINITY; LANES], [0.0_f32; LANES]);
        for part in parts {
            for ((largest, sum), logit) in largest.iter_mut().zip(&mut sum).zip(part) {
                *largest = if *logit > *largest { *logit } else { *largest };
                *sum += *logit;
            }
        }
        let largest = largest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
        let ordered = sum.iter().chain(rest).all(|sum| sum.is_finite()) || !logits.iter().any(|logit| logit.is_nan());
        (ordered && largest.is_finite()).then_some(Self { logits, largest })
    }

    fn answer(self, asked: &Asked, best: &mut [Scored], scratch: &mut Vec<Scored>) -> Sampled {
        let Self { logits, largest } = self;
        let scored = |token: u32| Scored { token, logit: logits[token as usize] };
        let sum = || logits.iter().map(|logit| f64::from(logit - largest).exp()).sum::<f64>().ln();
        if asked.best > 0 {
            scratch.clear();
            scratch.extend((0..).zip(logits).map(|(token, &logit)| Scored { token, logit }));
            keep_best(scratch, asked.best as usize);
            best.iter_mut().zip(&*scratch).for_each(|(best, found)| *best = *found);
        }
        Sampled {
            is_ordered: true,
            largest,
            log_sum: if asked.sum { sum() } else { 0.0 },
            drawn: asked.draw.map_or_else(Scored::default, |draw| scored(self.draw(&draw, scratch))),
            score: asked.score.map_or(0.0, |token| scored(token).logit),
        }
    }

    /// A token by its probability; without temperature the best, of equally likely ones the lowest.
    pub fn draw(self, draw: &Draw, scratch: &mut Vec<Scored>) -> u32 {
        let Self { logits, largest } = self;
        let best = logits.iter().position(|logit| *logit >= largest).unwrap_or(0) as u32;
        if draw.temperature <= 0.0 {
            return best;
        }
        let weight = |logit: f32| f64::from((logit - largest) / draw.temperature).exp() as f32;
        scratch.clear();
        // From here on a token's weight stands in the place of its logit.
        scratch.extend((0..).zip(logits).map(|(token, &logit)| Scored { token, logit: weight(logit) }));
        if (1..scratch.len()).contains(&(draw.top_k as usize)) {
            keep_best(scratch, draw.top_k as usize);
        }
        if draw.top_p < 1.0 {
            nucleus(scratch, draw.top_p);
        }
        let total: f64 = scratch.iter().map(|token| f64::from(token.logit)).sum();
        let mut left = draw.uniform * total;
        for token in &*scratch {
            left -= f64::from(token.logit);
            if left < 0.0 {
                return token.token;
            }
        }
        // Rounding left a little over: the last token that could be chosen.
        scratch.iter().rev().find(|token| token.logit > 0.0).map_or(best, |token| token.token)
    }
}

/// The `count` best, best first; equal ones by ascending token.
fn keep_best(tokens: &mut Vec<Scored>, count: usize) {
    let better = |a: &Scored, b: &Scored| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token));
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count, better);
        tokens.truncate(count);
    }
    tokens.sort_unstable_by(better);
}

/// The fewest best tokens whose weights are at least `top_p` of all.
fn nucleus(tokens: &mut Vec<Scored>, top_p: f32) {
    let total: f64 = tokens.iter().map(|token| f64::from(token.logit)).sum();
    // All tokens below this threshold together weigh less than what the nucleus leaves out, so none is in it.
    let threshold = f64::from(1.0 - top_p) * total / tokens.len() as f64;
    tokens.retain(|token| f64::from(token.logit) >= threshold);
    let count = tokens.len();
    keep_best(tokens, count);
    let (mut sum, mut count) = (0.0, 0);
    while count < tokens.len() && (count == 0 || sum < f64::from(top_p) * total) {
        sum += f64::from(tokens[count].logit);
        count += 1;
    }
    tokens.truncate(count);
}

#[cfg(test)]
mod tests;
