//! Valid transactions that lead nowhere in particular: for showing that moving experts changes no output.

use super::{SlotChange, Transaction};
use crate::ids::{ExpertId, LayerId};
use crate::map::ExpertMap;

/// A valid transaction of a layer of the map, the same for the same seed: two ranks exchange an expert, or the slot of
/// an expert with another copy gets an expert that its rank lacks. `None` if the layer has neither, because every rank
/// holds every expert.
#[must_use]
pub fn random_transaction(map: &ExpertMap, layer: LayerId, seed: u64) -> Option<Transaction> {
    let mut random = SplitMix(seed ^ u64::from(layer.0).rotate_left(32));
    let changes = if random.below(2) == 0 {
        exchange(map, layer, &mut random).or_else(|| replacement(map, layer, &mut random))
    } else {
        replacement(map, layer, &mut random).or_else(|| exchange(map, layer, &mut random))
    };
    changes.map(|changes| Transaction { layer, changes, shares: Vec::new() })
}

fn exchange(map: &ExpertMap, layer: LayerId, random: &mut SplitMix) -> Option<Vec<SlotChange>> {
    let first = random.rotation(map);
    let second = random.rotation(map);
    first.iter().find_map(|&a| {
        let (expert_a, holders) = (map.layer(layer)[a], map.rank(layer, rank(map, a)));
        let b = second.iter().copied().find(|&b| {
            let expert_b = map.layer(layer)[b];
            !holders.contains(&expert_b) && !map.rank(layer, rank(map, b)).contains(&expert_a)
        })?;
        Some(vec![change(map, layer, a, b), change(map, layer, b, a)])
    })
}

fn replacement(map: &ExpertMap, layer: LayerId, random: &mut SplitMix) -> Option<Vec<SlotChange>> {
    let counts = map.copy_counts(layer);
    let targets = random.rotation(map);
    let sources = random.rotation(map);
    targets.iter().filter(|&&slot| counts[map.layer(layer)[slot].index()] > 1).find_map(|&slot| {
        let held = map.rank(layer, rank(map, slot));
        let source = sources.iter().copied().find(|&source| !held.contains(&map.layer(layer)[source]))?;
        Some(vec![change(map, layer, slot, source)])
    })
}

/// The change that gives a slot of a layer the expert of another, both counted over all ranks.
fn change(map: &ExpertMap, layer: LayerId, slot: usize, source: usize) -> SlotChange {
    let expert = |slot: usize| -> ExpertId { map.layer(layer)[slot] };
    let (rank_of_slot, place) = map.slots_of_ranks().place(slot);
    SlotChange { rank: rank_of_slot, slot: place, from: expert(slot), to: expert(source), source: rank(map, source) }
}

fn rank(map: &ExpertMap, slot: usize) -> crate::ids::RankId {
    map.slots_of_ranks().place(slot).0
}

/// `SplitMix64` (Steele, Lea and Flood 2014). The generators of `rand` may give other numbers in another version, and
/// a seed that is printed must keep its meaning.
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    const fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Every slot of a layer, in order from a random one on.
    fn rotation(&mut self, map: &ExpertMap) -> Vec<usize> {
        let physical = map.physical();
        let start = self.below(physical);
        (start..physical).chain(0..start).collect()
    }
}
