//! Whether a target map is worth moving to. Knows nothing of how the target was found.

use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

use crate::ids::LayerId;
use crate::load::{ExpertLoad, balance_ratio, rank_loads};
use crate::map::ExpertMap;

/// What a plan is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// The least gain in balance ratio, over the expected life of the plan, for which anything is moved.
    pub minimum_gain: f64,
    /// Bytes of one page, which is one expert of one layer.
    pub page_bytes: u64,
    /// Bytes per second that a rank may receive while it serves.
    pub bytes_per_second: f64,
    /// Seconds for which the plan is expected to be in force, usually the length of a window.
    pub lifetime_seconds: f64,
}

/// What is predicted of a move to a target map, on the load of the window that it was planned from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Balance ratio of the map in force.
    pub ratio_before: f64,
    /// Balance ratio of the target.
    pub ratio_after: f64,
    /// Share of the experts' part of the step time that the target saves:
    /// 1 - (sum over layers of max rank load after / before).
    pub time_saved: f64,
    /// Pages that ranks receive.
    pub pages: u64,
    /// Bytes of those pages.
    pub bytes: u64,
    /// Seconds until the rank that receives most has everything.
    pub moving_seconds: f64,
    /// Gain in balance ratio over the life of the plan. While pages move it counts as none:
    /// (`ratio_after` - `ratio_before`) x (1 - `moving_seconds` / lifetime), and no less than 0 of the lifetime.
    pub lasting_gain: f64,
}

/// Why a map stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, IntoStaticStr)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "snake_case")]
pub enum KeepReason {
    /// The target is the placement in force.
    SamePlacement,
    /// The target balances the load too little better.
    GainTooSmall,
    /// The gain would be enough, but not for what is left of the plan's life once its pages have moved.
    MovesTooLong,
}

/// Whether to move, with the figures that decided it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// Move to the target.
    Move(Figures),
    /// Keep the map in force.
    Keep(KeepReason, Figures),
}

impl Decision {
    /// The figures that decided it.
    #[must_use]
    pub const fn figures(&self) -> &Figures {
        match self {
            Self::Move(figures) | Self::Keep(_, figures) => figures,
        }
    }

    /// Whether to move.
    #[must_use]
    pub const fn moves(&self) -> bool {
        matches!(self, Self::Move(_))
    }
}

/// Decides whether `target` is worth its bytes. Both maps are of one shape, and the load is of their model.
#[must_use]
pub fn decide(load: &ExpertLoad, current: &ExpertMap, target: &ExpertMap, terms: &Terms) -> Decision {
    let figures = predict(load, current, target, terms);
    let enough = |gain: f64| gain > 0.0 && gain >= terms.minimum_gain;
    if figures.pages == 0 {
        Decision::Keep(KeepReason::SamePlacement, figures)
    } else if !enough(figures.ratio_after - figures.ratio_before) {
        Decision::Keep(KeepReason::GainTooSmall, figures)
    } else if !enough(figures.lasting_gain) {
        Decision::Keep(KeepReason::MovesTooLong, figures)
    } else {
        Decision::Move(figures)
    }
}

fn predict(load: &ExpertLoad, current: &ExpertMap, target: &ExpertMap, terms: &Terms) -> Figures {
    let (before, after) = (rank_loads(current, load), rank_loads(target, load));
    let busiest =
        |loads: &[Vec<f64>]| -> f64 { loads.iter().map(|ranks| ranks.iter().copied().fold(0.0, f64::max)).sum() };
    let (busiest_before, busiest_after) = (busiest(&before), busiest(&after));
    let received = pages_received(current, target);
    let pages: u64 = received.iter().sum();
    let most = received.into_iter().max().unwrap_or(0);
    let moving_seconds = if most == 0 { 0.0 } else { most as f64 * terms.page_bytes as f64 / terms.bytes_per_second };
    let (ratio_before, ratio_after) = (balance_ratio(&before), balance_ratio(&after));
    let lasting =
        if moving_seconds < terms.lifetime_seconds { 1.0 - moving_seconds / terms.lifetime_seconds } else { 0.0 };
    Figures {
        ratio_before,
        ratio_after,
        time_saved: if busiest_before > 0.0 { 1.0 - busiest_after / busiest_before } else { 0.0 },
        pages,
        bytes: pages.saturating_mul(terms.page_bytes),
        moving_seconds,
        lasting_gain: (ratio_after - ratio_before) * lasting,
    }
}

