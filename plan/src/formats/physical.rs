//! Placements as most engines keep them: a row for each layer that names the logical expert of every physical one, the
//! slots of a layer counted through rank by rank. The checks are those of our own documents; numbers of layers in errors
//! are the file's.

use thiserror::Error;

use super::second::{SecondCopy, Settled, settle};
use super::{Expected, Placed};
use crate::ids::{LayerId, RankId};
use crate::map::{ExpertMap, MAX_DIMENSION, MapError, MapShape};
use crate::words::counted;

/// Logical experts, `[layers][ranks][slots]`.
pub(super) type Placement = Vec<Vec<Vec<i64>>>;

/// The rows of a map, `[layers][slots of all ranks]`.
pub(super) fn rows(map: &ExpertMap) -> Vec<Vec<u32>> {
    map.layers().map(|layer| map.layer(layer).iter().map(|expert| expert.0).collect()).collect()
}

/// The row of a layer that has no experts, where a format wants one: physical expert `p` is logical expert `p mod E`.
pub(super) fn dense_row(map: &ExpertMap) -> Vec<u32> {
    (0..map.physical()).map(|slot| (slot % map.shape().experts) as u32).collect()
}

/// The map of rows, of which the first is the file's layer `first`.
pub(super) fn to_map(rows: &[Vec<i64>], first: usize, expected: &Expected) -> Result<Placed, PhysicalError> {
    let (rows, mtp_layers) = without_mtp(rows, expected);
    let layer = |index: usize| LayerId::from(first + index);
    let physical = rows.first().ok_or(PhysicalError::NoLayers)?.len();
    if let Some(index) = rows.iter().position(|row| row.len() != physical) {
        let found = rows[index].len();
        return Err(PhysicalError::UnequalRows { layer: layer(index), found, first: layer(0), expected: physical });
    }
    let ranks = expected.ranks.ok_or(PhysicalError::RanksUnknown { physical })?;
    if ranks == 0 || physical == 0 || !physical.is_multiple_of(ranks) {
        return Err(PhysicalError::Indivisible { physical, ranks });
    }
    let slots_per_rank = physical / ranks;
    let mut placement: Placement =
        rows.iter().map(|row| row.chunks_exact(slots_per_rank).map(<[i64]>::to_vec).collect()).collect();
    check_model(&placement, expected)?;
    let experts = expected.experts.unwrap_or_else(|| experts_named(&placement));
    if expected.repair {
        repair(&mut placement, experts);
    }
    check_experts(&placement, first, experts)?;
    let shape = MapShape { layers: placement.len(), experts, ranks, slots_per_rank };
    let (map, second_copies) = map_of(&placement, shape, first)?;
    Ok(Placed { map, second_copies, mtp_layers })
}

/// The layers of the model, without those for predicting further tokens that follow them, and how many those are.
pub(super) fn without_mtp<'a, T>(layers: &'a [T], expected: &Expected) -> (&'a [T], usize) {
    let surplus = expected.layers.and_then(|wanted| layers.len().checked_sub(wanted)).unwrap_or(0);
    let mtp_layers = if surplus <= expected.mtp_layers { surplus } else { 0 };
    (&layers[..layers.len() - mtp_layers], mtp_layers)
}

/// The map of a placement whose experts were checked.
pub(super) fn map_of(
    placement: &Placement,
    shape: MapShape,
    first: usize,
) -> Result<(ExpertMap, Vec<SecondCopy>), PhysicalError> {
    shape.check()?;
    let Settled { slots, shares, second_copies } = settle(placement, shape.experts);
    let map = ExpertMap::new(shape, slots).map_err(|error| match error {
        MapError::Twice { layer, rank, expert } => {
            PhysicalError::Twice { layer: LayerId::from(first + layer.index()), rank, id: i64::from(expert.0) }
        }
        other => other.into(),
    })?;
    let map = if second_copies.is_empty() { map } else { map.with_shares(&shares)? };
    Ok((map, second_copies))
}

/// The number of experts of each layer if all layers name the same, without a gap.
pub(super) fn experts_without_gap(placement: &[Vec<Vec<i64>>]) -> Option<usize> {
    let of_layer = |ranks: &Vec<Vec<i64>>| {
        let mut experts: Vec<i64> = ranks.iter().flatten().copied().collect();
        experts.sort_unstable();
        experts.dedup();
        let gapless = experts.iter().enumerate().all(|(index, &expert)| expert == index as i64);
        (gapless && !experts.is_empty()).then_some(experts.len())
    };
    let first = of_layer(placement.first()?)?;
    placement.iter().all(|ranks| of_layer(ranks) == Some(first)).then_some(first)
}

/// One more than the largest expert named.
pub(super) fn experts_named(placement: &[Vec<Vec<i64>>]) -> usize {
    let largest = placement.iter().flatten().flatten().copied().max().unwrap_or(0);
    usize::try_from(largest.saturating_add(1)).unwrap_or(0).min(MAX_DIMENSION + 1)
}

