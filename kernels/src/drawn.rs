//! Weights that are drawn instead of read: each is a function of a seed, its tensor's name and its place in it, and of nothing else.
//! So every device, rank and thread draws the same bits, in any order, and a page that is drawn again equals the one that was.
//!
//! A value is the sum of four numbers of 16 bits that are uniform, which is close to a normal distribution and never further from
//! its middle than 3.5 deviations. All of it is integers but the last two steps, a product and a sum, each rounded once.

use half::bf16;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::tensor::WeightKind;

/// The deviation of a sum of four uniform numbers of 16 bits: 65536 / sqrt(3).
const DEVIATION: f32 = 37_837.23;

/// The middle of such a sum.
const MIDDLE: i32 = 2 * 0xffff;

/// What one place is from the next before all is mixed: an odd number without a pattern.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Consecutive values of a tensor that is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// Of the seed and the tensor.
    pub(crate) key: u64,
    /// Place of the first in the tensor.
    pub(crate) first: u64,
    /// How many.
    pub(crate) len: usize,
    /// What they are around.
    pub(crate) middle: f32,
    /// What a unit of a sum becomes.
    pub(crate) unit: f32,
}

impl Drawn {
    /// All `len` values of the tensor of this name, around `middle`.
    #[must_use]
    pub fn new(seed: u64, tensor: &str, len: usize, (middle, deviation): (f32, f32)) -> Self {
        let key = xxh3_64_with_seed(tensor.as_bytes(), seed);
        Self { key, first: 0, len, middle, unit: deviation / DEVIATION }
    }

    /// Some of these.
    ///
    /// # Panics
    /// If they are not all among these.
    #[must_use]
    pub fn part(self, first: usize, len: usize) -> Self {
        assert!(first + len <= self.len, "{len} values from {first} of {}", self.len);
        Self { first: self.first + first as u64, len, ..self }
    }

    /// Value `index` as it is kept, widened.
    pub(crate) fn get(&self, index: usize, kind: WeightKind) -> f32 {
        let value = self.value(index);
        match kind {
            WeightKind::Bf16 => bf16::from_f32(value).to_f32(),
            WeightKind::F32 => value,
        }
    }

    fn value(&self, index: usize) -> f32 {
        let place = self.first + index as u64 + 1;
        let mut bits = self.key.wrapping_add(place.wrapping_mul(STEP));
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        self.middle + (sum as i32 - MIDDLE) as f32 * self.unit
    }

    /// All of them as bfloat16.
    pub(crate) fn to_bf16(self) -> impl Iterator<Item = bf16> {
        (0..self.len).map(move |index| bf16::from_f32(self.value(index)))
    }

    /// All of them as f32.
    pub(crate) fn to_f32(self) -> impl Iterator<Item = f32> {
        (0..self.len).map(move |index| self.value(index))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::PageShape;
    use crate::cpu::Cpu;
    use crate::tensor::{MatrixView, Values};
    use crate::{Arena, Backend};

    #[test]
    fn a_value_follows_from_seed_name_and_place_alone() {
        let all = Drawn::new(7, "model.norm.weight", 1000, (0.0, 0.02));
        let part = all.part(990, 10);
        for index in 0..10 {
            assert_eq!(part.value(index).to_bits(), all.value(990 + index).to_bits());
        }
        for other in [Drawn::new(8, "model.norm.weight", 1000, (0.0, 0.02)), Drawn::new(7, "a", 1000, (0.0, 0.02))] {
            assert!((0..1000).filter(|&index| other.value(index).to_bits() == all.value(index).to_bits()).count() < 5);
        }
    }

    /// These never change: measurements of two releases are of one model.
    #[test]
    fn the_bits_of_a_seed_are_these_for_ever() {
        let drawn = Drawn::new(1, "model.layers.0.mlp.experts.0.gate_proj.weight", 4, (0.0, 0.02));
        let found: Vec<u32> = drawn.to_f32().map(f32::to_bits).collect();
        assert_eq!(found, [0x3c6a_5ae8, 0xbd0d_26bc, 0xbc8d_75fe, 0x3d00_b832]);
        let found: Vec<u16> = drawn.to_bf16().map(bf16::to_bits).collect();
        assert_eq!(found, [0x3c6a, 0xbd0d, 0xbc8d, 0x3d01]);
    }

    #[test]
    fn a_device_keeps_what_is_drawn_as_it_keeps_what_is_read() {
        let (intermediate, hidden) = (40, 72);
        for kind in [WeightKind::Bf16, WeightKind::F32] {
            let tensor = |name: &str| Drawn::new(5, name, intermediate * hidden, (0.0, 0.1));
            // A matrix of a page may be several tensors, or a part of one.
            let half = intermediate * hidden / 2;
            let gate = [tensor("a").part(7, half), tensor("b").part(0, half)];
            let (up, down) = ([tensor("c")], [tensor("d")]);
            let drawn = [&gate[..], &up, &down];
            let device = Arc::new(Cpu::new(1));
            let bytes = |matrices: [Values<'_>; 3]| {
                let arena = Arena::new(Arc::clone(&device), PageShape { hidden, intermediate, kind }).unwrap();
                let mut page = arena.take().unwrap();
                let rows = [intermediate, intermediate, hidden];
                let [gate, up, down] = [0, 1, 2]
                    .map(|index| MatrixView::new(rows[index], intermediate * hidden / rows[index], matrices[index]));
                page.pack(gate, up, down).unwrap();
                let mut bytes = vec![0; Cpu::page_bytes(arena.shape())];
                page.read(0, &mut bytes).unwrap();
                bytes
            };
            let values = drawn.map(|parts| Values::Drawn { kind, parts });
            let narrow = drawn.map(|parts| parts.iter().copied().flat_map(Drawn::to_bf16).collect::<Vec<_>>());
            let wide = drawn.map(|parts| parts.iter().copied().flat_map(Drawn::to_f32).collect::<Vec<_>>());
            let read = [0, 1, 2].map(|index| match kind {
                WeightKind::Bf16 => Values::Bf16(&narrow[index]),
                WeightKind::F32 => Values::F32(&wide[index]),
            });
            assert!(bytes(values) == bytes(read), "{kind:?}");
            for index in [0, half - 1, half, 2 * half - 1] {
                assert_eq!(values[0].get(index).to_bits(), read[0].get(index).to_bits());
            }
        }
    }

    #[test]
    fn values_have_the_middle_and_the_deviation_that_were_asked_for_and_stay_near() {
        let (middle, deviation, count) = (1.0, 0.25, 100_000);
        let drawn = Drawn::new(3, "a", count, (middle, deviation));
        let values: Vec<f64> = drawn.to_f32().map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / count as f64;
        let spread = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64).sqrt();
        assert!((mean - 1.0).abs() < 0.004 && (spread - 0.25).abs() < 0.003, "{mean}, {spread}");
        assert!(values.iter().all(|value| (value - 1.0).abs() <= 3.5 * 0.25));
        let neighbours = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum::<f64>() / count as f64;
        assert!(neighbours.abs() < 0.001, "{neighbours}");
    }
}
