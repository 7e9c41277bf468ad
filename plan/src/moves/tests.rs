use super::*;
use crate::ids::LayerId;
use crate::map::{MapError, MapShape};
use crate::membership::MembershipError;

const LAYER: LayerId = LayerId(0);

/// One layer with these experts on its ranks.
fn map<const S: usize>(ranks: &[[u32; S]]) -> ExpertMap {
    let experts = ranks.iter().flatten().max().unwrap() + 1;
    let shape = MapShape { layers: 1, experts: experts as usize, ranks: ranks.len(), slots_per_rank: S };
    ExpertMap::new(shape, ranks.concat().into_iter().map(ExpertId).collect()).unwrap()
}

fn change(rank: u32, slot: u32, from_to: [u32; 2], source: u32) -> SlotChange {
    let [from, to] = from_to.map(ExpertId);
    SlotChange { rank: RankId(rank), slot: SlotIndex(slot), from, to, source: RankId(source) }
}

fn transaction(changes: &[SlotChange]) -> Transaction {
    Transaction { layer: LAYER, changes: changes.to_vec(), shares: Vec::new() }
}

fn one_node(ranks: usize) -> Topology {
    Topology::single_node(ranks, 1)
}

fn plan<const S: usize>(old: &[[u32; S]], new: &[[u32; S]]) -> Vec<Vec<SlotChange>> {
    transactions(&map(old), &map(new), &one_node(old.len()), 1)
        .unwrap()
        .into_iter()
        .map(|transaction| transaction.changes)
        .collect()
}

#[test]
fn an_expert_that_stays_on_its_rank_stays_in_its_slot() {
    assert!(plan(&[[0, 1], [2, 3]], &[[1, 0], [3, 2]]).is_empty());
    let old = map(&[[0, 1], [2, 0]]);
    assert_eq!(destination(&old, map(&[[1, 2], [0, 2]])), Ok(map(&[[2, 1], [2, 0]])));
}

#[test]
fn a_slot_whose_expert_has_another_copy_changes_alone() {
    assert_eq!(plan(&[[0, 1], [2, 0]], &[[2, 1], [2, 0]]), [[change(0, 0, [0, 2], 1)]]);
}

#[test]
fn two_only_copies_change_ranks_together() {
    assert_eq!(plan(&[[0, 1], [2, 3]], &[[0, 3], [2, 1]]), [[change(0, 1, [1, 3], 1), change(1, 1, [3, 1], 0)]]);
}

#[test]
fn only_copies_that_go_around_change_in_one_transaction() {
    let around = vec![change(0, 0, [0, 2], 2), change(1, 0, [1, 0], 0), change(2, 0, [2, 1], 1)];
    assert_eq!(plan(&[[0], [1], [2]], &[[2], [0], [1]]), [around]);
}

#[test]
fn ranks_that_exchange_several_only_copies_do_so_pair_by_pair() {
    let pairs = plan(&[[0, 1], [2, 3]], &[[2, 3], [0, 1]]);
    assert_eq!(
        pairs,
        [[change(0, 0, [0, 2], 1), change(1, 0, [2, 0], 0)], [change(0, 1, [1, 3], 1), change(1, 1, [3, 1], 0)],]
    );
}

#[test]
fn a_copy_that_arrives_frees_the_slot_it_came_from() {
    // Only expert 0 has two copies. Its slot on rank 0 takes 1, so that rank 1 may drop 1 for 2, and rank 2 drops 2.
    let chain = plan(&[[0, 3], [1, 4], [2, 0]], &[[1, 3], [2, 4], [3, 0]]);
    assert_eq!(chain, [[change(0, 0, [0, 1], 1)], [change(1, 0, [1, 2], 2)], [change(2, 0, [2, 3], 0)]]);
}

#[test]
fn the_holder_that_has_sent_least_is_the_source() {
    // Expert 0, on ranks 0 and 1, goes to ranks 2 and 3.
    let copies = plan(&[[0, 1], [0, 2], [1, 2], [2, 1]], &[[0, 1], [0, 2], [0, 2], [0, 1]]);
    assert_eq!(copies, [[change(2, 0, [1, 0], 0)], [change(3, 0, [2, 0], 1)]]);
}

