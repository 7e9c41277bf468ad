//! What a rank sees of the others of a group before it reads an expert, as far as the way that rows take goes by it.

use std::collections::BTreeSet;

use kernels::Backend;

use crate::fabric::exchange::means::{Means, View};
use crate::fabric::neighbours::Key;
use crate::protocol::RankAddress;
use crate::worker::Worker;

/// See the module's documentation.
pub(super) fn view<B: Backend>(worker: &Worker<B>, ranks: &[RankAddress]) -> View {
    let Some(linking) = worker.device.linking() else { return View::default() };
    let device = |rank: &RankAddress| {
        let shared = worker.settings.neighbours.find(&Key::Device(rank.step.clone()));
        shared.and_then(|device| device.downcast::<B>().ok())
    };
    let places: BTreeSet<_> = ranks.iter().map(|rank| (&rank.node, &rank.unit)).collect();
    let asked = worker.settings.exchange;
    let missing = asked.may_be(Means::Nccl).then(|| linking.collective().err()).flatten();
    let mut view = View {
        has_links: true,
        no_nccl: missing.map(|error| error.to_string()),
        shares: places.len() < ranks.len(),
        spans_nodes: ranks.iter().any(|rank| rank.node != ranks[0].node),
        ..View::default()
    };
    if asked.may_be(Means::Peer) {
        view.elsewhere = ranks.iter().find(|rank| device(rank).is_none()).map(|rank| rank.rank);
        // A way between devices is opened only where it will be used.
        if view.elsewhere.is_none() {
            let reached = ranks.iter().filter_map(device).try_for_each(|device| linking.reach(&device));
            view.unreached = reached.err().map(|error| error.to_string());
        }
    }
    view
}
