//! A packing of one layer from the placement in force, by few moves.

use super::counts::{counts, largest_copy};
use super::cover::{cover, spare_slot};
use super::packing::Packing;
use super::ranks::Ranks;
use super::scratch;
use super::search::{Change, Choice, Limits, ROUNDING, search};
use super::seats::{self, Rows};
use crate::balance::relabel;
use crate::shares::Levelled;

/// Steps of a search for each slot: every step lowers a rank or is the last, so it ends long before, but rounding decides when.
const STEPS_PER_SLOT: usize = 16;

/// Improves `slots` for the loads expected. `noise` is how far a rank's load will differ from them, as a share of it.
pub(in crate::balance) fn pack(ranks: &Ranks, weights: &[f64], slots: &[u16], least: usize, noise: f64) -> Vec<u16> {
    let mut packing = Packing::new(ranks, weights, slots, least);
    let covered = (0..weights.len()).all(|expert| packing.count(expert) >= least);
    let ideal = counts(weights, ranks.open(), ranks.physical(), least);
    let level = largest_copy(weights, &ideal);
    let bound = scratch::bound(ranks, weights, level);
    let tuning = ranks.tuning();
    let goal = bound * (1.0 + tuning.within_noise * noise);
    let speeds = ranks.speeds();
    let mut levelled = Levelled::new(&speeds, ranks.physical(), tuning.still);
    let mut balanced = |packing: &Packing<'_>| {
        packing.top() <= goal
            || shares_reach(&mut levelled, packing, bound * (1.0 + tuning.within_noise_by_shares * noise))
    };
    if covered && balanced(&packing) {
        return slots.to_vec();
    }
    let home = Home::new(ranks, weights.len(), slots);
    cover(&mut packing, least);
    refresh(&mut packing, level * (1.0 + tuning.stands_out));
    let way = (packing.top() - goal).max(0.0);
    let look = tuning.first_look_at_shares;
    for left in [look, look / tuning.next_look_at_shares, 0.0] {
        let reached = improve(&mut packing, &home, goal + way * left);
        if balanced(&packing) {
            return packing.into_slots();
        }
        if !reached {
            break;
        }
    }
    if packing.top() <= goal * (1.0 + noise) {
        return packing.into_slots();
    }
    let fresh = scratch::pack(ranks, weights, least);
    if packing.top() <= fresh.top() * (1.0 + noise) {
        return packing.into_slots();
    }
    relabelled(ranks, slots, &seats::take(ranks, &Rows::new(ranks), weights, fresh.slots()))
}

/// The slots `fresh` with the content of ranks exchanged where that moves fewer pages: among ranks of one node, since it is
/// settled which nodes have copies of what.
fn relabelled(ranks: &Ranks, in_force: &[u16], fresh: &[u16]) -> Vec<u16> {
    let kinds: Vec<_> = (0..ranks.len()).map(|rank| (ranks.node(rank), ranks.kind(rank))).collect();
    let parts = ranks.contents(fresh);
    let part_of = relabel::parts(&kinds, &ranks.contents(in_force), &parts, ranks.tuning());
    part_of.into_iter().map(|part| parts[part]).collect::<Vec<_>>().concat()
}

/// Whether shares can level the ranks of a packing down to a limit without a move.
fn shares_reach(levelled: &mut Levelled<'_>, packing: &Packing<'_>, limit: f64) -> bool {
    if packing.by_level().rev().any(|rank| alone(packing, rank) > limit) {
        return false;
    }
    levelled.begin((0..packing.ranks().len()).map(|rank| packing.rank_load(rank)));
    for expert in (0..packing.experts()).filter(|&expert| packing.count(expert) > 1) {
        // Which slots of the ranks they are plays no part.
        levelled.add(packing.weight(expert), packing.holders(expert).map(|rank| (0, rank)));
    }
    let tuning = packing.ranks().tuning();
    levelled.level_out(tuning.least_uncertainty, tuning.passes_of_look, limit);
    levelled.busiest() <= limit
}

/// The time that a rank takes for experts that have no other copy.
fn alone(packing: &Packing<'_>, rank: usize) -> f64 {
    let held = packing.experts_of(rank).iter().zip(packing.loads_of(rank));
    held.filter(|(expert, _)| packing.count(usize::from(**expert)) == 1).map(|(_, load)| load).sum::<f64>()
        * packing.ranks().pace(rank)
}

/// What pages cost, by where experts were at the start: nothing where it goes back there, more where its node had none.
struct Home {
    /// Place in `prices` for each rank and expert, `[ranks, experts]`.
    places: Vec<u8>,
    experts: usize,
    /// Of a page that was on the rank, of one that was on its node, and of any other; in pages within a node.
    prices: [f64; 3],
    no_page: f64,
    look_further: usize,
}

/// Places in [`Home::prices`].
const ON_RANK: u8 = 0;
const ON_NODE: u8 = 1;
const ELSEWHERE: u8 = 2;

impl Home {
    fn new(ranks: &Ranks, experts: usize, slots: &[u16]) -> Self {
        let held = |rank: usize| slots[ranks.slots(rank)].iter().map(|&expert| usize::from(expert));
        let of_node = |rank: usize| ranks.node(rank) * experts..(ranks.node(rank) + 1) * experts;
        let mut nodes = vec![ELSEWHERE; ranks.nodes() * experts];
        for rank in 0..ranks.len() {
            let of_node = &mut nodes[of_node(rank)];
            held(rank).for_each(|expert| of_node[expert] = ON_NODE);
        }
        let mut places = Vec::with_capacity(ranks.len() * experts);
        for rank in 0..ranks.len() {
            let start = places.len();
            places.extend_from_slice(&nodes[of_node(rank)]);
            held(rank).for_each(|expert| places[start + expert] = ON_RANK);
        }
        let prices = [0.0, 1.0, ranks.far_page()];
        let (no_page, look_further) = (ranks.tuning().no_page, ranks.tuning().look_further);
        Self { places, experts, prices, no_page, look_further }
    }

