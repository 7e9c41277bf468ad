use super::*;
use crate::map::{MapError, WHOLE};
use crate::membership::MembershipError;
use crate::moves::{destination, moved_slots, transactions};
use crate::slots::RankSlots;

const LAYER: LayerId = LayerId(0);

/// One layer with these experts on its ranks; a rank with none is not live.
fn map(ranks: &[&[u32]]) -> ExpertMap {
    let slots: Vec<ExpertId> = ranks.concat().into_iter().map(ExpertId).collect();
    let experts = slots.iter().max().unwrap().index() + 1;
    ExpertMap::with_slots_of_ranks(1, experts, RankSlots::new(ranks.iter().map(|rank| rank.len())), slots).unwrap()
}

fn one_node(ranks: usize) -> Topology {
    Topology::single_node(ranks, 1)
}

fn way(old: &ExpertMap, new: &ExpertMap) -> Regrouping {
    regroup(old, new, &one_node(old.shape().ranks), 1).unwrap()
}

/// Rank, slot, what it holds, what it gets and the rank that this comes from; `None` is the checkpoint.
type Told = (u32, u32, Option<u32>, u32, Option<u32>);

fn told(fills: &[Fill]) -> Vec<Told> {
    let told = |fill: &Fill| {
        let source = match fill.source {
            PageSource::Rank(rank) => Some(rank.0),
            PageSource::Checkpoint => None,
        };
        (fill.rank.0, fill.slot.0, fill.from.map(|expert| expert.0), fill.to.0, source)
    };
    fills.iter().map(told).collect()
}

#[test]
fn what_only_the_lost_rank_held_comes_from_the_checkpoint_and_the_rest_is_between_maps_of_the_same_ranks() {
    // Rank 1 is lost, and with it 3. Its place on rank 2 was that of 0; 1 and 2 change places in transactions.
    let (old, new) = (map(&[&[0, 1], &[0, 3], &[0, 2]]), map(&[&[0, 2], &[], &[3, 1]]));
    let Regrouping { start, fills, filled } = way(&old, &new);
    assert_eq!(start.absent(), [(LAYER, ExpertId(3))]);
    assert_eq!(told(&fills), [(2, 0, Some(0), 3, None)]);
    assert_eq!(filled, map(&[&[0, 1], &[], &[3, 2]]));
    let rest = transactions(&filled, &new, &one_node(3), 1).unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(filled.apply(&rest[0]).as_ref(), Ok(&destination(&old, new.clone()).unwrap()));
    assert_eq!(moved_slots(&old, &new), Ok(3));
}

#[test]
fn where_no_slot_for_a_lost_expert_is_free_another_change_frees_one() {
    // 4 is to come to rank 0 in the place of 1, whose only copy is to be on rank 2, in the place of a copy of 0.
    let (old, new) = (map(&[&[0, 1], &[4, 0], &[2, 0], &[3, 0]]), map(&[&[0, 4], &[], &[2, 1], &[3, 0]]));
    assert_eq!(told(&way(&old, &new).fills), [(2, 1, Some(0), 1, Some(0)), (0, 1, Some(1), 4, None)]);
}

#[test]
fn a_lost_expert_is_loaded_once_and_its_other_copies_come_from_ranks() {
    let (old, new) = (map(&[&[0, 1], &[2, 0], &[0, 1]]), map(&[&[2, 1], &[], &[0, 2]]));
    let Regrouping { fills, filled, .. } = way(&old, &new);
    assert_eq!(told(&fills), [(0, 0, Some(0), 2, None)]);
    let rest = transactions(&filled, &new, &one_node(3), 1).unwrap();
    assert_eq!(rest.iter().map(|transaction| transaction.changes[0].source).collect::<Vec<_>>(), [RankId(0)]);
}

