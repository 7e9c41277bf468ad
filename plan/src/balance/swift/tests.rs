//! Layers to test on.

use proptest::prelude::*;

use super::packing::Packing;
use super::ranks::Ranks;

/// Ranks with slots and speeds of their own, the loads of experts, and slots that are valid for them.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) ranks: Ranks,
    pub(super) weights: Vec<f64>,
    pub(super) slots: Vec<u16>,
    /// From 1 to the copies of each expert that there are slots for.
    pub(super) least: usize,
}

impl Layer {
    pub(super) fn packing(&self) -> Packing<'_> {
        Packing::new(&self.ranks, &self.weights, &self.slots, self.least)
    }
}

/// Small layers: of alike ranks, and of ranks with any number of slots and any speed.
pub(super) fn layers() -> impl Strategy<Value = Layer> {
    (2..7_usize, 2..14_usize).prop_flat_map(|(ranks, experts)| {
        let alike = (experts.div_ceil(ranks)..=experts).prop_map(move |slots| vec![slots; ranks]);
        let speed = prop_oneof![2 => Just(1.0), 1 => 0.1..10.0_f64];
        let load = prop_oneof![1 => Just(0.0), 1 => Just(100.0), 4 => 0.0..1e4_f64, 1 => 0.0..1e19_f64];
        let slots = prop_oneof![2 => alike, 1 => prop::collection::vec(0..=experts, ranks)];
        let speeds = prop_oneof![Just(vec![1.0; ranks]), prop::collection::vec(speed, ranks)];
        let order = Just((0..experts as u16).collect::<Vec<_>>()).prop_shuffle();
        (slots, speeds, prop::collection::vec(load, experts), order, 1..4_usize).prop_map(
            |(mut slots, speeds, weights, order, wanted)| {
                let experts = order.len();
                if slots.iter().sum::<usize>() < experts {
                    let count = experts.div_ceil(slots.len());
                    slots.fill(count);
                }
                let ranks = Ranks::new(&slots, &speeds);
                let slots: Vec<u16> = (0..ranks.physical()).map(|slot| order[slot % experts]).collect();
                Layer { least: wanted.min(ranks.physical() / experts).min(ranks.open()), ranks, weights, slots }
            },
        )
    })
}

/// Copies of each expert, if the slots have a copy of each and none twice on a rank.
pub(super) fn copies(ranks: &Ranks, experts: usize, slots: &[u16]) -> Option<Vec<usize>> {
    let mut copies = vec![0; experts];
    for rank in 0..ranks.len() {
        let mut held = slots[ranks.slots(rank)].to_vec();
        held.sort_unstable();
        if held.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        for expert in held {
            copies[usize::from(expert)] += 1;
        }
    }
    (slots.len() == ranks.physical() && copies.iter().all(|&count| count > 0)).then_some(copies)
}

/// The time that each rank takes, counted from the slots.
pub(super) fn levels(ranks: &Ranks, weights: &[f64], slots: &[u16]) -> Vec<f64> {
    let copies = copies(ranks, weights.len(), slots).expect("the slots are valid");
    let load = |&expert: &u16| weights[usize::from(expert)] / copies[usize::from(expert)] as f64;
    (0..ranks.len()).map(|rank| slots[ranks.slots(rank)].iter().map(load).sum::<f64>() * ranks.pace(rank)).collect()
}

#[test]
fn ranks_without_slots_offer_nothing() {
    let ranks = Ranks::new(&[2, 0, 1], &[1.0, 8.0, 0.5]);
    assert_eq!((ranks.len(), ranks.open(), ranks.physical()), (3, 2, 3));
    assert!((ranks.speed() - 1.5).abs() < 1e-12);
}

/// Experts that ranks hold and did not hold before.
pub(super) fn moved(ranks: &Ranks, old: &[u16], new: &[u16]) -> usize {
    let of_rank = |rank: usize| {
        new[ranks.slots(rank)].iter().filter(move |expert| !old[ranks.slots(rank)].contains(expert)).count()
    };
    (0..ranks.len()).map(of_rank).sum()
}
