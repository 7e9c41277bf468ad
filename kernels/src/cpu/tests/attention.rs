//! Norms, rotation and attention, against plain loops.

use super::*;

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
