//! Each operation against plain loops, on every instruction set that this CPU has; and each instruction set against the
//! others, to the bit.

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

#[test]
fn a_product_is_right_for_every_type_shape_and_number_of_rows() {
    let mut numbers = Numbers::new();
    for (rows, columns) in [(1, 1), (31, 7), (32, 8), (33, 16), (160, 24), (257, 33), (300, 128)] {
        for weights in Weights::all(&mut numbers, rows * columns) {
            for tokens in [1, 2, 3, 4, 5, 7, 8, 9, 15, 100] {
                let (x, bias) = (numbers.vec(tokens * columns), numbers.vec(rows));
                let before = numbers.vec(tokens * rows);
                let found = everywhere(|cpu, queue| {
                    let mut out = filled(&before);
                    queue.matmul(
                        &filled(&x),
                        &cpu.matrix(weights.view(rows), Some(&bias)).unwrap(),
                        Write::Add,
                        &mut out,
                    );
                    out.to_vec()
                });
                let mut expected = plain_matmul(&wide(&x), &weights, rows);
                for (index, value) in expected.iter_mut().enumerate() {
                    *value += f64::from(bias[index % rows]) + f64::from(before[index]);
                }
                close(&found, &expected, 1e-5);
            }
        }
    }
}

#[test]
fn a_row_of_a_product_is_the_same_bits_alone_and_among_others() {
    let mut numbers = Numbers::new();
    let weights = &Weights::all(&mut numbers, 300 * 40)[0];
    let x = numbers.vec(29 * 40);
    let together = everywhere(|cpu, queue| {
        let mut out = room();
        queue.matmul(&filled(&x), &cpu.matrix(weights.view(300), None).unwrap(), Write::Replace, &mut out);
        out.to_vec()
    });
    let alone = everywhere(|cpu, queue| {
        let (matrix, mut out) = (cpu.matrix(weights.view(300), None).unwrap(), room());
        let row = |x: &[f32]| {
            queue.matmul(&filled(x), &matrix, Write::Replace, &mut out);
            out.to_vec()
        };
        x.chunks(40).flat_map(row).collect()
    });
    assert!(together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn a_table_gives_its_rows() {
    let mut numbers = Numbers::new();
    for weights in Weights::all(&mut numbers, 10 * 20) {
        let found = everywhere(|cpu, queue| {
            let mut area = StepArea::default();
            area.push(0, 0, &[3, 9, 3], &[]);
            let mut out = room();
            queue.embed(&cpu.lookup(weights.view(10)).unwrap(), &uploaded(cpu, queue, &area), &mut out);
            out.to_vec()
        });
        let expected: Vec<f64> =
            [3, 9, 3].iter().flat_map(|row| (0..20).map(|i| weights.get(row * 20 + i)).collect::<Vec<_>>()).collect();
        close(&found, &expected, 0.0);
    }
}

fn plain_norm(row: &[f64], weight: &[f32], epsilon: f64) -> Vec<f64> {
    let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
    row.iter().zip(weight).map(|(x, w)| x / (mean + epsilon).sqrt() * f64::from(*w)).collect()
}

#[test]
fn a_norm_divides_by_the_root_mean_square() {
    let mut numbers = Numbers::new();
    for width in [1, 16, 20, 128, 130] {
        let (x, weight) = (numbers.vec(50 * width), numbers.vec(width));
        let found = everywhere(|_, queue| {
            let mut out = room();
            queue.rms_norm(&filled(&x), &filled(&weight), 1e-3, &mut out);
            out.to_vec()
        });
        let expected: Vec<f64> = wide(&x).chunks(width).flat_map(|row| plain_norm(row, &weight, 1e-3)).collect();
        close(&found, &expected, 1e-5);
    }
}

#[test]
fn the_exponential_is_within_two_units_in_the_last_place_and_ends_in_zero() {
    // Of a row of two, the second is e^x of the largest's e^0: exactly what softmax computes.
    struct Exp<'a>(&'a mut [f32]);
    impl simd::Kernel for Exp<'_> {
        type Output = ();
        #[inline(always)]
        fn run<X: simd::Vector>(self, x: X) {
            for part in self.0.chunks_mut(simd::LANES) {
                x.store_part(x.exp(x.load_part(part)), part);
            }
        }
    }
    let inputs: Vec<f32> = (-87_300..=88_700).map(|x| x as f32 / 1000.0).chain([0.0, -0.0, 1e-30]).collect();
    let found = everywhere(|cpu, _| {
        let mut values = inputs.clone();
        cpu.instructions.run(Exp(&mut values));
        values
    });
    for (x, found) in inputs.iter().zip(&found) {
        let expected = f64::from(*x).exp();
        let unit = f64::from(f32::from_bits((expected as f32).to_bits() + 1) - expected as f32);
        assert!((f64::from(*found) - expected).abs() <= 2.0 * unit, "e^{x} = {found}, expected {expected}");
    }
    let ends = everywhere(|cpu, _| {
        let mut values = vec![-88.0, -1e30, f32::NEG_INFINITY, 89.0, 1e30];
        cpu.instructions.run(Exp(&mut values));
        values
    });
    assert_eq!(ends[..3], [0.0; 3]);
    assert!(ends[3..].iter().all(|value| value.is_finite() && *value > 3e38));
}

