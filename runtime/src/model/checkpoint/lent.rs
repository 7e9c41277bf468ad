//! Memory that weights are read into. It is lent out, given back and lent again: memory that is fresh costs a page fault for each
//! 4 KiB, which takes as much time as all else that is done with what is read.

use std::sync::{Mutex, MutexGuard, PoisonError};

use half::{bf16, f16};
use kernels::drawn::Drawn;
use kernels::tensor::{MatrixView, Values, WeightKind};
use safetensors::Dtype;

/// Memory that nobody has now: as many pieces as were out at a time, each as large as the largest that it was lent for.
#[derive(Debug, Default)]
pub(super) struct Lender(Mutex<Vec<Vec<u32>>>);

impl Lender {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u32>>> {
        // It is whole, whoever has panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for `len` values; what is in it is what was last read into it.
    pub fn lend(&self, dtype: Dtype, len: usize) -> Lent<'_> {
        let words = (len * dtype.bitsize() / 8).div_ceil(size_of::<u32>());
        // The last that came back is the likeliest to be in a cache.
        let mut memory = self.lock().pop().unwrap_or_default();
        if memory.capacity() < words {
            memory = vec![0; words];
        } else if memory.len() < words {
            memory.resize(words, 0);
        }
        Lent { lender: self, dtype, len, memory }
    }

    /// Gives what nobody has now to the system.
    pub fn forget(&self) {
        self.lock().clear();
    }
}

/// Weights of a model, for whoever keeps them.
#[derive(Debug)]
pub(in super::super) enum Loaded<'a> {
    /// They were read from disk.
    Read(Lent<'a>),
    /// They are drawn where they are kept.
    Drawn { kind: WeightKind, parts: Vec<Drawn> },
}

impl Loaded<'_> {
    pub fn values(&self) -> Values<'_> {
        match self {
            Self::Read(lent) => lent.values(),
            Self::Drawn { kind, parts } => Values::Drawn { kind: *kind, parts },
        }
    }

    pub fn matrix(&self, rows: usize) -> MatrixView<'_> {
        let values = self.values();
        MatrixView::new(rows, values.len() / rows, values)
    }
}

/// Weights that were read from disk.
#[derive(Debug)]
pub(in super::super) struct Lent<'a> {
    lender: &'a Lender,
    dtype: Dtype,
    len: usize,
    memory: Vec<u32>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.lender.lock().push(std::mem::take(&mut self.memory));
    }
}

impl Lent<'_> {
    /// Where `len` values from `first` on are to be read into.
    pub(super) fn bytes_mut(&mut self, first: usize, len: usize) -> &mut [u8] {
        let width = self.dtype.bitsize() / 8;
        &mut bytemuck::cast_slice_mut(&mut self.memory)[first * width..][..len * width]
    }

    pub fn values(&self) -> Values<'_> {
        match self.dtype {
            Dtype::BF16 => Values::Bf16(self.of()),
            Dtype::F16 => Values::F16(self.of()),
            _ => Values::F32(self.of()),
        }
    }

    fn of<T: bytemuck::AnyBitPattern>(&self) -> &[T] {
        let words = (self.len * size_of::<T>()).div_ceil(size_of::<u32>());
        &bytemuck::cast_slice(&self.memory[..words])[..self.len]
    }

    pub(super) fn first_not_finite(&self) -> Option<usize> {
        match self.values() {
            Values::Bf16(values) => first(values, |value: &bf16| value.to_bits() & 0x7f80 == 0x7f80),
            Values::F16(values) => first(values, |value: &f16| value.to_bits() & 0x7c00 == 0x7c00),
            Values::F32(values) => first(values, |value| value.to_bits() & 0x7f80_0000 == 0x7f80_0000),
            Values::Drawn { .. } => None,
        }
    }
}

/// The first value that is `wrong`. Whole pieces are looked through without an end in the middle, which is several times as fast.
fn first<T>(values: &[T], wrong: impl Fn(&T) -> bool) -> Option<usize> {
    const PIECE: usize = 1024;
    let is_wrong = |piece: &[T]| piece.iter().fold(false, |found, value| found | wrong(value));
    let piece = values.chunks(PIECE).position(is_wrong)? * PIECE;
    values[piece..].iter().position(wrong).map(|place| piece + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_came_back_is_lent_again_and_is_large_enough() {
        let lender = Lender::default();
        let address = |lent: &Lent<'_>| lent.memory.as_ptr();
        let first = lender.lend(Dtype::F32, 1000);
        let second = lender.lend(Dtype::BF16, 3);
        assert_ne!(address(&first), address(&second));
        let (large, small) = (address(&first), address(&second));
        drop(second);
        drop(first);
        let again = lender.lend(Dtype::BF16, 2000);
        assert_eq!((address(&again), again.values().len()), (large, 2000));
        let other = lender.lend(Dtype::F16, 4);
        assert_eq!((address(&other), other.values().len()), (small, 4));
        drop(again);
        drop(other);
        assert_eq!(lender.lend(Dtype::F32, 1001).values().len(), 1001);
        lender.forget();
        assert!(lender.lock().is_empty());
    }

    #[test]
    fn the_first_value_that_is_no_number_is_found_wherever_it_is() {
        let lender = Lender::default();
        for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
            let width = dtype.bitsize() / 8;
            for place in [0, 1, 1023, 1024, 2500] {
                let mut loaded = lender.lend(dtype, 2501);
                loaded.bytes_mut(0, 2501).fill(0);
                assert_eq!(loaded.first_not_finite(), None);
                // Negative infinity, or no number, in any of the three.
                loaded.bytes_mut(place, 1)[width - 2..].fill(0xff);
                assert_eq!(loaded.first_not_finite(), Some(place), "{dtype:?}");
                loaded.bytes_mut(1022, 1)[width - 2..].fill(0xff);
                assert_eq!(loaded.first_not_finite(), Some(place.min(1022)), "{dtype:?}");
            }
            // The largest finite number of either sign, and what was there before is not looked at.
            let mut loaded = lender.lend(dtype, 2);
            let largest: &[u8] = match dtype {
                Dtype::BF16 => &[0x7f, 0x7f, 0x7f, 0xff],
                Dtype::F16 => &[0xff, 0x7b, 0xff, 0xfb],
                _ => &[0xff, 0xff, 0x7f, 0x7f, 0xff, 0xff, 0x7f, 0xff],
            };
            loaded.bytes_mut(0, 2).copy_from_slice(largest);
            assert_eq!(loaded.first_not_finite(), None, "{dtype:?}");
        }
    }
}
