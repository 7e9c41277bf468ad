use super::*;

const SHAPE: MapShape = MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 };

fn map(slots: &[u32]) -> Result<ExpertMap, MapError> {
    ExpertMap::new(SHAPE, slots.iter().map(|&expert| ExpertId(expert)).collect())
}

#[test]
fn physical_experts_that_divide_by_the_ranks_make_a_shape() {
    let shape = MapShape::with_redundancy(4, 32, 4, 4).unwrap();
    assert_eq!((shape.slots_per_rank, shape.physical(), shape.redundancy()), (9, 36, 4));
}

#[test]
fn physical_experts_that_do_not_divide_by_the_ranks_are_refused() {
    let refused = MapShape::with_redundancy(4, 32, 5, 4).unwrap_err();
    assert_eq!(refused, MapError::Indivisible { experts: 32, redundancy: 4, ranks: 5 });
    assert!(refused.to_string().contains("choose a redundancy"), "{refused}");
    assert_eq!(
        MapShape::with_redundancy(4, 32, 0, 4),
        Err(MapError::Indivisible { experts: 32, redundancy: 4, ranks: 0 })
    );
}

#[test]
fn dimensions_out_of_range_are_refused_whatever_their_product() {
    let refused =
        |layers, experts, ranks, redundancy| MapShape::with_redundancy(layers, experts, ranks, redundancy).unwrap_err();
    assert_eq!(refused(0, 4, 2, 0), MapError::Dimension { what: "layers", value: 0 });
    assert_eq!(refused(1, 0, 2, 0), MapError::Dimension { what: "experts", value: 0 });
    assert_eq!(refused(1, 20_000, 2, 0), MapError::Dimension { what: "experts", value: 20_000 });
    assert_eq!(refused(1, 16_000, 16_400, 400), MapError::Dimension { what: "ranks", value: 16_400 });
    assert_eq!(refused(1, 4, 1, usize::MAX), MapError::Dimension { what: "slots per rank", value: usize::MAX });
    let zero = MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 0 };
    assert_eq!(zero.check(), Err(MapError::Dimension { what: "slots per rank", value: 0 }));
}

#[test]
fn slots_must_hold_every_expert_and_a_rank_none_twice() {
    let too_few = MapShape { slots_per_rank: 1, ..SHAPE };
    assert_eq!(too_few.check(), Err(MapError::TooFewSlots { slots: 2, experts: 3 }));
    let too_many = MapShape { slots_per_rank: 4, ..SHAPE };
    assert_eq!(too_many.check(), Err(MapError::TooManySlots { slots_per_rank: 4, experts: 3 }));
}

#[test]
fn a_map_that_breaks_an_invariant_is_refused_with_the_place() {
    let (layer, rank) = (LayerId(0), RankId(1));
    assert_eq!(map(&[0, 1, 2]), Err(MapError::SlotCount { found: 3, expected: 4 }));
    let unknown = map(&[0, 1, 2, 3]).unwrap_err();
    assert_eq!(unknown, MapError::UnknownExpert { layer, rank, expert: ExpertId(3), experts: 3 });
    assert_eq!(unknown.to_string(), "layer 0, rank 1: expert 3 does not exist, the model has 3");
    assert_eq!(map(&[0, 1, 2, 2]), Err(MapError::Twice { layer, rank, expert: ExpertId(2) }));
    assert_eq!(map(&[0, 1, 1, 0]), Err(MapError::Missing { layer, expert: ExpertId(2) }));
    assert_eq!(
        ExpertMap::contiguous(MapShape { ranks: 0, ..SHAPE }).unwrap_err(),
        MapError::Dimension { what: "ranks", value: 0 }
    );
}

#[test]
fn the_initial_placement_repeats_the_first_experts_at_the_end() {
    let map = ExpertMap::contiguous(SHAPE).unwrap();
    assert_eq!(format!("{map:?}"), "[[[0, 1], [2, 0]]]");
    let layer = LayerId(0);
    let places = map.copies(layer, ExpertId(0));
    assert_eq!(places, [(RankId(0), SlotIndex(0)), (RankId(1), SlotIndex(1))]);
    assert_eq!(map.copy_counts(layer), [2, 1, 1]);
    assert_eq!(map.expert(layer, RankId(1), SlotIndex(0)), ExpertId(2));
}

#[test]
fn ranks_may_have_unequal_numbers_of_slots() {
    let uneven = |slots: &[u32]| {
        let slots = slots.iter().map(|&expert| ExpertId(expert)).collect();
        ExpertMap::with_slots_of_ranks(2, 3, RankSlots::new([1, 3]), slots)
    };
    let map = uneven(&[0, 0, 1, 2, 2, 1, 0, 2]).unwrap();
    assert_eq!(map.shape(), MapShape { layers: 2, experts: 3, ranks: 2, slots_per_rank: 3 });
    assert_eq!((map.physical(), map.rank(LayerId(1), RankId(1))), (4, &[1, 0, 2].map(ExpertId)[..]));
    let places: Vec<(u32, u32)> = map.slots_of_layer().map(|(rank, slot)| (rank.0, slot.0)).collect();
    assert_eq!(places, [(0, 0), (1, 0), (1, 1), (1, 2)]);
    assert_eq!(uneven(&[0; 9]), Err(MapError::SlotCount { found: 9, expected: 8 }));
    let few = ExpertMap::with_slots_of_ranks(1, 3, RankSlots::new([0, 2]), [0, 1].map(ExpertId).to_vec());
    assert_eq!(few, Err(MapError::TooFewSlots { slots: 2, experts: 3 }));
}

#[test]
fn the_shares_of_an_expert_add_up_to_its_tokens() {
    let even = map(&[0, 1, 2, 0]).unwrap();
    assert_eq!((even.shares(LayerId(0)), even.fractions(LayerId(0))), (None, vec![0.5, 1.0, 1.0, 0.5]));
    let uneven = even.clone().with_shares(&[WHOLE / 4, WHOLE, WHOLE, WHOLE / 4 * 3]).unwrap();
    assert_eq!(uneven.fractions(LayerId(0)), [0.25, 1.0, 1.0, 0.75]);
    let refused = even.clone().with_shares(&[WHOLE / 2, WHOLE, WHOLE, 0]).unwrap_err();
    assert_eq!(refused, MapError::Shares { layer: LayerId(0), expert: ExpertId(0), found: u64::from(WHOLE / 2) });
    assert_eq!(even.clone().with_shares(&[WHOLE]), Err(MapError::SlotCount { found: 1, expected: 4 }));
    assert_eq!(even.clone().with_shares(&[WHOLE / 2, WHOLE, WHOLE, WHOLE / 2]), Ok(even));
}
