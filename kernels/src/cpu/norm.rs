//! Root mean square norms, and the norm and rotation of attention heads.

use super::simd::{Kernel, LANES, Vector};
use crate::backend::HeadShape;

/// `1 / sqrt(mean(row^2) + epsilon)`. Lane `i` adds up the elements `i`, `i + 16`, ...; then the lanes are added.
#[inline(always)]
fn inverse_rms<X: Vector>(x: X, row: &[f32], epsilon: f32) -> f32 {
    let mut sum = x.splat(0.0);
    for part in row.chunks(LANES) {
        let value = x.load_part(part);
        sum = x.fma(value, value, sum);
    }
    1.0 / (x.sum(sum) / row.len() as f32 + epsilon).sqrt()
}

/// Norms each row of `x` into `out`.
pub(crate) struct RmsNorm<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub epsilon: f32,
    pub out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<X: Vector>(self, x: X) {
        let width = self.weight.len();
        for (row, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let scale = x.splat(inverse_rms(x, row, self.epsilon));
            for ((out, row), weight) in out.chunks_mut(LANES).zip(row.chunks(LANES)).zip(self.weight.chunks(LANES)) {
                let value = x.mul(x.mul(x.load_part(row), scale), x.load_part(weight));
                x.store_part(value, out);
            }
        }
    }
}

/// Norms and rotates the query and key heads of each row.
pub(crate) struct Rotate<'a> {
    pub projected: &'a mut [f32],
    pub heads: HeadShape,
    pub query_norm: &'a [f32],
    pub key_norm: &'a [f32],
    pub epsilon: f32,
    pub angles: &'a [f32],
    pub positions: &'a [u32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<X: Vector>(self, x: X) {
        let HeadShape { query, key_value, dimension } = self.heads;
        let width = self.heads.projected_width();
        let half = dimension / 2;
        for (row, position) in self.projected.chunks_exact_mut(width).zip(self.positions) {
            let angles = &self.angles[*position as usize * dimension..][..dimension];
            let (cosines, sines) = angles.split_at(half);
            for (index, head) in row.chunks_exact_mut(dimension).take(query + key_value).enumerate() {
                let weight = if index < query { self.query_norm } else { self.key_norm };
                let scale = x.splat(inverse_rms(x, head, self.epsilon));
                let (low, high) = head.split_at_mut(half);
                let (low_weight, high_weight) = weight.split_at(half);
                for start in (0..half).step_by(LANES) {
                    let range = start..half.min(start + LANES);
                    let (cos, sin) = (x.load_part(&cosines[range.clone()]), x.load_part(&sines[range.clone()]));
                    let a = x.mul(x.load_part(&low[range.clone()]), scale);
                    let a = x.mul(a, x.load_part(&low_weight[range.clone()]));
                    let b = x.mul(x.load_part(&high[range.clone()]), scale);
                    let b = x.mul(b, x.load_part(&high_weight[range.clone()]));
                    x.store_part(x.sub(x.mul(a, cos), x.mul(b, sin)), &mut low[range.clone()]);
                    x.store_part(x.add(x.mul(b, cos), x.mul(a, sin)), &mut high[range]);
                }
            }
        }
    }
}