    /// The places of a rank's experts, `[experts]`.
    fn places_on(&self, rank: usize) -> &[u8] {
        &self.places[rank * self.experts..][..self.experts]
    }

    /// Whether a rank holds what it held at the start, in all of its slots.
    fn is_as_before(&self, packing: &Packing<'_>, rank: usize) -> bool {
        let places = self.places_on(rank);
        packing.experts_of(rank).iter().all(|&expert| places[usize::from(expert)] == ON_RANK)
    }

    /// What it costs more, in pages within a node, when on a rank `old` makes place for `new`.
    fn pages(&self, rank: usize, old: usize, new: usize) -> f64 {
        let places = self.places_on(rank);
        self.prices[usize::from(places[new])] - self.prices[usize::from(places[old])]
    }
}

/// Gives copies to experts whose copies carry more than `limit`, as long as that of the expert which makes place stays
/// lighter.
fn refresh(packing: &mut Packing<'_>, limit: f64) {
    let mut hot: Vec<usize> = (0..packing.experts()).filter(|&expert| packing.load(expert) > limit).collect();
    for _ in 0..packing.slots().len() {
        hot.retain(|&expert| packing.load(expert) > limit && packing.count(expert) < packing.ranks().open());
        let hottest = hot.iter().copied().max_by(|&a, &b| packing.load(a).total_cmp(&packing.load(b)).then(b.cmp(&a)));
        let Some(hottest) = hottest else { return };
        let Some((rank, old)) = spare_slot(packing, hottest, packing.load(hottest)) else { return };
        packing.replace(rank, old, hottest);
        if !hot.contains(&old) {
            hot.push(old);
        }
    }
}

/// The change with the highest gain for a page so far.
struct Best<'a> {
    home: &'a Home,
    top: f64,
    /// Whether the busiest rank holds what it held at the start.
    from_home: bool,
    gain: f64,
    change: Option<Change>,
}

impl Best<'_> {
    /// What a change costs, in pages.
    fn cost(&self, packing: &Packing<'_>, change: Change) -> f64 {
        let cost = match change {
            Change::Swap((a, of_a), (b, of_b)) => {
                let pages = self.home.pages(a, of_a, of_b) + self.home.pages(b, of_b, of_a);
                pages + crowds(packing, of_a, a, b) + crowds(packing, of_b, b, a)
            }
            Change::Replace(rank, old, new) => {
                let crowds = crowds_on(packing, new, rank, 0) - crowds_on(packing, old, rank, 1);
                self.home.pages(rank, old, new) + crowds
            }
        };
        cost.max(self.home.no_page)
    }
}

/// What it costs that a copy goes from one rank to another, because of other copies on their nodes.
fn crowds(packing: &Packing<'_>, expert: usize, from: usize, to: usize) -> f64 {
    let ranks = packing.ranks();
    if packing.count(expert) == 1 || ranks.node(from) == ranks.node(to) {
        return 0.0;
    }
    crowds_on(packing, expert, to, 0) - crowds_on(packing, expert, from, 1)
}

/// What a copy on a rank costs because there are more than `own` copies on its node.
fn crowds_on(packing: &Packing<'_>, expert: usize, rank: usize, own: usize) -> f64 {
    let ranks = packing.ranks();
    let crowded = ranks.nodes() > 1 && packing.count_on(expert, ranks.node(rank)) > own;
    if crowded { ranks.tuning().crowds } else { 0.0 }
}

impl Choice for Best<'_> {
    fn limit(&self) -> f64 {
        self.limit_at(self.home.no_page)
    }

    /// A better exchange is worth looking for: each costs pages.
    fn look_further(&self, _: usize) -> usize {
        self.home.look_further
    }

    /// Ranks that hold what they held at the start receive a page each.
    fn least_cost(&self, packing: &Packing<'_>, rank: usize) -> f64 {
        if self.from_home && self.home.is_as_before(packing, rank) { 2.0 } else { self.home.no_page }
    }

    fn limit_at(&self, cost: f64) -> f64 {
        self.top - self.gain * cost
    }

    fn limit_of(&self, packing: &Packing<'_>, change: Change) -> f64 {
        self.top - self.gain * self.cost(packing, change)
    }

    fn offer(&mut self, packing: &Packing<'_>, level: f64, change: Change) {
        let (gain, cost) = (self.top - level, self.cost(packing, change));
        if gain > self.gain * cost {
            self.gain = gain / cost;
            self.change = Some(change);
        }
    }

    fn taken(&self) -> Option<Change> {
        self.change
    }

    fn is_enough(&self) -> bool {
        false
    }
}

/// Improves the busiest rank until its level is at most `goal`, which is then true, or no change helps.
fn improve(packing: &mut Packing<'_>, home: &Home, goal: f64) -> bool {
    let limits = Limits { goal, far: goal, steps: STEPS_PER_SLOT * packing.slots().len() };
    search(packing, limits, |packing| {
        let (top, from_home) = (packing.top(), home.is_as_before(packing, packing.busiest()));
        Best { home, top, from_home, gain: top * ROUNDING, change: None }
    })
}

#[cfg(test)]
mod tests;
