//! What is known of a coordinator from the documents that it has given: rates, loads and what happened. Pure.

use std::collections::VecDeque;

use plan::load::balance_ratio;
use plan::wire::{Happening, MonitorDocument, MonitorEvent};

/// Seconds that loads and rates are taken over.
const OVER: f64 = 5.0;
/// Ratios that are kept for the line of them.
const RATIOS: usize = 240;
/// Events that are kept.
const EVENTS: usize = 200;

#[derive(Default)]
pub(crate) struct View {
    /// The last document, without its events.
    last: Option<MonitorDocument>,
    /// Counts of the last seconds, the oldest first.
    counts: VecDeque<Counts>,
    ratios: VecDeque<f64>,
    events: VecDeque<MonitorEvent>,
    known: u64,
    trouble: Option<String>,
}

struct Counts {
    seconds: f64,
    steps: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    pairs: Vec<Vec<u64>>,
}

/// Per second, over the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub steps: f64,
    pub prompt_tokens: f64,
    pub completion_tokens: f64,
}

/// What ranks computed in the last seconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Load {
    /// Of each rank over all layers, as a multiple of the mean.
    pub ranks: Vec<f64>,
    /// Mean rank load over maximum rank load, summed over layers: 1 is perfect.
    pub ratio: f64,
}

impl Load {
    /// The rank with most of it, and how many times the mean that is.
    pub fn busiest(&self) -> (usize, f64) {
        let ranks = self.ranks.iter().copied().enumerate();
        ranks.fold((0, 0.0), |most, next| if next.1 > most.1 { next } else { most })
    }
}

impl View {
    /// Takes a document. One of another process than the last begins anew.
    pub fn take(&mut self, mut document: MonitorDocument) {
        self.trouble = None;
        let is_other = self.last.as_ref().is_some_and(|last| {
            document.seconds < last.seconds || document.pairs.len() != last.pairs.len() || document.steps < last.steps
        });
        if is_other {
            *self = Self::default();
        }
        for event in std::mem::take(&mut document.events) {
            // What windows measured is there from before anybody looked.
            if let Happening::Window { ratio, .. } = event.what
                && self.last.is_none()
            {
                self.ratios.push_back(ratio);
            }
            self.known = event.number;
            self.events.push_back(event);
        }
        self.counts.push_back(Counts {
            seconds: document.seconds,
            steps: document.steps,
            prompt_tokens: document.prompt_tokens,
            completion_tokens: document.completion_tokens,
            pairs: document.pairs.clone(),
        });
        while self.counts.get(1).is_some_and(|second| second.seconds <= document.seconds - OVER) {
            self.counts.pop_front();
        }
        if let Some(load) = self.load() {
            self.ratios.push_back(load.ratio);
        }
        self.ratios.drain(..self.ratios.len().saturating_sub(RATIOS));
        self.events.drain(..self.events.len().saturating_sub(EVENTS));
        self.last = Some(document);
    }

    /// The coordinator does not answer.
    pub fn fail(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// Number of the last event.
    pub const fn known(&self) -> u64 {
        self.known
    }

    pub const fn last(&self) -> Option<&MonitorDocument> {
        self.last.as_ref()
    }

    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub const fn ratios(&self) -> &VecDeque<f64> {
        &self.ratios
    }

    pub const fn events(&self) -> &VecDeque<MonitorEvent> {
        &self.events
    }

    /// `None` before there are two documents.
    pub fn rates(&self) -> Option<Rates> {
        let (first, last, seconds) = self.span()?;
        let rate = |read: fn(&Counts) -> u64| read(last).saturating_sub(read(first)) as f64 / seconds;
        Some(Rates {
            steps: rate(|counts| counts.steps),
            prompt_tokens: rate(|counts| counts.prompt_tokens),
            completion_tokens: rate(|counts| counts.completion_tokens),
        })
    }

    /// `None` where nothing was computed.
    pub fn load(&self) -> Option<Load> {
        let (first, last, _) = self.span()?;
        let of_layer = |(after, before): (&Vec<u64>, &Vec<u64>)| -> Vec<f64> {
            after.iter().zip(before).map(|(after, before)| after.saturating_sub(*before) as f64).collect()
        };
        let layers: Vec<Vec<f64>> = last.pairs.iter().zip(&first.pairs).map(of_layer).collect();
        let mut ranks = vec![0.0; layers.first()?.len()];
        for layer in &layers {
            ranks.iter_mut().zip(layer).for_each(|(sum, pairs)| *sum += pairs);
        }
        let mean = ranks.iter().sum::<f64>() / ranks.len() as f64;
        if mean <= 0.0 {
            return None;
        }
        for load in &mut ranks {
            *load /= mean;
        }
        Some(Load { ranks, ratio: balance_ratio(&layers) })
    }

    /// The oldest and the newest counts, and the seconds between.
    fn span(&self) -> Option<(&Counts, &Counts, f64)> {
        let (first, last) = (self.counts.front()?, self.counts.back()?);
        let seconds = last.seconds - first.seconds;
        (seconds > 0.0).then_some((first, last, seconds))
    }
}
