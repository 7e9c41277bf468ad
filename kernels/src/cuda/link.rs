//! Links among GPUs: what a rank's kernels do with rows that go to others and come from them, however those get there.

mod collective;
mod peer;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use self::collective::CollectiveLink;
use self::peer::{PeerLink, Window};
use super::buffer::Buffer;
use super::memory::Allocation;
use super::parameters::{
    Address, GIVE_RESULTS, GIVE_ROWS, GiveResultsParameters, GiveRowsParameters, GivenPair, LinkPeer, LinkTables,
    TAKE_PAIRS, TakePairsParameters,
};
use super::queue::CudaQueue;
use super::routing::{Linked, Routing};
use super::weights::kind_word;
use super::{Cuda, Shared, nccl};
use crate::error::DeviceError;
use crate::link::{self, Link, LinkName, LinkShape, Linking};

/// Has the driver wait for the end of every launch before it returns.
const LAUNCHES_WAIT: &str = "CUDA_LAUNCH_BLOCKING";

/// Words of a link's own: the epoch, blocks that are done, the rank that was given up.
const WORDS: usize = 3;

/// What a link of a group takes of the device's memory, of whichever kind takes more: that is known only when the group has formed.
pub(super) fn bytes(shape: LinkShape) -> usize {
    if shape.group.ranks < 2 {
        return 0;
    }
    let tables = shape.group.ranks * size_of::<LinkPeer>() + WORDS * size_of::<u32>();
    let all = |lists: &[usize]| lists.iter().copied().fold(0, usize::saturating_add);
    let frames = all(&CollectiveLink::lists(shape)).saturating_mul(2);
    all(&Window::lists(shape)).max(frames).saturating_add(tables)
}

/// Bytes of one row as products read it, which is f32 or two terms of bfloat16, and of one result.
const fn row_bytes(LinkShape { page, .. }: LinkShape) -> usize {
    page.hidden.saturating_mul(size_of::<f32>())
}

/// Bytes of the pairs that one rank gives another, with their number.
const fn pair_bytes(LinkShape { group, .. }: LinkShape) -> usize {
    (1 + group.pairs_between()).saturating_mul(size_of::<GivenPair>())
}

/// Whether every launch waits for its end, by what the environment says.
fn has_launches_wait(said: Option<&str>) -> bool {
    said.is_some_and(|said| !said.is_empty() && said != "0")
}

/// What kernels of a rank know of its link.
#[derive(Debug)]
struct End {
    shape: LinkShape,
    tables: LinkTables,
    linked: Linked,
    /// What the tables point at.
    _memory: [Allocation; 2],
}

impl End {
    /// Of a rank that stores what is for others at `peers`, and finds pairs and what else is for it where it says.
    fn new(
        shared: &Shared,
        shape: LinkShape,
        peers: &[LinkPeer],
        (given, linked): (Address, Linked),
    ) -> Result<Self, DeviceError> {
        let table = Allocation::new(&shared.context, size_of_val(peers))?;
        shared.transfers.put(table.address(), bytemuck::cast_slice(peers))?;
        let words = Allocation::new(&shared.context, WORDS * size_of::<u32>())?;
        shared.transfers.zero(words.address(), WORDS * size_of::<u32>())?;
        let word = |index: usize| words.address() + (index * size_of::<u32>()) as u64;
        let tables = LinkTables {
            peers: table.address(),
            given,
            epoch: word(0),
            done: word(1),
            lost: word(2),
            pairs_between: shape.group.pairs_between() as u32,
            in_order: u32::from(linked.home_each != 0),
        };
        Ok(Self { shape, tables, linked, _memory: [table, words] })
    }

    fn give_rows(&self, queue: &CudaQueue, routing: &Routing, x: &Buffer<f32>) {
        let page = self.shape.page;
        let parameters = GiveRowsParameters {
            rows: x.rows(),
            x: x.address(),
            routing: routing.tables(),
            link: self.tables,
            width: page.hidden as u32,
            kind: kind_word(page.kind),
        };
        queue.launch(&GIVE_ROWS, x.rows().most.max(1) as usize, &parameters);
    }

    /// Says at `passed` that a layer has, if that is anywhere.
    fn take_pairs(&self, queue: &CudaQueue, routing: &mut Routing, passed: Address) {
        let group = self.shape.group;
        let parameters = TakePairsParameters {
            routing: routing.tables(),
            link: self.tables,
            error: queue.error(),
            passed,
            tokens: group.tokens as u32,
            slots_here: group.slots as u32,
        };
        queue.launch(&TAKE_PAIRS, 1 + routing.chosen() / 256, &parameters);
        routing.linked = Some(self.linked);
    }

    fn give_results(&self, queue: &CudaQueue, routing: &Routing, results: &Buffer<f32>) {
        let parameters = GiveResultsParameters {
            results: results.address(),
            routing: routing.tables(),
            link: self.tables,
            width: self.shape.page.hidden as u32,
            tokens: self.shape.group.tokens as u32,
        };
        queue.launch(&GIVE_RESULTS, routing.chosen().max(1), &parameters);
    }
}

impl Linking<Cuda> for Cuda {
    fn reach(&self, other: &Cuda) -> Result<(), DeviceError> {
        if has_launches_wait(std::env::var(LAUNCHES_WAIT).ok().as_deref()) {
            let reason = format!("with {LAUNCHES_WAIT} no rank can launch anything while a GPU waits for another");
            return Err(DeviceError::Unusable { reason });
        }
        self.shared.context.reach(&other.shared.context)
    }

    fn window(&self, shape: LinkShape) -> Result<link::Window, DeviceError> {
        Ok(Arc::new(Window::new(&self.shared, shape)?))
    }

    fn link(
        &self,
        windows: &[link::Window],
        shape: LinkShape,
        patience: Duration,
    ) -> Result<Box<dyn Link<Self>>, DeviceError> {
        let windows = windows.iter().cloned().map(|window: Arc<dyn Any + Send + Sync>| {
            window.downcast::<Window>().expect("all ranks of a group are on GPUs")
        });
        Ok(Box::new(PeerLink::new(&self.shared, windows.collect(), shape, patience)?))
    }

    fn collective(&self) -> Result<(), DeviceError> {
        nccl::check()
    }

    fn name(&self) -> Result<LinkName, DeviceError> {
        nccl::name()
    }

    fn join(&self, name: LinkName, shape: LinkShape, patience: Duration) -> Result<Box<dyn Link<Self>>, DeviceError> {
        Ok(Box::new(CollectiveLink::new(&self.shared, name, shape, patience)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_wait_where_the_environment_says_so() {
        assert_eq!([None, Some(""), Some("0"), Some("1")].map(has_launches_wait), [false, false, false, true]);
    }
}
