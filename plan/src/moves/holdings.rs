//! What the ranks of a group hold while it changes: slots may be empty, and experts may have no copy. Knows nothing of where it
//! is to lead.

use super::{Fill, MoveError, PageSource, ShareChange};
use crate::ids::{ExpertId, LayerId, RankId};
use crate::map::{ExpertMap, MapError, WHOLE, even_shares};
use crate::membership::Membership;
use crate::slots::RankSlots;

/// The slots of live ranks and the shares of their experts' tokens that they take. An [`ExpertMap`] that may have empty slots,
/// which take no tokens, and experts without a copy, whose tokens nobody can compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    layers: usize,
    experts: usize,
    of_ranks: RankSlots,
    /// `[layers, slots of all ranks]`
    slots: Vec<Option<ExpertId>>,
    /// Parts of [`WHOLE`], as `slots`.
    parts: Vec<u32>,
}

impl Holdings {
    /// What is there right after other ranks of a map's group are live, `live` telling the slots of each: those that stay
    /// hold what they held, with the shares they had, but the copies of experts that lost one share evenly; those that
    /// returned hold nothing.
    ///
    /// # Errors
    /// If the ranks are not of the map's group.
    pub fn left_of(map: &ExpertMap, live: &RankSlots) -> Result<Self, MoveError> {
        Membership::between(map.slots_of_ranks(), live)?;
        let experts = map.shape().experts;
        let mut left = Self {
            layers: map.shape().layers,
            experts,
            of_ranks: live.clone(),
            slots: Vec::with_capacity(map.shape().layers * live.total()),
            parts: Vec::with_capacity(map.shape().layers * live.total()),
        };
        for layer in map.layers() {
            let (parts, first) = (map.parts(layer), left.slots.len());
            let mut lost = vec![false; experts];
            for rank in (0..live.ranks()).map(RankId::from) {
                let held = map.slots_of_ranks().of(rank);
                match (held.len(), live.count(rank)) {
                    (_, 0) => map.rank(layer, rank).iter().for_each(|expert| lost[expert.index()] = true),
                    (0, empty) => {
                        left.slots.extend(std::iter::repeat_n(None, empty));
                        left.parts.extend(std::iter::repeat_n(0, empty));
                    }
                    _ => {
                        left.slots.extend(map.rank(layer, rank).iter().copied().map(Some));
                        left.parts.extend_from_slice(&parts[held]);
                    }
                }
            }
            share_evenly(&left.slots[first..], &mut left.parts[first..], experts, |expert| lost[expert.index()]);
        }
        Ok(left)
    }

    /// The slots of one layer, `[slots of all ranks]`.
    #[must_use]
    pub fn layer(&self, layer: LayerId) -> &[Option<ExpertId>] {
        &self.slots[self.of_layer(layer)]
    }

    /// Parts of [`WHOLE`] that the slots of a layer take, `[slots of all ranks]`.
    #[must_use]
    pub fn parts(&self, layer: LayerId) -> &[u32] {
        &self.parts[self.of_layer(layer)]
    }

    /// What the slots of one rank and layer hold.
    #[must_use]
    pub fn rank(&self, layer: LayerId, rank: RankId) -> &[Option<ExpertId>] {
        &self.layer(layer)[self.of_ranks.of(rank)]
    }

    /// Slots of each rank.
    #[must_use]
    pub const fn slots_of_ranks(&self) -> &RankSlots {
        &self.of_ranks
    }

    /// The experts without a copy, by layer and expert: until each has one no step can be computed.
    #[must_use]
    pub fn absent(&self) -> Vec<(LayerId, ExpertId)> {
        let of_layer = |layer: usize| {
            let mut present = vec![false; self.experts];
            self.layer(layer.into()).iter().flatten().for_each(|expert| present[expert.index()] = true);
            (0..self.experts).filter(move |&expert| !present[expert]).map(move |expert| (layer.into(), expert.into()))
        };
        (0..self.layers).flat_map(of_layer).collect()
    }

    /// Number of empty slots, over all layers.
    #[must_use]
    pub fn empty_slots(&self) -> usize {
        self.slots.iter().filter(|expert| expert.is_none()).count()
    }

