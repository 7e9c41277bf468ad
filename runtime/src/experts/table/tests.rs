use std::time::Instant;

use plan::moves::SlotChange;

use super::*;
use crate::protocol::TransactionId;

const SHAPE: MapShape = MapShape { layers: 2, experts: 6, ranks: 2, slots_per_rank: 4 };

/// Rank 0 holds 0 1 2 3, rank 1 holds 4 5 0 1; a page is the name of its expert.
fn table(rank: u32) -> ExpertTable<String> {
    let map = ExpertMap::contiguous(SHAPE).unwrap();
    let pages = map
        .layers()
        .flat_map(|layer| map.rank(layer, RankId(rank)).to_vec())
        .map(|expert| Arc::new(expert.to_string()))
        .collect();
    ExpertTable::new(&map, RankId(rank), 1, pages)
}

fn change(rank: u32, slot: u32, from: u32, to: u32) -> SlotChange {
    let source = RankId(1 - rank);
    SlotChange { rank: RankId(rank), slot: SlotIndex(slot), from: ExpertId(from), to: ExpertId(to), source }
}

fn commit(changes: &[SlotChange]) -> Commit {
    Commit { transaction: TransactionId(1), epoch: 2, layer: LayerId(1), changes: changes.to_vec() }
}

#[test]
fn copies_of_an_expert_share_its_tokens_evenly_in_every_run_of_positions_and_of_sequences() {
    for copies in 2..=4_usize {
        for start in [0_u32, 77, 1000] {
            for expert in 0..4 {
                let mut by_position = vec![0_i32; copies];
                let mut by_sequence = vec![0_i32; copies];
                for step in 0..240 {
                    by_position[share(ExpertId(expert), SequenceId(9), start + step, copies)] += 1;
                    by_sequence[share(ExpertId(expert), SequenceId(u64::from(start + step)), 5, copies)] += 1;
                }
                for counts in [by_position, by_sequence] {
                    let even = 240 / copies as i32;
                    assert!(counts.iter().all(|count| (count - even).abs() <= 4), "{counts:?} of {copies} copies");
                }
            }
        }
    }
}

#[test]
fn a_token_is_sent_to_a_slot_that_holds_its_expert() {
    let table = table(0);
    let map = table.map().unwrap();
    for layer in map.layers() {
        for expert in 0..6 {
            for position in 0..50 {
                let (rank, slot) = table.choose(layer, ExpertId(expert), SequenceId(3), position);
                assert_eq!(map.expert(layer, rank, slot), ExpertId(expert));
            }
        }
    }
}

#[test]
fn a_commit_swaps_this_ranks_pages_and_the_routing_of_its_layer_only() {
    let mut table = table(1);
    // Expert 0 leaves rank 1, which gets a copy of 2 instead; on rank 0 expert 1 makes place for 5.
    let work = commit(&[change(1, 2, 0, 2), change(0, 1, 1, 5)]);
    let replaced = table.commit(&work, vec![(SlotIndex(2), Arc::new("new".to_owned()))]).unwrap();
    assert_eq!(replaced, [(SlotIndex(2), Arc::new("expert 0".to_owned()))]);
    assert_eq!(table.epoch(), 2);
    assert_eq!(**table.page_of(LayerId(1), ExpertId(2)).unwrap(), "new");
    assert_eq!(table.page_of(LayerId(1), ExpertId(0)), None);
    assert_eq!(**table.page_of(LayerId(0), ExpertId(0)).unwrap(), "expert 0");
    let map = table.map().unwrap();
    assert_eq!(map.replicas(LayerId(1), ExpertId(5)), [(RankId(0), SlotIndex(1)), (RankId(1), SlotIndex(1))]);
    assert_eq!(table.choose(LayerId(1), ExpertId(0), SequenceId(1), 1), (RankId(0), SlotIndex(0)));
}

#[test]
fn a_commit_that_does_not_fit_is_refused_and_changes_nothing() {
    let cases = [
        (commit(&[change(1, 2, 5, 2)]), 1, "layer 1, rank 1, slot 2: the commit was made for another map"),
        (commit(&[change(1, 9, 0, 2)]), 1, "layer 1, rank 1, slot 9: the commit was made for another map"),
        (commit(&[change(1, 2, 0, 4)]), 1, "layer 1: the commit would put expert 4 on rank 1 twice"),
        (commit(&[change(1, 0, 4, 2)]), 1, "layer 1: the commit would leave expert 4 on no rank"),
        (commit(&[change(1, 2, 0, 2)]), 0, "layer 1: the commit changes 1 slots of this rank, 0 pages"),
        (Commit { layer: LayerId(2), ..commit(&[]) }, 0, "commit for layer 2, which the map does not have"),
    ];
    for (work, pages, message) in cases {
        let mut table = table(1);
        let before = table.map().unwrap();
        let staged = (0..pages).map(|_| (work.changes[0].slot, Arc::new("new".to_owned()))).collect();
        let error = table.commit(&work, staged).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
        assert_eq!((table.map().unwrap(), table.epoch()), (before, 1));
    }
}

#[test]
fn pairs_are_counted_by_slot_and_taken_once() {
    let mut table = table(0);
    table.count(LayerId(1), SlotIndex(2), 5);
    table.count(LayerId(1), SlotIndex(2), 2);
    assert_eq!(table.take_pairs(), [0, 0, 0, 0, 0, 0, 7, 0]);
    assert_eq!(table.take_pairs(), [0; 8]);
}

#[test]
fn a_commit_of_32_slots_costs_a_step_less_than_50_microseconds() {
    let shape = MapShape { layers: 1, experts: 128, ranks: 4, slots_per_rank: 64 };
    let map = ExpertMap::contiguous(shape).unwrap();
    let pages: Vec<Arc<String>> = (0..64).map(|_| Arc::new(String::new())).collect();
    let mut table = ExpertTable::new(&map, RankId(0), 0, pages.clone());
    // Rank 0 holds experts 0..64 and rank 2 the same; the changes alternate 32 slots of rank 0 between 0.. and 64...
    let mut fastest = u128::MAX;
    for round in 0..40_u64 {
        let (from, to) = if round % 2 == 0 { (0, 64) } else { (64, 0) };
        let changes: Vec<SlotChange> = (0..32).map(|slot| change(0, slot, from + slot, to + slot)).collect();
        let work = Commit { transaction: TransactionId(round), epoch: round, layer: LayerId(0), changes };
        let staged = (0..32).map(|slot| (SlotIndex(slot), Arc::clone(&pages[slot as usize]))).collect();
        let start = Instant::now();
        table.commit(&work, staged).unwrap();
        fastest = fastest.min(start.elapsed().as_nanos());
    }
    assert!(fastest < 50_000, "{fastest} ns");
}
