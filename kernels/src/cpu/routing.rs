//! Which rows go through which slots of this rank in one layer, and where their results are. Bookkeeping in lists; the
//! arithmetic is elsewhere.

use super::buffer::{Buffer, bytes_of, list};
use super::feed_forward::Groups;
use crate::arena::PageId;
use crate::error::DeviceError;
use crate::routing::{Destination, GroupShape, LayerRouting, Pair, Slot};

/// The slots of a group.
#[derive(Debug)]
pub struct Slots {
    layers: Vec<LayerRouting>,
    /// Pairs computed in each slot of this rank since the last step began, `[layers, slots]`.
    pairs: Vec<u32>,
}

impl Slots {
    /// # Panics
    /// If there is not every layer in order.
    pub(crate) fn new(group: GroupShape, layers: Vec<LayerRouting>) -> Self {
        assert!(layers.iter().map(|layer| layer.layer).eq(0..group.layers), "every layer in order");
        Self { layers, pairs: vec![0; group.layers * group.slots] }
    }

    /// What those of a group take, with so many experts in each layer.
    pub(crate) const fn bytes(group: GroupShape, experts: usize) -> u64 {
        let GroupShape { ranks, layers, slots, .. } = group;
        let physical = ranks.saturating_mul(slots);
        let copies = bytes_of::<u32>(experts + 1).saturating_add(bytes_of::<(Slot, u32)>(physical));
        let pages = bytes_of::<(PageId, u32)>(slots);
        let layer = copies.saturating_add(pages).saturating_add(bytes_of::<LayerRouting>(1));
        layer.saturating_mul(layers as u64)
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, changes: &[LayerRouting]) {
        self.pairs.fill(0);
        for change in changes {
            self.layers[change.layer].clone_from(change);
        }
    }

    pub(crate) fn pairs(&self) -> &[u32] {
        &self.pairs
    }
}

/// One layer's routing; its memory is reused by all.
#[derive(Debug)]
pub struct Routing {
    group: GroupShape,
    /// `[tokens, top_k]`
    pub(crate) experts: Buffer<u32>,
    /// `[tokens, top_k]`
    pub(crate) weights: Buffer<f32>,
    /// Of each (token, expert).
    destinations: Vec<Destination>,
    /// Pairs given to each rank, this one too.
    given: Vec<u32>,
    /// Pairs to compute here: those of this rank's tokens, then those of each other rank's as they arrived.
    pairs: Vec<Pair>,
    /// How many of them are of this rank's tokens.
    own: usize,
    /// Where each pair's result is once pairs are grouped by slot.
    places: Vec<u32>,
    starts: Vec<u32>,
    next: Vec<u32>,
    /// The page of each slot.
    pages: Vec<PageId>,
    /// The row of each result.
    rows: Vec<u32>,
    /// Row of the first result that each other rank gave back.
    bases: Vec<u32>,
    /// Row of the result of each (token, expert).
    results: Vec<u32>,
}

impl Routing {
    pub(crate) fn new(group: GroupShape) -> Result<Self, DeviceError> {
        let (chosen, pairs) = (group.tokens.saturating_mul(group.top_k), group.pairs());
        Ok(Self {
            group,
            experts: Buffer::new(chosen)?,
            weights: Buffer::new(chosen)?,
            destinations: list(chosen)?,
            given: vec![0; group.ranks],
            pairs: list(pairs)?,
            own: 0,
            places: list(pairs)?,
            starts: list(group.slots + 1)?,
            next: list(group.slots + 1)?,
            pages: list(group.slots)?,
            rows: list(pairs)?,
            bases: vec![0; group.ranks],
            results: list(chosen)?,
        })
    }

