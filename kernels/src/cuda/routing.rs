//! Where the copies of experts are, and what goes where in one layer, as the device has it; and what of it the host has foreseen.

use std::cell::Cell;
use std::sync::Arc;

use super::context::Context;
use super::memory::{Allocation, Mapped};
use super::parameters::{
    Address, COUNT_PAIRS, PairDestination, ROUTING_COUNTS, RoutingTables, Rows, SlotPair, SlotTables, TableSlot,
};
use super::shape::check_group;
use super::transfer::Transfers;
use crate::arena::PageId;
use crate::backend::PageShape;
use crate::error::DeviceError;
use crate::routing::{Destination, GroupShape, LayerRouting, Pair, Slot};

/// The slots of a group.
#[derive(Debug)]
pub struct Slots {
    group: GroupShape,
    tables: SlotTables,
    /// What the tables point at.
    _memory: Vec<Allocation>,
    /// Counted pairs, for the host.
    pairs: Mapped,
}

impl Slots {
    /// # Panics
    /// If there is not every layer in order.
    pub(super) fn new(
        (context, transfers): (&Arc<Context>, &Transfers),
        group: GroupShape,
        layers: &[LayerRouting],
    ) -> Result<Self, DeviceError> {
        assert!(layers.iter().map(|layer| layer.layer).eq(0..group.layers), "every layer in order");
        check_group(group)?;
        let experts = layers.first().map_or(0, |layer| layer.copies.starts.len().saturating_sub(1));
        let physical = group.ranks * group.slots;
        let mut memory = Vec::new();
        let mut list = |bytes: usize| -> Result<Address, DeviceError> {
            let made = Allocation::new(context, bytes)?;
            let address = made.address();
            transfers.zero(address, bytes)?;
            memory.push(made);
            Ok(address)
        };
        let [starts, slots, bounds, pages, pairs] = Self::lists(group, experts);
        let tables = SlotTables {
            starts: list(starts)?,
            slots: list(slots)?,
            bounds: list(bounds)?,
            pages: list(pages)?,
            pairs: list(pairs)?,
            layers: group.layers as u32,
            experts: experts as u32,
            physical: physical as u32,
            slots_here: group.slots as u32,
        };
        let pairs = Mapped::new(context, group.layers * group.slots * size_of::<u32>())?;
        let slots = Self { group, tables, _memory: memory, pairs };
        let all: Vec<LayerWords> = layers.iter().map(|layer| slots.layer_words(layer)).collect();
        for (address, part) in [
            (tables.starts, all.iter().flat_map(|layer| &layer.starts).copied().collect::<Vec<u32>>()),
            (tables.slots, all.iter().flat_map(|layer| &layer.slots).copied().collect()),
            (tables.bounds, all.iter().flat_map(|layer| &layer.bounds).copied().collect()),
            (tables.pages, all.iter().flat_map(|layer| &layer.pages).copied().collect()),
        ] {
            transfers.put(address, bytemuck::cast_slice(&part))?;
        }
        Ok(slots)
    }

    /// Bytes of starts, slots, bounds, pages and pairs of all layers, with so many experts in each.
    fn lists(group: GroupShape, experts: usize) -> [usize; 5] {
        let (physical, word) = (group.ranks.saturating_mul(group.slots), size_of::<u32>());
        let of_layer = [
            (experts + 1, word),
            (physical, size_of::<TableSlot>()),
            (physical, word),
            (group.slots, size_of::<PageId>()),
            (group.slots, word),
        ];
        of_layer.map(|(elements, bytes)| group.layers.saturating_mul(elements).saturating_mul(bytes))
    }

    /// What those of a group take of the device's memory.
    pub(super) fn bytes(group: GroupShape, experts: usize) -> usize {
        Self::lists(group, experts).into_iter().fold(0, usize::saturating_add)
    }

    pub(super) const fn group(&self) -> GroupShape {
        self.group
    }

