//! What decisions to move are judged by, and decisions in words.

use ::plan::map::MapShape;
use ::plan::moves::usual_staging_pages;
use ::plan::policy::{Decision, MINIMUM_GAIN, Reason, Terms};
use clap::Args;

use super::OfflineError;
use super::input::positive;
use crate::words::{bytes, counted};

/// The options of the same names of the runtime, with its defaults.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of decisions")]
pub(super) struct JudgeOptions {
    /// Least gain in balance ratio for which experts move
    #[arg(long, value_name = "SHARE", default_value_t = MINIMUM_GAIN, value_parser = share)]
    minimum_gain: f64,
    /// Bytes per second that moves to one rank may use; 0 is no limit
    #[arg(long, value_name = "B", default_value_t = 0)]
    move_bytes_per_second: u64,
    /// Bytes that one rebalance may move, those first that pay most; 0 is no limit
    #[arg(long, value_name = "B", default_value_t = 0)]
    max_rebalance_bytes: u64,
    /// Pages that each rank can receive before they are in use; one for each hundred that it holds, at most 16, and 2 if those are fewer, if it is not given
    #[arg(long, value_name = "PAGES", value_parser = clap::value_parser!(u32).range(1..))]
    staging_pages: Option<u32>,
    /// Seconds that a window lasts: what a plan saves in that time must be more than what its moves cost
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = positive)]
    window_seconds: f64,
}

impl JudgeOptions {
    /// The terms for experts of a size; experts of unknown size weigh nothing.
    pub fn terms(&self, expert_bytes: Option<u64>) -> Result<Terms, OfflineError> {
        let limit = |name: &'static str, value: u64| match (value, expert_bytes) {
            (0, _) => Ok(None),
            (_, None) => Err(OfflineError::ExpertBytes { name }),
            (limit, Some(_)) => Ok(Some(limit)),
        };
        Ok(Terms {
            minimum_gain: self.minimum_gain,
            bytes_per_second: limit("--move-bytes-per-second", self.move_bytes_per_second)?.map(|bytes| bytes as f64),
            byte_budget: limit("--max-rebalance-bytes", self.max_rebalance_bytes)?,
            ..Terms::usual(expert_bytes.unwrap_or(0), self.window_seconds)
        })
    }

    /// The staging pages of each rank of a group that serves a model of this shape.
    pub fn staging_pages(&self, shape: MapShape) -> usize {
        self.staging_pages.unwrap_or_else(|| usual_staging_pages(shape.pages_per_rank())) as usize
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..1.0).contains(&number) { Ok(number) } else { Err("must be from 0 to below 1".to_owned()) }
}

/// Why something moves or stays.
const fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::WorthIt => "move, the gain is worth the bytes",
        Reason::CutToBudget => "move the part that the byte budget allows, which is worth its bytes",
        Reason::Covers => "move, more experts survive a loss then",
        Reason::SharesOnly => "change shares, which costs no byte",
        Reason::SamePlacement => "stay, this is the map in force",
        Reason::GainTooSmall => "stay, the gain is too small",
        Reason::WithinBand => "stay, the gain is too small so soon after a move",
        Reason::CoolingDown => "stay, the last move was too lately",
        Reason::MovesTooLong => "stay, moving takes too much of a window",
        Reason::CostsMoreThanItSaves => "stay, moving costs more time than it saves",
        Reason::OverBudget => "stay, the byte budget allows no part that pays",
    }
}

/// The decision, and the figures that it was made on, as two lines.
pub(super) fn described(decision: &Decision) -> [String; 2] {
    let Decision { reason, figures, terms, .. } = decision;
    let ratios = format!(
        "ratio {:.4} to {:.4}, gain {:.4} of at least {}",
        figures.ratio_before,
        figures.ratio_after,
        figures.ratio_after - figures.ratio_before,
        terms.minimum_gain
    );
    let times = (figures.pages > 0 && terms.page_bytes > 0).then(|| {
        format!(
            "{} in {:.3} s, saves {:.3} s and costs {:.3} s of the experts' time in {} s",
            bytes(figures.bytes as f64),
            figures.moving_seconds,
            figures.seconds_saved,
            figures.seconds_spent,
            terms.lifetime_seconds
        )
    });
    let left_out = (figures.left_out > 0).then(|| format!("{} left out", counted(figures.left_out, "transaction")));
    let (before, after) = (figures.uncovered_before, figures.uncovered_after);
    let uncovered =
        (before > 0).then(|| format!("a loss could take {} away, {after} after it", counted(before, "expert")));
    let predicted = [Some(ratios), times, uncovered, left_out].into_iter().flatten().collect::<Vec<_>>().join("; ");
    [format!("{} ({reason})", words(*reason)), predicted]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn every_reason_has_words_of_its_own_that_say_what_happens() {
        let all: BTreeSet<&str> = Reason::iter().map(words).collect();
        assert_eq!(all.len(), Reason::iter().count());
        for reason in Reason::iter() {
            assert_eq!(!words(reason).starts_with("stay"), reason.moves(), "{reason}");
        }
    }

    #[test]
    fn staging_pages_are_as_many_as_the_runtime_takes_unless_they_are_given() {
        let judge = |staging_pages| JudgeOptions {
            minimum_gain: MINIMUM_GAIN,
            move_bytes_per_second: 0,
            max_rebalance_bytes: 0,
            staging_pages,
            window_seconds: 60.0,
        };
        let of_rank = |layers, given| {
            let shape = MapShape { layers, experts: 8, ranks: 2, slots_per_rank: 5 };
            judge(given).staging_pages(shape)
        };
        assert_eq!([2, 80, 1000].map(|layers| of_rank(layers, None)), [2, 4, 16]);
        assert_eq!([2, 1000].map(|layers| of_rank(layers, Some(7))), [7, 7]);
    }

    #[test]
    fn gains_and_times_are_within_their_ranges() {
        assert_eq!([share("0"), share("0.5")], [Ok(0.0), Ok(0.5)]);
        for wrong in ["1", "-0.1", "NaN"] {
            assert_eq!(share(wrong), Err("must be from 0 to below 1".to_owned()), "{wrong}");
        }
        for wrong in ["0", "-1", "inf", "NaN"] {
            assert_eq!(positive(wrong), Err("must be more than 0".to_owned()), "{wrong}");
        }
        assert_eq!(positive("x"), Err("not a number".to_owned()));
    }
}
