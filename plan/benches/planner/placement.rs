//! A placement as the judge sees it: its validity, the loads of its ranks and what moves between two of them, each
//! computed from the bare list of slots.

use anyhow::{Result, ensure};
use plan::map::ExpertMap;
use plan::slots::RankSlots;

use crate::assignment;
use crate::loads::Window;

/// What each rank of each layer holds, `[layers][ranks]`, with the share of its expert's tokens that each copy takes.
#[derive(Clone)]
pub struct Placement {
    experts: usize,
    layers: Vec<Vec<Vec<Copy>>>,
}

#[derive(Clone, Copy)]
struct Copy {
    expert: usize,
    share: f64,
}

/// Whose shares the copies of an expert take.
#[derive(Clone, Copy)]
pub enum Split {
    /// Equal ones, which every other planner plans for.
    Even,
    /// The plan's.
    Planned,
}

/// What changes between two placements of the same ranks.
#[derive(Clone, Copy, Default)]
pub struct Movement {
    /// (rank, expert) pairs that are new.
    pub moves: usize,
    /// As few as they could be if ranks could exchange their names in each layer.
    pub relabelled: usize,
    /// Those of `moves` whose expert no rank of the node had.
    pub cross_node: usize,
}

impl Placement {
    /// Takes a map apart and checks it: every expert is there, none is on a rank twice, every rank has as many slots as
    /// it offers, and the shares of an expert's copies add up to 1.
    pub fn of(map: &ExpertMap, slots: &RankSlots) -> Result<Self> {
        let shape = map.shape();
        let layers = map.layers().map(|layer| {
            let fractions = map.fractions(layer);
            let copies = map.slots_of_layer().zip(map.layer(layer)).zip(&fractions);
            let mut ranks: Vec<Vec<Copy>> = (0..shape.ranks).map(|_| Vec::new()).collect();
            for (((rank, _), expert), &share) in copies {
                ranks[rank.index()].push(Copy { expert: expert.index(), share });
            }
            ranks
        });
        let placement = Self { experts: shape.experts, layers: layers.collect() };
        placement.check(slots)?;
        Ok(placement)
    }

    fn check(&self, slots: &RankSlots) -> Result<()> {
        for (layer, ranks) in self.layers.iter().enumerate() {
            ensure!(ranks.len() == slots.ranks(), "layer {layer} has {} of {} ranks", ranks.len(), slots.ranks());
            let mut shares = vec![0.0; self.experts];
            for ((rank, copies), slots) in ranks.iter().enumerate().zip(slots.counts()) {
                ensure!(copies.len() == slots, "layer {layer}, rank {rank} has {} of {slots} slots", copies.len());
                for (index, copy) in copies.iter().enumerate() {
                    let twice = copies[..index].iter().any(|other| other.expert == copy.expert);
                    ensure!(!twice, "layer {layer}, rank {rank} has expert {} twice", copy.expert);
                    shares[copy.expert] += copy.share;
                }
            }
            for (expert, share) in shares.iter().enumerate() {
                ensure!(
                    (share - 1.0).abs() < 1e-6,
                    "layer {layer}: copies of expert {expert} take {share} of its tokens"
                );
            }
        }
        Ok(())
    }

    /// Takes a rank's copies away.
    pub fn lose(&mut self, rank: usize) {
        for ranks in &mut self.layers {
            ranks[rank].clear();
        }
    }

    /// Experts without a copy, over all layers.
    pub fn missing(&self) -> usize {
        let missing = |ranks: &Vec<Vec<Copy>>| {
            let present = presence(ranks, self.experts);
            (0..self.experts).filter(|&expert| !present.iter().any(|rank| rank[expert])).count()
        };
        self.layers.iter().map(missing).sum()
    }

    /// Load of each rank of a layer.
    pub fn rank_loads(&self, layer: usize, load: &[u64], split: Split) -> Vec<f64> {
        let ranks = &self.layers[layer];
        let mut copies = vec![0_u32; self.experts];
        for copy in ranks.iter().flatten() {
            copies[copy.expert] += 1;
        }
        let share = |copy: &Copy| match split {
            Split::Even => 1.0 / f64::from(copies[copy.expert]),
            Split::Planned => copy.share,
        };
        ranks.iter().map(|held| held.iter().map(|copy| load[copy.expert] as f64 * share(copy)).sum()).collect()
    }

    /// Load of the busiest rank of each layer.
    pub fn busiest(&self, window: &Window, split: Split) -> Vec<f64> {
        let busiest =
            |(layer, load): (usize, &Vec<u64>)| self.rank_loads(layer, load, split).into_iter().fold(0.0, f64::max);
        window.iter().enumerate().map(busiest).collect()
    }

    /// Mean rank load over that of the busiest rank, of each layer; 1 is perfect.
    pub fn balancedness(&self, window: &Window, split: Split) -> Vec<f64> {
        let ranks = self.layers[0].len() as f64;
        let mean = window.iter().map(|load| load.iter().sum::<u64>() as f64 / ranks);
        mean.zip(self.busiest(window, split)).map(|(mean, max)| if max > 0.0 { mean / max } else { 1.0 }).collect()
    }

    /// (rank, expert) pairs of `new` that are not in `self`.
    pub fn received_by(&self, new: &Self) -> usize {
        let of_rank = |(held, wanted): (&Vec<Copy>, &Vec<Copy>)| {
            wanted.iter().filter(|copy| !held.iter().any(|other| other.expert == copy.expert)).count()
        };
        let of_layer = |(old, new): (&Vec<Vec<Copy>>, &Vec<Vec<Copy>>)| old.iter().zip(new).map(of_rank).sum::<usize>();
        self.layers.iter().zip(&new.layers).map(of_layer).sum()
    }

    /// What moves from `self` to `new` on `nodes` nodes of equally many ranks.
    pub fn movement(&self, new: &Self, nodes: usize) -> Movement {
        let mut total = Movement::default();
        for (old, new) in self.layers.iter().zip(&new.layers) {
            let (held, wanted) = (presence(old, self.experts), presence(new, self.experts));
            let per_node = old.len() / nodes;
            let kept = |old: &[bool], new: &[bool]| old.iter().zip(new).filter(|(old, new)| **old && **new).count();
            for (rank, wanted) in wanted.iter().enumerate() {
                let node = &held[rank / per_node * per_node..][..per_node];
                for expert in (0..self.experts).filter(|&expert| wanted[expert] && !held[rank][expert]) {
                    total.moves += 1;
                    total.cross_node += usize::from(!node.iter().any(|rank| rank[expert]));
                }
            }
            let overlap: Vec<Vec<i64>> =
                held.iter().map(|old| wanted.iter().map(|new| kept(old, new) as i64).collect()).collect();
            let slots: usize = new.iter().map(Vec::len).sum();
            total.relabelled += slots - assignment::greatest_sum(&overlap) as usize;
        }
        total
    }
}

/// Which experts each rank holds, `[ranks][experts]`.
fn presence(ranks: &[Vec<Copy>], experts: usize) -> Vec<Vec<bool>> {
    let row = |copies: &Vec<Copy>| {
        let mut row = vec![false; experts];
        for copy in copies {
            row[copy.expert] = true;
        }
        row
    };
    ranks.iter().map(row).collect()
}
