use std::error::Error as _;
use std::time::Instant;

use plan::ids::ExpertId;
use plan::moves::{ShareChange, SlotChange, Transaction};
use plan::topology::Topology;

use super::*;
use crate::protocol::TransactionId;

const SHAPE: MapShape = MapShape { layers: 2, experts: 6, ranks: 2, slots_per_rank: 4 };

/// Rank 0 holds 0 1 2 3, rank 1 holds 4 5 0 1; a page has the number of its expert, and 10 more for each layer.
fn table(rank: u32) -> RankMap {
    let map = ExpertMap::contiguous(SHAPE).unwrap();
    let pages = map
        .layers()
        .flat_map(|layer| map.rank(layer, RankId(rank)).iter().map(move |expert| PageId(10 * layer.0 + expert.0)))
        .collect();
    RankMap::new(&map, &Topology::single_node(2, SHAPE.slots_per_rank), RankId(rank), 1, pages)
}

/// The slot that computes an expert for a token of a sequence.
fn choose(table: &RankMap, layer: LayerId, expert: u32, token: (u32, u32)) -> (RankId, SlotIndex) {
    let Slot { rank, index } = table.layer(layer).copies.choose(expert, token.0, token.1);
    (RankId(rank), SlotIndex(index))
}

fn change(rank: u32, slot: u32, from: u32, to: u32) -> SlotChange {
    let source = RankId(1 - rank);
    SlotChange { rank: RankId(rank), slot: SlotIndex(slot), from: ExpertId(from), to: ExpertId(to), source }
}

fn commit(changes: &[SlotChange]) -> Commit {
    let work = Transaction { layer: LayerId(1), changes: changes.to_vec(), shares: Vec::new() };
    Commit { transaction: TransactionId(1), epoch: 2, work }
}

/// Layer 0 of a table of one expert that is on every rank with these shares, by how many of a run of tokens each rank
/// gets.
fn spread(shares: &[u32], tokens: impl Iterator<Item = (u32, u32)>) -> Vec<i32> {
    let shape = MapShape { layers: 1, experts: 1, ranks: shares.len(), slots_per_rank: 1 };
    let map = ExpertMap::contiguous(shape).unwrap().with_shares(shares).unwrap();
    let table = RankMap::new(&map, &Topology::single_node(shares.len(), 1), RankId(0), 1, vec![PageId(0)]);
    let mut counts = vec![0; shares.len()];
    let copies = &table.layers()[0].copies;
    for (sequence, position) in tokens {
        counts[copies.choose(0, sequence, position).rank as usize] += 1;
    }
    counts
}

#[test]
fn copies_of_an_expert_take_their_shares_in_every_run_of_positions_and_of_sequences() {
    let whole = WHOLE;
    let cases = [
        vec![whole / 2, whole / 2],
        plan::map::even_shares(&[ExpertId(0); 3], 1),
        vec![whole / 4; 4],
        vec![whole / 8, whole / 8 * 7],
        vec![whole / 2, 0, whole / 4, whole / 4],
        vec![0, whole, 0],
    ];
    for shares in cases {
        for start in [0_u32, 77, 1000] {
            let by_position = spread(&shares, (start..start + 240).map(|position| (9, position)));
            let by_sequence = spread(&shares, (start..start + 240).map(|sequence| (sequence, 5)));
            for counts in [by_position, by_sequence] {
                for (&count, &share) in counts.iter().zip(&shares) {
                    let expected = (240 * u64::from(share) / u64::from(whole)) as i32;
                    assert!((count - expected).abs() <= 4, "{counts:?} of shares {shares:?}");
                    assert!(share > 0 || count == 0, "{counts:?}: a copy that stands by takes nothing");
                }
            }
        }
    }
}

#[test]
fn a_commit_of_shares_alone_needs_no_page_and_holds_for_the_next_token() {
    let mut table = table(0);
    let share = |rank: u32, slot: u32, share| ShareChange { rank: RankId(rank), slot: SlotIndex(slot), share };
    let shares = vec![share(0, 0, 0), share(1, 2, WHOLE)];
    let mut work = commit(&[]);
    work.work.shares = shares;
    assert_eq!(table.commit(&work, &[]).unwrap().pages, [10, 11, 12, 13].map(PageId));
    for position in 0..50 {
        assert_eq!(choose(&table, LayerId(1), 0, (3, position)), (RankId(1), SlotIndex(2)));
    }
}

