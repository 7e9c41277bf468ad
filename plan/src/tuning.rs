//! The numbers that the planner is given rather than measures, each with its reason. What half and twice each does is in
//! docs/tuning.md, which `make bench-plan TUNING=1` writes. What stands beside its code instead is a definition, or changes
//! no plan.

/// What a number belongs to, and so what half and twice it are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The search of placements: from nothing, from the one in force and after a loss.
    Search,
    /// Plans for loads that come in bursts.
    Bursts,
    /// The load to expect next.
    Forecast,
    /// The shares of copies.
    Shares,
    /// Whether to move. These are the usual values of settings, or beside them.
    Policy,
}

/// A number of the tuning.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// Its name, that of the field of [`Tuning`].
    pub name: &'static str,
    /// What it belongs to.
    pub part: Part,
    /// Its value in the product.
    pub value: f64,
    /// Why it is as it is.
    pub reason: &'static str,
}

/// Declares [`Tuning`] once: its fields, their values and what is told of them.
macro_rules! tuning {
    ($($part:ident { $($(#[doc = $reason:literal])+ $name:ident: $kind:ty = $value:expr,)+ })+) => {
        /// What plans and decisions are made with. The product has one, [`Tuning::PRODUCT`]; the benchmark plans with others
        /// to tell what each number does.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct Tuning {
            $($($(#[doc = $reason])+ pub $name: $kind,)+)+
        }

        impl Tuning {
            /// What the product plans with.
            pub const PRODUCT: Self = Self { $($($name: $value,)+)+ };

            /// Every number.
            pub const NUMBERS: &'static [Number] = &[$($(Number {
                name: stringify!($name),
                part: Part::$part,
                value: $value as f64,
                reason: concat!($($reason),+),
            },)+)+];

            /// The product's with one number multiplied; a whole number is rounded and at least 1. `None` if there is no number of
            /// that name.
            #[must_use]
            pub fn with_scaled(name: &str, factor: f64) -> Option<Self> {
                let mut tuning = Self::PRODUCT;
                match name {
                    $($(stringify!($name) => tuning.$name = Scaled::scaled(tuning.$name, factor),)+)+
                    _ => return None,
                }
                Some(tuning)
            }
        }
    };
}

tuning! {
Search {
    /// A layer is improved no further once its busiest rank is within this many standard deviations of what a rank's load
    /// will differ from its forecast: the next window undoes finer work.
    within_noise: f64 = 0.8,
    /// The same, in standard deviations, when shares alone take it to within that: they cost no page, so they may do finer work.
    within_noise_by_shares: f64 = 0.6,
    /// Parts of the way to the goal that are left when it is looked at whether shares can do the rest: first this, then less
    /// by the next number. More looks cost more time, fewer move pages that shares would have saved.
    first_look_at_shares: f64 = 0.5,
    /// By how many times the part that is left is smaller at the second look than at the first.
    next_look_at_shares: f64 = 3.0,
    /// Passes over shares when it is looked at whether they can do the rest: nearly always they have done what they can by
    /// then.
    passes_of_look: usize = 8,
    /// An expert stands out when a copy of it carries this part more than the largest copy of an ideal division. Packing
    /// alone could still balance the window that was seen, but a hot expert that is not split makes the next one worse.
    stands_out: f64 = 0.15,
    /// What it costs, in pages within a node, that a copy comes to a node which has another one, and what it saves that
    /// one goes from there: tokens find a copy on their own node where there is one.
    crowds: f64 = 0.4,
    /// What a change costs at least, in pages, even if it moves nothing more: it is not free, so that better ones can be told
    /// apart.
    no_page: f64 = 0.5,
    /// Ranks that are looked at once one has been found with which an exchange helps, from the placement in force: those that
    /// come later rarely have a better one, and to look at all of them would be most of the work.
    look_further: usize = 8,
    /// The same from nothing, for each so many ranks: with few, the first exchange that helps is as good as any. No more than
    /// from the placement in force.
    ranks_a_look: usize = 8,
    /// Ranks that are looked at from nothing at least, once one has been found, however few ranks there are.
    least_further: usize = 3,
    /// By how much more, at most, a page from another node costs than one within, as a part of it. Its link is slower by far more,
    /// but a higher price moves more pages in all, for a load that will have changed before the difference in time matters.
    far_page: f64 = 0.15,
    /// Numbers of copies are searched only for layers that packing alone leaves further from the bound than this part: that costs
    /// more than all the rest, and nearer to the bound it gains nothing that lasts until the next window.
    far: f64 = 7e-4,
    /// Attempts at other numbers of copies for a layer. Most are improved by one of the first few; the others have nothing left to
    /// gain.
    attempts: usize = 10,
    /// Exchanges that may repair what an attempt broke. Fewer give up on attempts that would succeed.
    repairs: usize = 24,
    /// Changes that are tried after a loss, of those that promise most.
    tried: usize = 24,
    /// Passes over shares after which a change that is tried is judged.
    passes_of_trial: usize = 4,
    /// Ranks whose experts are tried elsewhere after a loss: the busiest.
    busiest_after_loss: usize = 6,
    /// Pages that may move to level the ranks after a loss, for each expert that came back. They leave more to the next windows,
    /// whose moves are judged by what they gain.
    pages_per_lost: f64 = 0.5,
    /// The same where ranks have few slots: there the experts that came back take a rank far from the level, and shares
    /// of few copies take it back less.
    pages_per_lost_of_few: f64 = 1.0,
    /// Slots up to which ranks have few.
    few_slots: usize = 4,
    /// Ranks of a node and a kind up to which those that change places are the best that can be found; of more, those that keep
    /// most come first. The best take time that grows with their cube: at 64 ranks about a tenth of a millisecond a layer.
    exact_ranks: usize = 64,
}

Bursts {
    /// Windows that a plan for bursts needs at least: fewer do not tell what comes in bursts from what a window happened to bring.
    windows_of_bursts: usize = 4,
    /// The noise of ranks, above that of counting tokens, at which bursts are planned for: the share by which the busiest of
    /// the ranks is expected above the others because of it.
    bursts_matter: f32 = 0.03,
    /// Standard errors of its estimate by which that noise must be there.
    errors_of_bursts: f32 = 2.0,
    /// What a look at the loads alone must give of the noise that matters before the windows are taken apart: without a placement
    /// it is known this much less exactly.
    bursts_at_a_glance: f64 = 0.5,
    /// The chance that any two experts of a layer, which have nothing to do with each other, are taken to be connected.
    false_alarm: f32 = 0.01,
    /// An expert that varies by less than this share of its mean is connected with no other: what is left of its variance is
    /// the error of the estimate of how busy a window was, which all experts share.
    steady: f32 = 0.02,
    /// Windows that what experts have on average weighs as many as in the variance of each.
    shrunk_variances: f32 = 4.0,
    /// Sharpness of the soft maximum in the last stage of the search, for a mean level of 1. Each stage before it has half of the
    /// next one's.
    sharpest: f32 = 12.0,
    /// Stages of the search. One that starts with the last ends sooner and worse.
    annealing_stages: usize = 3,
    /// Ranks, those that cost most first, for which a change is looked for before a stage ends.
    busiest_annealed: usize = 2,
    /// Windows that are put together anew for the end of the search and to judge it by, at least.
    windows_drawn: usize = 128,
    /// What a change must be worth for each page, in the ratio, where pages may move freely: less only costs time.
    negligible: f32 = 1e-5,
    /// The same at the end of the search, on windows put together anew.
    negligible_at_the_end: f32 = 2.5e-5,
    /// What a change must be worth for each page, in the ratio, from a placement in force, times the number of windows: the fewer
    /// they are, the more of what a page seems to gain is what these windows had by chance, and moves to and fro.
    gain_per_page: f32 = 0.01,
    /// The share by which a plan from nothing must be better than its start on windows that neither has seen.
    gain_of_bursts: f64 = 0.01,
    /// Ranks, those that cost most first, for which an exchange is looked for before the search ends.
    busiest_at_the_end: usize = 3,
    /// The exchanges of a rank that are looked at then before it is given up.
    exchanges_at_the_end: usize = 200,
}

Forecast {
    /// Windows that are kept for planning, by the runtime as by the plugin and a replay: so many tell what comes again from what
    /// was coincidence.
    windows_kept: usize = 64,
    /// The windows, the last ones, that noise and walk are measured on: more of them say little about what goes on now.
    windows_measured: usize = 24,
    /// A change between two windows is abrupt where they, and those beside them, are this many times as far apart as noise and
    /// walk put them (mean squares).
    abrupt: f64 = 3.0,
    /// A walk is believed as far as it is beyond this many standard errors of its estimate.
    errors_of_walk: f64 = 2.0,
    /// The part of what two windows differ by that is taken to be a walk, where there are only two: they do not tell what is gone by
    /// the next one from what stays, and with a quarter a forecast is little worse than the best on either.
    walk_of_two: f64 = 0.25,
    /// What a layer's windows that are two apart differ by, against neighbours, below which its changes are gone by the next
    /// window: 1 where nothing stays and 2 where there is nothing but a walk.
    momentary: f64 = 1.5,
    /// Triples of windows that what all layers do weighs as many as in what is told of one.
    shrunk_layers: f64 = 4.0,
    /// Traffic has shifted where two windows are this many times as far apart as others are in the middle.
    shifted: f64 = 3.0,
    /// How far apart windows of the same traffic are taken to be, at least: they differ by a few hundredths, and text of another
    /// kind by more than half.
    same_traffic: f64 = 0.1,
}

Shares {
    /// Passes over a layer's experts with several copies after which the shares are taken as they are. A pass hands load on along
    /// one more copy of a chain, so only long chains are left short of the best: the longest are what a loss leaves.
    passes_over_shares: usize = 24,
    /// A pass that moves no rank's load by more than this part of the mean is the last.
    still: f64 = 6e-4,
    /// What shares must take off a layer's busiest rank, as a part of it: less is what whole parts of an expert round.
    worth_of_shares: f64 = 5e-4,
    /// How far off a forecast of an expert's tokens is by relative standard deviation, at least: windows of recorded loads
    /// that follow each other differ by about as much.
    least_uncertainty: f64 = 0.05,
}

Policy {
    /// The gain in balance ratio from which on pages move, usually. What is predicted has noise counted in, so this is only to be
    /// worth the bother.
    minimum_gain: f64 = 0.015,
    /// Gain in balance ratio for which shares change alone: that moves no byte, but each new map is recorded, and less than
    /// this comes and goes from window to window.
    least_gain_of_shares: f64 = 0.0025,
    /// The least gain right after a move is larger by this many times itself, half as many with each further window: what
    /// was moved is not moved back for the noise of a window.
    hysteresis: f64 = 1.0,
    /// Part of the step time that is lost while pages move over a link.
    moving_cost: f64 = 0.05,
}
}

/// A number that half and twice are made of.
trait Scaled {
    fn scaled(self, factor: f64) -> Self;
}

impl Scaled for f64 {
    fn scaled(self, factor: f64) -> Self {
        self * factor
    }
}

impl Scaled for f32 {
    fn scaled(self, factor: f64) -> Self {
        self * factor as Self
    }
}

impl Scaled for usize {
    fn scaled(self, factor: f64) -> Self {
        ((self as f64 * factor).round() as Self).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_reason_and_can_be_scaled_alone() {
        for &Number { name, value, reason, .. } in Tuning::NUMBERS {
            assert!(reason.len() > 30, "{name}: {reason}");
            let twice = Tuning::with_scaled(name, 2.0).unwrap();
            assert_ne!(twice, Tuning::PRODUCT, "{name} of {value}");
            assert_eq!(Tuning::with_scaled(name, 1.0), Some(Tuning::PRODUCT));
        }
        assert_eq!(Tuning::with_scaled("speed", 2.0), None);
        assert_eq!(Tuning::with_scaled("attempts", 0.01).unwrap().attempts, 1);
    }
}
