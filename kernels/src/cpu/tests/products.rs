//! Products and the table of embeddings, against plain loops.

use super::*;

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