    pub(super) const fn tables(&self) -> SlotTables {
        self.tables
    }

    /// Words of a layer that changes.
    pub(super) const fn change_words(&self) -> usize {
        let SlotTables { experts, physical, slots_here, .. } = self.tables;
        SlotTables::change_words(experts as usize, physical as usize, slots_here as usize)
    }

    /// A changed layer as the device reads it.
    ///
    /// # Panics
    /// If it has other experts, or more slots.
    pub(super) fn words_of(&self, layer: &LayerRouting) -> Vec<u32> {
        let LayerWords { starts, slots, bounds, pages } = self.layer_words(layer);
        [vec![layer.layer as u32], starts, slots, bounds, pages].concat()
    }

    fn layer_words(&self, LayerRouting { copies, pages, .. }: &LayerRouting) -> LayerWords {
        let SlotTables { experts, physical, slots_here, .. } = self.tables;
        assert_eq!(
            (copies.starts.len(), pages.len()),
            (experts as usize + 1, slots_here as usize),
            "a layer of a group"
        );
        let padded = |mut words: Vec<u32>, len: usize| {
            assert!(words.len() <= len, "a layer has no more copies than its group has slots");
            words.resize(len, 0);
            words
        };
        LayerWords {
            starts: copies.starts.clone(),
            slots: padded(
                copies.slots.iter().flat_map(|slot| [slot.rank, slot.index]).collect(),
                2 * physical as usize,
            ),
            bounds: padded(copies.bounds.clone(), physical as usize),
            pages: pages.iter().map(|page| page.0).collect(),
        }
    }

    /// Where counted pairs go for the host, and how many.
    pub(super) const fn pairs(&self) -> (Address, usize) {
        (self.pairs.address(), self.group.layers * self.group.slots)
    }

    /// The counted pairs, once the device has left them.
    pub(super) fn counted(&self) -> Vec<u32> {
        let mut pairs = vec![0; self.group.layers * self.group.slots];
        self.pairs.read(0, &mut pairs);
        pairs
    }
}

/// A layer's lists, as long as the device's.
struct LayerWords {
    starts: Vec<u32>,
    slots: Vec<u32>,
    bounds: Vec<u32>,
    pages: Vec<u32>,
}

/// One layer's routing; its memory is reused by all.
#[derive(Debug)]
pub struct Routing {
    group: GroupShape,
    tables: RoutingTables,
    /// What the tables point at.
    _memory: Vec<Allocation>,
    /// What is between the layers of the experts.
    between: Allocation,
    /// Pairs that arrive, where the device reads them.
    arriving: Mapped,
    /// Tokens of this rank.
    pub(super) tokens: usize,
    /// Pairs of this rank's tokens that are computed here, once the host knows them.
    pub(super) own: Cell<Option<usize>>,
    /// Pairs that arrived.
    pub(super) arrived: usize,
    /// Where rows and results are that came over a link, in a layer that was exchanged so.
    pub(super) linked: Option<Linked>,
    /// Where the pages are of the slots of the layer that was grouped last.
    pub(super) page_of: Address,
}

/// What came over a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linked {
    /// Rows of all ranks' tokens, `[ranks][tokens][hidden]`, as products by the pages' weights read them.
    pub rows: Address,
    /// Results of this rank's pairs that others computed.
    pub homes: Address,
    /// How many of them each rank gives at most, in the order of its pairs; 0 if they are in the order of this rank's pairs.
    pub home_each: u32,
}

