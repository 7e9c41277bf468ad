//! Our own policy. From nothing: numbers of copies and packing, searched together. From the placement in force: few
//! changes, for the load to expect next.

mod bursts;
mod counts;
mod cover;
mod deepen;
mod fill;
mod in_force;
mod kept;
mod lowest;
mod outlook;
mod packing;
mod ranks;
mod recover;
mod scratch;
mod search;
mod seats;
mod sharing;
mod spread;

use self::kept::Kept;
use self::ranks::Ranks;
use self::seats::Rows;
use super::forecast::Forecast;
use super::same_ranks;
use crate::coverage::Coverage;
use crate::ids::{ExpertId, LayerId};
use crate::load::ExpertLoad;
use crate::map::ExpertMap;
use crate::topology::Topology;

/// Target slots, `[layers, slots of all ranks]`, with as many copies of each expert as `min_coverage` needs where there are slots
/// for that many of all; and the layers that are placed for their bursts.
pub(super) fn balance(
    (windows, forecast): (&[ExpertLoad], &Forecast),
    topology: &Topology,
    current: Option<&ExpertMap>,
    min_coverage: Coverage,
) -> (Vec<ExpertId>, Vec<LayerId>) {
    let slots_of_ranks: Vec<usize> = topology.slots().counts().collect();
    let ranks = Ranks::new(&slots_of_ranks, topology.speeds()).on_nodes(topology);
    let rows = Rows::new(&ranks);
    let least = min_coverage.copies().min(ranks.physical() / forecast.experts()).min(ranks.open());
    let noise = forecast.noise_of_ranks(ranks.open(), ranks.physical());
    let in_force = same_ranks(current, topology);
    let before = current.filter(|_| in_force.is_none());
    let mut slots = Vec::with_capacity(forecast.layers() * ranks.physical());
    let mut bursty = Vec::new();
    for layer in (0..forecast.layers()).map(LayerId::from) {
        let weights = forecast.layer(layer);
        let content = before.map(|map| content(map, layer, ranks.len()));
        let held: Option<Vec<u16>> = in_force.map(|map| numbers(map.layer(layer)));
        let calm = || match (&held, &content) {
            (Some(held), _) => in_force::pack(&ranks, weights, &Kept::whole(held.clone()), least, noise),
            (None, Some(content)) => recover::pack(&ranks, weights, content, least, noise),
            (None, None) => scratch::pack(&ranks, weights, least).into_slots(),
        };
        let start = held.as_ref().map(|held| match least {
            // Every map has a copy of each expert.
            0 | 1 => held.clone(),
            _ => cover::covered(&ranks, weights, held, least),
        });
        let (mut target, for_bursts) = bursts::plan_or(calm, (windows, layer), &ranks, start.as_deref(), least);
        if for_bursts {
            bursty.push(layer);
        }
        if current.is_none() {
            target = seats::take(&ranks, &rows, weights, &target);
        }
        if min_coverage.nodes > 0 {
            target = spread::apart(&ranks, weights, &target, min_coverage.nodes.saturating_add(1));
        }
        if let Some(content) = &content {
            kept::arrange(&ranks, content, &mut target);
        }
        slots.extend(target.into_iter().map(|expert| ExpertId(expert.into())));
    }
    (slots, bursty)
}

/// What each of `ranks` ranks holds of a layer; ranks that the map does not have hold nothing.
fn content(map: &ExpertMap, layer: LayerId, ranks: usize) -> Vec<Vec<u16>> {
    let of_rank =
        |rank: usize| if rank < map.shape().ranks { numbers(map.rank(layer, rank.into())) } else { Vec::new() };
    (0..ranks).map(of_rank).collect()
}

fn numbers(experts: &[ExpertId]) -> Vec<u16> {
    experts.iter().map(|expert| expert.0 as u16).collect()
}

#[cfg(test)]
mod tests;
