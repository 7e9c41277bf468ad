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

use self::ranks::Ranks;
use self::recover::Left;
use self::seats::Rows;
use super::forecast::Forecast;
use super::same_ranks;
use crate::coverage::Coverage;
use crate::ids::{ExpertId, LayerId};
use crate::load::ExpertLoad;
use crate::map::ExpertMap;
use crate::topology::Topology;
use crate::tuning::Tuning;

/// Target slots, `[layers, slots of all ranks]`, with as many copies of each expert as `min_coverage` needs where there are slots
/// for that many of all; and the layers that are placed for their bursts.
pub(super) fn balance(
    (windows, forecast): (&[ExpertLoad], &Forecast),
    (topology, tuning): (&Topology, &Tuning),
    current: Option<&ExpertMap>,
    min_coverage: Coverage,
) -> (Vec<ExpertId>, Vec<LayerId>) {
    let ranks = ranks_of(topology, tuning);
    let rows = Rows::new(&ranks);
    let least = min_coverage.copies().min(ranks.physical() / forecast.experts()).min(ranks.open());
    let noise = forecast.noise_of_ranks(ranks.open(), ranks.physical());
    let in_force = same_ranks(current, topology);
    let regrouped = current.filter(|_| in_force.is_none());
    let mut recovered = regrouped.map(|map| {
        let layers = map.layers();
        let left = layers.map(|layer| Left { weights: forecast.layer(layer), content: content(map, layer, &ranks) });
        recover::pack(&ranks, &left.collect::<Vec<_>>(), least, noise).into_iter()
    });
    let mut slots = Vec::with_capacity(forecast.layers() * ranks.physical());
    let mut bursty = Vec::new();
    for layer in (0..forecast.layers()).map(LayerId::from) {
        let weights = forecast.layer(layer);
        let mut target = if let Some(target) = recovered.as_mut().and_then(Iterator::next) {
            target
        } else {
            let held: Option<Vec<u16>> = in_force.map(|map| numbers(map.layer(layer)));
            let calm = || match &held {
                Some(held) => in_force::pack(&ranks, weights, held, least, noise),
                None => scratch::pack(&ranks, weights, least).into_slots(),
            };
            let start = held.as_ref().map(|held| match least {
                // Every map has a copy of each expert.
                0 | 1 => held.clone(),
                _ => cover::covered(&ranks, weights, held, least),
            });
            let (target, for_bursts) = bursts::plan_or(calm, (windows, layer), &ranks, start.as_deref(), least);
            if for_bursts {
                bursty.push(layer);
            }
            target
        };
        if current.is_none() {
            target = seats::take(&ranks, &rows, weights, &target);
        }
        if min_coverage.nodes > 0 {
            target = spread::apart(&ranks, weights, &target, min_coverage.nodes.saturating_add(1));
        }
        slots.extend(target.into_iter().map(|expert| ExpertId(expert.into())));
    }
    (slots, bursty)
}

/// The slots of a placement whose ranks were lost or have returned, `[layers, slots of all ranks]`, with what is missing and
/// nothing else moved.
pub(super) fn restored(forecast: &Forecast, topology: &Topology, current: &ExpertMap) -> Vec<ExpertId> {
    let ranks = ranks_of(topology, &Tuning::PRODUCT);
    let of_layer = |layer: LayerId| kept::fit(&ranks, forecast.layer(layer), &content(current, layer, &ranks));
    current.layers().flat_map(of_layer).map(|expert| ExpertId(expert.into())).collect()
}

fn ranks_of(topology: &Topology, tuning: &Tuning) -> Ranks {
    let slots: Vec<usize> = topology.slots().counts().collect();
    Ranks::new(&slots, topology.speeds()).tuned(*tuning).on_nodes(topology)
}

/// What each live rank held of a layer.
fn content(map: &ExpertMap, layer: LayerId, ranks: &Ranks) -> Vec<Vec<u16>> {
    let live = |rank: usize| !ranks.slots(rank).is_empty();
    let held = |rank: usize| if live(rank) { numbers(map.rank(layer, rank.into())) } else { Vec::new() };
    (0..ranks.len()).map(held).collect()
}

fn numbers(experts: &[ExpertId]) -> Vec<u16> {
    experts.iter().map(|expert| expert.0 as u16).collect()
}

#[cfg(test)]
mod tests;
