use super::*;
use crate::map::{MapShape, WHOLE};

#[test]
fn rows_of_unequal_length_or_without_experts_are_no_load() {
    assert_eq!(ExpertLoad::from_rows(&[vec![1, 2], vec![3]]), None);
    assert_eq!(ExpertLoad::from_rows(&[vec![], vec![]]), None);
    assert_eq!(ExpertLoad::from_rows(&[]), None);
    let load = ExpertLoad::from_rows(&[vec![1, 2], vec![3, 4]]).unwrap();
    assert_eq!((load.layers(), load.experts(), load.layer(LayerId(1))), (2, 2, &[3, 4][..]));
}

#[test]
fn loads_add_up_and_stop_at_the_largest_number() {
    let mut load = ExpertLoad::zero(1, 2);
    load.add(LayerId(0), ExpertId(1), 5);
    load.merge(&ExpertLoad::from_rows(&[vec![1, u64::MAX]]).unwrap());
    assert_eq!(load.layer(LayerId(0)), [1, u64::MAX]);
    assert_eq!(load.total(), u64::MAX);
    load.add(LayerId(0), ExpertId(1), 5);
    assert_eq!(load.layer(LayerId(0)), [1, u64::MAX]);
}

#[test]
fn a_load_that_is_no_whole_number_of_layers_is_not_read() {
    fn read(json: &str) -> serde_json::Result<ExpertLoad> {
        serde_json::from_str(json)
    }
    let load = ExpertLoad::from_rows(&[vec![1, 2], vec![3, 4]]).unwrap();
    assert_eq!(read(&serde_json::to_string(&load).unwrap()).unwrap(), load);
    assert_eq!(read(&serde_json::to_string(&ExpertLoad::default()).unwrap()).unwrap(), ExpertLoad::default());
    for json in [r#"{"experts": 2, "counts": [1, 2, 3]}"#, r#"{"experts": 0, "counts": [1]}"#] {
        let refused = read(json).unwrap_err().to_string();
        assert!(refused.contains("no whole number of layers"), "{refused}");
    }
}

#[test]
fn copies_share_the_tokens_of_an_expert_evenly() {
    let map = ExpertMap::contiguous(MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 }).unwrap();
    let loads = rank_loads(&map, &ExpertLoad::from_rows(&[vec![10, 1, 4]]).unwrap());
    assert_eq!(loads, [[6.0, 9.0]]);
}

#[test]
fn copies_take_the_shares_that_a_map_gives_them() {
    let map = ExpertMap::contiguous(MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 }).unwrap();
    let map = map.with_shares(&[WHOLE / 5, WHOLE, WHOLE, WHOLE - WHOLE / 5]).unwrap();
    let loads = rank_loads(&map, &ExpertLoad::from_rows(&[vec![65_536, 0, 0]]).unwrap());
    assert_eq!(loads, [[f64::from(WHOLE / 5), f64::from(WHOLE - WHOLE / 5)]]);
}

#[test]
fn the_ratio_weighs_layers_by_their_load_and_is_1_without_any() {
    // Means 3 and 1, maxima 4 and 2: (3 + 1) / (4 + 2).
    assert!((balance_ratio(&[vec![4.0, 2.0], vec![2.0, 0.0]]) - 4.0 / 6.0).abs() < 1e-12);
    assert_eq!(balance_ratio(&[vec![0.0, 0.0]]).to_bits(), 1.0_f64.to_bits());
    assert_eq!(balance_ratio(&[]).to_bits(), 1.0_f64.to_bits());
}

fn layer(counts: [u64; 4]) -> ExpertLoad {
    ExpertLoad::from_rows(&[counts.to_vec()]).unwrap()
}

#[test]
fn a_distance_is_that_of_parts_not_of_sums() {
    let apart = |before, after| distance(&layer(before), &layer(after));
    assert_eq!(apart([1, 2, 3, 4], [10, 20, 30, 40]).to_bits(), 0.0_f64.to_bits());
    assert_eq!(apart([1, 2, 3, 4], [0; 4]).to_bits(), 0.0_f64.to_bits());
    assert!((apart([100, 0, 0, 0], [0, 0, 100, 0]) - 2.0_f64.sqrt()).abs() < 1e-12);
}

#[test]
fn windows_before_a_shift_of_traffic_are_left_out_and_bursts_are_no_shift() {
    let (chat, code) = ([400, 300, 200, 100], [100, 200, 300, 400]);
    let lengths = |windows: &[[u64; 4]]| {
        since_last_shift(&windows.iter().map(|&counts| layer(counts)).collect::<Vec<_>>(), &Tuning::PRODUCT).len()
    };
    assert_eq!(lengths(&[]), 0);
    assert_eq!(lengths(&[chat]), 1);
    assert_eq!(lengths(&[chat, code]), 2);
    assert_eq!(lengths(&[chat, [390, 310, 205, 95], chat]), 3);
    assert_eq!(lengths(&[chat, chat, chat, code, code]), 2);
    assert_eq!(lengths(&[chat, code, code, chat, chat, chat]), 3);
    let bursts = [[700, 100, 100, 100], [100, 700, 100, 100], [100, 100, 700, 100], [100, 100, 100, 700]];
    assert_eq!(lengths(&bursts), 4);
}

#[test]
fn windows_in_which_nothing_was_counted_are_left_out_and_rows_are_summed_to_windows() {
    let (empty, some) = (layer([0; 4]), |tokens| layer([tokens, 0, 0, 1]));
    let rows = [empty.clone(), some(1), empty.clone(), some(2), some(3), empty.clone()];
    assert_eq!(with_load(&rows).into_owned(), [some(1), some(2), some(3)]);
    assert_eq!(with_load(&rows[..1]).as_ref(), std::slice::from_ref(&empty), "a plan is made from a window");
    assert_eq!(summed(&rows, 2), [layer([3, 0, 0, 2]), some(3)]);
    let many: Vec<ExpertLoad> = (0..2 * WINDOWS_KEPT as u64).map(some).collect();
    assert_eq!(kept(&many, &Tuning::PRODUCT).into_owned(), many[WINDOWS_KEPT..]);
}

#[test]
fn a_clone_shares_its_counts_until_one_of_the_two_changes() {
    let mut load = layer([1, 2, 3, 4]);
    let copy = load.clone();
    assert!(load.shares_counts_with(&copy));
    load.add(LayerId(0), ExpertId(1), 5);
    assert!(!load.shares_counts_with(&copy));
    assert_eq!((load.layer(LayerId(0))[1], copy.layer(LayerId(0))[1]), (7, 2));
}
