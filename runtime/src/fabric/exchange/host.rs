//! An exchange through the hosts: frames over any fabric, for any device, with a stop of the device on either side of each.

use kernels::backend::Backend;
use kernels::queue::{Arrived, Home, Leaving, Queue, Returning};
use kernels::routing::{GroupShape, Pair};
use plan::words::counted;

use super::Exchange;
use crate::fabric::{Fabric, FabricError, Frame};

/// Frames between hosts.
///
/// A frame of the first exchange has `indices = [rows, then for each row: n, slot_1 .. slot_n]` and one row of values
/// for each row: a token's row is sent once to a rank, with all the slots that want it there. A frame of the second
/// exchange has no indices and one row of values for each (row, slot) of the first, in its order.
#[derive(Debug)]
pub struct HostExchange<F> {
    fabric: F,
    group: GroupShape,
    width: usize,
    outgoing: Vec<Frame>,
    incoming: Vec<Frame>,
    /// Of each rank.
    peers: Vec<Peer>,
    pairs: Vec<Pair>,
}

/// What is between this rank and another in one layer.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// The last token that was sent there.
    last: Option<usize>,
    /// Where the slot count of its row is.
    count_at: usize,
    /// Pairs that were sent there.
    sent: usize,
    /// Pairs that came from there.
    received: usize,
}

impl<F: Fabric> HostExchange<F> {
    /// Over the connections of a group, with rows of `width`.
    ///
    /// # Panics
    /// If they are of another group.
    #[must_use]
    pub fn new(fabric: F, group: GroupShape, width: usize) -> Self {
        assert_eq!((fabric.ranks(), fabric.rank().index()), (group.ranks, group.rank), "the fabric of the group");
        let frames = || vec![Frame::default(); group.ranks];
        let peers = vec![Peer::default(); group.ranks];
        Self { fabric, group, width, outgoing: frames(), incoming: frames(), peers, pairs: Vec::new() }
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<F> {
        let own = self.group.rank;
        (0..self.group.ranks).filter(move |&rank| rank != own)
    }

    /// Fills the frames of the first exchange.
    fn fill(&mut self, leaving: &Leaving<'_>) {
        self.outgoing.iter_mut().for_each(Frame::clear);
        self.peers.fill(Peer::default());
        let rows = leaving.values.chunks_exact(self.width).zip(leaving.destinations.chunks_exact(self.group.top_k));
        for (row, (values, destinations)) in rows.enumerate() {
            for slot in destinations.iter().map(|destination| destination.slot) {
                if slot.rank as usize != self.group.rank {
                    self.send(row, values, (slot.rank as usize, slot.index));
                }
            }
        }
    }

    fn send(&mut self, row: usize, values: &[f32], (rank, slot): (usize, u32)) {
        let (Frame { indices, values: rows }, peer) = (&mut self.outgoing[rank], &mut self.peers[rank]);
        if indices.is_empty() {
            indices.push(0);
        }
        if peer.last != Some(row) {
            peer.last = Some(row);
            peer.count_at = indices.len();
            indices[0] += 1;
            indices.push(0);
            rows.extend_from_slice(values);
        }
        indices[peer.count_at] += 1;
        indices.push(slot);
        peer.sent += 1;
    }

    /// Leaves the pairs of a rank's frame in `pairs`.
    fn take(&mut self, rank: usize) -> Result<(), FabricError> {
        let Frame { indices, values } = &self.incoming[rank];
        let broken = |reason: String| FabricError::Protocol { rank: rank.into(), reason };
        let (tokens, slots, width) = (self.group.tokens, self.group.slots, self.width);
        let mut indices = indices.iter().copied();
        let rows = indices.next().unwrap_or(0);
        if rows as usize > tokens {
            let most = counted(tokens, "token");
            return Err(broken(format!("a frame has more rows, {rows}, than a step, which has {most} at most")));
        }
        if values.len() != rows as usize * width {
            let (rows, found) = (counted(rows as usize, "row"), counted(values.len(), "value"));
            return Err(broken(format!(
                "a frame says that it has {rows} of {}, and has {found}",
                counted(width, "value")
            )));
        }
        let ends = |row: u32| {
            broken(format!("a frame of {} ends in row {row}, counted from 0", counted(rows as usize, "row")))
        };
        self.pairs.clear();
        for row in 0..rows {
            for _ in 0..indices.next().ok_or_else(|| ends(row))? {
                let slot = indices.next().ok_or_else(|| ends(row))?;
                if slot as usize >= slots {
                    return Err(broken(format!(
                        "a frame names slot {slot} for row {row}, and the last is {}",
                        slots - 1
                    )));
                }
                self.pairs.push(Pair { slot, row });
            }
        }
        let left = indices.count();
        if left > 0 {
            let (rows, left) = (counted(rows as usize, "row"), counted(left, "number"));
            return Err(broken(format!("a frame of {rows} goes on with {left}")));
        }
        let (pairs, most) = (self.pairs.len(), self.group.pairs_between());
        if pairs > most {
            return Err(broken(format!("a frame has more pairs, {pairs}, than a step has at most, {most}")));
        }
        self.peers[rank].received = self.pairs.len();
        Ok(())
    }

    /// Fills the frames of the second exchange.
    fn fill_results(&mut self, returning: &Returning<'_>) {
        let (mut rows, width) = (returning.rows.iter(), self.width);
        for rank in self.others() {
            let frame = &mut self.outgoing[rank];
            frame.clear();
            for row in rows.by_ref().take(self.peers[rank].received) {
                frame.values.extend_from_slice(&returning.values[*row as usize * width..][..width]);
            }
        }
    }
}

impl<B: Backend, F: Fabric> Exchange<B> for HostExchange<F> {
    fn ranks(&self) -> usize {
        self.group.ranks
    }

    fn dispatch(
        &mut self,
        queue: &B::Queue,
        routing: &mut B::Routing,
        x: &mut B::Buffer<f32>,
    ) -> Result<(), FabricError> {
        self.fill(&queue.leaving(routing, x));
        self.fabric.all_to_all(&self.outgoing, &mut self.incoming)?;
        for rank in self.others() {
            self.take(rank)?;
            let values = &self.incoming[rank].values;
            queue.arrive(routing, Arrived { width: self.width, values, pairs: &self.pairs }, x);
        }
        Ok(())
    }

    fn combine(
        &mut self,
        queue: &B::Queue,
        routing: &mut B::Routing,
        results: &mut B::Buffer<f32>,
    ) -> Result<(), FabricError> {
        self.fill_results(&queue.returning(routing, results));
        self.fabric.all_to_all(&self.outgoing, &mut self.incoming)?;
        for from in self.others() {
            let values = &self.incoming[from].values;
            let (sent, width, found) = (self.peers[from].sent, self.width, values.len());
            if found != sent * width {
                let [sent, width, found] =
                    [(sent, "pair"), (width, "value"), (found, "value")].map(|(n, of)| counted(n, of));
                let reason = format!("it was sent {sent}, each worth {width}, and gave back {found}");
                return Err(FabricError::Protocol { rank: from.into(), reason });
            }
            queue.come_home(routing, Home { from, width: self.width, values }, results);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
