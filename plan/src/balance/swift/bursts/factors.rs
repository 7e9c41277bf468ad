//! What a copy of each expert multiplies the term of its rank by. Knows nothing of which rank holds what.

use super::fluctuations::Fluctuations;
use super::lanes::Rows;
use crate::transcendental::exp;

/// Which factor of an expert is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    /// With the copies that it has.
    Now,
    /// One over that.
    Inverse,
    /// With a copy more.
    More,
    /// With a copy less.
    Fewer,
}

/// Factors of the experts on ranks of one pace.
#[derive(Debug)]
pub(super) struct Factors {
    /// The sharpness of the soft maximum times the pace: the exponent of a unit of load.
    sharpness: f32,
    /// Of the experts that are alone in their blocks, one for all windows, by [`Which`].
    alone: Vec<[f32; 4]>,
    /// Row of each expert that is not.
    row: Vec<Option<u32>>,
    rows: [Rows; 4],
}

/// A factor for all windows, or one for each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Factor<'a> {
    Alone(f32),
    InBlock(&'a [f32]),
}

impl Factor<'_> {
    pub(super) fn in_window(&self, window: usize) -> f32 {
        match self {
            Self::Alone(factor) => *factor,
            Self::InBlock(factors) => factors[window],
        }
    }
}

impl Factors {
    pub(super) fn new(fluctuations: &Fluctuations, sharpness: f32) -> Self {
        let mut rows = 0;
        let row = (0..fluctuations.experts()).map(|expert| {
            (!fluctuations.is_alone(expert)).then(|| {
                rows += 1;
                rows - 1
            })
        });
        let row = row.collect();
        Self {
            sharpness,
            alone: vec![[1.0; 4]; fluctuations.experts()],
            row,
            rows: std::array::from_fn(|_| Rows::zeros(rows as usize, fluctuations.windows())),
        }
    }

    /// Whether an expert has a factor for each window.
    pub(super) fn in_block(&self, expert: usize) -> bool {
        self.row[expert].is_some()
    }

    pub(super) fn get(&self, expert: usize, which: Which) -> Factor<'_> {
        match self.row[expert] {
            None => Factor::Alone(self.alone[expert][which as usize]),
            Some(row) => Factor::InBlock(self.rows[which as usize].row(row as usize)),
        }
    }

    /// Calculates an expert's factors for a number of copies.
    pub(super) fn set(&mut self, fluctuations: &Fluctuations, expert: usize, copies: usize) {
        for which in [Which::Now, Which::Inverse, Which::More, Which::Fewer] {
            let (copies, sign) = match which {
                Which::Now => (copies, 1.0),
                Which::Inverse => (copies, -1.0),
                Which::More => (copies + 1, 1.0),
                // The last copy never goes.
                Which::Fewer => ((copies - 1).max(1), 1.0),
            };
            let unit = self.sharpness / copies as f32;
            if let Some(row) = self.row[expert] {
                let row = self.rows[which as usize].row_mut(row as usize);
                for (factor, load) in row.iter_mut().zip(fluctuations.loads(expert)) {
                    *factor = exp(sign * (unit * load));
                }
            } else {
                self.alone[expert][which as usize] = exp(sign * bandwidth(fluctuations, expert, unit));
            }
        }
    }

    /// Adds the exponents of an expert's factors, [`Which::Now`], to a row.
    pub(super) fn add_exponents(&self, fluctuations: &Fluctuations, expert: usize, copies: usize, row: &mut [f32]) {
        let unit = self.sharpness / copies as f32;
        if self.in_block(expert) {
            row.iter_mut().zip(fluctuations.loads(expert)).for_each(|(sum, load)| *sum += unit * load);
        } else {
            let exponent = bandwidth(fluctuations, expert, unit);
            for sum in row {
                *sum += exponent;
            }
        }
    }
}

/// The exponent of the expectation of `e^(unit * load)`, to the second cumulant: the expert's effective bandwidth.
fn bandwidth(fluctuations: &Fluctuations, expert: usize, unit: f32) -> f32 {
    unit * fluctuations.mean(expert) + 0.5 * unit * unit * fluctuations.variance(expert)
}
