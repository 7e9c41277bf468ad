//! How placements of a layer do on the windows that were seen. Knows nothing of how they were found.

use super::ranks::Ranks;
use crate::balance::Branch;
use crate::balance::forecast::Forecast;
use crate::ids::LayerId;
use crate::load::ExpertLoad;

/// A layer's loads in the windows that say something.
pub(super) struct Seen<'a> {
    ranks: &'a Ranks,
    experts: usize,
    /// `[windows, experts]`, each window with what it counts in the forecast.
    windows: Vec<(f64, Vec<f64>)>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(windows: &[ExpertLoad], forecast: &Forecast, layer: LayerId, ranks: &'a Ranks) -> Self {
        let counted = windows.iter().zip(forecast.weights()).map(|(window, weight)| (*weight, window.layer(layer)));
        let counted = counted.filter(|(weight, row)| *weight > 0.0 && row.iter().any(|&tokens| tokens > 0));
        let windows =
            counted.map(|(weight, row)| (weight, row.iter().map(|&tokens| tokens as f64).collect())).collect();
        Self { ranks, experts: forecast.experts(), windows }
    }

    /// The one of a placement and that of the published algorithm that is better on the windows; of equals the first.
    pub(super) fn better(&self, first: (Branch, Vec<u16>), published: &[u16]) -> (Branch, Vec<u16>) {
        if self.ratio(published) > self.ratio(&first.1) { (Branch::Published, published.to_vec()) } else { first }
    }

    /// Mean over the windows, by what they count, of mean level / highest level, copies sharing evenly.
    fn ratio(&self, slots: &[u16]) -> f64 {
        let mut counts = vec![0.0_f64; self.experts];
        for &expert in slots {
            counts[usize::from(expert)] += 1.0;
        }
        let of_window = |(weight, loads): &(f64, Vec<f64>)| {
            let copy = |expert: &u16| loads[usize::from(*expert)] / counts[usize::from(*expert)];
            let level =
                |rank: usize| slots[self.ranks.slots(rank)].iter().map(copy).sum::<f64>() * self.ranks.pace(rank);
            let top = (0..self.ranks.len()).map(level).fold(f64::MIN_POSITIVE, f64::max);
            weight * loads.iter().sum::<f64>() / self.ranks.speed() / top
        };
        self.windows.iter().map(of_window).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_placement_that_is_better_on_the_windows_that_count_is_taken() {
        let load = |row: [u64; 4]| ExpertLoad::from_rows(&[row.to_vec()]).unwrap();
        let windows = [load([90, 90, 10, 10]), load([0; 4]), load([90, 80, 20, 10])];
        let counted = [windows[0].clone(), windows[2].clone()];
        let (ranks, layer) = (Ranks::even(2, 2), LayerId(0));
        let seen = Seen::new(&counted, &Forecast::new(&windows, ranks.tuning()), layer, &ranks);
        let (bad, good) = (vec![0, 1, 2, 3], vec![0, 2, 1, 3]);
        let better = |first: &Vec<u16>, other: &[u16]| seen.better((Branch::Scratch, first.clone()), other);
        assert_eq!(better(&bad, &good), (Branch::Published, good.clone()));
        assert_eq!(better(&good, &bad), (Branch::Scratch, good.clone()));
        assert!((seen.ratio(&bad) - 0.5 * (100.0 / 180.0 + 100.0 / 170.0)).abs() < 1e-12);
    }
}
