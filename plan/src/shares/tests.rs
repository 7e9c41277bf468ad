use super::*;
use crate::ids::ExpertId;
use crate::load::{ExpertLoad, rank_loads};
use crate::map::MapShape;

fn map(experts: usize, ranks: &[&[u32]]) -> ExpertMap {
    let shape = MapShape { layers: 1, experts, ranks: ranks.len(), slots_per_rank: ranks[0].len() };
    ExpertMap::new(shape, ranks.concat().into_iter().map(ExpertId).collect()).unwrap()
}

fn suited(map: &ExpertMap, tokens: &[u64], uncertainty: f64) -> Vec<f64> {
    let load = ExpertLoad::from_rows(&[tokens.to_vec()]).unwrap();
    let ranks = map.shape().ranks;
    let topology = Topology::single_node(ranks, map.shape().slots_per_rank);
    rank_loads(&suit(map.clone(), &Expected::known(&load).give_or_take(uncertainty), &topology), &load).remove(0)
}

fn assert_close(found: &[f64], expected: &[f64]) {
    let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.5);
    assert!(close && found.len() == expected.len(), "{found:?} instead of {expected:?}");
}

#[test]
fn without_uncertainty_ranks_are_levelled_as_far_as_copies_reach() {
    // Expert 0 is on both ranks: 1000 tokens that fill 200 | 800 up to 1000 | 1000.
    assert_close(&suited(&map(3, &[&[0, 1], &[0, 2]]), &[1000, 200, 800], 0.0), &[1000.0, 1000.0]);
    // It cannot make up for more than it has.
    assert_close(&suited(&map(3, &[&[0, 1], &[0, 2]]), &[300, 200, 800], 0.0), &[500.0, 800.0]);
}

#[test]
fn load_is_handed_on_along_chains_of_copies() {
    // 0 is on ranks 0 and 1, 1 on ranks 1 and 2: what rank 0 gives away, rank 1 hands on.
    let chain = map(5, &[&[0, 2], &[0, 1], &[1, 3], &[4, 3]]);
    assert_close(&suited(&chain, &[900, 900, 900, 0, 900], 0.0), &[900.0, 900.0, 900.0, 900.0]);
}

#[test]
fn the_busiest_rank_carries_the_least_possible() {
    // Any set of experts must be carried by the ranks that hold them: the largest mean over those is the bound. Here all
    // of 0, 1 and 2 is on ranks 0 and 1, and 3 can avoid both.
    let tight = map(6, &[&[0, 1, 3], &[0, 1, 2], &[3, 4, 5]]);
    assert_close(&suited(&tight, &[500, 700, 100, 400, 50, 50], 0.0), &[650.0, 650.0, 500.0]);
}

#[test]
fn what_the_forecast_errs_by_holds_shares_together() {
    let map = map(3, &[&[0, 1], &[0, 2]]);
    let busiest = |uncertainty| suited(&map, &[1000, 200, 800], uncertainty)[1];
    let (certain, doubtful, unknown) = (busiest(0.0), busiest(0.5), busiest(2.0));
    assert!(certain < doubtful && doubtful < unknown, "{certain} {doubtful} {unknown}");
    // 800 + 1000 s (1 + 4) = 200 + 1000 (1 - s) (1 + 4): s is 0.44.
    assert_close(&[unknown], &[1240.0]);
}

#[test]
fn a_layer_keeps_even_shares_where_others_gain_too_little() {
    let even = map(3, &[&[0, 1], &[0, 2]]);
    let load = ExpertLoad::from_rows(&[vec![1000, 499, 500]]).unwrap();
    assert_eq!(
        suit(
            even.clone(),
            &Expected::known(&load).give_or_take(Tuning::PRODUCT.least_uncertainty),
            &Topology::single_node(2, 2)
        ),
        even
    );
    assert_eq!(suit(even.clone(), &Expected::known(&ExpertLoad::zero(1, 3)), &Topology::single_node(2, 2)), even);
}

#[test]
fn a_faster_rank_takes_more() {
    let load = ExpertLoad::from_rows(&[vec![1000, 100, 100]]).unwrap();
    let topology = Topology::single_node(2, 2).with_speeds(vec![3.0, 1.0]).unwrap();
    let suited = suit(map(3, &[&[0, 1], &[0, 2]]), &Expected::known(&load), &topology);
    assert_close(&rank_loads(&suited, &load)[0], &[900.0, 300.0]);
}

#[test]
fn shares_that_were_in_force_do_not_matter() {
    let load = ExpertLoad::from_rows(&[vec![1000, 200, 800]]).unwrap();
    let even = map(3, &[&[0, 1], &[0, 2]]);
    let uneven = even.clone().with_shares(&[0, WHOLE, WHOLE, WHOLE]).unwrap();
    let topology = Topology::single_node(2, 2);
    let expected = Expected::known(&load).give_or_take(0.1);
    assert_eq!(suit(uneven.clone(), &expected, &topology), suit(even.clone(), &expected, &topology));
}

#[test]
fn uncertainty_is_what_the_largest_are_expected_to_be_off_by_and_none_where_all_is_known() {
    let of = |counting, relative| {
        uncertainty(&[300.0, 100.0], Error { counting, relative }, Tuning::PRODUCT.least_uncertainty)
    };
    assert_eq!(of(0.0, 0.0).to_bits(), 0.0_f64.to_bits());
    assert_eq!(of(0.0, 1e-6).to_bits(), Tuning::PRODUCT.least_uncertainty.to_bits());
    assert!((of(0.0, 0.04) - 0.2).abs() < 1e-12);
    // Counting adds 400 tokens to squares of 100,000.
    assert!((of(1.0, 0.04) - 0.044_f64.sqrt()).abs() < 1e-12);
}

#[test]
fn a_token_too_few_to_count_beside_what_ranks_carry_leaves_the_shares_of_others_alone() {
    // Expert 0 has one token on each of three ranks that carry some 10^19; 1 can level the first two.
    let map = map(5, &[&[0, 1, 2], &[0, 1, 3], &[0, 4, 2]]);
    let tokens = [1, 6 << 60, 1 << 60, 4 << 60, 5 << 60];
    let loads = suited(&map, &tokens, 0.0);
    let expected = suited(&map, &[0, tokens[1], tokens[2], tokens[3], tokens[4]], 0.0);
    for (found, expected) in loads.iter().zip(expected) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} instead of {expected}");
    }
}
