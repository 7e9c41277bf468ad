//! Feed-forward networks, routing and experts on the GPU's backend against the CPU's, for one rank and between several.

use std::sync::Arc;

use anyhow::{Result, ensure};
use kernels::backend::{PageShape, RouterShape};
use kernels::cpu::Cpu;
use kernels::routing::{Copies, GroupShape, LayerRouting, Slot};
use kernels::{Backend, PageId, Queue};

use crate::steps::{
    CLOSE, Case, HIDDEN, INTERMEDIATE, Numbers, Steps, TOKENS, Weights, close, compared, gpu, gpus, networks,
    networks_of, pages, same_bits, tokens,
};

fn fed_forward<B: Backend>(
    steps: &mut Steps<B>,
    network: &[Weights; 3],
    x: &[f32],
    before: &[f32],
) -> Result<Vec<f32>> {
    let shape = PageShape { hidden: HIDDEN, intermediate: INTERMEDIATE, kind: network[0].kind() };
    let page = pages(&steps.backend, shape, std::slice::from_ref(network))?.remove(0);
    steps.upload(&tokens(x.len() / HIDDEN));
    let (x, mut out) = (steps.rows(x, HIDDEN)?, steps.rows(before, HIDDEN)?);
    steps.queue.feed_forward(page.weights(), &x, &mut out);
    Ok(steps.queue.read(&out).into_owned())
}

fn a_network_is_right_for_any_number_of_rows() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(6));
    for kind in 0..3 {
        for rows in [0, 1, 16, 70] {
            let network = networks(&mut numbers, 1, kind).remove(0);
            let (x, before) = (numbers.vec(rows * HIDDEN), numbers.vec(rows * HIDDEN));
            compared!(&gpu, "network", CLOSE, fed_forward(&network, &x, &before));
        }
    }
    Ok(())
}

/// Experts of one rank that holds all of them, some twice.
fn through_experts<B: Backend>(
    backend: &Arc<B>,
    networks: &[[Weights; 3]],
    layer: LayerRouting,
    (logits, x, before): (&[f32], &[f32], &[f32]),
) -> Result<(Vec<f32>, Vec<u32>)> {
    through_the_best(3, backend, networks, layer, (logits, x, before))
}

/// The same with so many experts of each token.
fn through_the_best<B: Backend>(
    top_k: usize,
    backend: &Arc<B>,
    networks: &[[Weights; 3]],
    layer: LayerRouting,
    (logits, x, before): (&[f32], &[f32], &[f32]),
) -> Result<(Vec<f32>, Vec<u32>)> {
    let experts = layer.copies.starts.len() - 1;
    let down = networks[0][2].values().len();
    let hidden = x.len().checked_div(logits.len() / experts).unwrap_or(HIDDEN);
    let shape = PageShape { hidden, intermediate: down / hidden, kind: networks[0][0].kind() };
    let held = pages(backend, shape, networks)?;
    let group = GroupShape { ranks: 1, rank: 0, layers: 1, slots: layer.pages.len(), top_k, tokens: TOKENS };
    let mut steps = Steps::new(backend, group, vec![layer], shape)?;
    let mut area = tokens(x.len() / hidden);
    for (index, sequence) in area.sequences.iter_mut().enumerate() {
        *sequence = index as u32 * 77;
    }
    steps.upload(&area);
    let (logits, x, mut out) = (steps.rows(logits, experts)?, steps.rows(x, hidden)?, steps.rows(before, hidden)?);
    let Steps { queue, batch, slots, routing, .. } = &mut steps;
    queue.route(&logits, RouterShape { experts, top_k, normalise: true }, routing);
    queue.choose(batch, slots, 0, routing);
    queue.sort(slots, 0, routing);
    let mut results = backend.buffer(group.results() * hidden)?;
    queue.experts(held[0].weights().0, routing, &x, &mut results);
    queue.combine(&results, routing, &mut out);
    let out = queue.read(&out).into_owned();
    queue.finish(batch, slots);
    Ok((out, queue.collect(batch, slots)?.pairs.into_owned()))
}

