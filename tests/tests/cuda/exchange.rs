//! Experts between ranks, as an exchange through the host brings rows and results from one to another. Ranks are backends' values
//! side by side; what is between them is done here, by hand.

use std::sync::Arc;

use anyhow::{Result, ensure};
use kernels::backend::{PageShape, RouterShape};
use kernels::cpu::Cpu;
use kernels::queue::{Arrived, Home};
use kernels::routing::{Copies, Destination, GroupShape, LayerRouting, Pair, Slot};
use kernels::{Backend, Page, PageId, Queue, StepArea};

use crate::steps::{
    CLOSE, Case, HIDDEN, INTERMEDIATE, Numbers, Steps, TOKENS, Weights, close, gpu, networks, pages, same_bits, tell,
};

const EXPERTS: usize = 16;
const TOP_K: usize = 3;

/// Where experts are: which each slot of each rank holds.
struct Placement {
    ranks: usize,
    slots: Vec<Vec<usize>>,
    copies: Copies,
}

impl Placement {
    /// Every expert once, and some of them more often.
    fn new(numbers: &mut Numbers, ranks: usize, slots_each: usize) -> Self {
        let mut places: Vec<Slot> = (0..ranks * slots_each)
            .map(|place| Slot { rank: (place / slots_each) as u32, index: (place % slots_each) as u32 })
            .collect();
        let (mut holders, mut slots) = (vec![Vec::new(); EXPERTS], vec![vec![0; slots_each]; ranks]);
        for next in 0.. {
            if places.is_empty() {
                break;
            }
            let place = places.swap_remove(numbers.below(places.len()));
            let expert = if next < EXPERTS { next } else { numbers.below(EXPERTS) };
            slots[place.rank as usize][place.index as usize] = expert;
            holders[expert].push(place);
        }
        let mut copies = Copies { starts: vec![0], ..Copies::default() };
        for held in &holders {
            let part = (1 << 32) / held.len() as u64;
            copies.bounds.extend((0..held.len() as u64).map(|copy| (copy * part) as u32));
            copies.slots.extend_from_slice(held);
            copies.starts.push(copies.slots.len() as u32);
        }
        Self { ranks, slots, copies }
    }
}

/// A rank between its choice and its results.
struct Rank<B: Backend> {
    steps: Steps<B>,
    held: Vec<Page<B>>,
    x: B::Buffer<f32>,
    results: B::Buffer<f32>,
    out: B::Buffer<f32>,
    destinations: Vec<Destination>,
    /// Pairs that came from each other rank.
    received: Vec<usize>,
}

/// The tokens of all ranks: logits of the router, rows, and what the results are added to.
struct Tokens {
    logits: Vec<f32>,
    x: Vec<f32>,
    before: Vec<f32>,
    sequences: Vec<u32>,
}

impl Tokens {
    fn new(numbers: &mut Numbers, count: usize) -> Self {
        Self {
            logits: numbers.vec(count * EXPERTS),
            x: numbers.vec(count * HIDDEN),
            before: numbers.vec(count * HIDDEN),
            sequences: (0..count as u32).map(|token| token * 31 + 5).collect(),
        }
    }

    fn share(&self, index: usize, of: usize) -> Self {
        let count = self.sequences.len();
        let (first, end) = (index * count / of, (index + 1) * count / of);
        let part = |values: &[f32], width: usize| values[first * width..end * width].to_vec();
        Self {
            logits: part(&self.logits, EXPERTS),
            x: part(&self.x, HIDDEN),
            before: part(&self.before, HIDDEN),
            sequences: self.sequences[first..end].to_vec(),
        }
    }
}

impl<B: Backend> Rank<B> {
    fn new(
        backend: &Arc<B>,
        experts: &[[Weights; 3]],
        (placement, rank): (&Placement, usize),
        tokens: &Tokens,
    ) -> Result<Self> {
        let networks: Vec<_> = placement.slots[rank].iter().map(|&expert| experts[expert].clone()).collect();
        let page = PageShape { hidden: HIDDEN, intermediate: INTERMEDIATE, kind: networks[0][0].kind() };
        let slots = networks.len();
        let group = GroupShape {
            ranks: placement.ranks,
            rank,
            layers: 1,
            slots,
            top_k: TOP_K,
            tokens: TOKENS / placement.ranks,
        };
        let routing =
            LayerRouting { layer: 0, copies: placement.copies.clone(), pages: (0..slots as u32).map(PageId).collect() };
        let held = pages(backend, page, &networks)?;
        let mut steps = Steps::new(backend, group, vec![routing], page)?;
        let mut area = StepArea::default();
        for (token, &sequence) in tokens.sequences.iter().enumerate() {
            area.push(sequence, 0, &[token as u32], &[0]);
        }
        steps.upload(&area);
        let (logits, out) = (steps.rows(&tokens.logits, EXPERTS)?, steps.rows(&tokens.before, HIDDEN)?);
        let mut x = backend.buffer(group.rows() * HIDDEN)?;
        let table = steps.table(&tokens.x, HIDDEN)?;
        steps.queue.embed(&table, &steps.batch, &mut x);
        let Steps { queue, batch, slots, routing, .. } = &mut steps;
        queue.route(&logits, RouterShape { experts: EXPERTS, top_k: TOP_K, normalise: true }, routing);
        queue.choose(batch, slots, 0, routing);
        let destinations = queue.leaving(routing, &x).destinations.into_owned();
        let results = backend.buffer(group.results() * HIDDEN)?;
        Ok(Self { steps, held, x, results, out, destinations, received: vec![0; placement.ranks] })
    }

