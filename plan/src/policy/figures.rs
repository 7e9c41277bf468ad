//! What is predicted of a plan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Case, Terms};
use crate::coverage;
use crate::ids::{LayerId, RankId};
use crate::moves::{LayerState, SlotChange, Transaction};
use crate::topology::Topology;

/// What is predicted of carrying out a plan, for what it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Figures {
    /// Balance ratio that the map in force is expected to have in the next window.
    pub ratio_before: f64,
    /// The same once everything has moved.
    pub ratio_after: f64,
    /// Part of the experts' time in a step that is saved:
    /// 1 - (sum over layers of time of the busiest rank after / before).
    pub time_saved: f64,
    /// Experts, over all layers, that a loss which the coverage asked for names could take away now.
    pub uncovered_before: usize,
    /// The same once everything has moved.
    pub uncovered_after: usize,
    /// Transactions that are carried out, the first of the plan.
    pub transactions: usize,
    /// Transactions of the plan that the byte budget leaves out.
    pub left_out: usize,
    /// Pages that ranks receive from others.
    pub pages: u64,
    /// Those of them that come from another node.
    pub pages_between_nodes: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Seconds until the busiest link has carried everything.
    pub moving_seconds: f64,
    /// Gain in balance ratio over the life of the plan. While pages move it counts as none:
    /// (`ratio_after` - `ratio_before`) x (1 - `moving_seconds` / lifetime), and no less than 0 of the lifetime.
    pub lasting_gain: f64,
    /// Seconds of the experts' time that the plan saves in its life: `time_saved` x what is left of it once pages have
    /// moved.
    pub seconds_saved: f64,
    /// Seconds that moving takes from steps.
    pub seconds_spent: f64,
}

pub(super) fn predict(case: &Case<'_>, terms: &Terms) -> Figures {
    let before = sum(layers_of(case), |layer| busiest(case, &LayerState::new(case.current, layer), layer));
    let uncovered_before = coverage::uncovered(case.current, case.topology, case.min_coverage);
    let carried_out = fitting(case, terms, uncovered_before > 0);
    let (done, left_out) = case.transactions.split_at(carried_out);
    let gain = gain(case, done);
    let (busiest_before, busiest_after) = (before, before - gain);
    let mean = case.expected.mean(case.topology);
    let ratio = |busiest: f64| if busiest > 0.0 { mean / busiest } else { 1.0 };
    let (ratio_before, ratio_after) = (ratio(busiest_before), ratio(busiest_after));
    let time_saved = if busiest_before > 0.0 { gain / busiest_before } else { 0.0 };
    let moved = || done.iter().flat_map(|transaction| &transaction.changes).filter(|change| is_moved(change));
    let pages = moved().count() as u64;
    let between = moved().filter(|change| case.topology.node(change.source) != case.topology.node(change.rank)).count();
    let moving_seconds = moving_seconds(done, case.topology, terms);
    let left = (terms.lifetime_seconds - moving_seconds).max(0.0);
    Figures {
        ratio_before,
        ratio_after,
        time_saved,
        uncovered_before,
        uncovered_after: if uncovered_before > 0 { uncovered_after(case, done) } else { 0 },
        transactions: done.len(),
        left_out: left_out.len(),
        pages,
        pages_between_nodes: between as u64,
        bytes: pages.saturating_mul(terms.page_bytes),
        moving_seconds,
        lasting_gain: (ratio_after - ratio_before) * if left > 0.0 { left / terms.lifetime_seconds } else { 0.0 },
        seconds_saved: time_saved * left,
        seconds_spent: (moving_seconds * terms.moving_cost).min(f64::MAX),
    }
}

