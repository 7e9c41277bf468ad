//! What the planner decided, as the document that others read. Pure.
//!
//! The planner's types change as planning does; a document that was released stays. What has no place in it is not told.

use plan::policy::{Decision, Reason};
use plan::wire::{DecisionFigures, DecisionHistory, DecisionReason, DecisionReport, DecisionTerms, Told};

/// A decision with everything that decided it.
#[must_use]
pub fn decision(decision: &Decision) -> DecisionReport {
    let Decision { reason, figures, terms, history, .. } = decision;
    DecisionReport {
        reason: Told::Known(reason_of(*reason)),
        figures: DecisionFigures {
            ratio_before: figures.ratio_before,
            ratio_after: figures.ratio_after,
            time_saved: figures.time_saved,
            uncovered_before: figures.uncovered_before as u64,
            uncovered_after: figures.uncovered_after as u64,
            transactions: figures.transactions as u64,
            left_out: figures.left_out as u64,
            pages: figures.pages,
            pages_between_nodes: figures.pages_between_nodes,
            bytes: figures.bytes,
            moving_seconds: figures.moving_seconds,
            lasting_gain: figures.lasting_gain,
            seconds_saved: figures.seconds_saved,
            seconds_spent: figures.seconds_spent,
        },
        terms: DecisionTerms {
            minimum_gain: terms.minimum_gain,
            page_bytes: terms.page_bytes,
            bytes_per_second: terms.bytes_per_second,
            lifetime_seconds: terms.lifetime_seconds,
            moving_cost: terms.moving_cost,
            byte_budget: terms.byte_budget,
            cool_down: terms.cool_down,
            hysteresis: terms.hysteresis,
        },
        history: DecisionHistory { windows_since_move: history.windows_since_move },
    }
}

const fn reason_of(reason: Reason) -> DecisionReason {
    match reason {
        Reason::WorthIt => DecisionReason::WorthIt,
        Reason::CutToBudget => DecisionReason::CutToBudget,
        Reason::Covers => DecisionReason::Covers,
        Reason::SharesOnly => DecisionReason::SharesOnly,
        Reason::SamePlacement => DecisionReason::SamePlacement,
        Reason::GainTooSmall => DecisionReason::GainTooSmall,
        Reason::WithinBand => DecisionReason::WithinBand,
        Reason::CoolingDown => DecisionReason::CoolingDown,
        Reason::MovesTooLong => DecisionReason::MovesTooLong,
        Reason::CostsMoreThanItSaves => DecisionReason::CostsMoreThanItSaves,
        Reason::OverBudget => DecisionReason::OverBudget,
    }
}

#[cfg(test)]
mod tests {
    use plan::coverage::Coverage;
    use plan::load::ExpertLoad;
    use plan::map::{ExpertMap, MapShape};
    use plan::policy::{Case, History, Terms, decide};
    use plan::topology::Topology;
    use serde_json::{Value, json};
    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn every_reason_has_the_same_name_in_the_document_as_in_metrics_and_logs() {
        for reason in Reason::iter() {
            assert_eq!(serde_json::to_value(reason_of(reason)).unwrap(), json!(reason.to_string()));
        }
    }

    #[test]
    fn a_decision_is_told_with_every_figure_under_its_own_name() {
        let map = ExpertMap::contiguous(MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 2 }).unwrap();
        let load = ExpertLoad::from_rows(&[vec![3, 1, 1, 1]]).unwrap();
        let topology = Topology::single_node(2, 2);
        let min_coverage = Coverage::default();
        let expected = plan::expected::Expected::known(&load);
        let case = Case { expected: &expected, current: &map, topology: &topology, transactions: &[], min_coverage };
        let mut decided = decide(&case, &Terms::usual(1024, 60.0), History { windows_since_move: Some(3) });
        // Each figure another, so that no two can be mistaken for each other.
        let (figures, terms) = (&mut decided.figures, &mut decided.terms);
        let numbers = [
            &mut figures.ratio_before,
            &mut figures.ratio_after,
            &mut figures.time_saved,
            &mut figures.moving_seconds,
            &mut figures.lasting_gain,
            &mut figures.seconds_saved,
            &mut figures.seconds_spent,
        ];
        numbers.into_iter().zip(1..).for_each(|(number, value)| *number = f64::from(value) / 16.0);
        let counts = [
            &mut figures.uncovered_before,
            &mut figures.uncovered_after,
            &mut figures.transactions,
            &mut figures.left_out,
        ];
        counts.into_iter().zip(11..).for_each(|(count, value)| *count = value);
        let sums = [&mut figures.pages, &mut figures.pages_between_nodes, &mut figures.bytes, &mut terms.cool_down];
        sums.into_iter().zip(21..).for_each(|(sum, value)| *sum = value);
        (terms.minimum_gain, terms.bytes_per_second, terms.byte_budget) = (0.03125, Some(5e8), Some(1 << 30));
        let expected: Value = json!({
            "reason": "same_placement",
            "figures": {
                "ratioBefore": 0.0625, "ratioAfter": 0.125, "timeSaved": 0.1875, "uncoveredBefore": 11, "uncoveredAfter": 12,
                "transactions": 13, "leftOut": 14, "pages": 21, "pagesBetweenNodes": 22, "bytes": 23, "movingSeconds": 0.25,
                "lastingGain": 0.3125, "secondsSaved": 0.375, "secondsSpent": 0.4375,
            },
            "terms": {
                "minimumGain": 0.03125, "pageBytes": 1024, "bytesPerSecond": 5e8, "lifetimeSeconds": 60.0, "movingCost": 0.05,
                "byteBudget": 1 << 30, "coolDown": 24, "hysteresis": 1.0,
            },
            "history": {"windowsSinceMove": 3},
        });
        assert_eq!(serde_json::to_value(decision(&decided)).unwrap(), expected);
    }
}
