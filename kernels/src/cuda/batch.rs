//! A step on the device: what the host prepares in memory that the device reads in place, the device's own copy of it, what it
//! leaves for the host, and room for what is between operations. All of it is made before the first step.

use std::cell::Cell;
use std::sync::Arc;

use half::bf16;

use super::clock::Clock;
use super::context::Context;
use super::graph::Graphs;
use super::memory::{Allocation, Mapped};
use super::parameters::{
    ASKED_DRAW, ASKED_SCORE, ASKED_SUM, Address, AttentionItem, MOST_TERMS, PART_TOKENS, Rows, SPLIT_KEYS, SamplePart,
    SlotTables, StepAsked, StepHeader, StepLayout, StepSampled, StepScored, StepSpan, WEIGHT_BINS, WeightBin,
};
use super::routing::Slots;
use super::shape::check_heads;
use crate::batch::{Asked, MOST_BEST, Sampled, Scored, Span, StepArea, StepLimits};
use crate::error::DeviceError;
use crate::routing::GroupShape;

/// Partial results of attention that a step has room for at most, each of 256 keys of one token; tokens for which there is no room
/// are computed whole, by one block.
const MOST_PARTIALS: usize = 8192;

/// What a step computes, and what it leaves for the host.
#[derive(Debug)]
pub struct Batch {
    /// Of its steps that are alike.
    pub(super) graphs: Graphs,
    limits: StepLimits,
    layout: StepLayout,
    change_words: usize,
    /// What the host prepares.
    area: Mapped,
    /// The device's copy.
    copy: Allocation,
    items: Allocation,
    /// The numbers of items, and the error word.
    words: Allocation,
    sampled: Allocation,
    best: Allocation,
    /// The answers, then best tokens, then the error word, for the host.
    answers: Mapped,
    scratch: Arc<Scratch>,
    /// Of what its operations are for.
    pub(super) clock: Clock,
    /// Tokens that operations are prepared for.
    tokens: usize,
    /// How much is asked, and how much operations are prepared for.
    asked: usize,
    most_asked: usize,
    /// Items of attention at most.
    attention: usize,
    /// Whether the device may not have read the area yet.
    is_under_way: Cell<bool>,
}

/// Room for what is between operations.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Rows in terms of bfloat16.
    pub terms: Allocation,
    /// How many of their elements there is room for.
    pub terms_elements: usize,
    /// What is between the layers of a feed-forward network.
    pub between: Allocation,
    /// Its elements.
    pub between_elements: usize,
    /// Of attention.
    pub partials: Allocation,
    /// Of rows of logits.
    pub parts: Allocation,
    /// Of tokens.
    pub weights: Allocation,
    /// Of tokens by weight.
    pub bins: Allocation,
}

impl Scratch {
    fn new(context: &Arc<Context>, limits: &StepLimits, rows: usize) -> Result<Self, DeviceError> {
        let elements @ [terms_elements, between_elements, ..] = Self::elements(limits, rows);
        let [terms, between, partials, parts, weights, bins] =
            Self::lists(elements).map(|bytes| Allocation::new(context, bytes));
        Ok(Self {
            terms: terms?,
            terms_elements,
            between: between?,
            between_elements,
            partials: partials?,
            parts: parts?,
            weights: weights?,
            bins: bins?,
        })
    }

    /// Elements of each, in the order of the fields.
    fn elements(limits: &StepLimits, rows: usize) -> [usize; 6] {
        let StepLimits { tokens, logit_rows, vocabulary, hidden, intermediate, heads, .. } = *limits;
        [
            rows.saturating_mul(hidden).max(tokens.saturating_mul(heads.query_width())),
            tokens.saturating_mul(intermediate),
            partials(limits) * heads.query * (heads.dimension + 2),
            logit_rows * vocabulary.div_ceil(PART_TOKENS),
            // Rows begin at whole loads.
            logit_rows.saturating_mul(vocabulary.next_multiple_of(4)),
            logit_rows.saturating_mul(WEIGHT_BINS),
        ]
    }

    /// Bytes of as many elements.
    fn lists(elements: [usize; 6]) -> [usize; 6] {
        let float = size_of::<f32>();
        let widths =
            [MOST_TERMS * size_of::<bf16>(), float, float, size_of::<SamplePart>(), float, size_of::<WeightBin>()];
        std::array::from_fn(|index| elements[index].saturating_mul(widths[index]))
    }
}

impl Batch {
    pub(super) fn new(context: &Arc<Context>, limits: StepLimits, slots: &Slots) -> Result<Self, DeviceError> {
        let StepLimits { tokens, blocks, .. } = limits;
        check_heads(&limits)?;
        let change_words = slots.change_words();
        let layout = StepLayout::new(tokens, blocks, slots.group().layers, change_words);
        let bytes = layout.words as usize * size_of::<u32>();
        let [copy, items, words, sampled, best] =
            Self::lists(&limits, bytes).map(|bytes| Allocation::new(context, bytes));
        Ok(Self {
            graphs: Graphs::default(),
            layout,
            change_words,
            area: Mapped::new(context, bytes)?,
            copy: copy?,
            items: items?,
            words: words?,
            sampled: sampled?,
            best: best?,
            answers: Mapped::new(context, error_at(tokens) + size_of::<u64>())?,
            scratch: Arc::new(Scratch::new(context, &limits, slots.group().rows())?),
            clock: Clock::new(context, slots.group().layers)?,
            limits,
            tokens: 0,
            asked: 0,
            most_asked: 0,
            attention: 0,
            is_under_way: Cell::new(false),
        })
    }

