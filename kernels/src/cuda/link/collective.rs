//! A link among GPUs wherever their ranks are: kernels store rows in frames, which NCCL exchanges. How much of a frame is sent is the same on
//! all ranks, what the one with the most tokens of the step may need; how much of that is meant stands in it, so that no host has to
//! know. What a rank has for itself it stores where it reads it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::super::context::Context;
use super::super::memory::{Allocation, Mapped};
use super::super::nccl::{AllToAll, Communicator};
use super::super::parameters::LinkPeer;
use super::super::queue::CudaQueue;
use super::super::routing::{Linked, Routing};
use super::super::{Cuda, Shared};
use super::{Buffer, End, pair_bytes, row_bytes};
use crate::error::DeviceError;
use crate::link::{Link, LinkCloser, LinkName, LinkShape, Lost};

/// Frames of all ranks, one after the other, that leave or that come.
#[derive(Debug)]
struct Frames {
    /// `[ranks][tokens][hidden]`
    rows: Allocation,
    /// `[ranks][1 + pairs]`
    pairs: Allocation,
    /// `[ranks][pairs][hidden]`
    results: Allocation,
}

impl Frames {
    fn new(context: &Arc<Context>, shape: LinkShape) -> Result<Self, DeviceError> {
        let [rows, pairs, results] = CollectiveLink::lists(shape).map(|bytes| Allocation::new(context, bytes));
        Ok(Self { rows: rows?, pairs: pairs?, results: results? })
    }
}

/// A rank's end, and what it uses: freed in this order.
#[derive(Debug)]
pub(super) struct CollectiveLink {
    end: End,
    communicator: Communicator,
    leaving: Frames,
    coming: Frames,
    /// Where the device leaves how many layers have passed.
    passed: Arc<Mapped>,
    /// Tokens of this step on the rank with the most.
    tokens: Cell<usize>,
}

impl CollectiveLink {
    pub fn new(shared: &Shared, name: LinkName, shape: LinkShape, patience: Duration) -> Result<Self, DeviceError> {
        let (group, context) = (shape.group, Arc::clone(&shared.context));
        let (leaving, coming) = (Frames::new(&context, shape)?, Frames::new(&context, shape)?);
        let [rows, pairs, results] = Self::each(shape);
        let peer = |rank: usize| {
            let Frames { rows: row_frames, pairs: pair_frames, results: result_frames } =
                if rank == group.rank { &coming } else { &leaving };
            LinkPeer {
                rows: row_frames.address() + (rank * rows) as u64,
                pairs: pair_frames.address() + (rank * pairs) as u64,
                homes: result_frames.address() + (rank * results) as u64,
                given_flag: 0,
                home_flag: 0,
            }
        };
        let peers: Vec<LinkPeer> = (0..group.ranks).map(peer).collect();
        let linked = Linked {
            rows: coming.rows.address(),
            homes: coming.results.address(),
            home_each: group.pairs_between() as u32,
        };
        let end = End::new(shared, shape, &peers, (coming.pairs.address(), linked))?;
        let passed = Arc::new(Mapped::new(&context, size_of::<u64>())?);
        let watched = (Arc::clone(&passed), patience);
        let communicator = Communicator::join(&context, name, (group.ranks, group.rank), watched)?;
        Ok(Self { end, communicator, leaving, coming, passed, tokens: Cell::new(group.tokens) })
    }

    /// Bytes of what one rank has for another: rows, pairs, results.
    const fn each(shape: LinkShape) -> [usize; 3] {
        let (group, row) = (shape.group, row_bytes(shape));
        [group.tokens.saturating_mul(row), pair_bytes(shape), group.pairs_between().saturating_mul(row)]
    }

    /// Exchanges of what a rank has for each other in this step: rows, pairs, results.
    fn parts(&self) -> [AllToAll; 3] {
        let mut step = self.end.shape;
        step.group.tokens = self.tokens.get();
        let (strides, bytes) = (Self::each(self.end.shape), Self::each(step));
        let Self { leaving, coming, .. } = self;
        let lists =
            [(&leaving.rows, &coming.rows), (&leaving.pairs, &coming.pairs), (&leaving.results, &coming.results)];
        std::array::from_fn(|index| {
            let ((from, to), words) = (lists[index], bytes[index] / size_of::<u32>());
            AllToAll { from: from.address(), to: to.address(), stride: strides[index], words }
        })
    }

    /// Bytes of what a rank has for all.
    pub fn lists(shape: LinkShape) -> [usize; 3] {
        Self::each(shape).map(|bytes| bytes.saturating_mul(shape.group.ranks))
    }
}

impl Link<Cuda> for CollectiveLink {
    fn is_uniform(&self) -> bool {
        true
    }

    fn begin(&self, tokens: usize) {
        assert!(tokens <= self.end.shape.group.tokens, "a step within its limits");
        self.tokens.set(tokens);
        self.communicator.begin();
    }

    fn dispatch(&self, queue: &CudaQueue, routing: &mut Routing, x: &Buffer<f32>) {
        self.end.give_rows(queue, routing, x);
        let [rows, pairs, _] = self.parts();
        queue.exchange(&self.communicator, &[pairs, rows]);
        self.end.take_pairs(queue, routing, self.passed.address());
    }

    fn combine(&self, queue: &CudaQueue, routing: &mut Routing, results: &Buffer<f32>) {
        self.end.give_results(queue, routing, results);
        let [.., results] = self.parts();
        queue.exchange(&self.communicator, &[results]);
    }

    fn end(&self) -> Result<(), Lost> {
        self.communicator.end_step()
    }

    fn closer(&self) -> LinkCloser {
        Box::new(self.communicator.closer())
    }
}

impl Drop for CollectiveLink {
    fn drop(&mut self) {
        // What waits for other ranks goes on, and the first memory that is freed waits for all of it.
        (self.communicator.closer())();
    }
}