/// Pages that each rank receives over all layers, `[ranks]`.
fn pages_received(current: &ExpertMap, target: &ExpertMap) -> Vec<u64> {
    let received = |layer: LayerId, rank: usize| {
        let held = current.rank(layer, rank.into());
        target.rank(layer, rank.into()).iter().filter(|expert| !held.contains(expert)).count() as u64
    };
    (0..current.shape().ranks).map(|rank| current.layers().map(|layer| received(layer, rank)).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ExpertId;
    use crate::map::MapShape;

    const TERMS: Terms = Terms { minimum_gain: 0.1, page_bytes: 1000, bytes_per_second: 500.0, lifetime_seconds: 10.0 };

    fn map(slots: [u32; 4]) -> ExpertMap {
        let shape = MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 2 };
        ExpertMap::new(shape, slots.map(ExpertId).to_vec()).unwrap()
    }

    fn load() -> ExpertLoad {
        ExpertLoad::from_rows(&[vec![9, 9, 1, 1]]).unwrap()
    }

    #[test]
    fn a_gain_that_lasts_is_worth_its_bytes_and_comes_with_its_figures() {
        // Ranks carry 18 and 2 before, 10 and 10 after: ratio 10 / 18 -> 1. Each rank receives one page in 2 s of the
        // 10 s for which the plan lasts.
        let decision = decide(&load(), &map([0, 1, 2, 3]), &map([0, 2, 1, 3]), &TERMS);
        let Decision::Move(figures) = decision else { panic!("{decision:?}") };
        let Figures { ratio_before, ratio_after, time_saved, pages, bytes, moving_seconds, lasting_gain } = figures;
        assert_eq!((pages, bytes), (2, 2000));
        let expected = [10.0 / 18.0, 1.0, 8.0 / 18.0, 2.0, 0.8 * 8.0 / 18.0];
        for (found, expected) in
            [ratio_before, ratio_after, time_saved, moving_seconds, lasting_gain].iter().zip(expected)
        {
            assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
        }
    }

    #[test]
    fn the_same_placement_in_other_slots_moves_nothing() {
        let decision = decide(&load(), &map([0, 1, 2, 3]), &map([1, 0, 3, 2]), &TERMS);
        assert!(
            matches!(decision, Decision::Keep(KeepReason::SamePlacement, Figures { pages: 0, .. })),
            "{decision:?}"
        );
    }

    #[test]
    fn a_gain_below_the_minimum_moves_nothing() {
        let terms = Terms { minimum_gain: 0.5, ..TERMS };
        let decision = decide(&load(), &map([0, 1, 2, 3]), &map([0, 2, 1, 3]), &terms);
        assert!(matches!(decision, Decision::Keep(KeepReason::GainTooSmall, _)), "{decision:?}");
        let worse = decide(&load(), &map([0, 2, 1, 3]), &map([0, 1, 2, 3]), &Terms { minimum_gain: 0.0, ..TERMS });
        assert!(matches!(worse, Decision::Keep(KeepReason::GainTooSmall, _)), "{worse:?}");
    }

    #[test]
    fn a_plan_that_takes_most_of_its_life_to_arrive_moves_nothing() {
        for bytes_per_second in [125.0, 100.0, 0.0] {
            let terms = Terms { bytes_per_second, ..TERMS };
            let decision = decide(&load(), &map([0, 1, 2, 3]), &map([0, 2, 1, 3]), &terms);
            assert!(matches!(decision, Decision::Keep(KeepReason::MovesTooLong, _)), "{decision:?}");
        }
        let forever = Terms { bytes_per_second: 1.0, lifetime_seconds: f64::INFINITY, ..TERMS };
        assert!(decide(&load(), &map([0, 1, 2, 3]), &map([0, 2, 1, 3]), &forever).moves());
    }

    #[test]
    fn without_load_there_is_nothing_to_gain() {
        let decision = decide(&ExpertLoad::zero(1, 4), &map([0, 1, 2, 3]), &map([0, 2, 1, 3]), &TERMS);
        assert!(matches!(decision, Decision::Keep(KeepReason::GainTooSmall, _)), "{decision:?}");
        assert_eq!(decision.figures().time_saved.to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn reasons_are_words_that_labels_can_carry() {
        assert_eq!(KeepReason::MovesTooLong.to_string(), "moves_too_long");
    }
}
