//! A page on its way. Each chunk is checked as it is put in its place, whoever it comes from, and only what has all of its
//! chunks becomes a page. What one source has given right is not asked of the next one again.

use std::ops::Range;

use kernels::Backend;
use kernels::fingerprint::{CHUNK_BYTES, Fingerprints, chunks_of};

use crate::experts::pages::{Reserved, StagedPage};

/// See the module's documentation.
pub(super) struct Arriving<B: Backend> {
    into: Reserved<B>,
    /// The fingerprint that the page must have.
    expected: u128,
    /// Those of its chunks, once a source has told them.
    chunks: Option<Fingerprints>,
    /// Chunks that are in their places.
    there: usize,
}

/// It is not what was agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

impl<B: Backend> Arriving<B> {
    /// Nothing of the page yet.
    pub const fn new(into: Reserved<B>, expected: u128) -> Self {
        Self { into, expected, chunks: None, there: 0 }
    }

    /// Chunks that are there, and so the number of the first that is missing.
    pub const fn there(&self) -> usize {
        self.there
    }

    /// Takes the fingerprints that a source says the page's chunks have.
    ///
    /// # Errors
    /// If they are not those of the page that was agreed upon.
    pub fn told(&mut self, chunks: Vec<u128>) -> Result<(), Corrupt> {
        if chunks.len() != chunks_of(self.into.page_bytes()) {
            return Err(Corrupt);
        }
        let told = self.into.fingerprinter().page(chunks);
        if told.page() != self.expected {
            return Err(Corrupt);
        }
        self.chunks = Some(told);
        Ok(())
    }

    /// Where the next chunks belong, so many at most, in bytes, and the memory that they are put into; `None` if all are there.
    pub fn next(&mut self, most: usize) -> Option<(Range<usize>, &mut Reserved<B>)> {
        let start = self.there * CHUNK_BYTES;
        let end = start.saturating_add(most.saturating_mul(CHUNK_BYTES)).min(self.into.page_bytes());
        (start < end).then_some((start..end, &mut self.into))
    }

    /// Takes note that the next chunks are in their places, where they have these fingerprints.
    ///
    /// # Errors
    /// If one is another than the chunk's: then it and what comes after it are still missing.
    pub fn put(&mut self, found: &[u128]) -> Result<(), Corrupt> {
        let expected = self.chunks.as_ref().and_then(|chunks| chunks.chunks().get(self.there..)).unwrap_or_default();
        let right = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
        self.there += right;
        if right == 0 || right < found.len() { Err(Corrupt) } else { Ok(()) }
    }

    /// The page.
    ///
    /// # Panics
    /// If chunks of it are missing.
    pub fn finish(self) -> StagedPage<B> {
        let chunks = self.chunks.filter(|chunks| chunks.chunks().len() == self.there);
        self.into.seal(chunks.expect("all chunks are there and were found to be right"))
    }

