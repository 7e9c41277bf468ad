//! A link among GPUs whose ranks are threads of this process: kernels store rows in the windows of other ranks, then a flag.
//!
//! Nothing is stored where somebody still reads, though there is one window for all layers and steps. A rank gives rows of the next
//! layer only after all others have given it the results of this one, which they did after their experts had read their windows. And
//! it gives results only after all others have given it rows, which they did after they had added up the results of the layer
//! before. So each pair of ranks waits for each other twice a layer, whether or not there is a row, and the number of the layer is
//! all that a flag says: nothing is ever set back, and a launch says nothing that another step would say otherwise.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::arena::element_bytes;
use super::buffer::Buffer;
use super::context::Context;
use super::memory::{Allocation, Mapped};
use super::parameters::{
    AWAIT_RANKS, AwaitParameters, GIVE_RESULTS, GIVE_ROWS, GiveResultsParameters, GiveRowsParameters, GivenPair,
    LinkPeer, LinkTables, TAKE_PAIRS, TakePairsParameters,
};
use super::queue::CudaQueue;
use super::routing::{Linked, Routing};
use super::weights::kind_word;
use super::{Cuda, Shared};
use crate::error::DeviceError;
use crate::link::{Link, LinkCloser, LinkShape, Linking};

/// Words of a link's own: the epoch, blocks that are done, the rank that was given up.
const WORDS: usize = 3;

/// In memory of the host: how long a kernel waits, in nanoseconds.
const PATIENCE_AT: usize = 0;
/// The rank that was given up, counted from 1.
const LOST_AT: usize = 8;

/// What other ranks store for one, in sections by the rank that stores it.
#[derive(Debug)]
struct Window {
    shape: LinkShape,
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
    fn new(shared: &Shared, shape: LinkShape) -> Result<Self, DeviceError> {
        let bytes @ [.., flags_bytes] = Self::lists(shape);
        let [rows, pairs, homes, flags] = bytes.map(|bytes| Allocation::new(&shared.context, bytes));
        let flags = flags?;
        shared.transfers.zero(flags.address(), flags_bytes)?;
        Ok(Self { shape, rows: rows?, pairs: pairs?, homes: homes?, flags })
    }

    /// Bytes of each part.
    fn lists(LinkShape { group, page }: LinkShape) -> [usize; 4] {
        let row = page.hidden.saturating_mul(element_bytes(page.kind));
        let result = page.hidden.saturating_mul(size_of::<f32>());
        [
            group.rows().saturating_mul(row),
            group.ranks.saturating_mul(1 + group.pairs_between()).saturating_mul(size_of::<GivenPair>()),
            group.tokens.saturating_mul(group.top_k).saturating_mul(result),
            2 * group.ranks * size_of::<u32>(),
        ]
    }

    /// Where a rank stores what is for the one that has this.
    fn of(&self, rank: usize) -> LinkPeer {
        let LinkShape { group, page } = self.shape;
        let row = page.hidden * element_bytes(page.kind);
        let flag = |which: usize| self.flags.address() + ((which * group.ranks + rank) * size_of::<u32>()) as u64;
        LinkPeer {
            rows: self.rows.address() + (rank * group.tokens * row) as u64,
            pairs: self.pairs.address() + (rank * (1 + group.pairs_between()) * size_of::<GivenPair>()) as u64,
            homes: self.homes.address(),
            given_flag: flag(0),
            home_flag: flag(1),
        }
    }
}

/// What the windows and tables of a link of a group take of the device's memory.
pub(super) fn bytes(shape: LinkShape) -> usize {
    if shape.group.ranks < 2 {
        return 0;
    }
    let tables = shape.group.ranks * size_of::<LinkPeer>() + WORDS * size_of::<u32>();
    Window::lists(shape).into_iter().fold(tables, usize::saturating_add)
}

/// A rank's end.
#[derive(Debug)]
struct PeerLink {
    shape: LinkShape,
    context: Arc<Context>,
    tables: LinkTables,
    told: Arc<Mapped>,
    /// What the tables point at.
    _memory: [Allocation; 2],
    /// Of all ranks: none is freed while this rank's kernels may write it.
    windows: Vec<Arc<Window>>,
}

