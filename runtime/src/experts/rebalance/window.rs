//! Counts the load of windows, measures their balance and keeps the last of them. Decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use plan::load::{ExpertLoad, WINDOWS_KEPT, balance_ratio};
use plan::map::{ExpertMap, MapShape};
use plan::wire::WindowReport;

use crate::protocol::StepDone;

/// The window that is open, and what is kept of those that have closed.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    shape: MapShape,
    open: Window,
    closed: u64,
    first: Option<Arc<WindowReport>>,
    last: Option<Arc<ClosedWindow>>,
    /// Of the last windows in which something was counted, the oldest first.
    loads: VecDeque<ExpertLoad>,
}

impl Windows {
    /// The first opens, under a map of this shape.
    pub fn open(shape: MapShape, epoch: u64) -> Self {
        let (first, last, loads) = (None, None, VecDeque::new());
        Self { shape, open: Window::open(shape, epoch, Duration::ZERO), closed: 0, first, last, loads }
    }

    /// Steps of the one that is open.
    pub const fn steps(&self) -> u64 {
        self.open.steps
    }

    /// Pairs that were counted in it.
    pub fn pairs(&self) -> u64 {
        self.open.pairs()
    }

    /// How many have closed.
    pub const fn closed(&self) -> u64 {
        self.closed
    }

    pub fn first(&self) -> Option<Arc<WindowReport>> {
        self.first.clone()
    }

    pub fn last(&self) -> Option<&ClosedWindow> {
        self.last.as_deref()
    }

    pub fn shared_last(&self) -> Option<Arc<ClosedWindow>> {
        self.last.clone()
    }

    /// Adds a step; `answers` are every rank's.
    pub fn count(&mut self, answers: &[StepDone]) {
        self.open.count(answers);
    }

    /// Says that the steps counted up to now ran under `map`, which is about to change.
    pub fn ran_under(&mut self, map: &ExpertMap) {
        self.open.ran_under(map);
    }

    /// Closes the one that is open, whose last steps ran under `map`, and opens the next.
    pub fn close(&mut self, map: &ExpertMap, epoch: u64, now: Duration) -> Arc<ClosedWindow> {
        self.closed += 1;
        self.open.ran_under(map);
        let closed = Arc::new(self.open.close(self.closed, now));
        self.first.get_or_insert_with(|| Arc::new(closed.report.clone()));
        // A window in which nothing was counted says nothing of any placement.
        if closed.report.pairs > 0 {
            if self.loads.len() == WINDOWS_KEPT {
                self.loads.pop_front();
            }
            self.loads.push_back(closed.load.clone());
        }
        self.last = Some(Arc::clone(&closed));
        self.open = Window::open(self.shape, epoch, now);
        closed
    }

    /// Opens the window anew if the map in force is not the one under which it began.
    pub fn are_under(&mut self, epoch: u64, now: Duration) {
        if self.open.epoch != epoch {
            self.open = Window::open(self.shape, epoch, now);
        }
    }

    /// The loads that a plan is made from, and how long it is expected to be in force: as long as the last window was open.
    /// `None` if nothing was counted in that.
    pub fn to_plan_from(&self) -> Option<(Vec<ExpertLoad>, Duration)> {
        let last = self.last.as_ref().filter(|last| last.report.pairs > 0)?;
        Some((self.loads.iter().cloned().collect(), last.length))
    }

    /// Loads that are kept.
    #[cfg(test)]
    pub const fn loads(&self) -> &VecDeque<ExpertLoad> {
        &self.loads
    }
}

/// A window that is open: what was counted since it began. It began under one map; when moves end it begins anew.
#[derive(Clone, Debug)]
struct Window {
    epoch: u64,
    steps: u64,
    started: Duration,
    /// Pairs that each rank's slots computed since the map last changed, `[ranks][layers * slots]`. What they hold is looked up when
    /// it changes or the window closes, not in every step.
    slot_pairs: Vec<Vec<u64>>,
    /// What was counted before.
    load: ExpertLoad,
    /// Of that, the pairs that each rank computed, `[layers][ranks]`.
    computed: Vec<Vec<f64>>,
}

/// A window that has closed.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedWindow {
    /// Its figures.
    pub report: WindowReport,
    /// Pairs by expert.
    pub load: ExpertLoad,
    /// Pairs that each rank computed, over all layers, `[ranks]`.
    pub pairs_of_ranks: Vec<u64>,
    /// How long it was open.
    pub length: Duration,
}

impl Window {
    fn open(shape: MapShape, epoch: u64, now: Duration) -> Self {
        let slot_pairs = vec![vec![0; shape.layers * shape.slots_per_rank]; shape.ranks];
        let computed = vec![vec![0.0; shape.ranks]; shape.layers];
        let load = ExpertLoad::zero(shape.layers, shape.experts);
        Self { epoch, steps: 0, started: now, slot_pairs, load, computed }
    }

    fn pairs(&self) -> u64 {
        self.load.total() + self.slot_pairs.iter().flatten().sum::<u64>()
    }

    fn count(&mut self, answers: &[StepDone]) {
        self.steps += 1;
        for (sums, answer) in self.slot_pairs.iter_mut().zip(answers) {
            answer.slot_pairs.add_to(sums);
        }
    }

    fn ran_under(&mut self, map: &ExpertMap) {
        let per_rank = map.shape().slots_per_rank;
        for (rank, sums) in self.slot_pairs.iter_mut().enumerate() {
            let counted = map.layers().zip(sums.chunks(per_rank)).flat_map(|(layer, pairs)| {
                map.rank(layer, rank.into()).iter().zip(pairs).map(move |(&expert, &pairs)| (layer, expert, pairs))
            });
            let computed = &mut self.computed;
            self.load.add_all(counted.inspect(|(layer, _, pairs)| computed[layer.index()][rank] += *pairs as f64));
            sums.fill(0);
        }
    }

    fn close(&self, number: u64, now: Duration) -> ClosedWindow {
        let ratio_per_layer = self.computed.iter().map(|ranks| balance_ratio(std::slice::from_ref(ranks))).collect();
        let (steps, pairs, ratio) = (self.steps, self.load.total(), balance_ratio(&self.computed));
        let report = WindowReport { number, steps, pairs, ratio, ratio_per_layer };
        let ranks = self.computed.first().map_or(0, Vec::len);
        let of_rank = |rank: usize| self.computed.iter().map(|layer| layer[rank]).sum::<f64>() as u64;
        let pairs_of_ranks = (0..ranks).map(of_rank).collect();
        ClosedWindow { report, load: self.load.clone(), pairs_of_ranks, length: now.saturating_sub(self.started) }
    }
}