#[test]
fn heads_are_normed_and_rotated_by_position() {
    let mut numbers = Numbers::new();
    for dimension in [2, 16, 32, 36] {
        let heads = HeadShape { query: 3, key_value: 1, dimension };
        let (x, query_norm, key_norm) =
            (numbers.vec(2 * heads.projected_width()), numbers.vec(dimension), numbers.vec(dimension));
        let angles = numbers.vec(5 * dimension);
        let found = everywhere(|cpu, queue| {
            let mut out = filled(&x);
            let (query_norm, key_norm, angles) = (&filled(&query_norm), &filled(&key_norm), &filled(&angles));
            let batch = batch(cpu, queue, &[(4, 1, &[]), (1, 1, &[])]);
            queue.rotate(&mut out, &batch, &Rotation { heads, query_norm, key_norm, epsilon: 1e-3, angles });
            out.to_vec()
        });
        let mut expected = wide(&x);
        for (row, position) in expected.chunks_mut(heads.projected_width()).zip([4, 1]) {
            for (index, head) in row.chunks_mut(dimension).take(4).enumerate() {
                let normed = plain_norm(head, if index < 3 { &query_norm } else { &key_norm }, 1e-3);
                let angles = &wide(&angles)[position * dimension..][..dimension];
                let half = dimension / 2;
                for i in 0..half {
                    let (cos, sin) = (angles[i], angles[half + i]);
                    head[i] = normed[i] * cos - normed[half + i] * sin;
                    head[half + i] = normed[half + i] * cos + normed[i] * sin;
                }
            }
        }
        close(&found, &expected, 1e-5);
    }
}

/// Attention of one query over keys and values `[keys, dimension]`.
fn plain_attention(query: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let scores: Vec<f64> = keys.iter().map(|key| dot(query, key) / (query.len() as f64).sqrt()).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..query.len()).map(|i| weights.iter().zip(values).map(|(w, value)| w / sum * f64::from(value[i])).sum()).collect()
}

#[test]
fn a_cache_that_the_system_has_no_memory_for_is_an_error_and_no_end() {
    let heads = HeadShape { query: 4, key_value: 2, dimension: 32 };
    let cpu = Cpu::new(1);
    // A head has 16 keys and values of 32 elements of 4 bytes in a tile.
    let tile = 2 * 2 * 16 * 32 * 4;
    assert_eq!(
        Cpu::cache_bytes(CacheShape { heads, blocks: 3, block_tokens: 32, kind: WeightKind::F32 }),
        3 * 2 * tile
    );
    for (blocks, bytes) in [(1 << 44, tile << 44), (usize::MAX, u64::MAX)] {
        let error = cpu.cache(CacheShape { heads, blocks, block_tokens: 16, kind: WeightKind::F32 }).unwrap_err();
        assert_eq!(error, DeviceError::Memory { bytes });
    }
}

