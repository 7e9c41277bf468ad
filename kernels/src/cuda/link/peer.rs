//! A link among GPUs whose ranks are threads of this process: kernels store rows in the windows of other ranks, then a flag.
//!
//! Nothing is stored where somebody still reads, though there is one window for all layers and steps. A rank gives rows of the next
//! layer only after all others have given it the results of this one, which they did after their experts had read their windows. And
//! it gives results only after all others have given it rows, which they did after they had added up the results of the layer
//! before. So each pair of ranks waits for each other twice a layer, whether or not there is a row, and the number of the layer is
//! all that a flag says: nothing is ever set back, and a launch says nothing that another step would say otherwise.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::super::memory::{Allocation, Mapped};
use super::super::parameters::{AWAIT_RANKS, AwaitParameters, LinkPeer};
use super::super::queue::CudaQueue;
use super::super::routing::{Linked, Routing};
use super::super::{Cuda, Shared};
use super::{Buffer, End, pair_bytes, row_bytes};
use crate::error::DeviceError;
use crate::link::{Link, LinkCloser, LinkShape, Lost};

/// Layers that a rank puts on its queue ahead of its device where another rank is on that too. A stream takes about a thousand launches,
/// of which a layer is some twenty; who launches more waits for it, and keeps all other threads from that GPU meanwhile: the one that this
/// device waits for could launch no more either.
const LAYERS_AHEAD: usize = 8;

/// In memory of the host: how long a kernel waits, in nanoseconds.
const PATIENCE_AT: usize = 0;
/// The rank that was given up, counted from 1.
const LOST_AT: usize = 8;

/// What other ranks store for one, in sections by the rank that stores it.
#[derive(Debug)]
pub(super) struct Window {
    shape: LinkShape,
    /// The number of its GPU.
    gpu: usize,
    /// `[ranks][tokens][hidden]`
    rows: Allocation,
    /// `[ranks][1 + pairs]`
    pairs: Allocation,
    /// Results of this rank's pairs, `[tokens][top_k][hidden]`.
    homes: Allocation,
    /// `[rows, results][ranks]`
    flags: Allocation,
}

impl Window {
    pub fn new(shared: &Shared, shape: LinkShape) -> Result<Self, DeviceError> {
        let bytes @ [.., flags_bytes] = Self::lists(shape);
        let [rows, pairs, homes, flags] = bytes.map(|bytes| Allocation::new(&shared.context, bytes));
        let flags = flags?;
        shared.transfers.zero(flags.address(), flags_bytes)?;
        Ok(Self { shape, gpu: shared.context.number(), rows: rows?, pairs: pairs?, homes: homes?, flags })
    }

    /// Bytes of each part.
    pub fn lists(shape: LinkShape) -> [usize; 4] {
        let (group, row) = (shape.group, row_bytes(shape));
        [
            group.rows().saturating_mul(row),
            group.ranks.saturating_mul(pair_bytes(shape)),
            group.tokens.saturating_mul(group.top_k).saturating_mul(row),
            2 * group.ranks * size_of::<u32>(),
        ]
    }

    /// Whether it is that of a rank of a group.
    fn is_of(&self, rank: usize, shape: LinkShape) -> bool {
        let mut own = shape;
        own.group.rank = rank;
        self.shape == own
    }

    /// Where a rank stores what is for the one that has this.
    fn of(&self, rank: usize) -> LinkPeer {
        let (group, row) = (self.shape.group, row_bytes(self.shape));
        let flag = |which: usize| self.flags.address() + ((which * group.ranks + rank) * size_of::<u32>()) as u64;
        LinkPeer {
            rows: self.rows.address() + (rank * group.tokens * row) as u64,
            pairs: self.pairs.address() + (rank * pair_bytes(self.shape)) as u64,
            homes: self.homes.address(),
            given_flag: flag(0),
            home_flag: flag(1),
        }
    }
}

/// A rank's end, and what it uses: freed in this order.
#[derive(Debug)]
pub(super) struct PeerLink {
    end: End,
    told: Arc<Mapped>,
    /// Of all ranks: none is freed while this rank's kernels may write it.
    windows: Vec<Arc<Window>>,
    /// Whether another rank is on this one's GPU.
    has_neighbour: bool,
    /// Layers that the host has put on the queue since it last waited for the device.
    ahead: Cell<usize>,
}

impl PeerLink {
    pub fn new(
        shared: &Shared,
        windows: Vec<Arc<Window>>,
        shape: LinkShape,
        patience: Duration,
    ) -> Result<Self, DeviceError> {
        let group = shape.group;
        assert!(
            windows.len() == group.ranks && windows.iter().enumerate().all(|(rank, window)| window.is_of(rank, shape)),
            "the windows of a group in order"
        );
        let peers: Vec<LinkPeer> = windows.iter().map(|window| window.of(group.rank)).collect();
        let own = &windows[group.rank];
        let linked = Linked { rows: own.rows.address(), homes: own.homes.address(), home_each: 0 };
        let end = End::new(shared, shape, &peers, (own.pairs.address(), linked))?;
        let told = Arc::new(Mapped::new(&shared.context, 16)?);
        told.tell(PATIENCE_AT, u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
        let has_neighbour = windows.iter().filter(|window| window.gpu == own.gpu).count() > 1;
        Ok(Self { end, told, windows, has_neighbour, ahead: Cell::new(0) })
    }

    /// Waits, on the queue, for the flags of all other ranks; those of rows, or those of results, which end the layer.
    fn wait(&self, queue: &CudaQueue, ends: bool) {
        let group = self.end.shape.group;
        let first = if ends { group.ranks * size_of::<u32>() } else { 0 };
        let parameters = AwaitParameters {
            flags: self.windows[group.rank].flags.address() + first as u64,
            limit: self.told.address() + PATIENCE_AT as u64,
            told: self.told.address() + LOST_AT as u64,
            error: queue.error(),
            link: self.end.tables,
            ranks: group.ranks as u32,
            rank: group.rank as u32,
            ends: u32::from(ends),
            unused: 0,
        };
        queue.launch(&AWAIT_RANKS, 1, &parameters);
    }
}

impl Link<Cuda> for PeerLink {
    fn begin(&self, _: usize) {
        self.ahead.set(0);
    }

    fn dispatch(&self, queue: &CudaQueue, routing: &mut Routing, x: &Buffer<f32>) {
        self.end.give_rows(queue, routing, x);
        self.wait(queue, false);
        self.end.take_pairs(queue, routing, 0);
    }

    fn combine(&self, queue: &CudaQueue, routing: &mut Routing, results: &Buffer<f32>) {
        self.end.give_results(queue, routing, results);
        self.wait(queue, true);
        self.ahead.set(self.ahead.get() + 1);
        if self.has_neighbour && self.ahead.get() == LAYERS_AHEAD {
            queue.catch_up();
            self.ahead.set(0);
        }
    }

    fn end(&self) -> Result<(), Lost> {
        match self.told.heard(LOST_AT) as usize {
            0 => Ok(()),
            rank => Err(Lost::Late { rank: Some(rank - 1) }),
        }
    }

    fn closer(&self) -> LinkCloser {
        let told = Arc::clone(&self.told);
        Box::new(move || told.tell(PATIENCE_AT, 0))
    }
}

impl Drop for PeerLink {
    fn drop(&mut self) {
        // Kernels of this rank write windows of others, which may be on other devices: those know nothing of this one's work. Its own end,
        // which goes first, waits for that.
        self.told.tell(PATIENCE_AT, 0);
    }
}