    /// Becomes what is held after a slot was filled; stays what it is where that is refused.
    ///
    /// # Errors
    /// If the fill names what is not there, was made for other holdings, takes an expert's last copy, or leaves an expert on a
    /// rank twice or with shares that do not make a whole.
    pub fn apply_in_place(&mut self, fill: &Fill) -> Result<(), MoveError> {
        self.check(fill)?;
        let &Fill { layer, rank, slot, from, to, ref shares, .. } = fill;
        let place = |rank: RankId, slot: crate::ids::SlotIndex| self.of_ranks.of(rank).start + slot.index();
        let (mut slots, mut parts) = (self.layer(layer).to_vec(), self.parts(layer).to_vec());
        slots[place(rank, slot)] = Some(to);
        let touched = |expert: ExpertId| expert == to || Some(expert) == from;
        share_evenly(&slots, &mut parts, self.experts, touched);
        for &ShareChange { rank, slot, share } in shares {
            parts[place(rank, slot)] = share;
        }
        let mut sums = vec![0_u64; self.experts];
        let mut present = vec![false; self.experts];
        for (expert, &part) in slots.iter().zip(&parts).filter_map(|(expert, part)| Some((expert.as_ref()?, part))) {
            sums[expert.index()] += u64::from(part);
            present[expert.index()] = true;
        }
        if let Some(from) = from.filter(|from| !present[from.index()]) {
            return Err(MapError::Missing { layer, expert: from }.into());
        }
        let uneven = (0..self.experts).find(|&expert| present[expert] && sums[expert] != u64::from(WHOLE));
        if let Some(expert) = uneven {
            return Err(MapError::Shares { layer, expert: expert.into(), found: sums[expert] }.into());
        }
        let of_layer = self.of_layer(layer);
        self.slots[of_layer.clone()].copy_from_slice(&slots);
        self.parts[of_layer].copy_from_slice(&parts);
        Ok(())
    }

    /// Whether everything that a fill names is there.
    fn check(&self, fill: &Fill) -> Result<(), MoveError> {
        let &Fill { layer, rank, slot, from, to, source, ref shares } = fill;
        if layer.index() >= self.layers {
            return Err(MoveError::UnknownLayer { layer, layers: self.layers });
        }
        let exists = |rank: RankId, slot: crate::ids::SlotIndex| {
            rank.index() < self.of_ranks.ranks() && slot.index() < self.of_ranks.count(rank)
        };
        let unknown = shares.iter().map(|share| (share.rank, share.slot)).chain([(rank, slot)]);
        if let Some((rank, slot)) = unknown.into_iter().find(|&(rank, slot)| !exists(rank, slot)) {
            return Err(MoveError::UnknownSlot { layer, rank, slot });
        }
        if to.index() >= self.experts {
            return Err(MapError::UnknownExpert { layer, rank, expert: to, experts: self.experts }.into());
        }
        for (index, &ShareChange { rank, slot, .. }) in shares.iter().enumerate() {
            if shares[..index].iter().any(|other| (other.rank, other.slot) == (rank, slot)) {
                return Err(MoveError::SlotTwice { layer, rank, slot });
            }
        }
        let found = self.rank(layer, rank)[slot.index()];
        if found != from {
            return Err(MoveError::OtherHolding { layer, rank, slot, found, expected: from });
        }
        if self.rank(layer, rank).contains(&Some(to)) {
            return Err(MapError::Twice { layer, rank, expert: to }.into());
        }
        let holds = |rank: RankId| rank.index() < self.of_ranks.ranks() && self.rank(layer, rank).contains(&Some(to));
        match source {
            PageSource::Rank(source_rank) if !holds(source_rank) => {
                Err(MoveError::SourceLacks { layer, source_rank, expert: to })
            }
            PageSource::Checkpoint => match (0..self.of_ranks.ranks()).map(RankId::from).find(|&rank| holds(rank)) {
                Some(holder) => Err(MoveError::HasCopy { layer, expert: to, holder }),
                None => Ok(()),
            },
            PageSource::Rank(_) => Ok(()),
        }
    }

    /// The map that they are, once no slot is empty and every expert has a copy.
    ///
    /// # Errors
    /// Until then.
    pub fn to_map(&self) -> Result<ExpertMap, MoveError> {
        let slots: Option<Vec<ExpertId>> = self.slots.iter().copied().collect();
        let unfinished = || MoveError::Unfinished { empty: self.empty_slots(), absent: self.absent().len() };
        let slots = slots.filter(|_| self.absent().is_empty()).ok_or_else(unfinished)?;
        let map = ExpertMap::with_slots_of_ranks(self.layers, self.experts, self.of_ranks.clone(), slots)?;
        Ok(map.with_shares(&self.parts)?)
    }

    fn of_layer(&self, layer: LayerId) -> std::ops::Range<usize> {
        let slots = self.of_ranks.total();
        layer.index() * slots..(layer.index() + 1) * slots
    }
}

/// Even shares for slots of a layer of which some may be empty.
pub(super) fn even(slots: &[Option<ExpertId>], experts: usize) -> Vec<u32> {
    let held: Vec<ExpertId> = slots.iter().flatten().copied().collect();
    let mut even = even_shares(&held, experts).into_iter();
    slots.iter().map(|expert| expert.and_then(|_| even.next()).unwrap_or(0)).collect()
}

/// Gives the copies of some experts even shares, and leaves the others theirs.
fn share_evenly(slots: &[Option<ExpertId>], parts: &mut [u32], experts: usize, of: impl Fn(ExpertId) -> bool) {
    for ((expert, part), even) in slots.iter().zip(parts).zip(even(slots, experts)) {
        if expert.is_some_and(&of) {
            *part = even;
        }
    }
}
