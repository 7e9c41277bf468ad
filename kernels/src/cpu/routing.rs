//! Which rows go through which slots of this rank in one layer, and where their results are. Bookkeeping in lists; the
//! arithmetic is elsewhere.

use super::buffer::Buffer;
use super::feed_forward::Groups;
use crate::arena::PageId;
use crate::error::DeviceError;
use crate::host::{bytes_of, list, listed};
use crate::routing::{Copies, Destination, GroupShape, LayerRouting, Pair, Slot};

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
    pub(crate) fn new(group: GroupShape, layers: Vec<LayerRouting>) -> Result<Self, DeviceError> {
        assert!(layers.iter().map(|layer| layer.layer).eq(0..group.layers), "every layer in order");
        Ok(Self { layers, pairs: listed(std::iter::repeat_n(0, group.layers * group.slots))? })
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
            // List by list, which keeps the memory that they have.
            let LayerRouting { layer, copies: Copies { starts, slots, bounds }, pages } = change;
            let here = &mut self.layers[*layer];
            here.copies.starts.clone_from(starts);
            here.copies.slots.clone_from(slots);
            here.copies.bounds.clone_from(bounds);
            here.pages.clone_from(pages);
        }
    }

    pub(crate) fn pairs(&self) -> &[u32] {
        &self.pairs
    }
}

/// One layer's routing; its memory is reused by all. Each of its three parts is made from the one before.
#[derive(Debug)]
pub struct Routing {
    group: GroupShape,
    chosen: Chosen,
    here: Here,
    grouped: Grouped,
}

/// Where the pairs of this rank's tokens go.
#[derive(Debug)]
struct Chosen {
    /// `[tokens, top_k]`
    experts: Buffer<u32>,
    /// `[tokens, top_k]`
    weights: Buffer<f32>,
    /// Of each (token, expert).
    destinations: Vec<Destination>,
    /// Pairs given to each rank, this one too.
    given: Vec<u32>,
}

/// What is computed here.
#[derive(Debug)]
struct Here {
    /// Those pairs of this rank's tokens, then those of other ranks' as they arrived.
    pairs: Vec<Pair>,
    /// How many of them are of this rank's tokens.
    own: usize,
}

/// The same by slot, and where the results are.
#[derive(Debug)]
struct Grouped {
    /// The page of each slot.
    pages: Vec<PageId>,
    /// Pairs of each slot.
    counts: Vec<u32>,
    /// The first result of each slot, and behind the last.
    starts: Vec<u32>,
    /// The next place in each slot for a pair.
    next: Vec<u32>,
    /// The row of each result.
    rows: Vec<u32>,
    /// The result of each pair.
    places: Vec<u32>,
    /// The first result that each rank gives back, in the order of ranks behind those that are computed here.
    bases: Vec<u32>,
    /// The result of each (token, expert).
    results: Vec<u32>,
}

impl Chosen {
    fn new(group: GroupShape) -> Result<Self, DeviceError> {
        let chosen = group.tokens.saturating_mul(group.top_k);
        Ok(Self {
            experts: Buffer::new(chosen)?,
            weights: Buffer::new(chosen)?,
            destinations: list(chosen)?,
            given: listed(std::iter::repeat_n(0, group.ranks))?,
        })
    }

    /// Chooses a slot for each of the experts of tokens that are called so in their sequences; leaves the pairs of this rank's slots
    /// in `here`.
    fn choose(&mut self, copies: &Copies, group: GroupShape, tokens: (&[u32], &[u32]), here: &mut Here) {
        let (own, (sequences, positions)) = (group.rank as u32, tokens);
        self.destinations.clear();
        self.given.fill(0);
        here.pairs.clear();
        let tokens = sequences.iter().zip(positions).zip(self.experts.chunks_exact(group.top_k));
        for (row, ((&sequence, &position), experts)) in (0..).zip(tokens) {
            for &expert in experts {
                let slot = copies.choose(expert, sequence, position);
                let ordinal = &mut self.given[slot.rank as usize];
                self.destinations.push(Destination { slot, ordinal: *ordinal });
                *ordinal += 1;
                if slot.rank == own {
                    here.pairs.push(Pair { slot: slot.index, row });
                }
            }
        }
        here.own = here.pairs.len();
    }
}

impl Here {
    fn new(group: GroupShape) -> Result<Self, DeviceError> {
        Ok(Self { pairs: list(group.pairs())?, own: 0 })
    }

    /// Takes pairs of another rank's tokens, whose rows follow so many.
    ///
    /// # Panics
    /// If they are more than a step has.
    fn arrive(&mut self, group: GroupShape, rows: usize, pairs: &[Pair]) {
        assert!(self.pairs.len() + pairs.len() <= group.pairs(), "more pairs than a step has");
        self.pairs.extend(pairs.iter().map(|pair| Pair { row: pair.row + rows as u32, ..*pair }));
    }
}

impl Grouped {
    fn new(group: GroupShape) -> Result<Self, DeviceError> {
        let (slots, pairs) = (group.slots, group.pairs());
        let zeros = |count| listed(std::iter::repeat_n(0, count));
        Ok(Self {
            pages: list(slots)?,
            counts: zeros(slots)?,
            starts: zeros(slots + 1)?,
            next: zeros(slots)?,
            rows: list(pairs)?,
            places: list(pairs)?,
            bases: zeros(group.ranks)?,
            results: list(group.tokens.saturating_mul(group.top_k))?,
        })
    }

