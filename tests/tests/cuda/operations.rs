//! Rows that are looked up, norms and products on the GPU's backend against the CPU's, which is the specification.

use anyhow::Result;
use kernels::backend::Write;
use kernels::cuda::Cuda;
use kernels::cuda::measure::Gauge;
use kernels::{Backend, Queue, StepArea};

use crate::steps::{CLOSE, Case, EPSILON, HIDDEN, Numbers, Steps, Weights, compared, gpu, same_bits, tokens};

fn embedded<B: Backend>(steps: &mut Steps<B>, weights: &Weights, ids: &[u32]) -> Result<Vec<f32>> {
    let mut area = StepArea::default();
    area.push(0, 0, ids, &[0]);
    steps.upload(&area);
    let mut out = steps.room()?;
    steps.queue.embed(&steps.backend.lookup(weights.view(10))?, &steps.batch, &mut out);
    Ok(steps.queue.read(&out).into_owned())
}

fn a_table_gives_its_rows() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(1));
    for weights in Weights::all(&numbers.vec(10 * HIDDEN)) {
        compared!(&gpu, "embedding", 0.0, embedded(&weights, &[3, 9, 3, 0]));
    }
    Ok(())
}

fn normed<B: Backend>(steps: &mut Steps<B>, x: &[f32], weight: &[f32]) -> Result<Vec<f32>> {
    steps.upload(&tokens(x.len() / weight.len()));
    let (x, weight, mut out) = (steps.rows(x, weight.len())?, steps.filled(weight)?, steps.room()?);
    steps.queue.rms_norm(&x, &weight, EPSILON, &mut out);
    Ok(steps.queue.read(&out).into_owned())
}

fn a_norm_divides_by_the_root_mean_square() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(2));
    for (rows, width) in [(0, 8), (1, 8), (3, HIDDEN), (50, 128), (2, 1096)] {
        let (x, weight) = (numbers.vec(rows * width), numbers.vec(width));
        compared!(&gpu, "norm", 1e-5, normed(&x, &weight));
    }
    Ok(())
}

fn multiplied<B: Backend>(
    steps: &mut Steps<B>,
    (x, before): (&[f32], &[f32]),
    weights: &Weights,
    (rows, bias): (usize, &[f32]),
) -> Result<Vec<f32>> {
    let columns = weights.view(rows).columns();
    steps.upload(&tokens(x.len() / columns));
    let (x, mut out) = (steps.rows(x, columns)?, steps.rows(before, rows)?);
    let bias = (!bias.is_empty()).then_some(bias);
    steps.queue.matmul(&x, &steps.backend.matrix(weights.view(rows), bias)?, Write::Add, &mut out);
    let mut all = steps.queue.read(&out).into_owned();
    steps.queue.matmul(&x, &steps.backend.matrix(weights.view(rows), None)?, Write::Replace, &mut out);
    all.extend_from_slice(&steps.queue.read(&out));
    Ok(all)
}

/// Outputs that are just enough for every multiprocessor to have some, of any kind of product.
fn many_outputs(gpu: &Cuda) -> Result<usize> {
    Ok((Gauge::new(gpu)?.multiprocessors() as usize - 1) * 128 + 8)
}

/// By f32 weights they are the CPU's bits: both are one chain of fused multiply-adds in the same order.
fn a_product_is_right_for_every_kind_shape_and_number_of_rows() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(3));
    let many = many_outputs(&gpu)?;
    for (rows, columns) in [(8, 8), (24, 16), (136, HIDDEN), (256, 64), (72, 200), (many, 72)] {
        // Only products by bf16 weights are others where there are many outputs.
        let (kinds, counts) =
            if rows == many { (1, &[1, 17, 65][..]) } else { (3, &[0, 1, 15, 16, 17, 63, 64, 65][..]) };
        for weights in Weights::all(&numbers.vec(rows * columns)).into_iter().take(kinds) {
            for &tokens in counts {
                let (x, before, bias) = (numbers.vec(tokens * columns), numbers.vec(tokens * rows), numbers.vec(rows));
                let tolerance = match weights {
                    Weights::Bf16(_) => CLOSE,
                    Weights::F16(_) | Weights::F32(_) => 0.0,
                };
                let what = format!("{tokens} tokens, {rows} by {columns}, {:?}", weights.kind());
                compared!(&gpu, &what, tolerance, multiplied((&x, &before), &weights, (rows, &bias)));
            }
        }
    }
    Ok(())
}

fn a_row_has_the_same_bits_alone_and_among_others() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(4));
    // Enough rows for the tallest tiles.
    let (columns, count, many) = (136, 70, many_outputs(&gpu)?);
    let of =
        |rows: usize, numbers: &mut Numbers| Weights::all(&numbers.vec(rows * columns)).map(|weights| (rows, weights));
    let few = of(136, &mut numbers);
    // Only by bf16 weights do products of many outputs differ from those of few.
    let [wide, ..] = of(many, &mut numbers);
    for (rows, weights) in few.into_iter().chain([wide]) {
        let (x, before) = (numbers.vec(count * columns), numbers.vec(count * rows));
        let mut steps = Steps::alone(&gpu)?;
        let together = multiplied(&mut steps, (&x, &before), &weights, (rows, &[]))?;
        steps.collect()?;
        for row in [0, 17, 63, 69] {
            let (x, before) = (&x[row * columns..][..columns], &before[row * rows..][..rows]);
            let alone = multiplied(&mut steps, (x, before), &weights, (rows, &[]))?;
            steps.collect()?;
            for (part, alone) in alone.chunks(rows).enumerate() {
                let among = &together[(part * count + row) * rows..][..rows];
                same_bits(&format!("row {row} of {:?}", weights.kind()), among, alone)?;
            }
        }
    }
    Ok(())
}

pub const CASES: &[Case] = &[
    ("a_table_gives_its_rows", a_table_gives_its_rows),
    ("a_norm_divides_by_the_root_mean_square", a_norm_divides_by_the_root_mean_square),
    (
        "a_product_is_right_for_every_kind_shape_and_number_of_rows",
        a_product_is_right_for_every_kind_shape_and_number_of_rows,
    ),
    ("a_row_has_the_same_bits_alone_and_among_others", a_row_has_the_same_bits_alone_and_among_others),
];