#[test]
fn maps_of_other_groups_and_models_and_ranks_without_staging_pages_are_refused() {
    let (old, new) = (map(&[[0, 1], [2, 3]]), map(&[[0], [1], [2], [3]]));
    let refused = MoveError::Membership(MembershipError::Ranks { before: 2, after: 4 });
    assert_eq!(transactions(&old, &new, &one_node(2), 1), Err(refused.clone()));
    assert_eq!(destination(&old, new.clone()), Err(refused.clone()));
    assert_eq!(moved_slots(&old, &new), Err(refused));
    assert_eq!(transactions(&old, &old, &one_node(2), 0), Err(MoveError::NoStagingPage));
    let refused = transactions(&old, &map(&[[0, 1], [2, 0]]), &one_node(2), 1).unwrap_err().to_string();
    assert_eq!(refused, "the target has 1 layer of 3 experts, the map in force 1 of 4; both must be of one model");
}

#[test]
fn a_transaction_that_does_not_fit_the_map_is_refused() {
    let map = map(&[[0, 1], [2, 0]]);
    let (layer, rank, slot) = (LAYER, RankId(1), SlotIndex(1));
    let refused = |changes: &[SlotChange]| map.apply(&transaction(changes)).unwrap_err();
    assert_eq!(refused(&[]), MoveError::Empty { layer });
    assert_eq!(
        map.apply(&Transaction { layer: LayerId(1), changes: Vec::new(), shares: Vec::new() }),
        Err(MoveError::UnknownLayer { layer: LayerId(1), layers: 1 })
    );
    let unknown_slot = MoveError::UnknownSlot { layer, rank, slot: SlotIndex(2) };
    assert_eq!(refused(&[change(1, 2, [0, 1], 0)]), unknown_slot);
    assert_eq!(refused(&[change(2, 1, [0, 1], 0)]), MoveError::UnknownSlot { layer, rank: RankId(2), slot });
    let twice = [change(1, 1, [0, 1], 0), change(1, 1, [0, 1], 0)];
    assert_eq!(refused(&twice), MoveError::SlotTwice { layer, rank, slot });
    let other = MoveError::OtherExpert { layer, rank, slot, found: ExpertId(0), expected: ExpertId(2) };
    assert_eq!(refused(&[change(1, 1, [2, 1], 0)]), other);
    let lacks = |source| MoveError::SourceLacks { layer, source_rank: RankId(source), expert: ExpertId(1) };
    assert_eq!(refused(&[change(1, 1, [0, 1], 1)]), lacks(1));
    assert_eq!(refused(&[change(1, 1, [0, 1], 2)]), lacks(2));
    let missing = MoveError::Map(MapError::Missing { layer, expert: ExpertId(1) });
    assert_eq!(refused(&[change(0, 1, [1, 2], 1)]), missing);
    let twice = MoveError::Map(MapError::Twice { layer, rank, expert: ExpertId(2) });
    assert_eq!(refused(&[change(1, 1, [0, 2], 1)]), twice);
    let applied = map.apply(&transaction(&[change(1, 1, [0, 1], 0)])).unwrap();
    assert_eq!(applied.layer(LAYER), [0, 1, 2, 1].map(ExpertId));
}

#[test]
fn random_transactions_are_valid_of_both_kinds_and_the_same_for_a_seed() {
    let map = map(&[[0, 1], [2, 0], [3, 4]]);
    let mut sizes = [0, 0];
    for seed in 0..100 {
        let transaction = random_transaction(&map, LAYER, seed).unwrap();
        assert_ne!(map.apply(&transaction).unwrap(), map, "seed {seed}");
        assert_eq!(random_transaction(&map, LAYER, seed), Some(transaction.clone()));
        sizes[transaction.changes.len() - 1] += 1;
    }
    assert!(sizes.iter().all(|&size| size > 20), "changes and exchanges: {sizes:?}");
}

#[test]
fn where_every_rank_holds_every_expert_there_is_no_random_transaction() {
    assert_eq!(random_transaction(&map(&[[0, 1], [1, 0]]), LAYER, 7), None);
}

#[test]
fn an_arrival_that_frees_another_slot_comes_before_one_that_frees_none() {
    // Rank 0 can drop only 0 at first. If 1 came for it, 3 and the only copy of 2 would have to change places together.
    let alone = plan(&[[0, 3], [2, 4], [0, 1]], &[[1, 2], [3, 4], [0, 1]]);
    let expected = [[change(0, 0, [0, 2], 1)], [change(1, 0, [2, 3], 0)], [change(0, 1, [3, 1], 2)]];
    assert_eq!(alone, expected);
}