fn experts_are_right_in_groups_of_any_size_and_a_move_changes_no_bit() -> Result<()> {
    let (cpu, mut numbers) = (Arc::new(Cpu::new(1)), Numbers(7));
    let experts = 16;
    let slot = |index| Slot { rank: 0, index };
    // Expert 0 has two copies, in slots 0 and 16.
    let copies = Copies {
        starts: (0..=experts).map(|expert| if expert == 0 { 0 } else { expert + 1 }).collect(),
        slots: [0, 16].into_iter().chain(1..16).map(slot).collect(),
        bounds: [0, 1 << 31].into_iter().chain([0; 15]).collect(),
    };
    for kind in 0..3 {
        let mut held = networks(&mut numbers, 18, kind);
        for (copy, of) in [(16, 0), (17, 3)] {
            let network = held[of].clone();
            held[copy] = network;
        }
        for tokens in [0, 1, 5, 90] {
            let (mut logits, x, before) =
                (numbers.vec(tokens * experts as usize), numbers.vec(tokens * HIDDEN), numbers.vec(tokens * HIDDEN));
            // Everybody likes expert 0, nobody expert 5.
            for row in logits.chunks_mut(experts as usize) {
                (row[0], row[5]) = (3.0, -3.0);
            }
            let layer = |pages: Vec<u32>| {
                let pages = pages.into_iter().map(PageId).collect();
                LayerRouting { layer: 0, copies: copies.clone(), pages }
            };
            let data = (&logits[..], &x[..], &before[..]);
            let (expected, pairs) = through_experts(&cpu, &held, layer((0..17).collect()), data)?;
            // Only products by bf16 weights are of two kinds.
            for gpu in &gpus()?[..if kind == 0 { 2 } else { 1 }] {
                let (found, counted) = through_experts(gpu, &held, layer((0..17).collect()), data)?;
                ensure!(pairs == counted, "{counted:?} pairs instead of {pairs:?}");
                close("experts", &expected, &found, CLOSE)?;
                // Expert 3 moves to page 17, and expert 0 is computed by its copy's page everywhere.
                let moved = [16, 1, 2, 17].into_iter().chain(4..17).collect();
                let (again, _) = through_experts(gpu, &held, layer(moved), data)?;
                same_bits("experts after a move", &found, &again)?;
            }
        }
    }
    Ok(())
}

/// Groups for which tiles are tall, and the same tokens where they are low; by both kinds of products, with widths that fill neither
/// tiles nor stages.
fn a_token_has_the_same_bits_in_groups_of_any_size() -> Result<()> {
    let (cpu, mut numbers, experts) = (Arc::new(Cpu::new(1)), Numbers(8), 8);
    let copies = Copies {
        starts: (0..=experts).collect(),
        slots: (0..experts).map(|index| Slot { rank: 0, index }).collect(),
        bounds: vec![0; experts as usize],
    };
    let layer = || LayerRouting { layer: 0, copies: copies.clone(), pages: (0..experts).map(PageId).collect() };
    for widths in [(8, 8), (72, 64), (136, 128)] {
        let held = networks_of(&mut numbers, widths, experts as usize, 0);
        let (logits, x) = (numbers.vec(TOKENS * experts as usize), numbers.vec(TOKENS * widths.0));
        let before = vec![0.0; x.len()];
        let (expected, _) = through_experts(&cpu, &held, layer(), (&logits, &x, &before))?;
        for gpu in gpus()? {
            let (found, _) = through_experts(&gpu, &held, layer(), (&logits, &x, &before))?;
            close("experts of many rows", &expected, &found, CLOSE)?;
            let few = 3 * widths.0;
            let (alone, _) =
                through_experts(&gpu, &held, layer(), (&logits[..3 * experts as usize], &x[..few], &before[..few]))?;
            same_bits("experts of few rows", &found[..few], &alone)?;
        }
    }
    Ok(())
}

/// More pairs than a block numbers or sorts, so that each counts what comes before its part; many of one expert, which whoever is next in a
/// warp counts on from the one before.
fn pairs_of_several_blocks_get_their_places() -> Result<()> {
    let (gpu, cpu, mut numbers, experts, widths) = (gpu()?, Arc::new(Cpu::new(1)), Numbers(9), 16, (8, 8));
    let copies = Copies {
        starts: (0..=experts).collect(),
        slots: (0..experts).map(|index| Slot { rank: 0, index }).collect(),
        bounds: vec![0; experts as usize],
    };
    let layer = || LayerRouting { layer: 0, copies: copies.clone(), pages: (0..experts).map(PageId).collect() };
    let held = networks_of(&mut numbers, widths, experts as usize, 2);
    let (logits, x) = (numbers.vec(TOKENS * experts as usize), numbers.vec(TOKENS * widths.0));
    let data = (&logits[..], &x[..], &vec![0.0; x.len()][..]);
    let (expected, pairs) = through_the_best(12, &cpu, &held, layer(), data)?;
    let (found, counted) = through_the_best(12, &gpu, &held, layer(), data)?;
    ensure!(pairs == counted && pairs.iter().sum::<u32>() > 2048, "{counted:?} pairs instead of {pairs:?}");
    close("experts of several blocks of pairs", &expected, &found, CLOSE)
}

pub const CASES: &[Case] = &[
    ("pairs_of_several_blocks_get_their_places", pairs_of_several_blocks_get_their_places),
    ("a_network_is_right_for_any_number_of_rows", a_network_is_right_for_any_number_of_rows),
    (
        "experts_are_right_in_groups_of_any_size_and_a_move_changes_no_bit",
        experts_are_right_in_groups_of_any_size_and_a_move_changes_no_bit,
    ),
    ("a_token_has_the_same_bits_in_groups_of_any_size", a_token_has_the_same_bits_in_groups_of_any_size),
];
