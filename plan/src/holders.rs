//! Which ranks hold which experts of a layer, as bits.

/// For each expert one bit for each rank.
#[derive(Clone, Debug)]
pub(crate) struct Holders {
    bits: Vec<u64>,
    /// Words of each expert.
    words: usize,
}

impl Holders {
    /// No rank holds anything.
    pub(crate) fn new(experts: usize, ranks: usize) -> Self {
        let words = ranks.div_ceil(64);
        Self { bits: vec![0; experts * words], words }
    }

    pub(crate) fn insert(&mut self, rank: usize, expert: usize) {
        self.bits[expert * self.words + rank / 64] |= 1 << (rank % 64);
    }

    pub(crate) fn remove(&mut self, rank: usize, expert: usize) {
        self.bits[expert * self.words + rank / 64] &= !(1 << (rank % 64));
    }

    pub(crate) fn has(&self, rank: usize, expert: usize) -> bool {
        self.bits[expert * self.words + rank / 64] >> (rank % 64) & 1 == 1
    }

    /// The ranks that hold an expert, ascending.
    pub(crate) fn of(&self, expert: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.words).flat_map(move |part| self.of_part(expert, part))
    }

    /// Number of ranks that hold an expert.
    pub(crate) fn count(&self, expert: usize) -> usize {
        self.bits[expert * self.words..][..self.words].iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Number of ranks that hold an expert, among those with a bit in `ranks`, `[words]`.
    pub(crate) fn count_among(&self, expert: usize, ranks: &[u64]) -> usize {
        let words = self.bits[expert * self.words..][..self.words].iter().zip(ranks);
        words.map(|(word, ranks)| (word & ranks).count_ones() as usize).sum()
    }

    /// Number of parts that [`Holders::of_part`] gives.
    pub(crate) const fn parts(&self) -> usize {
        self.words
    }

    /// Those among ranks `64 * part..`, 64 of them, for callers that change what they walk over.
    pub(crate) fn of_part(&self, expert: usize, part: usize) -> impl Iterator<Item = usize> + use<> {
        Bits(self.bits[expert * self.words + part]).map(move |bit| part * 64 + bit)
    }

    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.bits.copy_from_slice(&other.bits);
    }
}

/// The bits that are set, ascending.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_holds_what_was_inserted_until_it_is_removed() {
        let mut holders = Holders::new(3, 130);
        for rank in [0, 63, 64, 129] {
            holders.insert(rank, 1);
        }
        holders.remove(63, 1);
        assert_eq!(holders.of(1).collect::<Vec<_>>(), [0, 64, 129]);
        assert_eq!((holders.count(0), holders.count(1)), (0, 3));
        assert!(holders.has(64, 1) && !holders.has(63, 1) && !holders.has(64, 0) && !holders.has(64, 2));
    }
}
