//! Which experts a token goes to, and how their outputs are added up.

use super::simd::{Kernel, LANES, Vector};
use crate::backend::RouterShape;

/// Chooses for each row of `logits`.
pub(crate) struct Route<'a> {
    pub logits: &'a [f32],
    pub shape: RouterShape,
    pub experts: &'a mut [u32],
    pub weights: &'a mut [f32],
}

impl Kernel for Route<'_> {
    type Output = ();

    #[inline(always)]
    fn run<X: Vector>(self, x: X) {
        let RouterShape { experts, top_k, normalise } = self.shape;
        let rows = self.logits.chunks_exact(experts);
        let chosen = self.experts.chunks_exact_mut(top_k).zip(self.weights.chunks_exact_mut(top_k));
        for (logits, (experts, weights)) in rows.zip(chosen) {
            best(logits, experts, weights);
            // Softmax is monotonic, so the best logits are the best probabilities; only those are needed, and the sum.
            let largest = x.splat(weights[0]);
            let mut sum = x.splat(0.0);
            for part in logits.chunks(LANES) {
                let mut lanes = [f32::NEG_INFINITY; LANES];
                lanes[..part.len()].copy_from_slice(part);
                sum = x.add(sum, x.exp(x.sub(x.load(&lanes), largest)));
            }
            let sum = x.sum(sum);
            for part in weights.chunks_mut(LANES) {
                let probability = x.div(x.exp(x.sub(x.load_part(part), largest)), x.splat(sum));
                x.store_part(probability, part);
            }
            if normalise {
                let total: f32 = weights.iter().sum();
                for weight in weights.iter_mut() {
                    *weight /= total;
                }
            }
        }
    }
}

/// The best logits of a row with their experts, best first; of equal ones, that of the lower number.
#[inline(always)]
fn best(logits: &[f32], experts: &mut [u32], values: &mut [f32]) {
    let mut found = 0;
    for (expert, &logit) in logits.iter().enumerate() {
        let mut place = if found < values.len() {
            found += 1;
            found - 1
        } else if logit > values[found - 1] {
            found - 1
        } else {
            continue;
        };
        while place > 0 && logit > values[place - 1] {
            values[place] = values[place - 1];
            experts[place] = experts[place - 1];
            place -= 1;
        }
        values[place] = logit;
        experts[place] = expert as u32;
    }
}

/// `out[i] += sum over j of weights[i, j] * x[rows[i, j]]`.
pub(crate) struct Combine<'a> {
    pub x: &'a [f32],
    pub width: usize,
    pub rows: &'a [u32],
    pub weights: &'a [f32],
    pub top_k: usize,
    pub out: &'a mut [f32],
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<X: Vector>(self, x: X) {
        let Self { x: values, width, top_k, .. } = self;
        let chosen = self.rows.chunks_exact(top_k).zip(self.weights.chunks_exact(top_k));
        for (out, (rows, weights)) in self.out.chunks_exact_mut(width).zip(chosen) {
            for start in (0..width).step_by(LANES) {
                let end = width.min(start + LANES);
                let mut sum = x.splat(0.0);
                for (row, weight) in rows.iter().zip(weights) {
                    let row = &values[*row as usize * width..][..width];
                    sum = x.fma(x.splat(*weight), x.load_part(&row[start..end]), sum);
                }
                let out = &mut out[start..end];
                x.store_part(x.add(x.load_part(out), sum), out);
            }
        }
    }
}
