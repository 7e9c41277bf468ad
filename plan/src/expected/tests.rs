use super::*;
use crate::ids::ExpertId;
use crate::map::MapShape;

fn map(slots: &[u32]) -> ExpertMap {
    let shape = MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: slots.len() / 2 };
    ExpertMap::new(shape, slots.iter().copied().map(ExpertId).collect()).unwrap()
}

fn ratio(expected: &Expected, slots: &[u32]) -> f64 {
    expected.ratio(&map(slots), &Topology::single_node(2, slots.len() / 2))
}

fn known(row: [u64; 4]) -> Expected {
    Expected::known(&ExpertLoad::from_rows(&[row.to_vec()]).unwrap())
}

fn assert_close(found: f64, expected: f64, within: f64) {
    assert!((found - expected).abs() <= within, "{found} instead of {expected}");
}

#[test]
fn a_load_that_is_known_has_the_ratio_of_its_rank_loads() {
    assert_close(ratio(&known([9, 9, 1, 1]), &[0, 1, 2, 3]), 10.0 / 18.0, 1e-12);
    assert_close(ratio(&known([9, 9, 1, 1]), &[0, 2, 1, 3]), 1.0, 1e-12);
    assert_close(ratio(&known([0; 4]), &[0, 2, 1, 3]), 1.0, 1e-12);
}

#[test]
fn what_a_load_may_be_off_by_costs_more_the_more_it_is_and_less_where_copies_share_it() {
    let of = |deviation| ratio(&known([100, 100, 10, 10]).give_or_take(deviation), &[0, 2, 1, 3]);
    assert!(of(0.0) > of(0.1) && of(0.1) > of(0.3), "{} {} {}", of(0.0), of(0.1), of(0.3));
    let noisy = known([100, 100, 10, 10]).give_or_take(0.3);
    assert!(ratio(&noisy, &[0, 1, 2, 0, 1, 3]) > ratio(&noisy, &[0, 2, 3, 1, 2, 3]));
}

#[test]
fn noise_hides_a_part_of_what_a_plan_gains() {
    let gain = |expected: &Expected| ratio(expected, &[0, 2, 1, 3]) - ratio(expected, &[0, 3, 1, 2]);
    let (certain, noisy) = (known([110, 100, 11, 10]), known([110, 100, 11, 10]).give_or_take(0.3));
    assert!(gain(&certain).abs() > gain(&noisy).abs(), "{} {}", gain(&certain), gain(&noisy));
}

#[test]
fn the_largest_of_independent_normal_variables_is_about_what_is_tabled() {
    // Harter, Expected values of normal order statistics, 1961.
    for (count, expected) in [(2, 0.564), (8, 1.424), (16, 1.766), (32, 2.070), (64, 2.344), (400, 2.968)] {
        let found = expected_maximum(&vec![(100.0, 1.0); count]) - 100.0;
        assert_close(found / expected, 1.0, if count > 2 { 0.08 } else { 0.35 });
    }
    // One that is far above all others is the largest.
    assert_close(expected_maximum(&[(100.0, 1.0), (50.0, 1.0), (50.0, 1.0), (50.0, 1.0)]), 100.0, 1.0);
}

#[test]
fn windows_that_could_come_count_alike_whatever_their_size() {
    let tokens = vec![90.0, 90.0, 10.0, 10.0, 900.0, 100.0, 900.0, 100.0];
    let expected = Expected::new(4, vec![Future::Windows { tokens }]);
    assert!(expected.is_bursty(LayerId(0)));
    assert_close(ratio(&expected, &[0, 1, 2, 3]), f64::midpoint(100.0 / 180.0, 1.0), 1e-12);
    assert_eq!(expected.load().layer(LayerId(0)), [495, 95, 455, 55]);
}
