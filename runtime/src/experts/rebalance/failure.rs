//! What becomes of moves that go wrong: a transaction that fails, a plan that is given up, a group that is lost. The map in
//! force serves on in each case.

use plan::ids::RankId;

use super::moves::Moves;
use super::{AbortReason, Effect, Notice, Origin, Phase, Rebalancer, Standing};
use crate::protocol::{NotStaged, ToRank, TransactionId};

/// Failures of one transaction after which the rest of its plan is dropped. With the steps between them, a rank that is busy or
/// is replaced has some 150 steps to come back, seconds to a minute; what still fails then fails by what the plan wants, and the
/// next window makes another plan. No operator knows a better number for a deployment, so it is none of the settings.
pub(super) const MOST_FAILURES: u32 = 5;

/// Steps until a transaction that failed is tried again, doubled with each failure: a hiccup is over by then, and a source that
/// is overloaded by moves is soon left alone.
pub(super) const BACK_OFF_STEPS: u64 = 10;

impl Rebalancer {
    /// Takes a transaction back, and tries it again later or gives its plan up.
    pub(super) fn failed(&mut self, transaction: TransactionId, reporter: Option<RankId>, why: NotStaged) {
        let (Phase::Moving { moves, .. }, Some(Standing { generation, .. })) = (&mut self.phase, self.group) else {
            return;
        };
        let NotStaged { reason, message } = why;
        let Some(failed) = moves.fail(transaction) else { return };
        self.totals.aborted += 1;
        for rank in failed.receivers().into_iter().filter(|&rank| Some(rank) != reporter) {
            self.effects.push(Effect::Order { rank, order: ToRank::Abort { generation, transaction } });
        }
        let (abort, failures, layer) = (AbortReason::Move(reason), failed.failures + 1, failed.work.layer);
        let steps = BACK_OFF_STEPS << failed.failures.min(MOST_FAILURES);
        moves.retry(failed, self.moment.steps + steps);
        self.effects.push(Effect::Notice(Notice::Aborted { transaction, reason: abort, message: message.clone() }));
        if !reason.is_worth_a_retry() {
            self.drop_plan(format!("a transaction of {layer} failed and is not tried again: {message}"));
        } else if failures >= MOST_FAILURES {
            self.drop_plan(format!("a transaction of {layer} failed {failures} times, last on {message}"));
        }
    }

    /// Gives up what is not being committed; the phase ends when the steps that are under way have ended.
    pub(super) fn drop_plan(&mut self, reason: String) {
        let (Phase::Moving { moves, dropped, .. }, Some(Standing { generation, .. })) = (&mut self.phase, self.group)
        else {
            return;
        };
        for (transaction, given_up) in moves.drop_rest() {
            self.totals.aborted += 1;
            for rank in given_up.receivers() {
                self.effects.push(Effect::Order { rank, order: ToRank::Abort { generation, transaction } });
            }
            let (reason, message) = (AbortReason::PlanDropped, reason.clone());
            self.effects.push(Effect::Notice(Notice::Aborted { transaction, reason, message }));
        }
        dropped.get_or_insert(reason);
    }

    pub(super) fn group_lost(&mut self) {
        self.group = None;
        let (origin, mut moves) = match std::mem::replace(&mut self.phase, Phase::Collecting) {
            Phase::Collecting => return,
            Phase::Planning { origin, .. } | Phase::Waiting { origin, .. } => (origin, Moves::default()),
            Phase::Moving { origin, moves, .. } => (origin, moves),
        };
        // The steps that were under way did not happen, and their commits neither: all are given up alike.
        for (transaction, _) in moves.all() {
            self.totals.aborted += 1;
            let (reason, message) = (AbortReason::GroupLost, "a rank was lost".to_owned());
            self.effects.push(Effect::Notice(Notice::Aborted { transaction, reason, message }));
        }
        let reason = "a rank was lost; the map in force serves on".to_owned();
        self.effects.push(Effect::Notice(Notice::Dropped { reason }));
        if let Origin::Given(map) = origin {
            self.wanted.get_or_insert(map);
        }
        self.settle();
    }
}