#[test]
fn a_token_is_sent_to_a_slot_that_holds_its_expert() {
    let table = table(0);
    let map = table.map();
    for layer in map.layers() {
        for expert in 0..6 {
            for position in 0..50 {
                let (rank, slot) = choose(&table, layer, expert, (3, position));
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
    let changed = table.commit(&work, &[(SlotIndex(2), PageId(77))]).unwrap();
    assert_eq!(table.epoch(), 2);
    assert_eq!((changed.layer, &changed.pages), (1, &[14, 15, 77, 11].map(PageId).to_vec()));
    assert_eq!(table.layers()[1], changed);
    assert_eq!(table.layers()[0].pages, [4, 5, 0, 1].map(PageId));
    let map = table.map();
    assert_eq!(map.copies(LayerId(1), ExpertId(5)), [(RankId(0), SlotIndex(1)), (RankId(1), SlotIndex(1))]);
    assert_eq!(choose(&table, LayerId(1), 0, (1, 1)), (RankId(0), SlotIndex(0)));
}

#[test]
fn a_commit_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut nowhere = commit(&[]);
    nowhere.work.layer = LayerId(2);
    let [mut twice, mut after_a_lost_one] = [(); 2].map(|()| commit(&[change(1, 2, 0, 2)]));
    (twice.epoch, after_a_lost_one.epoch) = (1, 3);
    let cases = [
        (twice, 1, "layer 1: the commit is of epoch 1, and the map in force is followed by epoch 2"),
        (after_a_lost_one, 1, "layer 1: the commit is of epoch 3, and the map in force is followed by epoch 2"),
        (commit(&[change(1, 2, 5, 2)]), 1, "layer 1: rank 1, slot 2 holds expert 0, not expert 5"),
        (commit(&[change(1, 9, 0, 2)]), 1, "layer 1: rank 1, slot 9 does not exist"),
        (commit(&[change(0, 3, 3, 0)]), 0, "layer 1, rank 0: expert 0 is there twice"),
        (commit(&[change(0, 2, 2, 5)]), 0, "layer 1: expert 2 is on no rank"),
        (commit(&[change(1, 2, 0, 2)]), 0, "layer 1: the commit changes 1 slot of this rank, pages staged for it: 0"),
        (nowhere, 0, "layer 2 does not exist"),
    ];
    for (work, pages, message) in cases {
        let mut table = table(1);
        let before = table.map().clone();
        let staged: Vec<_> = (0..pages).map(|_| (work.work.changes[0].slot, PageId(77))).collect();
        let error = table.commit(&work, &staged).unwrap_err();
        let error = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        assert!(error.starts_with(message), "{error}");
        assert_eq!((table.map(), table.epoch()), (&before, 1));
    }
}

#[test]
fn a_token_stays_on_its_node_where_that_has_a_copy() {
    // Expert 0 is on ranks 0 and 2, each on a node of its own with one other rank; expert 1 on rank 1 alone.
    let shape = MapShape { layers: 1, experts: 3, ranks: 4, slots_per_rank: 1 };
    let map = ExpertMap::new(shape, [0, 1, 0, 2].map(ExpertId).to_vec()).unwrap();
    let topology = Topology::even(2, 4, 1).unwrap();
    for (rank, nearest) in [(0, 0), (1, 0), (2, 2), (3, 2)] {
        let table = RankMap::new(&map, &topology, RankId(rank), 1, vec![PageId(0)]);
        for position in 0..32 {
            let chosen = |expert| choose(&table, LayerId(0), expert, (5, position)).0;
            assert_eq!((chosen(0), chosen(1)), (RankId(nearest), RankId(1)), "from rank {rank}");
        }
    }
}

#[test]
fn a_commit_of_32_slots_costs_a_step_less_than_50_microseconds() {
    let shape = MapShape { layers: 1, experts: 128, ranks: 4, slots_per_rank: 64 };
    let map = ExpertMap::contiguous(shape).unwrap();
    let pages: Vec<PageId> = (0..64).map(PageId).collect();
    let mut table = RankMap::new(&map, &Topology::even(2, 4, 64).unwrap(), RankId(0), 0, pages.clone());
    // Rank 0 holds experts 0..64 and rank 2 the same; the changes alternate 32 slots of rank 0 between 0.. and 64...
    let mut fastest = u128::MAX;
    for round in 0..40_u64 {
        let (from, to) = if round % 2 == 0 { (0, 64) } else { (64, 0) };
        let changes: Vec<SlotChange> = (0..32)
            .map(|slot| SlotChange {
                source: RankId(if to == 0 { 2 } else { 1 }),
                ..change(0, slot, from + slot, to + slot)
            })
            .collect();
        let work = Transaction { layer: LayerId(0), changes, shares: Vec::new() };
        let work = Commit { transaction: TransactionId(round), epoch: round + 1, work };
        let staged: Vec<_> = (0..32).map(|slot| (SlotIndex(slot), pages[slot as usize])).collect();
        let start = Instant::now();
        table.commit(&work, &staged).unwrap();
        fastest = fastest.min(start.elapsed().as_nanos());
    }
    assert!(fastest < 50_000, "{fastest} ns");
}
