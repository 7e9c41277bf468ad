//! The order of transactions of different layers: those that shorten the step most for each page come first.

use super::{LayerState, MoveError, Transaction, transactions};
use crate::expected::Expected;
use crate::map::ExpertMap;
use crate::topology::Topology;

/// Transactions of one layer that stay together, in order: the first of them pay only with the last.
struct Block {
    transactions: Vec<Transaction>,
    /// Time that is taken off the busiest rank of the layer.
    gain: f64,
    pages: f64,
}

impl Block {
    /// What costs no page and gains comes before everything, and what costs none and loses after it.
    fn gain_per_page(&self) -> f64 {
        if self.pages > 0.0 || self.gain == 0.0 { self.gain / self.pages.max(1.0) } else { self.gain * f64::INFINITY }
    }
}

/// [`transactions`], those first that take most off the sum over layers of the time that the busiest rank is expected to
/// take for each page moved.
/// The order within a layer stays, so each is valid when it is its turn.
///
/// # Errors
/// As [`transactions`], or if what is expected is of another model.
pub fn best_first(
    old: &ExpertMap,
    new: &ExpertMap,
    expected: &Expected,
    topology: &Topology,
    staging_pages_per_rank: usize,
) -> Result<Vec<Transaction>, MoveError> {
    let shape = old.shape();
    if (expected.layers(), expected.experts()) != (shape.layers, shape.experts) {
        let (map_layers, map_experts) = (shape.layers, shape.experts);
        let (layers, experts) = (expected.layers(), expected.experts());
        return Err(MoveError::Load { layers, experts, map_layers, map_experts });
    }
    let ordered = transactions(old, new, topology, staging_pages_per_rank)?;
    let mut blocks: Vec<Block> =
        ordered.chunk_by(|a, b| a.layer == b.layer).flat_map(|chain| blocks(old, chain, expected, topology)).collect();
    blocks.sort_by(|a, b| b.gain_per_page().total_cmp(&a.gain_per_page()));
    Ok(blocks.into_iter().flat_map(|block| block.transactions).collect())
}

/// The transactions of one layer in blocks of falling gain per page.
fn blocks(old: &ExpertMap, chain: &[Transaction], expected: &Expected, topology: &Topology) -> Vec<Block> {
    let Some(layer) = chain.first().map(|transaction| transaction.layer) else { return Vec::new() };
    let of_ranks = old.slots_of_ranks();
    let mut state = LayerState::new(old, layer);
    let mut before = expected.busiest(layer, &state, (old, topology));
    let mut blocks: Vec<Block> = Vec::new();
    for transaction in chain {
        state.apply(of_ranks, transaction);
        let after = expected.busiest(layer, &state, (old, topology));
        let pages = transaction.changes.len() as f64;
        let mut block = Block { transactions: vec![transaction.clone()], gain: before - after, pages };
        while let Some(mut last) = blocks.pop_if(|last| last.gain_per_page() < block.gain_per_page()) {
            last.transactions.append(&mut block.transactions);
            block = Block { gain: last.gain + block.gain, pages: last.pages + block.pages, ..last };
        }
        blocks.push(block);
        before = after;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ExpertId;
    use crate::load::ExpertLoad;
    use crate::map::MapShape;

    fn layers_of(layers: usize, slots: &[u32], load: &[Vec<u64>], target: &[u32]) -> Vec<(u32, u32)> {
        let shape = MapShape { layers, experts: 4, ranks: 2, slots_per_rank: 3 };
        let map =
            |slots: &[u32]| ExpertMap::new(shape, slots.iter().map(|&expert| ExpertId(expert)).collect()).unwrap();
        let load = ExpertLoad::from_rows(load).unwrap();
        let ordered =
            best_first(&map(slots), &map(target), &Expected::known(&load), &Topology::single_node(2, 3), 1).unwrap();
        ordered.iter().map(|transaction| (transaction.layer.0, transaction.changes[0].to.0)).collect()
    }

    #[test]
    fn the_layer_that_gains_most_for_each_page_comes_first() {
        // Ranks carry 0 1 2 and 3 0 1 and one copy of expert 3 comes instead of one of 0 or 1. Layer 1 is the one where
        // expert 3 is hot: splitting it gains 60 / 2 there, and nothing in layer 0, where it has no load.
        let slots = [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 0, 1];
        let target = [3, 1, 2, 3, 0, 1, 3, 1, 2, 3, 0, 1];
        let load = [vec![10, 10, 10, 0], vec![0, 0, 0, 60]];
        assert_eq!(layers_of(2, &slots, &load, &target), [(1, 3), (0, 3)]);
    }

    #[test]
    fn a_step_that_only_pays_with_the_next_does_not_hold_up_other_layers_nor_change_its_place() {
        // Layer 0: giving up the second copy of hot expert 0 for expert 3 costs, and nothing after it pays. Layer 1 gains.
        let slots = [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 0, 1];
        let target = [3, 1, 2, 3, 0, 1, 0, 3, 2, 3, 0, 1];
        let load = [vec![60, 0, 0, 0], vec![0, 0, 0, 60]];
        assert_eq!(layers_of(2, &slots, &load, &target), [(1, 3), (0, 3)]);
    }

    #[test]
    fn a_load_of_another_model_is_refused() {
        let map = ExpertMap::contiguous(MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 3 }).unwrap();
        let nothing = Expected::known(&ExpertLoad::zero(1, 5));
        let refused = best_first(&map, &map, &nothing, &Topology::single_node(2, 3), 1).unwrap_err();
        assert_eq!(refused, MoveError::Load { layers: 1, experts: 5, map_layers: 1, map_experts: 4 });
    }
}
