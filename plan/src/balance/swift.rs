//! Our own policy. From nothing: numbers of copies and packing, searched together. From the placement in force: few
//! changes, for the load to expect next.

mod bursts;
mod counts;
mod deepen;
mod fill;
mod in_force;
mod packing;
mod ranks;
mod relabel;
mod scratch;
mod search;

use self::ranks::Ranks;
use super::forecast::Forecast;
use crate::ids::{ExpertId, LayerId};
use crate::load::ExpertLoad;
use crate::map::ExpertMap;
use crate::topology::Topology;

/// Target slots, `[layers, slots of all ranks]`, with `min_coverage + 1` copies of each expert where there are slots for
/// that many of all.
pub(super) fn balance(
    (windows, forecast): (&[ExpertLoad], &Forecast),
    topology: &Topology,
    current: Option<&ExpertMap>,
    min_coverage: usize,
) -> Vec<ExpertId> {
    let slots_of_ranks: Vec<usize> = topology.slots().counts().collect();
    let ranks = Ranks::new(&slots_of_ranks, topology.speeds());
    let least = min_coverage.saturating_add(1).min(ranks.physical() / forecast.experts()).min(ranks.open());
    let noise = forecast.noise_of_ranks(ranks.open());
    let mut slots = Vec::with_capacity(forecast.layers() * ranks.physical());
    for layer in (0..forecast.layers()).map(LayerId::from) {
        let weights = forecast.layer(layer);
        let held: Option<Vec<u16>> = current.map(|map| map.layer(layer).iter().map(|expert| expert.0 as u16).collect());
        let calm = || match &held {
            Some(held) => in_force::pack(&ranks, weights, held, least, noise),
            None => scratch::pack(&ranks, weights, least).into_slots(),
        };
        let start = held.as_ref().map(|held| match least {
            // Every map has a copy of each expert.
            0 | 1 => held.clone(),
            _ => in_force::covered(&ranks, weights, held, least),
        });
        let target = bursts::plan_or(calm, (windows, layer), &ranks, start.as_deref(), least);
        slots.extend(target.into_iter().map(|expert| ExpertId(expert.into())));
    }
    slots
}

#[cfg(test)]
mod tests;