    /// The memory, for a page that is made elsewhere.
    pub fn into_reserved(self) -> Reserved<B> {
        self.into
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use kernels::backend::PageShape;
    use kernels::cpu::Cpu;
    use kernels::tensor::{MatrixView, Values, WeightKind};
    use kernels::{Arena, Page};

    use super::*;
    use crate::cancel::Cancel;
    use crate::experts::pages::tests::{bytes, map};
    use crate::experts::pages::{HeldPages, RankPages};

    const SHAPE: PageShape = PageShape { hidden: 96, intermediate: 480, kind: WeightKind::F32 };

    fn staging() -> (Arc<RankPages<Cpu>>, Reserved<Cpu>) {
        let arena = Arena::new(Arc::new(Cpu::new(1).with_fingerprint_seed(5)), SHAPE).unwrap();
        let pages = RankPages::new(arena, map(), HeldPages::<Cpu>::new(), 1).unwrap();
        let reserved = pages.reserve(1, Instant::now(), &Cancel::default()).map(|mut reserved| reserved.remove(0));
        (pages, reserved.unwrap_or_else(|_| panic!("one is free")))
    }

    /// A page of another rank.
    fn page() -> Page<Cpu> {
        let arena = Arena::new(Arc::new(Cpu::new(1).with_fingerprint_seed(5)), SHAPE).unwrap();
        let mut page = arena.take().unwrap();
        let values: Vec<f32> = (0..SHAPE.hidden * SHAPE.intermediate).map(|value| value as f32 + 0.5).collect();
        let view = |rows| MatrixView::new(rows, values.len() / rows, Values::F32(&values));
        page.pack(view(SHAPE.intermediate), view(SHAPE.intermediate), view(SHAPE.hidden)).unwrap();
        page
    }

    #[test]
    fn a_wrong_chunk_is_found_where_it_is_and_what_came_before_it_stays() {
        let (_pages, into) = staging();
        let sent = page();
        let (whole, right) = (bytes(&sent), sent.fingerprints());
        assert!(right.chunks().len() > 4 && !whole.len().is_multiple_of(CHUNK_BYTES));
        let mut arriving = Arriving::new(into, right.page());
        assert_eq!(arriving.put(&right.chunks()[..1]), Err(Corrupt), "nothing is known of it yet");
        assert_eq!(arriving.told(right.chunks().to_vec()), Ok(()));
        let bring = |arriving: &mut Arriving<Cpu>, change: u8| {
            let (place, into) = arriving.next(1).unwrap();
            let mut chunk = whole[place.clone()].to_vec();
            *chunk.last_mut().unwrap() ^= change;
            into.fill(place.start, &chunk).unwrap();
            let found = into.fingerprinter().chunk(&chunk);
            arriving.put(&[found])
        };
        assert_eq!(
            [0, 0, 4, 2].map(|change| bring(&mut arriving, change)),
            [Ok(()), Ok(()), Err(Corrupt), Err(Corrupt)]
        );
        assert_eq!(arriving.there(), 2);
        while arriving.next(1).is_some() {
            assert_eq!(bring(&mut arriving, 0), Ok(()));
        }
        let received = arriving.finish().commit();
        assert_eq!(bytes(&received), whole);
        assert_eq!(received.fingerprints(), right);
    }

    #[test]
    fn of_chunks_that_come_together_those_before_the_wrong_one_stay() {
        let (_pages, into) = staging();
        let sent = page();
        let (bytes, right) = (bytes(&sent).len(), sent.fingerprints().clone());
        let mut arriving = Arriving::new(into, right.page());
        assert_eq!(arriving.told(right.chunks().to_vec()), Ok(()));
        let place = |arriving: &mut Arriving<Cpu>, most| arriving.next(most).map(|(place, _)| place);
        assert_eq!(place(&mut arriving, 3), Some(0..3 * CHUNK_BYTES));
        assert_eq!(place(&mut arriving, usize::MAX), Some(0..bytes));
        let mut found = right.chunks()[..4].to_vec();
        found[2] ^= 1;
        assert_eq!((arriving.put(&found), arriving.there()), (Err(Corrupt), 2));
        assert_eq!(place(&mut arriving, 2), Some(2 * CHUNK_BYTES..4 * CHUNK_BYTES));
        assert_eq!((arriving.put(&[]), arriving.there()), (Err(Corrupt), 2), "nothing came");
        let longer = [&right.chunks()[2..], &[7]].concat();
        assert_eq!(arriving.put(&longer), Err(Corrupt));
        assert_eq!(place(&mut arriving, 2), None);
    }

    #[test]
    fn fingerprints_of_another_page_or_of_none_are_not_believed() {
        let (pages, into) = staging();
        let sent = page();
        let right = sent.fingerprints();
        let mut arriving = Arriving::new(into, right.page());
        let mut other = right.chunks().to_vec();
        other[1] ^= 1;
        for told in
            [other, right.chunks()[1..].to_vec(), [right.chunks(), &[0]].concat(), vec![right.page()], Vec::new()]
        {
            assert_eq!(arriving.told(told), Err(Corrupt));
        }
        assert_eq!((arriving.put(&right.chunks()[..1]), arriving.there()), (Err(Corrupt), 0));
        drop(arriving);
        assert_eq!(pages.free(), 1);
    }
}
