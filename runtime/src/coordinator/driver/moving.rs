//! The driver's part in moving experts: carries out what the rebalancer says, and makes it known.

use std::sync::Arc;
use std::time::Instant;

use super::{Driver, Ranks};
use crate::experts::planner::Planned;
use crate::experts::rebalance::{Effect, Event, Notice, PlanOutcome, PlanRequest, Rebalancer, Refusal};

impl<R: Ranks> Driver<R> {
    /// Whether experts are moving or about to, and steps bring that forward.
    pub(super) fn is_moving(&self) -> bool {
        self.group.is_some() && self.settings.rebalancer.pending_transactions() > 0
    }

    pub(super) fn on_planned(&mut self, (request, outcome): Planned) {
        self.metrics.planned(Instant::now());
        self.tell_rebalancer(Event::Planned { request, outcome });
    }

    /// Tells the rebalancer and does what it says.
    pub(super) fn tell_rebalancer(&mut self, event: Event<'_>) {
        let effects = self.settings.rebalancer.on(event);
        self.carry_out(effects);
    }

    /// Asks something of the rebalancer and does what it says.
    pub(super) fn ask_rebalancer(
        &mut self,
        ask: impl FnOnce(&mut Rebalancer) -> Result<Vec<Effect>, Refusal>,
    ) -> Result<(), Refusal> {
        let effects = ask(&mut self.settings.rebalancer).inspect_err(|refusal| tracing::info!(%refusal, "refused"))?;
        self.carry_out(effects);
        Ok(())
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out_one(effect);
        }
        let rebalancer = &self.settings.rebalancer;
        let phase = rebalancer.phase();
        self.metrics.doing(Instant::now(), phase, &rebalancer.staging_pages());
        self.live.doing(phase);
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Plan(request) => self.plan(request),
            Effect::Order { rank, order } => self.ranks.order(rank, order),
            Effect::Record(map) => {
                if let Some(recorder) = &self.settings.recorder {
                    recorder.record(map);
                }
            }
            Effect::Notice(notice) => {
                let now = Instant::now();
                log(&notice);
                self.metrics.noticed(&notice, now);
                self.live.noticed(now, notice, self.settings.rebalancer.totals());
            }
        }
    }

    fn plan(&mut self, request: PlanRequest) {
        let number = request.number;
        self.metrics.planning(Instant::now());
        if self.settings.planner.0.send((request, Arc::clone(&self.topology))).is_err() {
            let outcome = PlanOutcome::Failed { reason: "the thread that plans has ended".to_owned() };
            self.tell_rebalancer(Event::Planned { request: number, outcome });
        }
    }
}

/// A ratio as people read it.
fn short(ratio: f64) -> f64 {
    (ratio * 1e4).round() / 1e4
}

fn log(notice: &Notice) {
    match notice {
        Notice::WindowClosed(closed) => {
            let window = &closed.report;
            tracing::info!(
                window = window.number,
                steps = window.steps,
                pairs = window.pairs,
                ratio = short(window.ratio),
                "window closed"
            );
        }
        Notice::Decided(decision) => {
            let (reason, figures) = (<&str>::from(decision.reason), &decision.figures);
            let (ratio_before, ratio_after) = (short(figures.ratio_before), short(figures.ratio_after));
            tracing::info!(reason, ratio_before, ratio_after, pages = figures.pages, bytes = figures.bytes, "decided");
            // Everything that it was decided from: what is logged can be decided again. The state has the last.
            let document = || serde_json::to_string(decision).unwrap_or_default();
            tracing::debug!(decision = document(), "decided from");
        }
        Notice::Planned { transactions, pages } => tracing::info!(transactions, pages, "experts will move"),
        Notice::Kept { reason } => tracing::info!(reason, "the placement stays"),
        Notice::Committed { transaction, layer, epoch, pages, bytes, .. } => {
            tracing::debug!(transaction = transaction.0, layer = layer.0, epoch, pages, bytes, "committed");
        }
        Notice::Aborted { transaction, reason, message } => {
            tracing::warn!(transaction = transaction.0, reason = reason.as_str(), message, "transaction aborted");
        }
        Notice::Completed { epoch, pages, bytes, steps } => {
            tracing::info!(epoch, pages, bytes, steps, "rebalanced");
        }
        Notice::Dropped { reason } => tracing::warn!(reason, "the rest of the plan is dropped"),
    }
}