#[test]
fn attention_is_causal_over_blocks_in_any_order_and_the_same_bits_in_any_chunking() {
    let mut numbers = Numbers::new();
    for (query, key_value, dimension, block_tokens) in [(6, 2, 32, 16), (4, 4, 20, 32), (2, 1, 64, 16), (1, 1, 8, 16)] {
        let heads = HeadShape { query, key_value, dimension };
        let width = heads.projected_width();
        let lengths = [70, 1, 33];
        let rows: Vec<Vec<f32>> = lengths.iter().map(|length| numbers.vec(length * width)).collect();
        let blocks = [vec![9, 2, 5, 0, 7], vec![1], vec![8, 3, 4]];
        // Each round runs some tokens of each sequence; a stale cache must not matter.
        let run = |cpu: &Cpu, queue: &CpuQueue, rounds: &[[usize; 3]]| {
            let shape = CacheShape { heads, blocks: 10, block_tokens, kind: WeightKind::F32 };
            let mut cache = cpu.cache(shape).unwrap();
            let stale = filled(&vec![f32::NAN; 5 * block_tokens * width]);
            for blocks in &[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]] {
                queue.store(&mut cache, &stale, &batch(cpu, queue, &[(0, 5 * block_tokens, blocks)]));
            }
            let mut outputs = vec![Vec::new(); 3];
            let mut done = [0; 3];
            for round in rounds {
                let mut projected = Vec::new();
                let mut spans = Vec::new();
                for sequence in (0..3).filter(|sequence| round[*sequence] > 0) {
                    let (position, tokens) = (done[sequence], round[sequence]);
                    projected.extend_from_slice(&rows[sequence][position * width..(position + tokens) * width]);
                    spans.push((position, tokens, &blocks[sequence][..]));
                }
                let (projected, batch) = (filled(&projected), batch(cpu, queue, &spans));
                queue.store(&mut cache, &projected, &batch);
                let mut out = room();
                queue.attend(&cache, &projected, &batch, &mut out);
                let mut rest = &out[..];
                for sequence in (0..3).filter(|sequence| round[*sequence] > 0) {
                    let (own, left) = rest.split_at(round[sequence] * heads.query_width());
                    outputs[sequence].extend_from_slice(own);
                    done[sequence] += round[sequence];
                    rest = left;
                }
            }
            assert_eq!(done, lengths);
            outputs.concat()
        };
        let whole = everywhere(|cpu, queue| run(cpu, queue, &[[70, 1, 33]]));
        let rounds = [[1, 0, 2], [16, 1, 0], [0, 0, 30], [52, 0, 0], [1, 0, 1]];
        let chunked = everywhere(|cpu, queue| run(cpu, queue, &rounds));
        assert!(whole.iter().zip(&chunked).all(|(a, b)| a.to_bits() == b.to_bits()));
        let mut expected = Vec::new();
        for (rows, length) in rows.iter().zip(lengths) {
            let head = |token: usize, head: usize| rows[token * width + head * dimension..][..dimension].to_vec();
            for token in 0..length {
                for index in 0..query {
                    let key = query + index / (query / key_value);
                    let keys: Vec<_> = (0..=token).map(|at| head(at, key)).collect();
                    let values: Vec<_> = (0..=token).map(|at| head(at, key + key_value)).collect();
                    expected.extend(plain_attention(&head(token, index), &keys, &values));
                }
            }
        }
        close(&whole, &expected, 1e-5);
    }
}

#[test]
fn a_router_takes_the_best_experts_in_order_and_the_lower_of_equal_ones() {
    let logits = vec![
        0.0, 3.0, 1.0, 3.0, -5.0, 2.0, //
        1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
    ];
    for normalise in [false, true] {
        let shape = RouterShape { experts: 6, top_k: 3, normalise };
        let weights = everywhere(|cpu, queue| {
            let mut routing = routing(cpu, group(6, 3));
            queue.route(&filled(&logits), shape, &mut routing);
            assert_eq!(routing.routed(2).0, [1, 3, 5, 0, 1, 2]);
            routing.routed(2).1.to_vec()
        });
        let expected: Vec<f64> = logits
            .chunks(6)
            .zip([[1, 3, 5], [0, 1, 2]])
            .flat_map(|(row, chosen)| {
                let all: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
                let some: f64 = chosen.iter().map(|expert| f64::from(row[*expert]).exp()).sum();
                chosen.map(|expert| f64::from(row[expert]).exp() / if normalise { some } else { all })
            })
            .collect();
        close(&weights, &expected, 1e-6);
    }
}

