//! Each operation against plain loops, on every instruction set that this CPU has; and each instruction set against the
//! others, to the bit.

mod attention;
mod experts;
mod pages;
mod products;

use half::{bf16, f16};
use xxhash_rust::xxh3::xxh3_64;

use std::sync::Arc;

use super::*;
use crate::arena::{Arena, Page};
use crate::backend::{HeadShape, RouterShape, Write};
use crate::batch::{Scored, StepArea};
use crate::queue::{Queue, Rotation};
use crate::routing::{Copies, Pair, Slot};
use crate::tensor::{Values, WeightKind};

/// Numbers in [-1, 1), the same in every run.
struct Numbers(u64);

impl Numbers {
    fn new() -> Self {
        Self(0)
    }

    fn next(&mut self) -> f32 {
        self.0 += 1;
        (xxh3_64(&self.0.to_le_bytes()) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// Runs on every instruction set and 1 and 3 threads, checks that all results are the same bits, and gives them.
fn everywhere(run: impl Fn(&Cpu, &CpuQueue) -> Vec<f32> + Sync) -> Vec<f32> {
    let mut first: Option<Vec<f32>> = None;
    for instructions in Instructions::available() {
        for threads in [1, 3] {
            let cpu = Cpu::with_instructions(instructions, threads);
            let run = || run(&cpu, &cpu.queue().unwrap());
            // A thread belongs to one pool only.
            let result = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
            let expected = first.get_or_insert_with(|| result.clone());
            let same = expected.iter().zip(&result).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same && expected.len() == result.len(), "{instructions:?}, {threads} threads");
        }
    }
    first.unwrap()
}

fn filled<T: Pod + Send + Sync>(values: &[T]) -> Buffer<T> {
    Cpu::new(1).filled(values).unwrap()
}

/// An empty buffer that is large enough for any of these tests.
fn room() -> Buffer<f32> {
    Buffer::new(1 << 20).unwrap()
}

/// A batch of these sequences: first position, number of tokens and blocks of each; and slots that no test of these needs.
fn batch(cpu: &Cpu, queue: &CpuQueue, sequences: &[(usize, usize, &[u32])]) -> Batch {
    let mut area = StepArea::default();
    for &(position, tokens, blocks) in sequences {
        area.push(0, position as u32, &vec![0; tokens], blocks);
    }
    uploaded(cpu, queue, &area)
}

fn uploaded(cpu: &Cpu, queue: &CpuQueue, area: &StepArea) -> Batch {
    let (limits, mut slots) = (StepLimits { tokens: 1000, blocks: 1000, ..StepLimits::default() }, one_rank(cpu, 1, 1));
    let mut batch = cpu.batch(limits, &slots).unwrap();
    queue.upload(area, &mut batch, &mut slots);
    batch
}

#[test]
fn each_thread_keeps_as_much_between_operations_as_is_foreseen() {
    let heads = HeadShape { query: 4, key_value: 2, dimension: 16 };
    let shape = |intermediate| PageShape { hidden: 32, intermediate, kind: WeightKind::F32 };
    let cache = |blocks| CacheShape { heads, blocks, block_tokens: 16, kind: WeightKind::F32 };
    for (blocks, widths, vocabulary) in [(2, [40, 8], 5), (900, [40, 8], 3000), (1, [8, 64], 0), (0, [0, 0], 0)] {
        let (cpu, shapes) = (Cpu::new(3), widths.map(shape));
        cpu.cache(cache(blocks)).unwrap();
        for shape in shapes {
            cpu.pages(shape).unwrap();
        }
        cpu.batch(StepLimits { vocabulary, ..StepLimits::default() }, &one_rank(&cpu, 1, 1)).unwrap();
        let foreseen = Cpu::scratch_bytes(cache(blocks), &shapes, vocabulary);
        for thread in 0..3 {
            let lent = cpu.scratch.of(thread);
            let made = size_of_val(&*lent.numbers) + lent.tokens.capacity() * size_of::<Scored>();
            assert_eq!(made as u64, foreseen, "{blocks} blocks, networks of {widths:?}, {vocabulary} tokens");
        }
    }
}

/// The slots of one rank that holds every expert, in order.
fn one_rank(cpu: &Cpu, experts: usize, top_k: usize) -> Slots {
    let starts = (0..=experts as u32).collect();
    let slots = (0..experts as u32).map(|index| Slot { rank: 0, index }).collect();
    let copies = Copies { starts, slots, bounds: vec![0; experts] };
    let pages = (0..experts as u32).map(PageId).collect();
    cpu.slots(group(experts, top_k), vec![LayerRouting { layer: 0, copies, pages }]).unwrap()
}

/// An arena of these networks, in order.
fn arena<'a>(cpu: &Cpu, shape: PageShape, networks: impl IntoIterator<Item = [&'a Weights; 3]>) -> Vec<Page<Cpu>> {
    let arena = Arena::new(Arc::new(cpu.clone()), shape).unwrap();
    let network = |[gate, up, down]: [&Weights; 3]| {
        let mut page = arena.take().unwrap();
        page.pack(gate.view(shape.intermediate), up.view(shape.intermediate), down.view(shape.hidden)).unwrap();
        page
    };
    networks.into_iter().map(network).collect()
}

fn group(slots: usize, top_k: usize) -> GroupShape {
    GroupShape { ranks: 1, rank: 0, layers: 1, slots, top_k, tokens: 1000 }
}

/// Memory for the routing of a layer; the CPU needs no page's shape for it.
fn routing(cpu: &Cpu, group: GroupShape) -> Routing {
    cpu.routing(group, PageShape { hidden: 0, intermediate: 0, kind: WeightKind::F32 }).unwrap()
}

fn close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(difference <= tolerance * expected.abs().max(1.0), "{index}: {found} instead of {expected}");
    }
}

/// Weights of one of the three types, and what they are as f64.
enum Weights {
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    F32(Vec<f32>),
}

impl Weights {
    fn all(numbers: &mut Numbers, len: usize) -> [Self; 3] {
        [
            Self::Bf16(numbers.vec(len).into_iter().map(bf16::from_f32).collect()),
            Self::F16(numbers.vec(len).into_iter().map(f16::from_f32).collect()),
            Self::F32(numbers.vec(len)),
        ]
    }

    fn values(&self) -> Values<'_> {
        match self {
            Self::Bf16(values) => Values::Bf16(values),
            Self::F16(values) => Values::F16(values),
            Self::F32(values) => Values::F32(values),
        }
    }

    fn view(&self, rows: usize) -> MatrixView<'_> {
        MatrixView::new(rows, self.values().len() / rows, self.values())
    }

    fn get(&self, index: usize) -> f64 {
        f64::from(self.values().get(index))
    }
}

fn plain_matmul(x: &[f64], weights: &Weights, rows: usize) -> Vec<f64> {
    let columns = weights.values().len() / rows;
    x.chunks(columns)
        .flat_map(|x| (0..rows).map(|row| (0..columns).map(|k| x[k] * weights.get(row * columns + k)).sum::<f64>()))
        .collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}