impl Routing {
    pub(super) fn new(context: &Arc<Context>, group: GroupShape, page: PageShape) -> Result<Self, DeviceError> {
        let mut memory = Vec::new();
        let mut list = |bytes: usize| -> Result<Address, DeviceError> {
            let made = Allocation::new(context, bytes)?;
            let address = made.address();
            memory.push(made);
            Ok(address)
        };
        let [experts, weights, destinations, given, pairs, places, starts, rows, bases, counts, between] =
            Self::lists(group, page);
        let tables = RoutingTables {
            experts: list(experts)?,
            weights: list(weights)?,
            destinations: list(destinations)?,
            given: list(given)?,
            pairs: list(pairs)?,
            places: list(places)?,
            starts: list(starts)?,
            rows: list(rows)?,
            bases: list(bases)?,
            counts: list(counts)?,
            most_pairs: group.pairs() as u32,
            top_k: group.top_k as u32,
            ranks: group.ranks as u32,
            rank: group.rank as u32,
        };
        let arriving = if group.ranks > 1 { pairs } else { 0 };
        Ok(Self {
            group,
            tables,
            _memory: memory,
            between: Allocation::new(context, between)?,
            arriving: Mapped::new(context, arriving)?,
            tokens: 0,
            own: Cell::new(None),
            arrived: 0,
            linked: None,
            page_of: 0,
        })
    }

    /// Bytes of each of the tables, in their order, and of what is between the layers of the experts.
    fn lists(group: GroupShape, page: PageShape) -> [usize; 11] {
        let (chosen, pairs) = (group.tokens.saturating_mul(group.top_k), group.pairs());
        let word = size_of::<u32>();
        let lists = [
            (chosen, word),
            (chosen, size_of::<f32>()),
            (chosen, size_of::<PairDestination>()),
            (group.ranks, word),
            (pairs, size_of::<SlotPair>()),
            (pairs, word),
            (group.slots + 1, word),
            (pairs, word),
            (group.ranks, word),
            (ROUTING_COUNTS, word),
            // In f32, or in two terms of bfloat16.
            (pairs.saturating_mul(page.intermediate), size_of::<f32>()),
        ];
        lists.map(|(elements, bytes)| elements.saturating_mul(bytes))
    }

    /// What that of a group takes of the device's memory.
    pub(super) fn bytes(group: GroupShape, page: PageShape) -> usize {
        Self::lists(group, page).into_iter().fold(0, usize::saturating_add)
    }

    pub(super) const fn tables(&self) -> RoutingTables {
        self.tables
    }

    pub(super) const fn group(&self) -> GroupShape {
        self.group
    }

    pub(super) const fn between(&self) -> Address {
        self.between.address()
    }

    /// (Token, expert) pairs of this rank's tokens.
    pub(super) const fn chosen(&self) -> usize {
        self.tokens * self.group.top_k
    }

    /// A layer begins with so many tokens. Where a rank is alone, all pairs are its own.
    pub(super) fn begin(&mut self, tokens: usize) {
        (self.tokens, self.arrived, self.linked) = (tokens, 0, None);
        self.own.set((self.group.ranks == 1).then(|| self.chosen()));
    }

    /// Rows of the results of what is computed here: at most so many as the group allows where the host does not know.
    pub(super) fn result_rows(&self) -> Rows {
        let most = self.own.get().map_or(self.tables.most_pairs as usize, |own| own + self.arrived);
        Rows { count: self.tables.counts + (COUNT_PAIRS * size_of::<u32>()) as u64, first: 0, most: most as u32 }
    }

    /// Puts pairs where the device reads them, behind those that arrived before.
    ///
    /// # Panics
    /// If they are more than a step has.
    pub(super) fn arrive(&mut self, pairs: &[Pair]) -> Address {
        let start = self.arrived * size_of::<SlotPair>();
        assert!(self.arrived + pairs.len() <= self.group.pairs(), "more pairs than a step has");
        let pair = |&Pair { slot, row }: &Pair| SlotPair { slot, row };
        self.arriving.write(start, &pairs.iter().map(pair).collect::<Vec<_>>());
        self.arrived += pairs.len();
        self.arriving.address() + start as u64
    }
}

/// A destination as the device tells it.
pub(super) const fn destination(from: &PairDestination) -> Destination {
    let &PairDestination { rank, index, ordinal } = from;
    Destination { slot: Slot { rank, index }, ordinal }
}
