//! The placement that a plan begins with: the one in force, or the one that engines start with.

use std::cmp::Reverse;

use ::plan::formats::{Expected, SecondCopy, read_any};
use ::plan::ids::ExpertId;
use ::plan::map::{ExpertMap, MapShape};
use ::plan::wire::ModelIdentity;

use super::{PlanArguments, layers_of};
use crate::Terminal;
use crate::offline::convert::warn_of;
use crate::offline::input::{Input, further_layers, other_model};
use crate::offline::{OfflineError, named, read};

/// The placement in force, or the one that engines start with.
pub(super) struct InForce {
    pub map: ExpertMap,
    /// Its model, where it is named.
    pub model: Option<ModelIdentity>,
    /// Slots that in truth hold an expert that their rank holds already.
    second_copies: Vec<SecondCopy>,
}

/// What is in force, as a plan is to be judged by it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub map: ExpertMap,
    /// Pages that the plan needs though the map has them: what stands in for second copies is nowhere but in the map.
    pub missing: usize,
}

impl InForce {
    pub fn of(
        arguments: &PlanArguments,
        input: &Input,
        shape: MapShape,
        terminal: &mut Terminal<'_>,
    ) -> Result<Self, OfflineError> {
        let Some(path) = &arguments.current else {
            return Ok(Self { map: ExpertMap::contiguous(shape)?, model: None, second_copies: Vec::new() });
        };
        let expected = Expected {
            layers: Some(shape.layers),
            experts: Some(shape.experts),
            ranks: Some(shape.ranks),
            dense_layers: input.dense_layers,
            mtp_layers: input.mtp_layers,
            repair: false,
        };
        let found = read_any(&read(path, terminal)?, &expected)
            .map_err(|reason| OfflineError::Map { path: path.clone(), reason })?;
        let slots = found.map.shape().slots_per_rank;
        if slots != shape.slots_per_rank || found.map.slots_of_ranks().per_rank().is_none() {
            return Err(OfflineError::Current {
                path: path.clone(),
                ranks: found.map.shape().ranks,
                slots,
                wanted_ranks: shape.ranks,
                wanted_slots: shape.slots_per_rank,
            });
        }
        if let (Some(of_load), Some(of_map)) = (&input.identity, &found.model)
            && let Some(difference) = other_model(of_load, of_map)
        {
            return Err(OfflineError::CurrentModel { path: path.clone(), difference });
        }
        if found.mtp_layers > 0 {
            terminal.warn(&format!("{}, left out", further_layers(&named(path), found.mtp_layers)));
        }
        warn_of(path, &found.second_copies, terminal);
        Ok(Self { map: found.map, model: found.model, second_copies: found.second_copies })
    }

    /// Some layers of the map, as what is planned for them is to be judged: an expert that is planned for a rank stands in
    /// for no second copy there, so that its page is one of those that move.
    pub fn before(&self, layers: &[usize], planned: &ExpertMap) -> Begin {
        let map = layers_of(&self.map, layers);
        if self.second_copies.is_empty() {
            return Begin { map, missing: 0 };
        }
        let (shape, mut slots, mut missing) = (map.shape(), map.slots().to_vec(), 0);
        for copy in &self.second_copies {
            let Some(layer) = layers.iter().position(|&layer| layer == copy.layer.index()) else { continue };
            let of_layer = &mut slots[layer * map.physical()..][..map.physical()];
            let on_rank = copy.rank.index() * shape.slots_per_rank..(copy.rank.index() + 1) * shape.slots_per_rank;
            let copies = |expert: ExpertId| of_layer.iter().filter(|&&held| held == expert).count();
            let held = &of_layer[on_rank.clone()];
            let place = held.iter().position(|&held| held == copy.stand_in);
            let place = on_rank.start + place.expect("what stands in for a copy is on its rank");
            let wanted = planned.rank(layer.into(), copy.rank);
            let lacked = (0..shape.experts).map(ExpertId::from).filter(|expert| !held.contains(expert));
            // One that has many copies besides makes the map look the least as if a loss took less away.
            let best =
                lacked.chain([copy.stand_in]).min_by_key(|&expert| (wanted.contains(&expert), Reverse(copies(expert))));
            let stand_in = best.unwrap_or(copy.stand_in);
            missing += usize::from(wanted.contains(&stand_in));
            of_layer[place] = stand_in;
        }
        let shares: Vec<u32> = map.layers().flat_map(|layer| map.parts(layer)).collect();
        let map = ExpertMap::new(shape, slots);
        let map = map.and_then(|map| map.with_shares(&shares)).expect("a slot without tokens may hold any expert");
        Begin { map, missing }
    }
}

#[cfg(test)]
mod tests {
    use ::plan::formats::read_any;
    use ::plan::moves::moved_slots;

    use super::*;

    fn in_force(rows: &str, ranks: usize) -> InForce {
        let found = read_any(rows.as_bytes(), &Expected { ranks: Some(ranks), ..Expected::default() }).unwrap();
        InForce { map: found.map, model: None, second_copies: found.second_copies }
    }

    /// What ranks lack of a plan, of the rows of a file.
    fn lacking(rows: &[&[usize]], planned: &ExpertMap) -> usize {
        let shape = planned.shape();
        let of_rank = |layer: usize, rank: usize| {
            let held = &rows[layer][rank * shape.slots_per_rank..][..shape.slots_per_rank];
            planned.rank(layer.into(), rank.into()).iter().filter(|expert| !held.contains(&expert.index())).count()
        };
        (0..shape.layers).map(|layer| (0..shape.ranks).map(|rank| of_rank(layer, rank)).sum::<usize>()).sum()
    }

    #[test]
    fn every_page_that_is_not_there_is_one_that_moves() {
        let rows: &[&[usize]] = &[&[0, 1, 0, 2, 3, 4, 5, 5, 5], &[0, 1, 2, 3, 4, 5, 0, 0, 1]];
        let in_force = in_force(&serde_json::to_string(rows).unwrap(), 3);
        let shape = in_force.map.shape();
        let mut planned = ExpertMap::contiguous(shape).unwrap().slots().to_vec();
        // Every rotation of a plan, and the map as it was read.
        for turn in 0..=planned.len() {
            planned.rotate_left(1);
            let plan = match ExpertMap::new(shape, planned.clone()) {
                Ok(plan) if turn < planned.len() => plan,
                _ => in_force.map.clone(),
            };
            let Begin { map, missing } = in_force.before(&[0, 1], &plan);
            assert_eq!(
                (moved_slots(&map, &plan).unwrap() + missing, missing),
                (lacking(rows, &plan), 0),
                "{turn}: {map:?}"
            );
            assert_eq!(map.parts(0.into()), in_force.map.parts(0.into()), "the load of ranks stays");
        }
        let later = in_force.before(&[1], &layers_of(&in_force.map, &[1]));
        assert_eq!(later.map.shape().layers, 1, "the layers that a plan is for");
    }

    #[test]
    fn where_a_plan_has_all_experts_on_a_rank_what_it_lacks_is_counted() {
        let row: &[usize] = &[0, 1, 0, 0, 1, 2];
        let in_force = in_force(&serde_json::to_string(&[row]).unwrap(), 2);
        let full = ExpertMap::contiguous(in_force.map.shape()).unwrap();
        let Begin { map, missing } = in_force.before(&[0], &full);
        assert_eq!((moved_slots(&map, &full).unwrap(), missing, lacking(&[row], &full)), (0, 1, 1));
    }
}