#[test]
fn each_group_goes_through_its_page_and_no_row_through_two() {
    let mut numbers = Numbers::new();
    for (hidden, intermediate) in [(32, 16), (40, 36), (128, 64)] {
        let pages: Vec<[Weights; 3]> = (0..3)
            .map(|page| {
                let mut one = |_| {
                    let mut all = Weights::all(&mut numbers, hidden * intermediate).into_iter();
                    if page == 0 { all.next().unwrap() } else { all.nth(2).unwrap() }
                };
                [one(0), one(1), one(2)]
            })
            .collect();
        let x = numbers.vec(90 * hidden);
        // Group 1 is empty; rows 3 and 7 go to two groups.
        let rows: Vec<u32> = [3, 7, 0].into_iter().chain(1..80).chain([7]).collect();
        let pairs =
            (0..).zip(&rows).map(|(place, &row)| Pair { slot: if place < 3 { 0 } else { 2 }, row }).collect::<Vec<_>>();
        for kind in [WeightKind::F32, WeightKind::Bf16] {
            let one_kind = |page: usize| if kind == WeightKind::Bf16 { 0 } else { page };
            let found = everywhere(|cpu, queue| {
                let shape = PageShape { hidden, intermediate, kind };
                let pages = arena(cpu, shape, (0..3).map(|page| pages[one_kind(page)].each_ref()));
                let (mut routing, mut slots, mut out) = (routing(cpu, group(3, 3)), one_rank(cpu, 3, 3), room());
                routing.arrive(0, &pairs);
                queue.group(&mut slots, 0, &mut routing);
                assert_eq!(slots.pairs(), [3, 0, 80]);
                queue.experts(pages[0].weights().0, &routing, &filled(&x), &mut out);
                out.to_vec()
            });
            let mut expected = Vec::new();
            for (place, row) in rows.iter().enumerate() {
                let [gate, up, down] = &pages[one_kind(if place < 3 { 0 } else { 2 })];
                let input = wide(&x[*row as usize * hidden..][..hidden]);
                let (gate, up) = (plain_matmul(&input, gate, intermediate), plain_matmul(&input, up, intermediate));
                let between: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                expected.extend(plain_matmul(&between, down, hidden));
            }
            // Three products of sums that nearly cancel.
            close(&found, &expected, 1e-4);
        }
    }
}