#[test]
fn a_rank_that_returned_is_filled_from_ranks_of_its_node_first() {
    let (old, new) = (map(&[&[0, 1], &[], &[0, 2]]), map(&[&[0, 1], &[2, 0], &[0, 2]]));
    let topology = Topology::new([0, 1, 1].map(crate::ids::NodeId).to_vec(), 2);
    let Regrouping { start, fills, filled } = regroup(&old, &new, &topology, 1).unwrap();
    assert_eq!((start.empty_slots(), start.absent()), (2, Vec::new()));
    assert_eq!(told(&fills), [(1, 0, None, 0, Some(2)), (1, 1, None, 2, Some(2))]);
    assert_eq!(moved_slots(&old, &new), Ok(2));
    assert_eq!(Ok(filled), destination(&old, new));
}

#[test]
fn lost_experts_come_before_anything_for_a_rank_that_returned() {
    let slots = [0, 1, 2, 3, 0, 2].map(ExpertId);
    let of = |ranks: [usize; 3], slots: Vec<ExpertId>| {
        ExpertMap::with_slots_of_ranks(1, 4, RankSlots::new(ranks), slots).unwrap()
    };
    let old = of([2, 2, 0], slots[..4].to_vec());
    let new = of([2, 0, 2], [0, 1, 2, 3].map(ExpertId).to_vec());
    assert_eq!(told(&way(&old, &new).fills), [(2, 0, None, 2, None), (2, 1, None, 3, None)]);
    // Where one returns as another is lost and both have room, the experts of layer 1 that are lost come before layer 0 is full.
    let two = |layers: [&[u32]; 2], ranks: [usize; 3]| {
        let slots = layers.concat().into_iter().map(ExpertId).collect();
        ExpertMap::with_slots_of_ranks(2, 3, RankSlots::new(ranks), slots).unwrap()
    };
    let (old, new) = (two([&[0, 1, 2, 0], &[0, 1, 0, 2]], [2, 2, 0]), two([&[0, 1, 2, 0], &[0, 1, 2, 1]], [2, 0, 2]));
    let order: Vec<(u32, u32)> = way(&old, &new).fills.iter().map(|fill| (fill.layer.0, fill.to.0)).collect();
    assert_eq!(order, [(0, 2), (1, 2), (0, 0), (1, 1)]);
}

#[test]
fn shares_come_with_the_last_change_and_copies_that_lost_one_share_evenly_until_then() {
    let quarter = WHOLE / 4;
    let shared = |map: ExpertMap, quarters: &[u32]| {
        map.with_shares(&quarters.iter().map(|part| part * quarter).collect::<Vec<_>>()).unwrap()
    };
    // Of expert 0 three quarters are lost with rank 1; expert 1 keeps its shares, and 2 gets a second copy.
    let old = shared(map(&[&[0, 1], &[0, 3], &[0, 1], &[3, 2]]), &[1, 1, 2, 2, 1, 3, 2, 4]);
    let new = shared(map(&[&[0, 1], &[], &[2, 1], &[3, 2]]), &[4, 1, 3, 3, 4, 1]);
    let way = way(&old, &new);
    let parts = |parts: &[u32]| parts.iter().map(|part| part / quarter).collect::<Vec<_>>();
    assert_eq!(parts(way.start.parts(LAYER)), [2, 1, 2, 3, 4, 4]);
    assert!(way.fills.is_empty());
    let back = shared(map(&[&[0, 1], &[0, 2], &[2, 1], &[3, 2]]), &[1, 1, 3, 2, 1, 3, 4, 1]);
    let way = regroup(&new, &back, &one_node(4), 1).unwrap();
    assert_eq!(parts(&way.filled.parts(LAYER)), [1, 1, 3, 2, 1, 3, 4, 1]);
    assert_eq!(way.filled, back);
}

