//! Counts the load of a window and measures its balance. Decides nothing.

use std::time::Duration;

use plan::load::{ExpertLoad, balance_ratio};
use plan::map::{ExpertMap, MapShape};
use plan::wire::WindowReport;

use crate::protocol::StepDone;

/// A window that is open: what was counted since it began. It began under one map; when moves end it begins anew.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub epoch: u64,
    pub steps: u64,
    started: Duration,
    load: ExpertLoad,
    /// Pairs that each rank computed, `[layers][ranks]`.
    computed: Vec<Vec<f64>>,
}

/// A window that has closed.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedWindow {
    /// Its figures.
    pub report: WindowReport,
    /// Pairs by expert.
    pub load: ExpertLoad,
    /// How long it was open.
    pub length: Duration,
}

impl Window {
    pub fn open(shape: MapShape, epoch: u64, now: Duration) -> Self {
        let computed = vec![vec![0.0; shape.ranks]; shape.layers];
        Self { epoch, steps: 0, started: now, load: ExpertLoad::zero(shape.layers, shape.experts), computed }
    }

    /// Adds a step that ran under `map`; `answers` are every rank's.
    pub fn count(&mut self, map: &ExpertMap, answers: &[StepDone]) {
        self.steps += 1;
        let per_rank = map.shape().slots_per_rank;
        for (rank, answer) in answers.iter().enumerate() {
            let counted = map.layers().zip(answer.slot_pairs.chunks(per_rank)).flat_map(|(layer, pairs)| {
                map.rank(layer, rank.into()).iter().zip(pairs).map(move |(&expert, &pairs)| (layer, expert, pairs))
            });
            let computed = &mut self.computed;
            self.load.add_all(counted.map(|(layer, expert, pairs)| {
                computed[layer.index()][rank] += f64::from(pairs);
                (layer, expert, u64::from(pairs))
            }));
        }
    }

    pub fn pairs(&self) -> u64 {
        self.load.total()
    }

    /// Measured balance ratio so far.
    pub fn ratio(&self) -> f64 {
        balance_ratio(&self.computed)
    }

    pub fn close(&self, number: u64, now: Duration) -> ClosedWindow {
        let ratio_per_layer = self.computed.iter().map(|ranks| balance_ratio(std::slice::from_ref(ranks))).collect();
        let (steps, pairs, ratio) = (self.steps, self.pairs(), self.ratio());
        let report = WindowReport { number, steps, pairs, ratio, ratio_per_layer };
        ClosedWindow { report, load: self.load.clone(), length: now.saturating_sub(self.started) }
    }
}
