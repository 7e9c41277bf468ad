//! Ranks that hold an expert in two slots, as the published algorithm and engines now and then have them: the second copy is
//! of no use, but the map is in force. Here it becomes a map that gives every rank the same load.

use super::physical::Placement;
use crate::ids::{ExpertId, LayerId, RankId};
use crate::map::even_shares;

/// A slot whose expert another slot of its rank holds too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondCopy {
    /// Its layer, in the map that was read.
    pub layer: LayerId,
    /// Its rank.
    pub rank: RankId,
    /// The expert that is there twice.
    pub expert: ExpertId,
    /// What the slot holds in the map that was made of it.
    pub stand_in: ExpertId,
}

/// Slots and shares, `[layers, slots of all ranks]`, and what of them is not as in the file.
pub(super) struct Settled {
    pub slots: Vec<ExpertId>,
    pub shares: Vec<u32>,
    pub second_copies: Vec<SecondCopy>,
}

/// A placement whose experts are all known and all there, with every second copy replaced by an expert that the rank lacks,
/// of those the one with the fewest copies, which takes no tokens. Where a rank lacks none, its second copies stay.
pub(super) fn settle(placement: &Placement, experts: usize) -> Settled {
    let mut settled = Settled { slots: Vec::new(), shares: Vec::new(), second_copies: Vec::new() };
    for (layer, ranks) in placement.iter().enumerate() {
        let mut held: Vec<ExpertId> = ranks.iter().flatten().map(|&expert| ExpertId(expert as u32)).collect();
        // A copy takes its part of the tokens wherever it is.
        let mut parts = even_shares(&held, experts);
        let mut start = 0;
        for (rank, slots) in ranks.iter().enumerate() {
            let end = start + slots.len();
            for place in start + 1..end {
                let expert = held[place];
                let Some(first) = (start..place).find(|&first| held[first] == expert) else { continue };
                let copies = |expert: ExpertId| held.iter().filter(|&&other| other == expert).count();
                let lacked = (0..experts).map(ExpertId::from).filter(|lacked| !held[start..end].contains(lacked));
                let Some(stand_in) = lacked.min_by_key(|&lacked| copies(lacked)) else { continue };
                parts[first] += std::mem::take(&mut parts[place]);
                held[place] = stand_in;
                settled.second_copies.push(SecondCopy { layer: layer.into(), rank: rank.into(), expert, stand_in });
            }
            start = end;
        }
        settled.slots.extend(held);
        settled.shares.extend(parts);
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{ExpertLoad, rank_loads};
    use crate::map::{ExpertMap, MapShape, WHOLE};

    #[test]
    fn ranks_have_the_load_that_they_have_with_second_copies() {
        // Expert 0 has three copies, two of them on rank 0: that rank computes two thirds of its tokens.
        let placement = vec![vec![vec![0, 1, 0], vec![2, 3, 0]]];
        let Settled { slots, shares, second_copies } = settle(&placement, 4);
        assert_eq!(slots, [0, 1, 2, 2, 3, 0].map(ExpertId));
        let of = SecondCopy { layer: 0.into(), rank: 0.into(), expert: ExpertId(0), stand_in: ExpertId(2) };
        assert_eq!(second_copies, [of]);
        let shape = MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 3 };
        let map = ExpertMap::new(shape, slots).unwrap().with_shares(&shares).unwrap();
        let load = ExpertLoad::from_rows(&[vec![3 * u64::from(WHOLE), 0, 0, 0]]).unwrap();
        let loads = rank_loads(&map, &load);
        let whole = f64::from(WHOLE);
        let close = |found: f64, expected: f64| (found - expected).abs() <= 6.0;
        assert!(close(loads[0][0], 2.0 * whole) && close(loads[0][1], whole), "{loads:?}");
    }

    #[test]
    fn every_second_copy_of_a_rank_is_replaced_by_another_expert() {
        let Settled { slots, second_copies, .. } = settle(&vec![vec![vec![1, 1, 1], vec![0, 2, 3]]], 4);
        assert_eq!(slots, [1, 0, 2, 0, 2, 3].map(ExpertId));
        assert_eq!(second_copies.len(), 2);
        let full = settle(&vec![vec![vec![0, 1, 1]]], 2);
        assert_eq!((full.slots.len(), full.second_copies.len()), (3, 0), "there is nothing else that it could hold");
    }
}
