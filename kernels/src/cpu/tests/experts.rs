//! Routing, and feed-forward networks through pages, against plain loops.

use super::*;

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
                queue.sort(&mut slots, 0, &mut routing);
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
        queue.sort(&mut slots, 0, &mut routing);
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
        queue.sort(&mut slots, 0, &mut routing);
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
