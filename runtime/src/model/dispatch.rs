//! Which rows go to which rank and slot in one MoE layer, and where their results come back. Pure bookkeeping over
//! frames; the arithmetic is the backend's.
//!
//! A frame of the first exchange has `indices = [rows, then for each row: n, slot_1 .. slot_n]` and one row of values
//! for each row: a token's row is sent once to a rank, with all the slots that want it there. A frame of the second
//! exchange has no indices and one row of values for each (row, slot) of the first, in its order.

use kernels::backend::Groups;
use plan::ids::{ExpertId, LayerId};

use crate::experts::table::ExpertTable;
use crate::fabric::{Fabric, FabricError, Frame};
use crate::protocol::SequenceId;

/// A token of the batch, as replica choice sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub sequence: SequenceId,
    pub position: u32,
}

/// The tokens of one rank and what the router chose for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routed<'a> {
    pub tokens: &'a [Token],
    /// `[tokens, top_k]`
    pub experts: &'a [u32],
    /// `[tokens, width]`
    pub values: &'a [f32],
}

/// Memory for one layer's exchange, reused by all.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    width: usize,
    tokens: usize,
    outgoing: Vec<Frame>,
    incoming: Vec<Frame>,
    /// (slot, row) pairs to compute here: those of this rank's tokens, then those of each other rank's.
    pairs: Vec<(u32, u32)>,
    /// Where each pair's result is once pairs are grouped by slot.
    places: Vec<u32>,
    starts: Vec<u32>,
    next: Vec<u32>,
    rows: Vec<u32>,
    /// For each (token, expert): the rank that computes it, and which of that rank's pairs it is.
    chosen: Vec<(u32, u32)>,
    /// Row of the results for each (token, expert).
    results: Vec<u32>,
    /// The last token sent to each rank.
    last: Vec<u32>,
    /// Where the slot count of the last row sent to each rank is.
    count_at: Vec<usize>,
    /// Pairs sent to each rank.
    sent: Vec<u32>,
}

impl Dispatch {
    /// Prepares for a group of `ranks` and rows of `width`.
    pub fn begin(&mut self, ranks: usize, width: usize) {
        self.width = width;
        self.tokens = 0;
        self.outgoing.resize_with(ranks, Frame::default);
        self.incoming.resize_with(ranks, Frame::default);
        self.outgoing.iter_mut().for_each(Frame::clear);
        self.pairs.clear();
        self.chosen.clear();
        for list in [&mut self.last, &mut self.sent] {
            list.clear();
        }
        self.last.resize(ranks, u32::MAX);
        self.sent.resize(ranks, 0);
        self.count_at.clear();
        self.count_at.resize(ranks, 0);
    }

    /// Chooses a slot for each of the experts and fills the frames.
    pub fn choose<P>(&mut self, table: &ExpertTable<P>, layer: LayerId, routed: Routed<'_>) {
        let Routed { tokens, experts, values } = routed;
        self.tokens = tokens.len();
        if tokens.is_empty() {
            return;
        }
        let (top_k, width, own) = (experts.len() / tokens.len(), self.width, table.rank().0);
        for (row, (token, experts)) in tokens.iter().zip(experts.chunks_exact(top_k)).enumerate() {
            for expert in experts {
                let (rank, slot) = table.choose(layer, ExpertId(*expert), token.sequence, token.position);
                if rank.0 == own {
                    self.chosen.push((own, self.pairs.len() as u32));
                    self.pairs.push((slot.0, row as u32));
                } else {
                    self.chosen.push((rank.0, self.sent[rank.index()]));
                    self.send(rank.index(), slot.0, row as u32, &values[row * width..][..width]);
                }
            }
        }
    }

    fn send(&mut self, rank: usize, slot: u32, row: u32, values: &[f32]) {
        let frame = &mut self.outgoing[rank];
        if frame.indices.is_empty() {
            frame.indices.push(0);
        }
        if self.last[rank] != row {
            self.last[rank] = row;
            self.count_at[rank] = frame.indices.len();
            frame.indices[0] += 1;
            frame.indices.push(0);
            frame.values.extend_from_slice(values);
        }
        frame.indices[self.count_at[rank]] += 1;
        frame.indices.push(slot);
        self.sent[rank] += 1;
    }