    /// What that of a group takes.
    pub(crate) const fn bytes(group: GroupShape) -> u64 {
        let GroupShape { ranks, slots, top_k, tokens, .. } = group;
        let chosen = bytes_of::<(u32, f32, Destination, u32)>(tokens.saturating_mul(top_k));
        let pairs = bytes_of::<(Pair, u32, u32)>(group.pairs());
        let of_slots = bytes_of::<(u32, u32)>(slots + 1).saturating_add(bytes_of::<PageId>(slots));
        chosen.saturating_add(pairs).saturating_add(of_slots).saturating_add(bytes_of::<(u32, u32)>(ranks))
    }

    /// Chooses a slot for each of the experts of tokens that are called so in their sequences.
    pub(crate) fn choose(&mut self, slots: &Slots, layer: usize, sequences: &[u32], positions: &[u32]) {
        let (copies, own) = (&slots.layers[layer].copies, self.group.rank as u32);
        self.destinations.clear();
        self.pairs.clear();
        self.given.fill(0);
        let tokens = sequences.iter().zip(positions).zip(self.experts.chunks_exact(self.group.top_k));
        for (row, ((&sequence, &position), experts)) in (0..).zip(tokens) {
            for &expert in experts {
                let slot = copies.choose(expert, sequence, position);
                let ordinal = &mut self.given[slot.rank as usize];
                self.destinations.push(Destination { slot, ordinal: *ordinal });
                *ordinal += 1;
                if slot.rank == own {
                    self.pairs.push(Pair { slot: slot.index, row });
                }
            }
        }
        self.own = self.pairs.len();
    }

    pub(crate) const fn top_k(&self) -> usize {
        self.group.top_k
    }

    pub(crate) fn destinations(&self) -> &[Destination] {
        &self.destinations
    }

    /// Takes pairs of another rank's tokens.
    ///
    /// # Panics
    /// If they are more than a step has.
    pub(crate) fn arrive(&mut self, first_row: usize, pairs: &[Pair]) {
        assert!(self.pairs.len() + pairs.len() <= self.group.pairs(), "more pairs than a step has");
        self.pairs.extend(pairs.iter().map(|pair| Pair { row: pair.row + first_row as u32, ..*pair }));
    }

    /// Sorts the pairs by slot, and counts them.
    pub(crate) fn group(&mut self, slots: &mut Slots, layer: usize) {
        let count = self.group.slots;
        self.starts.clear();
        self.starts.resize(count + 1, 0);
        for pair in &self.pairs {
            self.starts[pair.slot as usize + 1] += 1;
        }
        let counts = &mut slots.pairs[layer * count..][..count];
        for (slot, counted) in counts.iter_mut().enumerate() {
            *counted += self.starts[slot + 1];
            self.starts[slot + 1] += self.starts[slot];
        }
        self.pages.clone_from(&slots.layers[layer].pages);
        self.next.clone_from(&self.starts);
        self.rows.resize(self.pairs.len(), 0);
        self.places.clear();
        for pair in &self.pairs {
            let place = &mut self.next[pair.slot as usize];
            self.rows[*place as usize] = pair.row;
            self.places.push(*place);
            *place += 1;
        }
    }

    /// The pairs by slot, after [`Self::group`].
    pub(crate) fn groups(&self) -> Groups<'_> {
        Groups { pages: &self.pages, starts: &self.starts, rows: &self.rows }
    }

    /// Rows of the results of pairs that arrived, as they did.
    pub(crate) fn returning(&self) -> &[u32] {
        &self.places[self.own..]
    }

    /// What rank `from` computed begins in this row of the results.
    pub(crate) fn come_home(&mut self, from: usize, row: usize) {
        self.bases[from] = row as u32;
    }

    /// Row of the result of each (token, expert), and the weights that they are combined by.
    pub(crate) fn results(&mut self) -> (&[u32], &[f32]) {
        self.results.clear();
        for &Destination { slot: Slot { rank, .. }, ordinal } in &self.destinations {
            let own = rank as usize == self.group.rank;
            self.results.push(if own { self.places[ordinal as usize] } else { self.bases[rank as usize] + ordinal });
        }
        (&self.results, &self.weights)
    }
}

#[cfg(test)]
mod tests;
