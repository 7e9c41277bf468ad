//! A link among GPUs wherever their ranks are: kernels store rows in frames of a constant size, which NCCL exchanges. How much of a frame
//! is meant stands in it, so that no host has to know.

use std::sync::Arc;
use std::time::Duration;

use super::super::context::Context;
use super::super::memory::Allocation;
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

/// A rank's end.
#[derive(Debug)]
pub(super) struct CollectiveLink {
    end: End,
    context: Arc<Context>,
    communicator: Communicator,
    leaving: Frames,
    coming: Frames,
}

impl CollectiveLink {
    pub fn new(shared: &Shared, name: LinkName, shape: LinkShape, patience: Duration) -> Result<Self, DeviceError> {
        let (group, context) = (shape.group, Arc::clone(&shared.context));
        let (leaving, coming) = (Frames::new(&context, shape)?, Frames::new(&context, shape)?);
        let [rows, pairs, results] = Self::each(shape);
        let peer = |rank: usize| LinkPeer {
            rows: leaving.rows.address() + (rank * rows) as u64,
            pairs: leaving.pairs.address() + (rank * pairs) as u64,
            homes: leaving.results.address() + (rank * results) as u64,
            given_flag: 0,
            home_flag: 0,
        };
        let peers: Vec<LinkPeer> = (0..group.ranks).map(peer).collect();
        let linked = Linked {
            rows: coming.rows.address(),
            homes: coming.results.address(),
            home_each: group.pairs_between() as u32,
        };
        let end = End::new(shared, shape, &peers, (coming.pairs.address(), linked))?;
        let communicator = Communicator::join(&context, name, (group.ranks, group.rank), patience)?;
        Ok(Self { end, context, communicator, leaving, coming })
    }

    /// Bytes of what one rank has for another: rows, pairs, results.
    const fn each(shape: LinkShape) -> [usize; 3] {
        let (group, row) = (shape.group, row_bytes(shape));
        [group.tokens.saturating_mul(row), pair_bytes(shape), group.pairs_between().saturating_mul(row)]
    }

    /// Bytes of what a rank has for all.
    pub fn lists(shape: LinkShape) -> [usize; 3] {
        Self::each(shape).map(|bytes| bytes.saturating_mul(shape.group.ranks))
    }
}

impl Link<Cuda> for CollectiveLink {
    fn begin(&self) {
        self.communicator.begin();
    }

    fn dispatch(&self, queue: &CudaQueue, routing: &mut Routing, x: &Buffer<f32>) {
        self.end.give_rows(queue, routing, x);
        let [rows, pairs, _] = Self::each(self.end.shape);
        let part = |from: &Allocation, to: &Allocation, bytes: usize| AllToAll {
            from: from.address(),
            to: to.address(),
            words: bytes / size_of::<u32>(),
        };
        let (leaving, coming) = (&self.leaving, &self.coming);
        let parts = [part(&leaving.pairs, &coming.pairs, pairs), part(&leaving.rows, &coming.rows, rows)];
        queue.exchange(&self.communicator, &parts);
        self.end.take_pairs(queue, routing);
    }

    fn combine(&self, queue: &CudaQueue, routing: &mut Routing, results: &Buffer<f32>) {
        self.end.give_results(queue, routing, results);
        let [.., each] = Self::each(self.end.shape);
        let (from, to) = (self.leaving.results.address(), self.coming.results.address());
        queue.exchange(&self.communicator, &[AllToAll { from, to, words: each / size_of::<u32>() }]);
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
        // What waits for other ranks goes on, and then nothing uses the frames any more.
        (self.communicator.closer())();
        let _ = self.context.finish();
    }
}
