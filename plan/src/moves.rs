//! From one map to another: ordered transactions, each keeping every expert present, that fit the staging pages.
//! Knows nothing of bytes, pages' addresses or time.

mod apply;
mod error;
mod holdings;
mod layer;
mod lists;
mod order;
mod random;
mod regroup;
mod sources;

use serde::{Deserialize, Serialize};

use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::ExpertMap;
use crate::membership::Membership;
use crate::topology::Topology;

pub(crate) use apply::LayerState;
pub use error::MoveError;
pub use holdings::Holdings;
pub use order::best_first;
pub use random::random_transaction;
pub use regroup::{Fill, PageSource, Regrouping, regroup};

/// One slot gets another expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotChange {
    /// The rank that receives a page.
    pub rank: RankId,
    /// The slot that will point at it.
    pub slot: SlotIndex,
    /// The expert that the slot holds until then.
    pub from: ExpertId,
    /// The expert it holds afterwards.
    pub to: ExpertId,
    /// A rank that holds `to` in the map before the transaction.
    pub source: RankId,
}

/// A slot takes another share of its expert's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShareChange {
    /// Its rank.
    pub rank: RankId,
    /// The slot.
    pub slot: SlotIndex,
    /// What it takes afterwards, in parts of [`crate::map::WHOLE`].
    pub share: u32,
}

/// The smallest set of slot changes of one layer that keeps every expert present; applied whole or not at all.
///
/// The copies of an expert that a change brings or takes share evenly afterwards, unless `shares` says otherwise; those
/// of other experts keep their shares. A transaction may change shares alone: that moves no page.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transaction {
    /// The layer.
    pub layer: LayerId,
    /// The changes; no slot twice.
    pub changes: Vec<SlotChange>,
    /// Shares after the changes, for every slot of the experts whose shares it sets; no slot twice.
    pub shares: Vec<ShareChange>,
}

/// Staging pages of a rank that holds so many pages, where nobody says how many: one for each hundred and at most 16, beyond which
/// nothing moves sooner; of a rank that holds fewer than a hundred 2, so that one can be received while the last is not yet in use.
#[must_use]
pub const fn usual_staging_pages(pages: usize) -> u32 {
    match pages / 100 {
        0 => 2,
        hundreds @ 1..=15 => hundreds as u32,
        _ => 16,
    }
}

/// The transactions that lead from `old` to `new`, in the order in which they must be applied; each is valid in the map
/// that the ones before it lead to. They end in [`destination`]`(old, new)`: the placement and shares of `new`, with the
/// slots of each rank in the order that moves the fewest pages. That order has no effect on any load, and maps made by
/// [`crate::balance::balance`] have it already.
///
/// The pages received are as few as can be, one for each expert that a rank holds in `new` and not in `old`. A slot
/// whose expert has another copy changes alone. When no such slot is left, the experts still to move have one copy
/// each, and as many leave each rank as arrive there: they form cycles over ranks, each taken as short as it can be. No
/// cycle visits a rank twice, so one staging page on each rank is enough for any two maps. An expert gets its shares
/// with the last change to its copies; those of experts that do not move change at the end.
///
/// Each page comes from a holder on the receiver's node if there is one, and otherwise from another node; among those,
/// from holders chosen together so that the one that sends most over its links sends as little as can be.
///
/// # Errors
/// If the maps are of different models, groups or live ranks ([`regroup`] leads to other ranks of a group), the topology has
/// other ranks, or there is no staging page.
pub fn transactions(
    old: &ExpertMap,
    new: &ExpertMap,
    topology: &Topology,
    staging_pages_per_rank: usize,
) -> Result<Vec<Transaction>, MoveError> {
    if staging_pages_per_rank == 0 {
        return Err(MoveError::NoStagingPage);
    }
    let membership = check_group(old, new)?;
    if let Some(&rank) = membership.lost().iter().chain(membership.returned()).min() {
        return Err(MoveError::LiveRanks { rank });
    }
    if topology.ranks() != old.shape().ranks {
        return Err(MoveError::Ranks { found: topology.ranks(), ranks: old.shape().ranks });
    }
    let differing = old.layers().filter(|&layer| differ(old, new, layer));
    let steps: Vec<(LayerId, layer::Step)> =
        differing.flat_map(|layer| layer::moves(old, new, layer).into_iter().map(move |step| (layer, step))).collect();
    let changes = steps.iter().flat_map(|(_, step)| &step.changes);
    let pages: Vec<(RankId, &[RankId])> = changes.map(|change| (change.rank, &change.holders[..])).collect();
    let mut sources = sources::choose(&pages, topology).into_iter();
    let mut change = |&layer::Change { rank, slot, from, to, holders: _ }: &layer::Change| {
        let source = sources.next().flatten().expect("every expert of a map has a holder at all times");
        SlotChange { rank, slot, from: from.expect("no slot of a map is empty"), to, source }
    };
    let transaction = |(layer, layer::Step { changes, shares }): (LayerId, layer::Step)| Transaction {
        layer,
        changes: changes.iter().map(&mut change).collect(),
        shares,
    };
    Ok(steps.into_iter().map(transaction).collect())
}

/// The map in which the way from `old` to `new` ends: that of [`transactions`], with [`regroup`] before them where other ranks
/// are live.
///
/// # Errors
/// If the maps are of different models or groups.
pub fn destination(old: &ExpertMap, mut new: ExpertMap) -> Result<ExpertMap, MoveError> {
    let membership = check_group(old, &new)?;
    let left = if membership.is_unchanged() { None } else { Some(Holdings::left_of(old, new.slots_of_ranks())?) };
    for layer in old.layers() {
        let held = match &left {
            Some(left) => left.layer(layer).to_vec(),
            None if old.layer(layer) == new.layer(layer) => continue,
            None => old.layer(layer).iter().copied().map(Some).collect(),
        };
        let (slots, shares) = layer::after(held, &new, layer);
        new.replace_layer(layer, &slots, shares)?;
    }
    Ok(new)
}

/// Whether anything in a layer differs, be it the order of slots.
fn differ(old: &ExpertMap, new: &ExpertMap, layer: LayerId) -> bool {
    old.layer(layer) != new.layer(layer) || old.shares(layer) != new.shares(layer)
}

/// Pages that ranks receive on the way from `old` to `new`: experts that a rank holds in `new` and not in `old`, over
/// all layers. A rank that has returned receives one for each of its slots.
///
/// # Errors
/// If the maps are of different models or groups.
pub fn moved_slots(old: &ExpertMap, new: &ExpertMap) -> Result<usize, MoveError> {
    check_group(old, new)?;
    let places = old.layers().flat_map(|layer| (0..old.shape().ranks).map(move |rank| (layer, RankId::from(rank))));
    let received = |(layer, rank)| {
        let held = old.rank(layer, rank);
        new.rank(layer, rank).iter().filter(|expert| !held.contains(expert)).count()
    };
    Ok(places.map(received).sum())
}

/// Both maps must be of one model and one group.
fn check_group(old: &ExpertMap, new: &ExpertMap) -> Result<Membership, MoveError> {
    let (in_force, target) = (old.shape(), new.shape());
    if (in_force.layers, in_force.experts) != (target.layers, target.experts) {
        return Err(MoveError::Model {
            in_force_layers: in_force.layers,
            in_force_experts: in_force.experts,
            layers: target.layers,
            experts: target.experts,
        });
    }
    Ok(Membership::between(old.slots_of_ranks(), new.slots_of_ranks())?)
}

#[cfg(test)]
mod tests;
