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
mod seen;
mod sharing;
mod spread;

use self::bursts::{Bursts, Start};
use self::ranks::Ranks;
use self::recover::Left;
use self::seats::Rows;
use self::seen::Seen;
use super::forecast::{Forecast, Unrest};
use super::{Branch, deepseek, same_ranks};
use crate::coverage::Coverage;
use crate::expected::{Expected, Future};
use crate::ids::{ExpertId, LayerId};
use crate::load::{ExpertLoad, total};
use crate::map::ExpertMap;
use crate::topology::Topology;
use crate::tuning::Tuning;

/// What was found for every layer.
pub(super) struct Found {
    /// Target slots, `[layers, slots of all ranks]`, with as many copies of each expert as the coverage asked for needs where there
    /// are slots for that many of all.
    pub slots: Vec<ExpertId>,
    pub branches: Vec<Branch>,
    pub expected: Expected,
}

/// Finds a target for what the windows let expect.
pub(super) fn balance(
    windows: &[ExpertLoad],
    (topology, tuning): (&Topology, &Tuning),
    current: Option<&ExpertMap>,
    min_coverage: Coverage,
) -> Found {
    let forecast = Forecast::new(windows, tuning);
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
    let published = current.is_none().then(|| published(windows, &forecast, topology, &ranks)).flatten();
    let mut slots = Vec::with_capacity(forecast.layers() * ranks.physical());
    let (mut branches, mut futures) = (Vec::with_capacity(forecast.layers()), Vec::with_capacity(forecast.layers()));
    for layer in (0..forecast.layers()).map(LayerId::from) {
        let weights = forecast.layer(layer);
        let recovered = recovered.as_mut().and_then(Iterator::next);
        let held: Option<Vec<u16>> = in_force.map(|map| numbers(map.layer(layer)));
        let is_recovered = recovered.is_some();
        let (branch, calm) = match (recovered, &held) {
            (Some(recovered), _) => (Branch::Recovered, recovered),
            (None, Some(held)) => (Branch::InForce, in_force::pack(&ranks, weights, held, least, noise)),
            (None, None) => {
                let packed = (Branch::Scratch, scratch::pack(&ranks, weights, least).into_slots());
                match &published {
                    Some(published) if least < 2 => {
                        let seen = Seen::new(windows, &forecast, layer, &ranks);
                        seen.better(packed, &published[layer.index()])
                    }
                    _ => packed,
                }
            }
        };
        let bursts = if is_recovered { None } else { bursts(windows, &forecast, layer, (&ranks, &calm)) };
        let (mut target, future) = match bursts {
            None => {
                let (tokens, error) = (weights.to_vec(), forecast.error(layer));
                branches.push(branch);
                (calm, Future::Level { tokens, error })
            }
            Some(bursts) => {
                let start = held.as_ref().map(|held| match least {
                    // Every map has a copy of each expert.
                    0 | 1 => held.clone(),
                    _ => cover::covered(&ranks, weights, held, least),
                });
                let start = start.as_ref().map_or(Start::Free(&calm), |held| Start::InForce(held));
                branches.push(Branch::Bursts);
                let tokens = bursts.windows(weights.iter().sum());
                (bursts.plan(start, &calm, least), Future::Windows { tokens })
            }
        };
        futures.push(future);
        if current.is_none() {
            target = seats::take(&ranks, &rows, weights, &target);
        }
        if min_coverage.nodes > 0 {
            target = spread::apart(&ranks, weights, &target, min_coverage.nodes.saturating_add(1));
        }
        slots.extend(target.into_iter().map(|expert| ExpertId(expert.into())));
    }
    Found { slots, branches, expected: Expected::new(forecast.experts(), futures) }
}

/// What the published algorithm makes of the sum of several windows, for each layer: a plan from nothing is to be no worse. Where it
/// puts an expert on a rank twice, something else takes the second place. Where there is one window, ours is better anyway.
fn published(windows: &[ExpertLoad], forecast: &Forecast, topology: &Topology, ranks: &Ranks) -> Option<Vec<Vec<u16>>> {
    let live = topology.live();
    let per_rank = live.slots().per_rank().filter(|_| windows.len() > 1)?;
    let (slots, shares) = deepseek::balance(&total(windows), &live, per_rank);
    let physical = topology.slots().total();
    let layers = slots.chunks_exact(physical).zip(shares.chunks_exact(physical));
    let of_layer = |(layer, (slots, shares)): (usize, (&[ExpertId], &[u32]))| {
        let of_rank = |rank: usize| {
            let held = ranks.slots(rank).filter(|&slot| shares[slot] > 0);
            held.map(|slot| slots[slot].0 as u16).collect()
        };
        kept::fit(ranks, forecast.layer(layer.into()), &(0..ranks.len()).map(of_rank).collect::<Vec<_>>())
    };
    Some(layers.enumerate().map(of_layer).collect())
}

/// The bursts of a layer, where its loads come in such and a plan must look at them. Only then are its windows copied.
fn bursts<'a>(
    windows: &[ExpertLoad],
    forecast: &Forecast,
    layer: LayerId,
    (ranks, slots): (&'a Ranks, &[u16]),
) -> Option<Bursts<'a>> {
    let Unrest { relative, is_momentary } = forecast.unrest(layer)?;
    if !is_momentary || !bursts::could_matter(relative, forecast.layer(layer), ranks) {
        return None;
    }
    let loads = |window: &ExpertLoad| -> Vec<f64> { window.layer(layer).iter().map(|&tokens| tokens as f64).collect() };
    Bursts::expect(&windows.iter().map(loads).collect::<Vec<_>>(), ranks, slots)
}

/// The slots of a placement whose ranks were lost or have returned, `[layers, slots of all ranks]`, with what is missing and
/// nothing else moved.
pub(super) fn restored(
    forecast: &Forecast,
    (topology, tuning): (&Topology, &Tuning),
    current: &ExpertMap,
) -> Vec<ExpertId> {
    let ranks = ranks_of(topology, tuning);
    let of_layer = |layer: LayerId| kept::fit(&ranks, forecast.layer(layer), &content(current, layer, &ranks));
    current.layers().flat_map(of_layer).map(|expert| ExpertId(expert.into())).collect()
}

fn ranks_of(topology: &Topology, tuning: &Tuning) -> Ranks {
    let slots: Vec<usize> = topology.slots().counts().collect();
    Ranks::new(&slots, topology.speeds()).tuned(tuning).on_nodes(topology)
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