impl PeerLink {
    fn new(
        shared: &Shared,
        windows: Vec<Arc<Window>>,
        shape: LinkShape,
        patience: Duration,
    ) -> Result<Self, DeviceError> {
        let LinkShape { group, .. } = shape;
        assert!(
            windows.len() == group.ranks && windows.iter().enumerate().all(|(rank, window)| window.is_of(rank, shape)),
            "the windows of a group in order"
        );
        let peers: Vec<LinkPeer> = windows.iter().map(|window| window.of(group.rank)).collect();
        let table = Allocation::new(&shared.context, size_of_val(peers.as_slice()))?;
        shared.transfers.put(table.address(), bytemuck::cast_slice(&peers))?;
        let words = Allocation::new(&shared.context, WORDS * size_of::<u32>())?;
        shared.transfers.zero(words.address(), WORDS * size_of::<u32>())?;
        let told = Arc::new(Mapped::new(&shared.context, 16)?);
        told.tell(PATIENCE_AT, u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
        let word = |index: usize| words.address() + (index * size_of::<u32>()) as u64;
        let tables = LinkTables {
            peers: table.address(),
            given: windows[group.rank].pairs.address(),
            epoch: word(0),
            done: word(1),
            lost: word(2),
            pairs_between: group.pairs_between() as u32,
            in_order: 0,
        };
        let context = Arc::clone(&shared.context);
        Ok(Self { shape, context, tables, told, _memory: [table, words], windows })
    }

    fn own(&self) -> &Window {
        &self.windows[self.shape.group.rank]
    }

    /// Waits, on the queue, for the flags of all other ranks; those of rows, or those of results, which end the layer.
    fn wait(&self, queue: &CudaQueue, ends: bool) {
        let group = self.shape.group;
        let flags = self.own().flags.address() + if ends { group.ranks * size_of::<u32>() } else { 0 } as u64;
        let parameters = AwaitParameters {
            flags,
            limit: self.told.address() + PATIENCE_AT as u64,
            told: self.told.address() + LOST_AT as u64,
            error: queue.error(),
            link: self.tables,
            ranks: group.ranks as u32,
            rank: group.rank as u32,
            ends: u32::from(ends),
            unused: 0,
        };
        queue.launch(&AWAIT_RANKS, 1, &parameters);
    }
}

impl Window {
    /// Whether it is that of a rank of a group.
    fn is_of(&self, rank: usize, shape: LinkShape) -> bool {
        let mut own = shape;
        own.group.rank = rank;
        self.shape == own
    }
}

impl Link<Cuda> for PeerLink {
    fn dispatch(&self, queue: &CudaQueue, routing: &mut Routing, x: &Buffer<f32>) {
        let LinkShape { group, page } = self.shape;
        let give = GiveRowsParameters {
            rows: x.rows(),
            x: x.address(),
            routing: routing.tables(),
            link: self.tables,
            width: page.hidden as u32,
            kind: kind_word(page.kind),
        };
        queue.launch(&GIVE_ROWS, x.rows().most.max(1) as usize, &give);
        self.wait(queue, false);
        let take = TakePairsParameters {
            routing: routing.tables(),
            link: self.tables,
            error: queue.error(),
            tokens: group.tokens as u32,
            slots_here: group.slots as u32,
        };
        queue.launch(&TAKE_PAIRS, 1 + routing.chosen() / 256, &take);
        routing.linked =
            Some(Linked { rows: self.own().rows.address(), homes: self.own().homes.address(), home_each: 0 });
    }

    fn combine(&self, queue: &CudaQueue, routing: &mut Routing, results: &Buffer<f32>) {
        let give = GiveResultsParameters {
            results: results.address(),
            routing: routing.tables(),
            link: self.tables,
            width: self.shape.page.hidden as u32,
            unused: 0,
        };
        queue.launch(&GIVE_RESULTS, routing.chosen().max(1), &give);
        self.wait(queue, true);
    }

    fn lost(&self) -> Option<usize> {
        (self.told.heard(LOST_AT) as usize).checked_sub(1)
    }

    fn closer(&self) -> LinkCloser {
        let told = Arc::clone(&self.told);
        Box::new(move || told.tell(PATIENCE_AT, 0))
    }
}

impl Drop for PeerLink {
    fn drop(&mut self) {
        // Kernels of this rank write windows of others, which may be on other devices: those know nothing of this one's work.
        self.told.tell(PATIENCE_AT, 0);
        let _ = self.context.finish();
    }
}

impl Linking<Cuda> for Cuda {
    fn reach(&self, other: &Cuda) -> Result<(), DeviceError> {
        self.shared.context.reach(&other.shared.context)
    }

    fn window(&self, shape: LinkShape) -> Result<crate::link::Window, DeviceError> {
        Ok(Arc::new(Window::new(&self.shared, shape)?))
    }

    fn link(
        &self,
        windows: &[crate::link::Window],
        shape: LinkShape,
        patience: Duration,
    ) -> Result<Box<dyn Link<Self>>, DeviceError> {
        let windows = windows.iter().cloned().map(|window: Arc<dyn Any + Send + Sync>| {
            window.downcast::<Window>().expect("all ranks of a group are on GPUs")
        });
        Ok(Box::new(PeerLink::new(&self.shared, windows.collect(), shape, patience)?))
    }
}