    /// Bytes of the copy, the items, the words and the answers of a step within limits, whose area has so many bytes.
    fn lists(limits: &StepLimits, area: usize) -> [usize; 5] {
        let tokens = limits.tokens;
        let lists = [
            (1, area),
            (tokens.saturating_add(partials(limits)), size_of::<AttentionItem>()),
            (3, size_of::<u32>()),
            (tokens, size_of::<StepSampled>()),
            (tokens.saturating_mul(MOST_BEST), size_of::<StepScored>()),
        ];
        lists.map(|(elements, bytes)| elements.saturating_mul(bytes))
    }

    /// What one takes of the device's memory, for a group of a model with so many experts in each layer.
    pub(super) fn bytes(limits: &StepLimits, group: GroupShape, experts: usize) -> usize {
        let GroupShape { ranks, layers, slots, .. } = group;
        let change_words = SlotTables::change_words(experts, ranks.saturating_mul(slots), slots);
        let area = StepLayout::new(limits.tokens, limits.blocks, layers, change_words).words as usize;
        let own = Self::lists(limits, area.saturating_mul(size_of::<u32>()));
        let scratch = Scratch::lists(Scratch::elements(limits, group.rows()));
        own.into_iter().chain(scratch).fold(0, usize::saturating_add)
    }

    /// Whether the device may still read what the host prepared last.
    pub(super) const fn is_under_way(&self) -> bool {
        self.is_under_way.get()
    }

    /// Says that all has been done that was put on a queue for it.
    pub(super) fn has_ended(&self) {
        self.is_under_way.set(false);
    }

    /// Prepares a step. The device reads none of the area meanwhile.
    ///
    /// # Panics
    /// If it is larger than a step may be.
    pub(super) fn prepare(&mut self, area: &StepArea, slots: &Slots) {
        let StepArea { ids, positions, sequences, spans, blocks, asked, changes, bucket } = area;
        let limits = &self.limits;
        assert!(
            ids.len() <= limits.tokens && asked.len() <= limits.tokens && blocks.len() <= limits.blocks,
            "a step within its limits"
        );
        assert!(
            bucket.is_none_or(|most| ids.len().max(asked.len()) <= most && most <= limits.tokens),
            "a step within its bucket"
        );
        assert!(changes.len() <= slots.group().layers, "each layer changes once at most");
        let words = |count: usize| count as u32;
        let header = StepHeader {
            tokens: words(ids.len()),
            spans: words(spans.len()),
            blocks: words(blocks.len()),
            asked: words(asked.len()),
            changes: words(changes.len()),
            unused_0: 0,
            unused_1: 0,
            unused_2: 0,
        };
        let spans: Vec<StepSpan> = spans.iter().map(step_span).collect();
        let partials = partials(limits);
        self.attention = match bucket {
            Some(most) => most + partials,
            None => spans.iter().map(|span| items_of(span.tokens, span.position, partials)).sum(),
        };
        let questions: Vec<StepAsked> = asked.iter().map(step_asked).collect();
        let at = |word: u32| word as usize * size_of::<u32>();
        let Self { area, layout, change_words, .. } = self;
        area.write(0, &[header]);
        area.write(at(layout.ids), ids);
        area.write(at(layout.positions), positions);
        area.write(at(layout.sequences), sequences);
        area.write(at(layout.spans), &spans);
        area.write(at(layout.blocks), blocks);
        area.write(at(layout.asked), &questions);
        for (index, change) in changes.iter().enumerate() {
            area.write(at(layout.changes) + index * *change_words * size_of::<u32>(), &slots.words_of(change));
        }
        (self.tokens, self.asked) = (bucket.unwrap_or(ids.len()), asked.len());
        self.most_asked = bucket.unwrap_or(asked.len());
        self.clock.restart();
        self.is_under_way.set(true);
    }

    /// Partial results of attention that there is room for.
    pub(super) fn most_partials(&self) -> usize {
        partials(&self.limits)
    }

    pub(super) const fn layout(&self) -> StepLayout {
        self.layout
    }

    pub(super) const fn limits(&self) -> &StepLimits {
        &self.limits
    }

    pub(super) const fn scratch(&self) -> &Arc<Scratch> {
        &self.scratch
    }

    /// Where the device finds what the host prepared.
    pub(super) const fn area(&self) -> Address {
        self.area.address()
    }

    /// The device's copy.
    pub(super) const fn copy(&self) -> Address {
        self.copy.address()
    }

