//! Rotation, the cache and attention on the GPU's backend against the CPU's.

use std::sync::Arc;

use anyhow::Result;
use kernels::backend::{CacheShape, HeadShape};
use kernels::cpu::Cpu;
use kernels::cuda::Cuda;
use kernels::queue::Rotation;
use kernels::tensor::WeightKind;
use kernels::{Backend, Queue, StepArea};

use crate::steps::{CLOSE, Case, EPSILON, Numbers, Steps, close, gpu, same_bits, tell};

/// Sequences whose tokens come in rounds.
struct Sequences {
    heads: HeadShape,
    block_tokens: usize,
    /// Projections of each sequence's tokens.
    rows: Vec<Vec<f32>>,
    /// Of query and key heads.
    norms: [Vec<f32>; 2],
    angles: Vec<f32>,
    blocks: Vec<Vec<u32>>,
}

impl Sequences {
    /// Of these lengths, in blocks that lie anywhere.
    fn new(numbers: &mut Numbers, (heads, block_tokens): (HeadShape, usize), lengths: &[usize]) -> Self {
        let mut free: Vec<u32> = (0..BLOCKS as u32).collect();
        let mut block = || free.swap_remove(numbers.below(free.len()));
        let blocks =
            lengths.iter().map(|length| (0..length.div_ceil(block_tokens)).map(|_| block()).collect()).collect();
        let rows = lengths.iter().map(|length| numbers.vec(length * heads.projected_width())).collect();
        let norms = [numbers.vec(heads.dimension), numbers.vec(heads.dimension)];
        let angles = numbers.vec(lengths.iter().max().map_or(0, |length| length * heads.dimension));
        Self { heads, block_tokens, rows, norms, angles, blocks }
    }

    /// What attention gives all tokens of each sequence, if so many of them come in each round.
    fn attended<B: Backend>(&self, steps: &mut Steps<B>, kind: WeightKind, rounds: &[Vec<usize>]) -> Result<Vec<f32>> {
        let Self { heads, block_tokens, rows, norms, angles, blocks } = self;
        let (heads, width) = (*heads, heads.projected_width());
        let shape = CacheShape { heads, blocks: BLOCKS, block_tokens: *block_tokens, kind };
        let mut cache = steps.backend.cache(shape)?;
        let (query_norm, key_norm, angles) =
            (steps.filled(&norms[0])?, steps.filled(&norms[1])?, steps.filled(angles)?);
        let rotation =
            Rotation { heads, query_norm: &query_norm, key_norm: &key_norm, epsilon: EPSILON, angles: &angles };
        let (mut done, mut outputs) = (vec![0; rows.len()], vec![Vec::new(); rows.len()]);
        for round in rounds {
            let (mut area, mut projected) = (StepArea::default(), Vec::new());
            for (sequence, &tokens) in round.iter().enumerate().filter(|(_, tokens)| **tokens > 0) {
                let first = done[sequence];
                // Each token looks its own projections up.
                let ids: Vec<u32> = (0..tokens as u32).map(|token| token + (projected.len() / width) as u32).collect();
                area.push(sequence as u32, first as u32, &ids, &blocks[sequence]);
                projected.extend_from_slice(&rows[sequence][first * width..(first + tokens) * width]);
            }
            steps.upload(&area);
            let (mut projected, mut out) = (steps.rows(&projected, width)?, steps.room()?);
            steps.queue.rotate(&mut projected, &steps.batch, &rotation);
            steps.queue.store(&mut cache, &projected, &steps.batch);
            steps.queue.attend(&cache, &projected, &steps.batch, &mut out);
            let out = steps.queue.read(&out);
            let mut taken = out.chunks(heads.query_width());
            for (sequence, &tokens) in round.iter().enumerate() {
                outputs[sequence].extend(taken.by_ref().take(tokens).flatten());
                done[sequence] += tokens;
            }
            steps.collect()?;
        }
        Ok(outputs.concat())
    }
}

const BLOCKS: usize = 40;

/// Whether it is, for heads of this shape, keys and values of this kind and blocks of so many tokens.
fn attends(
    gpu: &Arc<Cuda>,
    numbers: &mut Numbers,
    (heads, kind, block_tokens): (HeadShape, WeightKind, usize),
) -> Result<()> {
    let what = format!("attention of {heads:?} over {kind:?}");
    let sequences = Sequences::new(numbers, (heads, block_tokens), &[275, 1, 33]);
    let few = [vec![150, 1, 9], vec![120, 0, 20], vec![1, 0, 4], vec![4, 0, 0]];
    let expected = sequences.attended(&mut Steps::alone(&Arc::new(Cpu::new(1)))?, kind, &few)?;
    let found = sequences.attended(&mut Steps::alone(gpu)?, kind, &few)?;
    tell(&what, &found);
    // Queries and weights of keys are rounded too where keys and values are.
    close(&what, &expected, &found, if kind == WeightKind::F32 { CLOSE } else { 2e-2 })?;
    let mut pieces = vec![vec![17, 0, 32], vec![96, 1, 0], vec![157, 0, 0]];
    pieces.extend((0..5).map(|last| vec![1, 0, usize::from(last == 4)]));
    let again = sequences.attended(&mut Steps::alone(gpu)?, kind, &pieces)?;
    same_bits(&format!("{what} in other pieces"), &found, &again)
}

fn attention_is_right_over_blocks_in_any_order_and_the_same_bits_in_any_chunking() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(5));
    let shapes = [(6, 2, 16, 32), (4, 4, 24, 16), (8, 1, 64, 16), (2, 1, 128, 32), (1, 1, 136, 16), (1, 1, 8, 16)];
    for (query, key_value, dimension, block_tokens) in shapes {
        attends(&gpu, &mut numbers, (HeadShape { query, key_value, dimension }, WeightKind::F32, block_tokens))?;
    }
    Ok(())
}

fn attention_on_tensor_cores_is_right_and_the_same_bits_in_any_chunking() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(6));
    let shapes = [(6, 2, 16, 32), (8, 1, 64, 16), (2, 1, 104, 32), (1, 1, 136, 16)];
    for (query, key_value, dimension, block_tokens) in shapes {
        attends(&gpu, &mut numbers, (HeadShape { query, key_value, dimension }, WeightKind::Bf16, block_tokens))?;
    }
    Ok(())
}

pub const CASES: &[Case] = &[
    (
        "attention_is_right_over_blocks_in_any_order_and_the_same_bits_in_any_chunking",
        attention_is_right_over_blocks_in_any_order_and_the_same_bits_in_any_chunking,
    ),
    (
        "attention_on_tensor_cores_is_right_and_the_same_bits_in_any_chunking",
        attention_on_tensor_cores_is_right_and_the_same_bits_in_any_chunking,
    ),
];
