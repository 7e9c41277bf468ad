//! Fingerprints of pages: a tree of two levels, of the chunks and of the list of those, so that a page can be checked as it
//! arrives, chunk by chunk, and never has to be gone through once more. The same on every device. Knows nothing of devices.

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Bytes of a page that have a fingerprint of their own; its last chunk may have fewer. A page is also sent, received and
/// paid for in these: they stay in a processor's cache while they are checked and put in their place, and are little enough
/// that a step never waits behind one.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Takes fingerprints (XXH3, 128 bits) under a seed: who does not know it can prepare no bytes that have the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprinter {
    seed: u64,
}

impl Fingerprinter {
    /// Under this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Of the bytes of a chunk.
    #[must_use]
    pub fn chunk(self, bytes: &[u8]) -> u128 {
        xxh3_128_with_seed(bytes, self.seed)
    }

    /// Of a page whose chunks have these.
    #[must_use]
    pub fn page(self, chunks: Vec<u128>) -> Fingerprints {
        let list: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_le_bytes()).collect();
        Fingerprints { page: self.chunk(&list), chunks: chunks.into() }
    }

    /// Of a page of these bytes.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> Fingerprints {
        self.page(bytes.chunks(CHUNK_BYTES).map(|chunk| self.chunk(chunk)).collect())
    }
}

/// The fingerprints of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    page: u128,
    chunks: Box<[u128]>,
}

impl Fingerprints {
    /// That of the page: no page has it whose chunks have others.
    #[must_use]
    pub const fn page(&self) -> u128 {
        self.page
    }

    /// Those of its chunks, in order.
    #[must_use]
    pub fn chunks(&self) -> &[u128] {
        &self.chunks
    }
}

/// Chunks of a page of so many bytes.
#[must_use]
pub const fn chunks_of(page_bytes: usize) -> usize {
    page_bytes.div_ceil(CHUNK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_that_of_the_list_of_chunks_and_follows_every_byte_its_place_and_the_seed() {
        let fingerprinter = Fingerprinter::new(3);
        let bytes: Vec<u8> = (0..2 * CHUNK_BYTES + 100).map(|byte| (byte * 31 % 251) as u8).collect();
        let right = fingerprinter.of(&bytes);
        assert_eq!((right.chunks().len(), chunks_of(bytes.len())), (3, 3));
        assert_eq!(right.chunks()[2], fingerprinter.chunk(&bytes[2 * CHUNK_BYTES..]));
        assert_eq!(right, fingerprinter.page(right.chunks().to_vec()));
        for (place, changed) in [(0, 0), (CHUNK_BYTES - 1, 0), (CHUNK_BYTES, 1), (bytes.len() - 1, 2)] {
            let mut other = bytes.clone();
            other[place] ^= 1;
            let other = fingerprinter.of(&other);
            assert_ne!(other.page(), right.page());
            let differ = (0..3).filter(|&chunk| other.chunks()[chunk] != right.chunks()[chunk]);
            assert_eq!(differ.collect::<Vec<_>>(), [changed]);
        }
        let mut swapped = right.chunks().to_vec();
        swapped.swap(0, 1);
        assert_ne!(fingerprinter.page(swapped).page(), right.page());
        assert_ne!(Fingerprinter::new(4).of(&bytes).page(), right.page());
    }

    #[test]
    fn pages_of_whole_chunks_and_of_less_than_one_are_told_apart_from_their_parts() {
        let fingerprinter = Fingerprinter::new(0);
        let bytes = vec![7; 2 * CHUNK_BYTES];
        for length in [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1] {
            let of = fingerprinter.of(&bytes[..length]);
            assert_eq!(of.chunks().len(), chunks_of(length));
            assert_ne!(of.page(), of.chunks()[0]);
            assert_ne!(of.page(), fingerprinter.of(&bytes).page());
        }
    }
}