    /// Rows that go to another rank, and their pairs.
    fn leave_for(&self, rank: usize) -> (Vec<f32>, Vec<Pair>) {
        let leaving = self.steps.queue.leaving(&self.steps.routing, &self.x);
        let (mut values, mut pairs) = (Vec::new(), Vec::new());
        for (row, destinations) in self.destinations.chunks(TOP_K).enumerate() {
            let there = destinations.iter().filter(|to| to.slot.rank as usize == rank);
            let before = pairs.len();
            pairs.extend(there.map(|to| Pair { slot: to.slot.index, row: (values.len() / HIDDEN) as u32 }));
            if pairs.len() > before {
                values.extend_from_slice(&leaving.values[row * HIDDEN..][..HIDDEN]);
            }
        }
        (values, pairs)
    }

    fn compute(&mut self) {
        let Self { steps: Steps { queue, slots, routing, .. }, held, x, results, .. } = self;
        queue.sort(slots, 0, routing);
        queue.experts(held[0].weights().0, routing, x, results);
    }

    /// Results for each other rank, in the order in which its pairs came.
    fn results_for(&self) -> Vec<Vec<f32>> {
        let returning = self.steps.queue.returning(&self.steps.routing, &self.results);
        let mut rows = returning.rows.iter();
        let mut row = |row: &u32| returning.values[*row as usize * HIDDEN..][..HIDDEN].to_vec();
        self.received.iter().map(|&count| rows.by_ref().take(count).flat_map(&mut row).collect()).collect()
    }
}

/// What all ranks together give their tokens, and the pairs that each of them counted in its slots.
fn exchanged<B: Backend>(
    backend: &Arc<B>,
    experts: &[[Weights; 3]],
    placement: &Placement,
    tokens: &Tokens,
) -> Result<(Vec<f32>, Vec<Vec<u32>>)> {
    let all = placement.ranks;
    let rank = |rank| Rank::new(backend, experts, (placement, rank), &tokens.share(rank, all));
    let mut ranks = (0..all).map(rank).collect::<Result<Vec<_>>>()?;
    let frames: Vec<Vec<_>> = ranks.iter().map(|rank| (0..all).map(|to| rank.leave_for(to)).collect()).collect();
    for (to, rank) in ranks.iter_mut().enumerate() {
        for (_, frames) in frames.iter().enumerate().filter(|(from, _)| *from != to) {
            let (values, pairs) = &frames[to];
            let Steps { queue, routing, .. } = &mut rank.steps;
            queue.arrive(routing, Arrived { width: HIDDEN, values, pairs }, &mut rank.x);
        }
        rank.received = (0..all).map(|from| if from == to { 0 } else { frames[from][to].1.len() }).collect();
        rank.compute();
    }
    let results: Vec<Vec<Vec<f32>>> = ranks.iter().map(Rank::results_for).collect();
    let (mut outputs, mut pairs) = (Vec::new(), Vec::new());
    for (to, rank) in ranks.iter_mut().enumerate() {
        let Rank { steps: Steps { queue, batch, slots, routing, .. }, results: own, out, .. } = rank;
        for (from, results) in results.iter().enumerate().filter(|(from, _)| *from != to) {
            queue.come_home(routing, Home { from, width: HIDDEN, values: &results[to] }, own);
        }
        queue.combine(own, routing, out);
        outputs.extend_from_slice(&queue.read(out));
        queue.finish(batch, slots);
        pairs.push(queue.collect(batch, slots)?.pairs.into_owned());
    }
    Ok((outputs, pairs))
}

fn ranks_together_give_what_one_gives_to_the_bit() -> Result<()> {
    let (gpu, cpu) = (gpu()?, Arc::new(Cpu::new(1)));
    for (seed, kind, count) in [(90, 0, 50), (91, 2, 37), (92, 0, 2), (93, 1, 0)] {
        let mut numbers = Numbers(seed);
        let experts = networks(&mut numbers, EXPERTS, kind);
        let tokens = Tokens::new(&mut numbers, count);
        let alone = Placement::new(&mut numbers, 1, EXPERTS);
        let (one, _) = exchanged(&gpu, &experts, &alone, &tokens)?;
        for (ranks, slots) in [(1, 19), (2, 8), (3, 7)] {
            let placement = Placement::new(&mut numbers, ranks, slots);
            let (expected, counted) = exchanged(&cpu, &experts, &placement, &tokens)?;
            let (found, pairs) = exchanged(&gpu, &experts, &placement, &tokens)?;
            ensure!(pairs == counted, "{ranks} ranks: {pairs:?} pairs instead of {counted:?}");
            close(&format!("{ranks} ranks against the CPU"), &expected, &found, CLOSE)?;
            tell(&format!("{ranks} ranks"), &found);
            same_bits(&format!("{ranks} ranks against one"), &one, &found)?;
        }
    }
    Ok(())
}

pub const CASES: &[Case] =
    &[("ranks_together_give_what_one_gives_to_the_bit", ranks_together_give_what_one_gives_to_the_bit)];