    /// Sorts the pairs by slot, and adds them to what was counted of each.
    fn sort(&mut self, pairs: &[Pair], pages: &[PageId], counted: &mut [u32]) {
        let Self { counts, starts, next, rows, places, .. } = self;
        self.pages.clear();
        self.pages.extend_from_slice(pages);
        counts.fill(0);
        for pair in pairs {
            counts[pair.slot as usize] += 1;
        }
        let mut end = 0;
        for (((start, next), count), counted) in starts.iter_mut().zip(&mut *next).zip(&*counts).zip(counted) {
            (*start, *next) = (end, end);
            end += count;
            *counted += count;
        }
        starts[counts.len()] = end;
        rows.resize(pairs.len(), 0);
        places.clear();
        for pair in pairs {
            let place = &mut next[pair.slot as usize];
            rows[*place as usize] = pair.row;
            places.push(*place);
            *place += 1;
        }
    }

    /// Finds the result of each (token, expert): here, or behind what is here with those that its rank gives back.
    fn find(&mut self, chosen: &Chosen, rank: usize) {
        let Self { places, bases, results, .. } = self;
        let mut base = places.len() as u32;
        for (other, (first, given)) in bases.iter_mut().zip(&chosen.given).enumerate() {
            *first = base;
            base += if other == rank { 0 } else { *given };
        }
        results.clear();
        results.extend(chosen.destinations.iter().map(|&Destination { slot, ordinal }| {
            if slot.rank as usize == rank { places[ordinal as usize] } else { bases[slot.rank as usize] + ordinal }
        }));
    }
}

impl Routing {
    pub(crate) fn new(group: GroupShape) -> Result<Self, DeviceError> {
        Ok(Self { group, chosen: Chosen::new(group)?, here: Here::new(group)?, grouped: Grouped::new(group)? })
    }

    /// What that of a group takes.
    pub(crate) const fn bytes(group: GroupShape) -> u64 {
        let GroupShape { ranks, slots, top_k, tokens, .. } = group;
        let chosen = bytes_of::<(u32, f32, Destination, u32)>(tokens.saturating_mul(top_k));
        let pairs = bytes_of::<(Pair, u32, u32)>(group.pairs());
        let of_slots = bytes_of::<(PageId, u32, u32)>(slots).saturating_add(bytes_of::<u32>(slots + 1));
        chosen.saturating_add(pairs).saturating_add(of_slots).saturating_add(bytes_of::<(u32, u32)>(ranks))
    }

    /// Where the router writes the experts of so many tokens, and their weights.
    pub(crate) fn routed(&mut self, tokens: usize) -> (&mut [u32], &mut [f32]) {
        let Chosen { experts, weights, .. } = &mut self.chosen;
        experts.set_len(tokens * self.group.top_k);
        weights.set_len(tokens * self.group.top_k);
        (experts, weights)
    }

    /// Chooses a slot for each of the experts of tokens that are called so in their sequences.
    pub(crate) fn choose(&mut self, slots: &Slots, layer: usize, sequences: &[u32], positions: &[u32]) {
        let Self { group, chosen, here, .. } = self;
        chosen.choose(&slots.layers[layer].copies, *group, (sequences, positions), here);
    }

    pub(crate) const fn top_k(&self) -> usize {
        self.group.top_k
    }

    pub(crate) fn destinations(&self) -> &[Destination] {
        &self.chosen.destinations
    }

    /// Takes pairs of another rank's tokens.
    ///
    /// # Panics
    /// If they are more than a step has.
    pub(crate) fn arrive(&mut self, first_row: usize, pairs: &[Pair]) {
        self.here.arrive(self.group, first_row, pairs);
    }

    /// Sorts the pairs by slot, and counts them.
    pub(crate) fn sort(&mut self, slots: &mut Slots, layer: usize) {
        let Self { group: GroupShape { rank, slots: count, .. }, chosen, here, grouped } = self;
        let counted = &mut slots.pairs[layer * *count..][..*count];
        grouped.sort(&here.pairs, &slots.layers[layer].pages, counted);
        grouped.find(chosen, *rank);
    }

    /// The pairs by slot, after [`Self::sort`].
    pub(crate) fn groups(&self) -> Groups<'_> {
        let Grouped { pages, starts, rows, .. } = &self.grouped;
        Groups { pages, starts, rows }
    }

    /// Rows of the results of pairs that arrived, as they did.
    pub(crate) fn returning(&self) -> &[u32] {
        &self.grouped.places[self.here.own..]
    }

    /// Row of the first result that this rank gives back.
    pub(crate) fn home(&self, from: usize) -> usize {
        self.grouped.bases[from] as usize
    }

    /// Row of the result of each (token, expert), and the weights that they are combined by.
    pub(crate) fn results(&self) -> (&[u32], &[f32]) {
        (&self.grouped.results, &self.chosen.weights)
    }
}

#[cfg(test)]
mod tests;
