use super::*;
use crate::ids::ExpertId;

const EXPECTED: Expected =
    Expected { layers: Some(2), experts: Some(4), ranks: Some(2), dense_layers: 0, mtp_layers: 0, repair: false };

fn refused(rows: &[&[i64]], expected: &Expected) -> String {
    to_map(&rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>(), 0, expected).unwrap_err().to_string()
}

fn in_second(row: &[i64]) -> String {
    refused(&[&[0, 1, 2, 3, 0, 1], row], &EXPECTED)
}

#[test]
fn rows_are_cut_into_ranks() {
    let map = to_map(&[vec![0, 1, 2, 3, 0, 1], vec![3, 2, 1, 0, 1, 2]], 0, &EXPECTED).unwrap().map;
    assert_eq!(map.rank(LayerId(1), RankId(1)), [0, 1, 2].map(ExpertId));
    assert_eq!(map.shape(), MapShape { layers: 2, experts: 4, ranks: 2, slots_per_rank: 3 });
}

#[test]
fn dimensions_that_are_not_known_are_taken_from_the_rows() {
    let expected = Expected { ranks: Some(1), ..Expected::default() };
    let map = to_map(&[vec![1, 0, 2]], 0, &expected).unwrap().map;
    assert_eq!(map.shape(), MapShape { layers: 1, experts: 3, ranks: 1, slots_per_rank: 3 });
}

#[test]
fn the_number_of_ranks_must_be_known_and_fit() {
    let rows: &[&[i64]] = &[&[0, 1, 2, 3, 0, 1], &[0, 1, 2, 3, 0, 1]];
    let unknown = "the format does not tell how many ranks share its 6 physical experts; give them with --ranks";
    assert_eq!(refused(rows, &Expected { ranks: None, ..EXPECTED }), unknown);
    for ranks in [0, 4] {
        let indivisible = format!(
            "{ranks} ranks cannot share 6 physical experts evenly; --ranks must be the number that it was made for"
        );
        assert_eq!(refused(rows, &Expected { ranks: Some(ranks), ..EXPECTED }), indivisible);
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    assert_eq!(refused(&[], &EXPECTED), "it has no layers");
    assert_eq!(in_second(&[0, 1, 2, 3]), "layer 1: 4 physical experts, layer 0 has 6");
    assert_eq!(in_second(&[0, 1, 2, 3, 9, 1]), "layer 1, rank 1: expert 9 does not exist, the model has 4");
    assert_eq!(in_second(&[0, 1, 2, 3, -1, 1]), "layer 1, rank 1: expert -1 does not exist, the model has 4");
    assert_eq!(in_second(&[0, 1, 2, 0, 1, 2]), "layer 1: expert 3 is on no rank of 2");
}

#[test]
fn a_map_of_another_model_is_refused() {
    let rows: &[&[i64]] = &[&[0, 1, 2, 3, 0, 1], &[0, 1, 2, 3, 0, 1]];
    let layers = refused(rows, &Expected { layers: Some(3), ..EXPECTED });
    assert_eq!(layers, "made for another model, with 2 MoE layers and 4 experts; expected are 3 and 4");
    let experts = refused(rows, &Expected { experts: Some(5), layers: None, ..EXPECTED });
    assert_eq!(experts, "made for another model, with 2 MoE layers and 4 experts; expected are any and 5");
}

#[test]
fn more_slots_on_a_rank_than_experts_are_refused_even_when_repaired() {
    for repair in [false, true] {
        let expected = Expected { layers: None, experts: None, ranks: Some(1), dense_layers: 0, mtp_layers: 0, repair };
        assert_eq!(
            refused(&[&[0, 1, 1]], &expected),
            "3 slots per rank are more than the 2 experts; lower the redundancy"
        );
    }
}

#[test]
fn second_copies_on_a_rank_are_exchanged_or_become_what_the_rank_lacks() {
    let mended = |row: &[i64]| {
        let expected = Expected { layers: None, repair: true, ..EXPECTED };
        let map = to_map(&[row.to_vec()], 0, &expected).unwrap().map;
        map.slots().iter().map(|expert| expert.0).collect::<Vec<_>>()
    };
    assert_eq!(mended(&[0, 1, 0, 2, 3, 1]), [0, 1, 2, 0, 3, 1], "exchanged with the first slot that fits");
    assert_eq!(mended(&[0, 0, 1, 0, 2, 3]), [0, 2, 1, 0, 2, 3], "0 is on both, so it gives way to one of 2 and 3");
    assert_eq!(mended(&[0, 1, 2, 0, 1, 3]), [0, 1, 2, 0, 1, 3], "a valid map stays as it is");
}