/// Shares in quarters of a whole, for one layer.
fn quarters(map: ExpertMap, quarters: &[u32]) -> ExpertMap {
    let shares: Vec<u32> = quarters.iter().map(|quarter| quarter * (crate::map::WHOLE / 4)).collect();
    map.with_shares(&shares).unwrap()
}

#[test]
fn shares_come_with_the_last_change_to_their_experts_and_those_of_experts_that_stay_at_the_end() {
    // Expert 0 leaves rank 0 for 2, which then has two copies with 1 and 3 quarters; expert 3 stays and is shared anew.
    let old = map(&[[0, 1, 3], [2, 0, 3]]);
    let new = quarters(map(&[[2, 1, 3], [2, 0, 3]]), &[1, 4, 3, 3, 4, 1]);
    let transactions = transactions(&old, &new, &one_node(2), 1).unwrap();
    let [first, last] = &transactions[..] else { panic!("{transactions:?}") };
    assert_eq!((first.changes.len(), last.changes.len()), (1, 0));
    let shares = |transaction: &Transaction| -> Vec<(u32, u32, u32)> {
        let part = crate::map::WHOLE / 4;
        transaction.shares.iter().map(|change| (change.rank.0, change.slot.0, change.share / part)).collect()
    };
    assert_eq!(shares(first), [(0, 0, 1), (1, 0, 3)]);
    assert_eq!(shares(last), [(0, 2, 3), (1, 2, 1)]);
    let reached = transactions.iter().fold(old.clone(), |map, work| map.apply(work).unwrap());
    assert_eq!((&reached, &destination(&old, new.clone()).unwrap()), (&new, &new));
}

#[test]
fn experts_that_a_transaction_touches_share_evenly_and_others_keep_their_shares() {
    // Three ranks hold 0, two hold 1 and 2.
    let map = quarters(map(&[[0, 1], [0, 2], [0, 1], [3, 2]]), &[2, 1, 1, 3, 1, 3, 4, 1]);
    let moved = map.apply(&transaction(&[change(2, 0, [0, 3], 3)])).unwrap();
    let expected = [0.5, 0.25, 0.5, 0.75, 0.5, 0.75, 0.5, 0.25];
    assert_eq!(moved.fractions(LAYER), expected);
}

#[test]
fn shares_that_do_not_fit_are_refused() {
    let map = map(&[[0, 1], [2, 0]]);
    let share = |rank, slot, share| ShareChange { rank: RankId(rank), slot: SlotIndex(slot), share };
    let refused = |shares: &[ShareChange]| {
        let work = Transaction { layer: LAYER, changes: Vec::new(), shares: shares.to_vec() };
        map.apply(&work).unwrap_err()
    };
    let half = MapError::Shares { layer: LAYER, expert: ExpertId(0), found: 32768 };
    assert_eq!(refused(&[share(0, 0, 0)]), MoveError::Map(half));
    let unknown = MoveError::UnknownSlot { layer: LAYER, rank: RankId(1), slot: SlotIndex(2) };
    assert_eq!(refused(&[share(1, 2, 0)]), unknown);
    let twice = MoveError::SlotTwice { layer: LAYER, rank: RankId(0), slot: SlotIndex(0) };
    assert_eq!(refused(&[share(0, 0, 1), share(0, 0, 2)]), twice);
}

#[test]
fn a_topology_of_another_group_is_refused() {
    let map = map(&[[0, 1], [2, 0]]);
    assert_eq!(transactions(&map, &map, &one_node(3), 1), Err(MoveError::Ranks { found: 3, ranks: 2 }));
}

#[test]
fn staging_is_a_hundredth_of_what_a_rank_holds_within_bounds() {
    let usual = [0, 64, 99, 100, 199, 200, 299, 300, 1599, 1600, 6144].map(usual_staging_pages);
    assert_eq!(usual, [2, 2, 2, 1, 1, 2, 2, 3, 15, 16, 16]);
    for pages in 100..10_000 {
        let staging = usual_staging_pages(pages) as usize;
        assert!((1..=16).contains(&staging) && 100 * staging <= pages, "{staging} of {pages}");
    }
}