    /// Sends rows and receives those of other ranks. `append` gets each other rank's rows, which follow this
    /// rank's.
    ///
    /// # Errors
    /// If the exchange fails or a rank sends what cannot be.
    pub fn exchange(
        &mut self,
        fabric: &mut dyn Fabric,
        slots: usize,
        mut append: impl FnMut(&[f32]),
    ) -> Result<(), FabricError> {
        fabric.all_to_all(&self.outgoing, &mut self.incoming)?;
        let mut row = self.tokens as u32;
        for rank in (0..self.incoming.len()).filter(|&rank| rank != fabric.rank().index()) {
            let frame = &self.incoming[rank];
            let broken = |reason: &str| FabricError::Protocol { rank: rank.into(), reason: reason.to_owned() };
            let mut indices = frame.indices.iter().copied();
            let rows = indices.next().unwrap_or(0);
            if frame.values.len() != rows as usize * self.width {
                return Err(broken("a frame's rows are not as many as it says"));
            }
            for _ in 0..rows {
                for _ in 0..indices.next().ok_or_else(|| broken("a frame ends before its rows do"))? {
                    match indices.next() {
                        Some(slot) if (slot as usize) < slots => self.pairs.push((slot, row)),
                        _ => return Err(broken("a frame names a slot that does not exist")),
                    }
                }
                row += 1;
            }
            if indices.next().is_some() {
                return Err(broken("a frame goes on after its rows"));
            }
            append(&frame.values);
        }
        Ok(())
    }

    /// Sorts the pairs by slot.
    pub fn group(&mut self, slots: usize) -> Groups<'_> {
        self.starts.clear();
        self.starts.resize(slots + 1, 0);
        for (slot, _) in &self.pairs {
            self.starts[*slot as usize + 1] += 1;
        }
        for slot in 0..slots {
            self.starts[slot + 1] += self.starts[slot];
        }
        self.next.clone_from(&self.starts);
        self.rows.resize(self.pairs.len(), 0);
        self.places.clear();
        for (slot, row) in &self.pairs {
            let place = &mut self.next[*slot as usize];
            self.rows[*place as usize] = *row;
            self.places.push(*place);
            *place += 1;
        }
        Groups { starts: &self.starts, rows: &self.rows }
    }

    /// Pairs to compute here.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Pairs to compute in a slot, after [`Self::group`].
    pub fn pairs_of(&self, slot: usize) -> u32 {
        self.starts[slot + 1] - self.starts[slot]
    }

    /// Sends the results of other ranks' pairs back and receives those of this rank's, see [`Self::received`].
    ///
    /// # Errors
    /// As [`Self::exchange`].
    pub fn give_back(&mut self, fabric: &mut dyn Fabric, results: &[f32]) -> Result<(), FabricError> {
        let width = self.width;
        let own = fabric.rank().index();
        let mut pair =
            self.pairs.len() - self.incoming.iter().enumerate().map(|(r, f)| count(r, own, f)).sum::<usize>();
        for rank in (0..self.incoming.len()).filter(|&rank| rank != own) {
            let frame = &mut self.outgoing[rank];
            frame.clear();
            for _ in 0..count(rank, own, &self.incoming[rank]) {
                let place = self.places[pair] as usize;
                frame.values.extend_from_slice(&results[place * width..][..width]);
                pair += 1;
            }
        }
        fabric.all_to_all(&self.outgoing, &mut self.incoming)?;
        let mut base = self.pairs.len() as u32;
        for rank in (0..self.incoming.len()).filter(|&rank| rank != own) {
            if self.incoming[rank].values.len() != self.sent[rank] as usize * width {
                let reason = "it computed another number of rows than it was sent".to_owned();
                return Err(FabricError::Protocol { rank: rank.into(), reason });
            }
            // From here on, the number of a rank's first result.
            base += std::mem::replace(&mut self.sent[rank], base);
        }
        Ok(())
    }

    /// The rows that other ranks computed, which follow this rank's results.
    pub fn received(&self, own: usize) -> impl Iterator<Item = &[f32]> {
        self.incoming.iter().enumerate().filter(move |(rank, _)| *rank != own).map(|(_, frame)| &frame.values[..])
    }

    /// The row of the results for each (token, expert).
    pub fn results(&mut self, own: u32) -> &[u32] {
        self.results.clear();
        for &(rank, pair) in &self.chosen {
            let result = if rank == own { self.places[pair as usize] } else { self.sent[rank as usize] + pair };
            self.results.push(result);
        }
        &self.results
    }
}

/// (row, slot) pairs of a frame of the first exchange.
fn count(rank: usize, own: usize, frame: &Frame) -> usize {
    if rank == own || frame.indices.is_empty() { 0 } else { frame.indices.len() - 1 - frame.indices[0] as usize }
}

#[cfg(test)]
mod tests;
