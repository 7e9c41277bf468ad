//! From the map of a group to one of other ranks of it: after ranks were lost, and when they have returned. Knows nothing of how
//! a group finds out.

use super::holdings::Holdings;
use super::layer::{self, Change, Fills, Step};
use super::{MoveError, ShareChange, check_group, sources};
use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::ExpertMap;
use crate::topology::Topology;

/// Where a page comes from while a group changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageSource {
    /// A live rank that holds the expert.
    Rank(RankId),
    /// No live rank holds the expert: it is read from the checkpoint, or from wherever a host keeps its weights.
    Checkpoint,
}

/// A slot gets an expert while a group changes. Like a [`Transaction`](super::Transaction) it is applied whole, and every
/// expert that has a copy before it has one after it; and it changes one slot only, so one staging page is enough.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fill {
    /// The layer.
    pub layer: LayerId,
    /// The rank that receives a page.
    pub rank: RankId,
    /// The slot that will point at it.
    pub slot: SlotIndex,
    /// The expert that the slot holds until then; none in a slot of a rank that has just returned.
    pub from: Option<ExpertId>,
    /// The expert that it holds afterwards.
    pub to: ExpertId,
    /// Where its page comes from.
    pub source: PageSource,
    /// Shares afterwards, as those of a transaction.
    pub shares: Vec<ShareChange>,
}

/// The way of a group to other ranks of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regrouping {
    /// What live ranks hold before anything has moved.
    pub start: Holdings,
    /// In this order: first until every expert has a copy, which ends [`Holdings::absent`] and with it the time in which
    /// nothing can be computed; then until no slot is empty.
    pub fills: Vec<Fill>,
    /// The map that they end in. The rest of the way is between maps of the same ranks:
    /// [`transactions`](super::transactions) from here to the target.
    pub filled: ExpertMap,
}

/// The way from the map that was in force to one of the ranks that are live now. Which ranks are live the maps say
/// themselves: a rank that is lost has no slots in `new`, one that has returned has none in `old`
/// ([`Membership`](crate::membership::Membership)).
///
/// Experts that only lost ranks held come from the checkpoint, each once and before all else; all other pages come from live
/// ranks, chosen as those of transactions are. Fills bring experts to where they are in `new`, so no page moves
/// twice: with the transactions that follow them they are [`moved_slots`](super::moved_slots)`(old, new)`.
///
/// # Errors
/// If the maps are of different models or groups, the topology has other ranks, or there is no staging page.
pub fn regroup(
    old: &ExpertMap,
    new: &ExpertMap,
    topology: &Topology,
    staging_pages_per_rank: usize,
) -> Result<Regrouping, MoveError> {
    check_group(old, new)?;
    if staging_pages_per_rank == 0 {
        return Err(MoveError::NoStagingPage);
    }
    if topology.ranks() != old.shape().ranks {
        return Err(MoveError::Ranks { found: topology.ranks(), ranks: old.shape().ranks });
    }
    let start = Holdings::left_of(old, new.slots_of_ranks())?;
    let (mut restore, mut fill) = (Vec::new(), Vec::new());
    for layer in new.layers() {
        let Fills { restore: first, fill: then } = layer::fills(&start, new, layer);
        restore.extend(first.into_iter().map(|step| (layer, step)));
        fill.extend(then.into_iter().map(|step| (layer, step)));
    }
    restore.append(&mut fill);
    let places: Vec<(RankId, &[RankId])> =
        restore.iter().flat_map(|(_, step)| &step.changes).map(|change| (change.rank, &change.holders[..])).collect();
    let sources = sources::choose(&places, topology);
    let (mut fills, mut held) = (Vec::with_capacity(restore.len()), start.clone());
    for ((layer, Step { changes, shares }), source) in restore.into_iter().zip(sources) {
        let [Change { rank, slot, from, to, holders: _ }] = changes[..] else {
            unreachable!("a slot that is filled changes alone")
        };
        let source = source.map_or(PageSource::Checkpoint, PageSource::Rank);
        let fill = Fill { layer, rank, slot, from, to, source, shares };
        held.apply_in_place(&fill)?;
        fills.push(fill);
    }
    Ok(Regrouping { start, fills, filled: held.to_map()? })
}

#[cfg(test)]
mod tests;