/// Takes the second copies of an expert on a rank away, and with them nothing else: such a copy changes places with the
/// first slot of the next rank that lacks the expert and holds one that this rank lacks. Where every rank has the expert, the
/// copy becomes one of the expert with the fewest copies that this rank lacks.
pub(super) fn repair(placement: &mut [Vec<Vec<i64>>], experts: usize) {
    for ranks in placement {
        while let Some((rank, slot)) = second_copy(ranks) {
            let expert = ranks[rank][slot];
            let others = (1..ranks.len()).map(|step| (rank + step) % ranks.len());
            let exchange = others.filter(|&other| !ranks[other].contains(&expert)).find_map(|other| {
                let theirs = ranks[other].iter().position(|theirs| !ranks[rank].contains(theirs))?;
                Some((other, theirs))
            });
            if let Some((other, theirs)) = exchange {
                ranks[rank][slot] = std::mem::replace(&mut ranks[other][theirs], expert);
            } else {
                let copies = |expert: i64| ranks.iter().flatten().filter(|&&held| held == expert).count();
                let lacked = (0..experts as i64).filter(|candidate| !ranks[rank].contains(candidate));
                // None only where a rank has more slots than there are experts, which the checks that follow refuse.
                let Some(fewest) = lacked.min_by_key(|&candidate| copies(candidate)) else { return };
                ranks[rank][slot] = fewest;
            }
        }
    }
}

fn second_copy(ranks: &[Vec<i64>]) -> Option<(usize, usize)> {
    ranks.iter().enumerate().find_map(|(rank, slots)| {
        let slot = (1..slots.len()).find(|&slot| slots[..slot].contains(&slots[slot]))?;
        Some((rank, slot))
    })
}

/// Refuses a placement that is in order for a model with another number of layers or experts.
fn check_model(placement: &Placement, expected: &Expected) -> Result<(), PhysicalError> {
    let experts = experts_without_gap(placement);
    let other = |found: usize, expected: Option<usize>| expected.is_some_and(|expected| expected != found);
    if other(placement.len(), expected.layers) || experts.is_some_and(|found| other(found, expected.experts)) {
        return Err(PhysicalError::OtherModel {
            layers: placement.len(),
            experts,
            expected_layers: expected.layers,
            expected_experts: expected.experts,
        });
    }
    Ok(())
}

fn check_experts(placement: &Placement, first: usize, experts: usize) -> Result<(), PhysicalError> {
    for (index, ranks) in placement.iter().enumerate() {
        let layer = LayerId::from(first + index);
        let mut is_held = vec![false; experts];
        for (rank, ids) in ranks.iter().enumerate() {
            for &id in ids {
                let place = usize::try_from(id).ok().and_then(|index| is_held.get_mut(index));
                *place.ok_or(PhysicalError::UnknownExpert { layer, rank: rank.into(), id, experts })? = true;
            }
        }
        if let Some(id) = is_held.iter().position(|&is_held| !is_held) {
            return Err(PhysicalError::Missing { layer, id, ranks: ranks.len() });
        }
    }
    Ok(())
}

/// Why rows of physical experts are no map. Reading them again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PhysicalError {
    /// There is no layer.
    #[error("it has no layers")]
    NoLayers,
    /// Layers have different numbers of physical experts.
    #[error("{layer}: {}, {first} has {expected}", counted(*found, "physical expert"))]
    UnequalRows {
        /// The layer.
        layer: LayerId,
        /// Physical experts of this layer.
        found: usize,
        /// The first layer.
        first: LayerId,
        /// Physical experts of the first layer.
        expected: usize,
    },
    /// The format does not tell the number of ranks.
    #[error(
        "the format does not tell how many ranks share its {}; give them with --ranks",
        counted(*physical, "physical expert")
    )]
    RanksUnknown {
        /// Physical experts of each layer.
        physical: usize,
    },
    /// `P % N != 0`.
    #[error(
        "{} cannot share {} evenly; --ranks must be the number that it was made for",
        counted(*ranks, "rank"),
        counted(*physical, "physical expert")
    )]
    Indivisible {
        /// Physical experts of each layer.
        physical: usize,
        /// Ranks named.
        ranks: usize,
    },
    /// It is of a model with other dimensions.
    #[error(
        "made for another model, with {} and {found}; expected are {expected_layers} and \
         {expected_experts}",
        counted(*layers, "MoE layer"), found = or_other(*experts), expected_layers = or_any(*expected_layers), expected_experts = or_any(*expected_experts)
    )]
    OtherModel {
        /// MoE layers of the file.
        layers: usize,
        /// Experts of each of its layers, if all have the same without a gap.
        experts: Option<usize>,
        /// MoE layers of the model.
        expected_layers: Option<usize>,
        /// Experts of the model.
        expected_experts: Option<usize>,
    },
    /// An expert that the model does not have.
    #[error("{layer}, {rank}: expert {id} does not exist, the model has {experts}")]
    UnknownExpert {
        /// The layer.
        layer: LayerId,
        /// The rank.
        rank: RankId,
        /// The expert named.
        id: i64,
        /// Logical experts per layer.
        experts: usize,
    },
    /// A rank has an expert twice.
    #[error(
        "{layer}, {rank}: expert {id} is there twice, and the rank has every expert already; it has too many slots"
    )]
    Twice {
        /// The layer.
        layer: LayerId,
        /// The rank.
        rank: RankId,
        /// The expert.
        id: i64,
    },
    /// An expert is on no rank.
    #[error("{layer}: expert {id} is on no rank of {ranks}")]
    Missing {
        /// The layer.
        layer: LayerId,
        /// The expert.
        id: usize,
        /// Ranks.
        ranks: usize,
    },
    /// The dimensions are impossible.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// A number of experts in words, where it is known.
pub(super) fn or_other(experts: Option<usize>) -> String {
    experts.map_or_else(|| "other experts".to_owned(), |experts| counted(experts, "expert"))
}

fn or_any(expected: Option<usize>) -> String {
    expected.map_or_else(|| "any".to_owned(), |expected| expected.to_string())
}

#[cfg(test)]
mod tests;