    pub(super) const fn items(&self) -> Address {
        self.items.address()
    }

    pub(super) const fn item_count(&self) -> Address {
        self.words.address()
    }

    pub(super) const fn error(&self) -> Address {
        self.words.address() + 2 * size_of::<u32>() as u64
    }

    pub(super) const fn sampled(&self) -> Address {
        self.sampled.address()
    }

    pub(super) const fn best(&self) -> Address {
        self.best.address()
    }

    /// A list of the device's copy, by where it begins.
    pub(super) const fn list(&self, word: u32) -> Address {
        self.copy.address() + word as u64 * size_of::<u32>() as u64
    }

    /// Tokens of the step that operations are prepared for.
    pub(super) const fn tokens(&self) -> usize {
        self.tokens
    }

    /// How much operations are prepared to be asked.
    pub(super) const fn most_asked(&self) -> usize {
        self.most_asked
    }

    /// Items of attention at most, each of all key heads.
    pub(super) const fn attention(&self) -> usize {
        self.attention
    }

    /// Rows of all tokens.
    pub(super) const fn token_rows(&self) -> Rows {
        Rows { count: self.copy.address(), first: 0, most: self.tokens as u32 }
    }

    /// Rows of some of what is asked.
    pub(super) const fn asked_rows(&self, first: usize, count: usize) -> Rows {
        Rows { count: self.asked_count(), first: first as u32, most: count as u32 }
    }

    /// Where the device has how much is asked.
    pub(super) const fn asked_count(&self) -> Address {
        self.copy.address() + std::mem::offset_of!(StepHeader, asked) as u64
    }

    /// Where answers, best tokens and the error word go for the host.
    pub(super) const fn answers(&self) -> [Address; 3] {
        let (address, tokens) = (self.answers.address(), self.limits.tokens);
        [address, address + best_at(tokens) as u64, address + error_at(tokens) as u64]
    }

    /// The answers, once the device has left them.
    pub(super) fn sampled_rows(&self) -> Vec<Sampled> {
        let mut rows = vec![bytemuck::Zeroable::zeroed(); self.asked];
        self.answers.read::<StepSampled>(0, &mut rows);
        rows.iter().map(sampled).collect()
    }

    /// The best tokens, as above.
    pub(super) fn best_tokens(&self) -> Vec<Scored> {
        let mut tokens = vec![bytemuck::Zeroable::zeroed(); self.asked * MOST_BEST];
        self.answers.read::<StepScored>(best_at(self.limits.tokens), &mut tokens);
        tokens.iter().map(|&StepScored { token, logit }| Scored { token, logit }).collect()
    }

    /// The error word, as above.
    pub(super) fn error_word(&self) -> u32 {
        let mut word = [0];
        self.answers.read(error_at(self.limits.tokens), &mut word);
        word[0]
    }
}

const fn best_at(tokens: usize) -> usize {
    tokens * size_of::<StepSampled>()
}

const fn error_at(tokens: usize) -> usize {
    best_at(tokens) + tokens * MOST_BEST * size_of::<StepScored>()
}

/// Partial results of attention that a step has room for: what single tokens need whose sequences fill the cache. One that is spread
/// has more than one split, so at most two of its partial results are of as many keys as one split has.
fn partials(limits: &StepLimits) -> usize {
    (limits.blocks.saturating_mul(limits.block_tokens).saturating_mul(2) / SPLIT_KEYS).min(MOST_PARTIALS)
}

/// Items that attention makes of a span at most, with room for so many partial results: some for each token.
fn items_of(tokens: u32, position: u32, most: usize) -> usize {
    let splits = (position as usize + tokens as usize).div_ceil(SPLIT_KEYS);
    if tokens == 1 { splits.min(most.max(1)) } else { tokens as usize }
}

fn step_span(&Span { tokens, position, first_block }: &Span) -> StepSpan {
    StepSpan { tokens, position, first_block, unused: 0 }
}

fn step_asked(asked: &Asked) -> StepAsked {
    let &Asked { row, draw, score, best, sum } = asked;
    let flag = |is_asked: bool, flag: u32| if is_asked { flag } else { 0 };
    let flags = flag(draw.is_some(), ASKED_DRAW) | flag(score.is_some(), ASKED_SCORE) | flag(sum, ASKED_SUM);
    StepAsked {
        uniform: draw.map_or(0.0, |draw| draw.uniform),
        temperature: draw.map_or(0.0, |draw| draw.temperature),
        top_p: draw.map_or(1.0, |draw| draw.top_p),
        top_k: draw.map_or(0, |draw| draw.top_k),
        row,
        flags,
        score: score.unwrap_or(0),
        best,
        unused: 0,
    }
}

fn sampled(row: &StepSampled) -> Sampled {
    let &StepSampled { log_sum, largest, score, drawn, drawn_logit, is_ordered, unused: _ } = row;
    let drawn = Scored { token: drawn, logit: drawn_logit };
    Sampled { is_ordered: is_ordered != 0, largest, log_sum, drawn, score }
}
