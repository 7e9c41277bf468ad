//! Windows that were not seen but could have been. Knows nothing of placements.

use super::fluctuations::Fluctuations;
use super::lanes::Rows;

/// Each expert's load, for ranks with these speeds in all, in `times` times as many windows as were seen, each of which gives a rank of speed 1 a mean
/// load of 1. In each of the new windows every block is as it was in one of those that were seen, but every block in
/// another: what the blocks did together was coincidence, and a plan that relies on it is worse on the next window.
pub(super) fn resample(fluctuations: &Fluctuations, speeds: f64, times: usize, start: u64) -> Rows {
    let (experts, windows) = (fluctuations.experts(), fluctuations.windows());
    let mut rows = Rows::zeros(experts, windows * times);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); experts];
    for expert in 0..experts {
        members[fluctuations.block(expert)].push(expert);
    }
    let mut random = SplitMix(start);
    let mut order: Vec<usize> = (0..windows).collect();
    for block in &members {
        for repeat in 0..if block.is_empty() { 0 } else { times } {
            random.shuffle(&mut order);
            for &expert in block {
                let known = fluctuations.loads(expert);
                let new = &mut rows.row_mut(expert)[repeat * windows..][..windows];
                for (new, &window) in new.iter_mut().zip(&order) {
                    *new = known[window];
                }
            }
        }
    }
    level(&mut rows, speeds);
    rows
}

/// The windows that were seen, each of which gives a rank of speed 1 a mean load of 1.
pub(super) fn seen(fluctuations: &Fluctuations, speeds: f64) -> Rows {
    let mut rows = Rows::zeros(fluctuations.experts(), fluctuations.windows());
    for expert in 0..fluctuations.experts() {
        rows.row_mut(expert).copy_from_slice(fluctuations.loads(expert));
    }
    level(&mut rows, speeds);
    rows
}

/// Scales each window so that a rank of speed 1 has a mean load of 1.
fn level(rows: &mut Rows, speeds: f64) {
    let mut totals = vec![0.0_f32; rows.width()];
    for row in rows.iter() {
        totals.iter_mut().zip(row).for_each(|(total, load)| *total += load);
    }
    for expert in 0..rows.len() {
        for (load, total) in rows.row_mut(expert).iter_mut().zip(&totals) {
            *load = if *total > 0.0 { *load * speeds as f32 / total } else { 0.0 };
        }
    }
}

/// `SplitMix64`, <https://prng.di.unimi.it/splitmix64.c>: one word of state, and the same numbers on every machine.
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            let other = (u128::from(self.next()) * (last as u128 + 1)) >> 64;
            order.swap(last, other as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bursty;
    use super::*;
    use crate::tuning::Tuning;

    #[test]
    fn what_a_block_did_together_it_does_again_and_blocks_meet_anew() {
        let fluctuations = Fluctuations::estimate(&Bursty::default().windows(64), 8.0, &Tuning::PRODUCT).unwrap();
        let rows = resample(&fluctuations, 8.0, 3, 1);
        // Against the first expert of the block, so that the scale of a window does not matter.
        let ratios = |row: &[f32], to: &[f32], windows| {
            let mut ratios: Vec<i32> =
                (0..windows).map(|window| (row[window] / to[window] * 1e3).round() as i32).collect();
            ratios.sort_unstable();
            ratios.dedup();
            ratios
        };
        let seen = ratios(fluctuations.loads(1), fluctuations.loads(0), 64);
        assert_eq!(ratios(rows.row(1), rows.row(0), 192), seen);
        assert_ne!(ratios(rows.row(8), rows.row(9), 192), ratios(fluctuations.loads(8), fluctuations.loads(9), 64));
    }

    #[test]
    fn each_window_gives_a_unit_of_speed_a_unit_of_load() {
        let fluctuations = Fluctuations::estimate(&Bursty::default().windows(30), 8.0, &Tuning::PRODUCT).unwrap();
        let rows = resample(&fluctuations, 8.0, 1, 1);
        for window in 0..30 {
            let total: f32 = rows.iter().map(|row| row[window]).sum();
            assert!((total - 8.0).abs() < 1e-4, "{total}");
        }
        assert!(rows.iter().all(|row| row[30..] == [0.0; 2]), "the padding is empty");
        assert_ne!(resample(&fluctuations, 8.0, 1, 2).row(20), rows.row(20));
    }
}
