//! The experts that ranks hold while a group changes, one step after the other: each is checked here, from what it says alone.

use anyhow::{Context, Result, ensure};
use plan::ids::{LayerId, RankId, SlotIndex};
use plan::map::ExpertMap;
use plan::moves::{Fill, PageSource, Regrouping, Transaction, transactions};
use plan::topology::Topology;

/// Staging pages of each rank.
const STAGING: usize = 1;

/// What each slot of each rank holds, `[layers][ranks][slots]`.
pub struct Memory(Vec<Vec<Vec<Option<usize>>>>);

/// Pages that ranks received.
#[derive(Clone, Copy, Default)]
pub struct Received {
    pub from_ranks: usize,
    pub from_checkpoint: usize,
}

impl Received {
    pub const fn all(self) -> usize {
        self.from_ranks + self.from_checkpoint
    }
}

struct Arrival {
    rank: RankId,
    slot: SlotIndex,
    from: Option<usize>,
    to: usize,
    source: PageSource,
}

impl Memory {
    /// What is left of a map on the ranks that are live then; those that were not before hold nothing.
    pub fn left_of(map: &ExpertMap, topology: &Topology) -> Self {
        let of_rank = |layer: LayerId, rank: RankId| {
            let held = map.rank(layer, rank);
            (0..topology.slots().count(rank)).map(|slot| held.get(slot).map(|expert| expert.index())).collect()
        };
        let of_layer = |layer| (0..topology.ranks()).map(|rank| of_rank(layer, rank.into())).collect();
        Self(map.layers().map(of_layer).collect())
    }

    /// Takes the way that the planner names from one map to another, step by step.
    pub fn lead(old: &ExpertMap, new: &ExpertMap, topology: &Topology) -> Result<Received> {
        let mut memory = Self::left_of(old, topology);
        let mut received = Received::default();
        let Regrouping { fills, filled, .. } = plan::moves::regroup(old, new, topology, STAGING)?;
        let mut complete = memory.without_copy() == 0;
        for Fill { layer, rank, slot, from, to, source, .. } in fills {
            ensure!(source != PageSource::Checkpoint || !complete, "{layer}: {to} is loaded though none is missing");
            let from = from.map(plan::ids::ExpertId::index);
            memory.step(layer, &[Arrival { rank, slot, from, to: to.index(), source }], &mut received)?;
            complete = complete || source == PageSource::Checkpoint && memory.without_copy() == 0;
        }
        ensure!(complete, "{} experts still have no copy", memory.without_copy());
        for Transaction { layer, changes, .. } in transactions(&filled, new, topology, STAGING)? {
            let arrival = |change: &plan::moves::SlotChange| Arrival {
                rank: change.rank,
                slot: change.slot,
                from: Some(change.from.index()),
                to: change.to.index(),
                source: PageSource::Rank(change.source),
            };
            memory.step(layer, &changes.iter().map(arrival).collect::<Vec<_>>(), &mut received)?;
        }
        ensure!(memory.0 == Self::left_of(new, topology).0, "the way ends elsewhere than in the plan");
        Ok(received)
    }

    /// Applies changes at once: pages come from where they are, experts that have a copy keep one, and no rank receives more
    /// pages than it has staging pages, or an expert that it has.
    fn step(&mut self, layer: LayerId, arrivals: &[Arrival], received: &mut Received) -> Result<()> {
        let ranks = &mut self.0[layer.index()];
        let held = |ranks: &[Vec<Option<usize>>], expert| ranks.iter().flatten().any(|slot| *slot == Some(expert));
        for arrival in arrivals {
            let to = arrival.to;
            match arrival.source {
                PageSource::Checkpoint => {
                    ensure!(!held(ranks, to), "{layer}: expert {to} is loaded though a rank holds it");
                    received.from_checkpoint += 1;
                }
                PageSource::Rank(rank) => {
                    ensure!(ranks[rank.index()].contains(&Some(to)), "{layer}: {rank} does not hold expert {to}");
                    received.from_ranks += 1;
                }
            }
            let at_once = arrivals.iter().filter(|other| other.rank == arrival.rank).count();
            ensure!(at_once <= STAGING, "{layer}: {} receives {at_once} pages at once", arrival.rank);
        }
        for &Arrival { rank, slot, from, to, .. } in arrivals {
            let of_rank = &mut ranks[rank.index()];
            ensure!(!of_rank.contains(&Some(to)), "{layer}: {rank} holds expert {to} already");
            let place = of_rank.get_mut(slot.index()).with_context(|| format!("{layer}: {rank} has no {slot}"))?;
            ensure!(*place == from, "{layer}: {rank}, {slot} holds {place:?}, not {from:?}");
            *place = Some(to);
        }
        for expert in arrivals.iter().filter_map(|arrival| arrival.from) {
            ensure!(held(ranks, expert), "{layer}: no rank holds expert {expert} any more");
        }
        Ok(())
    }

    /// Experts that no rank holds, of those that any may hold.
    fn without_copy(&self) -> usize {
        let highest = self.0.iter().flatten().flatten().flatten().max().map_or(0, |last| last + 1);
        let missing = |ranks: &Vec<Vec<Option<usize>>>| {
            let mut present = vec![false; highest];
            ranks.iter().flatten().flatten().for_each(|&expert| present[expert] = true);
            present.iter().filter(|present| !**present).count()
        };
        self.0.iter().map(missing).sum()
    }
}
