//! A token's logits do not depend on ranks, placement, batch, chunking, threads or instructions: they are the same bits.

use kernels::cpu::Instructions;

use crate::fixtures::{tiny_moe, tiny_moe_prompts, variant, variant_prompts};
use crate::group::{Outcome, Run, Sequence, random_map, run, shape};

fn sequences() -> Vec<Sequence> {
    tiny_moe_prompts().iter().map(|prompt| Sequence { prompt: prompt.ids.clone(), new: 12 }).collect()
}

fn same_bits(a: &[Outcome], b: &[Outcome], how: &str) {
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.tokens, b.tokens, "tokens of sequence {index}, {how}");
        let same = a.logits.iter().zip(&b.logits).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same && a.logits.len() == b.logits.len(), "logits of sequence {index}, {how}");
    }
}

#[test]
fn batching_and_chunking_change_no_bit() {
    let (checkpoint, sequences) = (tiny_moe(), sequences());
    let plain = Run::plain(&checkpoint);
    let (expected, _) = run(&checkpoint, &plain, &sequences);
    for chunk in [1, 3, 16, usize::MAX] {
        for batched in [false, true] {
            let (outcomes, _) = run(&checkpoint, &Run { chunk, batched, ..plain.clone() }, &sequences);
            same_bits(&expected, &outcomes, &format!("chunk {chunk}, batched {batched}"));
        }
    }
}

#[test]
fn ranks_redundancy_and_placement_change_no_bit_and_every_pair_is_computed_once() {
    let (checkpoint, sequences) = (tiny_moe(), sequences());
    let plain = Run::plain(&checkpoint);
    let (expected, pairs) = run(&checkpoint, &plain, &sequences);
    for (seed, (ranks, redundancy)) in [(2, 0), (2, 4), (4, 0), (4, 4), (4, 16)].into_iter().enumerate() {
        let map = random_map(shape(&checkpoint, ranks, redundancy), seed as u64);
        for (batched, chunk) in [(true, usize::MAX), (true, 7), (false, usize::MAX)] {
            let (outcomes, split) =
                run(&checkpoint, &Run { map: map.clone(), batched, chunk, ..plain.clone() }, &sequences);
            let how = format!("{ranks} ranks, redundancy {redundancy}, seed {seed}, batched {batched}, chunk {chunk}");
            same_bits(&expected, &outcomes, &how);
            assert_eq!(split.iter().sum::<u64>(), pairs[0], "{how}");
            assert!(split.iter().all(|&pairs| pairs > 0), "{how}: {split:?}");
        }
    }
}

#[test]
fn dense_layers_among_sparse_ones_change_no_bit_on_several_ranks() {
    let checkpoint = variant("dense_layers");
    let sequences: Vec<Sequence> =
        variant_prompts("dense_layers").iter().map(|prompt| Sequence { prompt: prompt.ids.clone(), new: 5 }).collect();
    let plain = Run::plain(&checkpoint);
    let (expected, _) = run(&checkpoint, &plain, &sequences);
    let map = random_map(shape(&checkpoint, 2, 2), 1);
    let (outcomes, _) = run(&checkpoint, &Run { map, batched: true, ..plain }, &sequences);
    same_bits(&expected, &outcomes, "2 ranks");
}

#[test]
fn threads_change_no_bit_of_a_long_prompt() {
    let checkpoint = tiny_moe();
    let prompt: Vec<u32> = (0..700).map(|index| (index * 7919 + 13 * index * index) % 1792).collect();
    let sequences = [Sequence { prompt, new: 2 }];
    let plain = Run::plain(&checkpoint);
    let (expected, _) = run(&checkpoint, &plain, &sequences);
    for (threads, chunk) in [(2, usize::MAX), (3, usize::MAX), (2, 250)] {
        let (outcomes, _) = run(&checkpoint, &Run { chunk, threads, ..plain.clone() }, &sequences);
        same_bits(&expected, &outcomes, &format!("{threads} threads, chunk {chunk}"));
    }
}

#[test]
fn instruction_sets_change_no_bit() {
    for checkpoint in [tiny_moe(), variant("tied_f32")] {
        let sequences = [Sequence { prompt: (1..40).collect(), new: 2 }];
        let plain = Run::plain(&checkpoint);
        let (expected, _) = run(&checkpoint, &plain, &sequences);
        for instructions in Instructions::available() {
            let (outcomes, _) = run(&checkpoint, &Run { instructions, ..plain.clone() }, &sequences);
            same_bits(&expected, &outcomes, &format!("{instructions:?}"));
        }
    }
}
