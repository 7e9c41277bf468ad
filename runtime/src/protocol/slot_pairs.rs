//! The load of a step as it travels: what each slot computed, in as few bytes each as the largest needs. Whoever adds it up over
//! ranks and steps reads it where it is, since the coordinator does so for every rank in every step.

use plan::words::counted;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// (token, expert) pairs that a rank computed in each of its slots, `[layers, slots_per_rank]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Packed")]
pub struct SlotPairs {
    width: Width,
    /// Little endian.
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

/// Bytes of a slot's pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Width {
    #[default]
    One,
    Two,
    Four,
}

/// As they arrive.
#[derive(Deserialize)]
struct Packed {
    width: Width,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

/// The last slot has not all of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("pairs of slots of {} each do not fill {}", counted(*width, "byte"), counted(*bytes, "byte"))]
struct CutShort {
    bytes: usize,
    width: usize,
}

impl Width {
    const fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

impl TryFrom<Packed> for SlotPairs {
    type Error = CutShort;

    fn try_from(Packed { width, bytes }: Packed) -> Result<Self, CutShort> {
        if bytes.len().is_multiple_of(width.bytes()) {
            return Ok(Self { width, bytes });
        }
        Err(CutShort { bytes: bytes.len(), width: width.bytes() })
    }
}

impl From<&[u32]> for SlotPairs {
    fn from(pairs: &[u32]) -> Self {
        match pairs.iter().copied().max().unwrap_or(0) {
            0..=0xff => Self { width: Width::One, bytes: pairs.iter().map(|&pairs| pairs as u8).collect() },
            0x100..=0xffff => {
                let bytes = pairs.iter().flat_map(|&pairs| (pairs as u16).to_le_bytes());
                Self { width: Width::Two, bytes: bytes.collect() }
            }
            _ => {
                let bytes = pairs.iter().flat_map(|pairs| pairs.to_le_bytes());
                Self { width: Width::Four, bytes: bytes.collect() }
            }
        }
    }
}

impl FromIterator<u32> for SlotPairs {
    fn from_iter<T: IntoIterator<Item = u32>>(pairs: T) -> Self {
        Self::from(pairs.into_iter().collect::<Vec<_>>().as_slice())
    }
}

impl SlotPairs {
    /// Slots whose pairs they are.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.bytes.len() / self.width.bytes()
    }

    /// The most pairs of a slot; 0 if there are no slots.
    #[must_use]
    pub fn most(&self) -> u32 {
        let most = match self.width {
            Width::One => self.bytes.iter().max().map(|&pairs| pairs.into()),
            Width::Two => two(&self.bytes).max().map(u32::from),
            Width::Four => four(&self.bytes).max(),
        };
        most.unwrap_or(0)
    }

    /// Adds them to `sums`, slot by slot.
    pub fn add_to(&self, sums: &mut [u64]) {
        match self.width {
            Width::One => sums.iter_mut().zip(&self.bytes).for_each(|(sum, &pairs)| *sum += u64::from(pairs)),
            Width::Two => sums.iter_mut().zip(two(&self.bytes)).for_each(|(sum, pairs)| *sum += u64::from(pairs)),
            Width::Four => sums.iter_mut().zip(four(&self.bytes)).for_each(|(sum, pairs)| *sum += u64::from(pairs)),
        }
    }

    /// Adds up those of each `slots` in a row, onto `sums` in their order.
    pub fn add_rows_to(&self, slots: usize, sums: &mut [u64]) {
        let rows = sums.iter_mut().zip(self.bytes.chunks(slots * self.width.bytes()));
        match self.width {
            Width::One => rows.for_each(|(sum, row)| *sum += row.iter().map(|&pairs| u64::from(pairs)).sum::<u64>()),
            Width::Two => rows.for_each(|(sum, row)| *sum += two(row).map(u64::from).sum::<u64>()),
            Width::Four => rows.for_each(|(sum, row)| *sum += four(row).map(u64::from).sum::<u64>()),
        }
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let mut sum = [0];
        self.add_rows_to(self.slots().max(1), &mut sum);
        sum[0]
    }
}

fn two(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks().0.iter().map(|&pairs| u16::from_le_bytes(pairs))
}

fn four(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|&pairs| u32::from_le_bytes(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_the_same_in_as_few_bytes_as_the_largest_needs() {
        for (largest, width) in [(0, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 4), (u32::MAX, 4)] {
            let pairs = [3, largest, 0, 200];
            let packed = SlotPairs::from(&pairs[..]);
            assert_eq!((packed.slots(), packed.most(), packed.bytes.len()), (4, largest.max(200), 4 * width));
            let read: SlotPairs = postcard::from_bytes(&postcard::to_allocvec(&packed).unwrap()).unwrap();
            assert_eq!(read, packed);
            let mut sums = [10, 20, 30, 40];
            read.add_to(&mut sums);
            assert_eq!(sums, [13, 20 + u64::from(largest), 30, 240]);
            assert_eq!(read.sum(), 203 + u64::from(largest));
            let mut rows = [1, 2];
            read.add_rows_to(2, &mut rows);
            assert_eq!(rows, [4 + u64::from(largest), 202]);
        }
        let none = SlotPairs::from_iter([]);
        assert_eq!((none.slots(), none.most(), none.sum()), (0, 0, 0));
    }

    #[test]
    fn pairs_that_end_within_a_slot_are_not_read() {
        let packed = |width, bytes| SlotPairs { width, bytes };
        for (width, bytes, whole) in [
            (Width::One, 3, true),
            (Width::Two, 3, false),
            (Width::Two, 4, true),
            (Width::Four, 6, false),
            (Width::Four, 7, false),
            (Width::Four, 8, true),
        ] {
            let sent = postcard::to_allocvec(&packed(width, vec![1; bytes])).unwrap();
            assert_eq!(postcard::from_bytes::<SlotPairs>(&sent).is_ok(), whole, "{bytes} bytes of {width:?}");
        }
    }
}
