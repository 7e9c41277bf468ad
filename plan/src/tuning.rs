//! The numbers by which placements are searched that the planner is given rather than measures, each with its reason. What half
//! and twice each does is in docs/tuning.md, which `make bench-plan TUNING=1` writes; a number of which neither did anything is
//! not here.

/// Declares [`Tuning`] once: its fields, their values and what is told of them.
macro_rules! tuning {
    ($($(#[doc = $reason:literal])+ $name:ident: $kind:ty = $value:expr,)+) => {
        /// What placements are searched with. The product has one, [`Tuning::PRODUCT`]; the benchmark plans with others to
        /// tell what each number does.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct Tuning {
            $($(#[doc = $reason])+ pub $name: $kind,)+
        }

        impl Tuning {
            /// What the product plans with.
            pub const PRODUCT: Self = Self { $($name: $value,)+ };

            /// Every number: its name, its value in the product and its reason.
            pub const NUMBERS: &'static [(&'static str, f64, &'static str)] =
                &[$((stringify!($name), $value as f64, concat!($($reason),+)),)+];

            /// The product's with one number multiplied; a whole number is rounded and at least 1. `None` if there is no number of
            /// that name.
            #[must_use]
            pub fn with_scaled(name: &str, factor: f64) -> Option<Self> {
                let mut tuning = Self::PRODUCT;
                match name {
                    $(stringify!($name) => tuning.$name = Scaled::scaled(tuning.$name, factor),)+
                    _ => return None,
                }
                Some(tuning)
            }
        }
    };
}

tuning! {
    /// A layer is improved no further once its busiest rank is within this many standard deviations of what a rank's load
    /// will differ from its forecast: the next window undoes finer work.
    within_noise: f64 = 0.8,
    /// The same, in standard deviations, when shares alone take it to within that: they cost no page, so they may do finer work.
    within_noise_by_shares: f64 = 0.6,
    /// Parts of the way to the goal that are left when it is looked at whether shares can do the rest: first this, then a
    /// third of it. More looks cost more time, fewer move pages that shares would have saved.
    first_look_at_shares: f64 = 0.5,
    /// Passes over shares when it is looked at whether they can do the rest: nearly always they have done what they can by
    /// then.
    passes_of_look: usize = 8,
    /// An expert stands out when a copy of it carries this part more than the largest copy of an ideal replication. Packing
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
        for &(name, value, reason) in Tuning::NUMBERS {
            assert!(reason.len() > 30, "{name}: {reason}");
            let twice = Tuning::with_scaled(name, 2.0).unwrap();
            assert_ne!(twice, Tuning::PRODUCT, "{name} of {value}");
            assert_eq!(Tuning::with_scaled(name, 1.0), Some(Tuning::PRODUCT));
        }
        assert_eq!(Tuning::with_scaled("speed", 2.0), None);
        assert_eq!(Tuning::with_scaled("attempts", 0.01).unwrap().attempts, 1);
    }
}
