//! Lines that are all zero and take no memory before they are used: the system gives each page of them with the first access.

use bytemuck::allocation::try_zeroed_slice_box;

use super::simd::{LANES, Line};
use crate::error::DeviceError;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Untouched {
    /// What is asked for as lines, which are aligned to more than the system's zeroed memory is, would be written to at once.
    words: Box<[u32]>,
    /// The first word that is aligned as a line.
    first: usize,
    count: usize,
}

impl Untouched {
    /// So many lines.
    pub fn zeroed(count: usize) -> Result<Self, DeviceError> {
        let bytes = (count as u64).saturating_mul(size_of::<Line>() as u64);
        let words = count.checked_add(1).and_then(|count| count.checked_mul(LANES));
        let words: Option<Box<[u32]>> = words.and_then(|words| try_zeroed_slice_box(words).ok());
        let words = words.ok_or(DeviceError::Memory { bytes })?;
        let first = words.as_ptr().align_offset(align_of::<Line>());
        Ok(Self { words, first, count })
    }

    pub fn lines(&self) -> &[Line] {
        bytemuck::cast_slice(&self.words[self.first..][..self.count * LANES])
    }

    pub fn lines_mut(&mut self) -> &mut [Line] {
        bytemuck::cast_slice_mut(&mut self.words[self.first..][..self.count * LANES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of memory that this process has.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn what_is_not_used_takes_no_memory_and_all_of_it_is_zero() {
        // As much as no other test of this process takes.
        let (count, before) = ((4 << 30) / size_of::<Line>(), resident());
        let mut untouched = Untouched::zeroed(count).unwrap();
        assert!(resident() < before + (1 << 30));
        assert_eq!(untouched.lines().len(), count);
        untouched.lines_mut()[count - 1].0[LANES - 1] = 7;
        assert_eq!(untouched.lines()[count - 1].0, [[0; LANES - 1].as_slice(), &[7]].concat()[..]);
        assert_eq!(untouched.lines()[count / 2].0, [0; LANES]);
        assert!(Untouched::zeroed(usize::MAX).is_err() && Untouched::zeroed(usize::MAX / 100).is_err());
    }
}