#[test]
fn a_dense_network_is_the_one_of_a_group_of_all_rows_added_to_what_was_there() {
    let mut numbers = Numbers::new();
    let (hidden, intermediate, tokens) = (40, 36, 70);
    let [gate, up, down] =
        [0, 1, 2].map(|_| Weights::Bf16(numbers.vec(hidden * intermediate).into_iter().map(bf16::from_f32).collect()));
    let (x, before) = (numbers.vec(tokens * hidden), numbers.vec(tokens * hidden));
    let shape = PageShape { hidden, intermediate, kind: WeightKind::Bf16 };
    let page = |cpu: &Cpu| arena(cpu, shape, [[&gate, &up, &down]]).remove(0);
    let dense = everywhere(|cpu, queue| {
        let mut out = filled(&before);
        queue.feed_forward(page(cpu).weights(), &filled(&x), &mut out);
        out.to_vec()
    });
    let alone = everywhere(|cpu, queue| {
        let (mut routing, mut slots) = (routing(cpu, group(1, 1)), one_rank(cpu, 1, 1));
        let (mut results, mut out) = (room(), filled(&before));
        let ones = RouterShape { experts: 1, top_k: 1, normalise: true };
        queue.route(&filled(&vec![0.0; tokens]), ones, &mut routing);
        queue.choose(&batch(cpu, queue, &[(0, tokens, &[])]), &slots, 0, &mut routing);
        queue.group(&mut slots, 0, &mut routing);
        queue.experts(page(cpu).weights().0, &routing, &filled(&x), &mut results);
        queue.combine(&results, &routing, &mut out);
        out.to_vec()
    });
    assert!(dense.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn outputs_of_experts_are_weighted_and_added_to_what_was_there() {
    let mut numbers = Numbers::new();
    let (x, before) = (numbers.vec(6 * 20), numbers.vec(3 * 20));
    // Three tokens of two experts each, by a router that likes these; the results lie by expert.
    let logits = [0.0, 3.0, 2.0, 5.0, 4.0, 0.0, 1.0, 0.0, 2.0];
    let shape = RouterShape { experts: 3, top_k: 2, normalise: false };
    let (rows, weights) = ([2, 4, 0, 3, 5, 1], std::sync::Mutex::new(Vec::new()));
    let found = everywhere(|cpu, queue| {
        let (mut routing, mut slots) = (routing(cpu, group(3, 2)), one_rank(cpu, 3, 2));
        queue.route(&filled(&logits), shape, &mut routing);
        queue.choose(&batch(cpu, queue, &[(0, 3, &[])]), &slots, 0, &mut routing);
        queue.group(&mut slots, 0, &mut routing);
        assert_eq!(routing.results().0, rows);
        *weights.lock().unwrap() = routing.results().1.to_vec();
        let mut out = filled(&before);
        queue.combine(&filled(&x), &routing, &mut out);
        out.to_vec()
    });
    let weights = weights.into_inner().unwrap();
    let term = |j: usize, i: usize| f64::from(weights[j]) * f64::from(x[rows[j] as usize * 20 + i]);
    let expected: Vec<f64> = (0..3)
        .flat_map(|row| (0..20).map(move |i| (row, i)))
        .map(|(row, i)| f64::from(before[row * 20 + i]) + term(2 * row, i) + term(2 * row + 1, i))
        .collect();
    close(&found, &expected, 1e-6);
}

#[test]
fn a_page_survives_the_way_to_another_rank_and_a_changed_bit_does_not_go_unseen() {
    let mut numbers = Numbers::new();
    let cpu = Cpu::new(1);
    for (weights, kind) in
        Weights::all(&mut numbers, 40 * 24).iter().zip([WeightKind::Bf16, WeightKind::F32, WeightKind::F32])
    {
        let shape = PageShape { hidden: 24, intermediate: 40, kind };
        let page = arena(&cpu, shape, [[weights; 3]]).remove(0);
        let read = |page: &Page<Cpu>| {
            let mut bytes = vec![0; Cpu::page_bytes(shape)];
            for (index, part) in bytes.chunks_mut(700).enumerate() {
                page.read(700 * index, part).unwrap();
            }
            bytes
        };
        let bytes = read(&page);
        let receive = |bytes: &[u8]| {
            let mut copy = page.arena().take().unwrap();
            for (index, part) in bytes.chunks(1000).enumerate() {
                copy.fill(1000 * index, part).unwrap();
            }
            copy.seal(cpu.fingerprinter().of(bytes));
            copy
        };
        let copy = receive(&bytes);
        assert_eq!(copy.fingerprints(), page.fingerprints());
        assert_eq!(read(&copy), bytes);
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        let mut again = receive(&changed);
        assert_ne!(again.fingerprints(), page.fingerprints());
        again.pack(weights.view(40), weights.view(40), weights.view(24)).unwrap();
        assert_eq!(again.fingerprints(), page.fingerprints(), "nothing of what it held shines through");
        let others = arena(&Cpu::new(1).with_fingerprint_seed(7), shape, [[weights; 3]]).remove(0);
        assert_eq!(read(&others), bytes);
        assert_ne!(others.fingerprints(), page.fingerprints(), "each seed has its own");
        assert_eq!(others.fingerprints(), &Cpu::new(1).with_fingerprint_seed(7).fingerprinter().of(&bytes));
    }
}

#[test]
fn a_page_has_one_owner_and_its_number_is_used_again() {
    let shape = PageShape { hidden: 2, intermediate: 2, kind: WeightKind::F32 };
    let arena = Arena::new(Arc::new(Cpu::new(1)), shape).unwrap();
    let take = || arena.take().unwrap();
    let (first, second) = (take(), take());
    assert_eq!((first.id(), second.id()), (PageId(0), PageId(1)));
    drop(first);
    assert_eq!(take().id(), PageId(0));
    assert_eq!(take().id(), PageId(0), "it was dropped at once");
    let _third = take();
    assert_eq!(take().id(), PageId(2));
}

#[test]
fn a_page_that_is_written_while_a_slot_points_at_it_fails_the_step_and_not_the_next() {
    let mut numbers = Numbers::new();
    let shape = PageShape { hidden: 4, intermediate: 4, kind: WeightKind::F32 };
    let weights = Weights::F32(numbers.vec(16));
    let (cpu, (mut results, x)) = (Cpu::new(1), (room(), filled(&numbers.vec(4))));
    let queue = cpu.queue().unwrap();
    let page = arena(&cpu, shape, [[&weights; 3]]).remove(0);
    let (batch, mut slots) = (batch(&cpu, &queue, &[(0, 1, &[])]), one_rank(&cpu, 1, 1));
    let mut routing = routing(&cpu, group(1, 1));
    routing.arrive(0, &[Pair { slot: 0, row: 0 }]);
    queue.group(&mut slots, 0, &mut routing);
    page.arena().memory().while_written(page.id(), || {
        queue.experts(page.weights().0, &routing, &x, &mut results);
        let error = queue.collect(&batch, &slots).unwrap_err();
        assert!(error.is_worth_a_retry(), "{error}");
    });
    queue.experts(page.weights().0, &routing, &x, &mut results);
    queue.collect(&batch, &slots).unwrap();
}