/// Seconds until the busiest link has carried the pages of transactions: of each rank its links within its node and to
/// others, in and out, and what it may receive over both.
#[must_use]
pub fn moving_seconds(transactions: &[Transaction], topology: &Topology, terms: &Terms) -> f64 {
    let mut pages: BTreeMap<(RankId, Link), u64> = BTreeMap::new();
    for change in transactions.iter().flat_map(|transaction| &transaction.changes).filter(|change| is_moved(change)) {
        let &SlotChange { rank, source, .. } = change;
        let near = topology.node(source) == topology.node(rank);
        let links = if near { [Link::NearOut, Link::NearIn] } else { [Link::FarOut, Link::FarIn] };
        for place in [(source, links[0]), (rank, links[1]), (rank, Link::Received)] {
            *pages.entry(place).or_default() += 1;
        }
    }
    let speed = |link: Link| match link {
        Link::NearOut | Link::NearIn => Some(topology.links().within_nodes),
        Link::FarOut | Link::FarIn => Some(topology.links().between_nodes),
        Link::Received => terms.bytes_per_second,
    };
    let seconds = |(&(_, link), &pages): (&(RankId, Link), &u64)| {
        speed(link).map_or(0.0, |speed| pages as f64 * terms.page_bytes as f64 / speed)
    };
    // A rank that may receive nothing takes for ever, which is no number that a document can carry.
    pages.iter().map(seconds).fold(0.0, f64::max).min(f64::MAX)
}

/// A link of a rank, and what it may receive over all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    NearOut,
    NearIn,
    FarOut,
    FarIn,
    Received,
}

/// A page that comes from another rank.
fn is_moved(change: &SlotChange) -> bool {
    change.source != change.rank
}

/// How many of the first transactions the byte budget allows. Where it does not allow all, the last of them is one after
/// which the busiest ranks carry less than ever before: those that only pay with a later one are left out, unless they may
/// be wanted for coverage.
fn fitting(case: &Case<'_>, terms: &Terms, for_coverage: bool) -> usize {
    let Some(budget) = terms.byte_budget else { return case.transactions.len() };
    let mut bytes = 0_u64;
    let fits = |transaction: &&Transaction| {
        let pages = transaction.changes.iter().filter(|change| is_moved(change)).count() as u64;
        bytes = bytes.saturating_add(pages.saturating_mul(terms.page_bytes));
        bytes <= budget
    };
    let fitting = case.transactions.iter().take_while(fits).count();
    if fitting == case.transactions.len() || for_coverage {
        return fitting;
    }
    let (mut states, mut total, mut least, mut best) = (BTreeMap::new(), 0.0, 0.0, 0);
    for (index, transaction) in case.transactions[..fitting].iter().enumerate() {
        let layer = transaction.layer;
        let state = states.entry(layer).or_insert_with(|| LayerState::new(case.current, layer));
        let before = busiest(case, state, layer);
        state.apply(case.current.slots_of_ranks(), transaction);
        total += busiest(case, state, layer) - before;
        if total < least {
            (least, best) = (total, index + 1);
        }
    }
    best
}

fn uncovered_after(case: &Case<'_>, transactions: &[Transaction]) -> usize {
    let mut map = case.current.clone();
    for transaction in transactions {
        map.apply_in_place(transaction).expect("the transactions of a case apply one after the other");
    }
    coverage::uncovered(&map, case.topology, case.min_coverage)
}

/// What transactions take off the sum over layers of the busiest rank's load.
fn gain(case: &Case<'_>, transactions: &[Transaction]) -> f64 {
    let mut states: BTreeMap<LayerId, LayerState> = BTreeMap::new();
    for transaction in transactions {
        let state = states.entry(transaction.layer);
        let state = state.or_insert_with(|| LayerState::new(case.current, transaction.layer));
        state.apply(case.current.slots_of_ranks(), transaction);
    }
    let gain = |(&layer, state): (&LayerId, &LayerState)| {
        busiest(case, &LayerState::new(case.current, layer), layer) - busiest(case, state, layer)
    };
    states.iter().map(gain).sum()
}

fn busiest(case: &Case<'_>, state: &LayerState, layer: LayerId) -> f64 {
    case.expected.busiest(layer, state, (case.current, case.topology))
}

fn layers_of(case: &Case<'_>) -> impl Iterator<Item = LayerId> {
    case.current.layers()
}

fn sum(layers: impl Iterator<Item = LayerId>, value: impl Fn(LayerId) -> f64) -> f64 {
    layers.map(value).sum()
}
