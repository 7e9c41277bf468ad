use std::sync::Arc;

use kernels::backend::PageShape;
use kernels::batch::StepLimits;
use kernels::cpu::Cpu;
use kernels::routing::{Copies, LayerRouting, Slot};
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::{Arena, PageId, StepArea};
use plan::ids::RankId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::protocol::tests::{inputs, seed};

const WIDTH: usize = 2;
const SLOTS: usize = 3;

/// Rank 0 of two; the other sends what a test says.
struct Scripted(Vec<Frame>);

impl Fabric for Scripted {
    fn rank(&self) -> RankId {
        RankId(0)
    }

    fn ranks(&self) -> usize {
        2
    }

    fn all_to_all(&mut self, _outgoing: &[Frame], incoming: &mut [Frame]) -> Result<(), FabricError> {
        incoming[1] = self.0.remove(0);
        Ok(())
    }
}

/// What becomes of two frames of another rank, where this one has no token.
fn exchange(first: Frame, second: Frame) -> Result<u32, FabricError> {
    let group = GroupShape { ranks: 2, rank: 0, layers: 1, slots: SLOTS, top_k: 2, tokens: 3 };
    let mut exchange = HostExchange::new(Scripted(vec![first, second]), group, WIDTH);
    let (cpu, page) = (Cpu::new(1), PageShape { hidden: WIDTH, intermediate: 1, kind: WeightKind::F32 });
    let queue = cpu.queue().unwrap();
    let copies = Copies { starts: vec![0, 1], slots: vec![Slot { rank: 0, index: 0 }], bounds: vec![0] };
    let mut slots = cpu
        .slots(group, vec![LayerRouting { layer: 0, copies, pages: (0..SLOTS as u32).map(PageId).collect() }])
        .unwrap();
    let mut batch = cpu.batch(StepLimits { tokens: 1, ..StepLimits::default() }, &slots).unwrap();
    queue.upload(&StepArea::default(), &mut batch, &mut slots);
    queue.begin(&mut batch, &mut slots);
    let (mut routing, mut x) = (cpu.routing(group, page).unwrap(), cpu.buffer(group.rows() * WIDTH).unwrap());
    let mut results = cpu.buffer(group.results() * WIDTH).unwrap();
    queue.choose(&batch, &slots, 0, &mut routing);
    Exchange::<Cpu>::dispatch(&mut exchange, &queue, &mut routing, &mut x)?;
    queue.sort(&mut slots, 0, &mut routing);
    let weights = Values::F32(&[0.0; WIDTH]);
    let (wide, high) = (MatrixView::new(1, WIDTH, weights), MatrixView::new(WIDTH, 1, weights));
    let arena = Arena::new(Arc::new(cpu), page).unwrap();
    let mut pages: Vec<_> = (0..SLOTS).map(|_| arena.take().unwrap()).collect();
    for page in &mut pages {
        page.pack(wide, wide, high).unwrap();
    }
    queue.experts(arena.memory(), &routing, &x, &mut results);
    Exchange::<Cpu>::combine(&mut exchange, &queue, &mut routing, &mut results)?;
    Ok(queue.collect(&batch, &slots).unwrap().pairs.iter().sum())
}

fn frame(indices: &[u32], rows: usize) -> Frame {
    Frame { indices: indices.to_vec(), values: vec![1.0; rows * WIDTH] }
}

#[test]
fn a_frame_that_does_not_say_what_it_holds_is_a_broken_peer() {
    assert_eq!(exchange(frame(&[2, 1, 0, 2, 1, 2], 2), Frame::default()).unwrap(), 3);
    assert_eq!(exchange(Frame::default(), Frame::default()).unwrap(), 0);
    for (indices, rows, expected) in [
        (&[2, 1, 0, 1, 1][..], 1, "a frame says that it has 2 rows of 2 values, and has 2 values"),
        (&[], 1, "a frame says that it has 0 rows of 2 values, and has 2 values"),
        (&[1], 1, "a frame of 1 row ends in row 0, counted from 0"),
        (&[2, 1, 0], 2, "a frame of 2 rows ends in row 1, counted from 0"),
        (&[1, 2, 0], 1, "a frame of 1 row ends in row 0, counted from 0"),
        (&[1, u32::MAX, 0], 1, "a frame of 1 row ends in row 0, counted from 0"),
        (&[1, 1, 3], 1, "a frame names slot 3 for row 0, and the last is 2"),
        (&[1, 1, u32::MAX], 1, "a frame names slot 4294967295 for row 0, and the last is 2"),
        (&[1, 1, 0, 5], 1, "a frame of 1 row goes on with 1 number"),
        (&[4, 0, 0, 0, 0], 4, "a frame has more rows, 4, than a step, which has 3 tokens at most"),
        (&[1, 7, 0, 0, 0, 0, 0, 0, 0], 1, "a frame has more pairs, 7, than a step has at most, 6"),
    ] {
        let error = exchange(frame(indices, rows), Frame::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{indices:?}: {error}");
    }
    let error = exchange(Frame::default(), frame(&[], 1)).unwrap_err();
    assert!(error.to_string().contains("it was sent 0 pairs, each worth 2 values, and gave back 2 values"), "{error}");
}

#[test]
fn no_frame_of_another_rank_ends_this_one() {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..inputs(20_000) {
        let mut any = || {
            let count = random.random_range(0..8);
            let mut index = |_| if random.random_bool(0.1) { random.random() } else { random.random_range(0..4) };
            let indices: Vec<u32> = (0..count).map(&mut index).collect();
            let rows = if random.random_bool(0.8) { indices.first().copied().unwrap_or(0).min(8) } else { 3 };
            frame(&indices, rows as usize)
        };
        let (first, second) = (any(), any());
        if let Ok(pairs) = exchange(first.clone(), second) {
            assert!((pairs as usize) < first.indices.len().max(1), "{first:?}");
        }
    }
}