#[test]
fn ways_that_do_not_exist_are_refused_in_words() {
    let (whole, lost) = (map(&[&[0, 1], &[2, 0], &[1, 2]]), map(&[&[0, 1], &[], &[1, 2]]));
    let words = |old: &ExpertMap, new: &ExpertMap| transactions(old, new, &one_node(3), 1).unwrap_err().to_string();
    let expected = "rank 1 has slots in only one of the two maps: it is lost or has returned, and transactions lead between \
                    maps of the same live ranks; fill what is missing first (moves::regroup)";
    assert_eq!([words(&whole, &lost), words(&lost, &whole)], [expected, expected]);
    let fewer = map(&[&[0, 1], &[1, 2]]);
    let refused = MoveError::Membership(MembershipError::Ranks { before: 3, after: 2 });
    assert_eq!(regroup(&whole, &fewer, &one_node(3), 1), Err(refused));
    let smaller = map(&[&[0, 1], &[2], &[1, 2]]);
    let refused = MoveError::Membership(MembershipError::Slots { rank: RankId(1), before: 2, after: 1 });
    assert_eq!(regroup(&whole, &smaller, &one_node(3), 1), Err(refused));
    assert_eq!(regroup(&whole, &lost, &one_node(3), 0), Err(MoveError::NoStagingPage));
    assert_eq!(regroup(&whole, &lost, &one_node(2), 1), Err(MoveError::Ranks { found: 2, ranks: 3 }));
}

#[test]
fn a_fill_that_does_not_fit_what_ranks_hold_is_refused() {
    // Rank 1 has returned, and rank 2, which alone held 3, is lost.
    let (old, new) = (map(&[&[0, 1, 2], &[], &[3, 0, 2]]), RankSlots::new([3, 3, 0]));
    let held = Holdings::left_of(&old, &new).unwrap();
    let (layer, rank, slot) = (LAYER, RankId(1), SlotIndex(0));
    let (to, source) = (ExpertId(3), PageSource::Checkpoint);
    let fill = Fill { layer, rank, slot, from: None, to, source, shares: Vec::new() };
    let refused = |fill: Fill| held.clone().apply_in_place(&fill).unwrap_err();
    let words = |fill: Fill| refused(fill).to_string();
    let from_rank = |rank: u32| PageSource::Rank(RankId(rank));
    assert_eq!(
        refused(Fill { layer: LayerId(1), ..fill.clone() }),
        MoveError::UnknownLayer { layer: LayerId(1), layers: 1 }
    );
    let unknown = MoveError::UnknownSlot { layer, rank: RankId(2), slot };
    assert_eq!(refused(Fill { rank: RankId(2), ..fill.clone() }), unknown);
    assert_eq!(
        words(Fill { from: Some(ExpertId(1)), ..fill.clone() }),
        "layer 0: rank 1, slot 0 holds no expert, not expert 1 as the fill says; plan anew from what ranks hold"
    );
    let lacks = MoveError::SourceLacks { layer, source_rank: RankId(0), expert: to };
    assert_eq!(refused(Fill { source: from_rank(0), ..fill.clone() }), lacks);
    assert_eq!(
        words(Fill { to: ExpertId(1), ..fill.clone() }),
        "layer 0: expert 1 is to come from the checkpoint though rank 0 holds it; take its page"
    );
    let twice = MoveError::Map(MapError::Twice { layer, rank: RankId(0), expert: ExpertId(1) });
    let again =
        Fill { rank: RankId(0), from: Some(ExpertId(0)), to: ExpertId(1), source: from_rank(0), ..fill.clone() };
    assert_eq!(refused(again), twice);
    let last = Fill { rank: RankId(0), from: Some(ExpertId(0)), ..fill.clone() };
    assert_eq!(refused(last), MoveError::Map(MapError::Missing { layer, expert: ExpertId(0) }));
    let unknown = MapError::UnknownExpert { layer, rank, expert: ExpertId(4), experts: 4 };
    assert_eq!(refused(Fill { to: ExpertId(4), ..fill.clone() }), MoveError::Map(unknown));
    let share = ShareChange { rank, slot, share: 1 };
    let shares = MapError::Shares { layer, expert: to, found: 1 };
    assert_eq!(refused(Fill { shares: vec![share], ..fill.clone() }), MoveError::Map(shares));
    let again = MoveError::SlotTwice { layer, rank, slot };
    assert_eq!(refused(Fill { shares: vec![share, share], ..fill.clone() }), again);
    let mut filled = held.clone();
    filled.apply_in_place(&fill).unwrap();
    assert_eq!(filled.rank(LAYER, rank), [Some(to), None, None]);
    let unfinished = filled.to_map().unwrap_err().to_string();
    assert_eq!(unfinished, "2 slots still empty and 0 experts still without a copy; fill them first");
}
