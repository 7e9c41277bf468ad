//! What a transaction makes of a map.

use super::{MoveError, ShareChange, SlotChange, Transaction};
use crate::ids::{ExpertId, LayerId};
use crate::map::{ExpertMap, WHOLE, even_shares};
use crate::slots::RankSlots;

impl ExpertMap {
    /// The map after a transaction.
    ///
    /// # Errors
    /// If the transaction names what the map does not have, was made for another map, or would leave an expert without
    /// a copy, on a rank twice or with shares that do not make a whole.
    pub fn apply(&self, transaction: &Transaction) -> Result<Self, MoveError> {
        let mut map = self.clone();
        map.apply_in_place(transaction)?;
        Ok(map)
    }

    /// Becomes the map after a transaction; stays what it is where that is refused.
    ///
    /// # Errors
    /// As [`ExpertMap::apply`].
    pub fn apply_in_place(&mut self, transaction: &Transaction) -> Result<(), MoveError> {
        self.check(transaction)?;
        let layer = transaction.layer;
        let mut after = LayerState::new(self, layer);
        after.apply(self.slots_of_ranks(), transaction);
        Ok(self.replace_layer(layer, &after.slots, after.shares)?)
    }

    /// Whether everything that a transaction names is there.
    fn check(&self, Transaction { layer, changes, shares }: &Transaction) -> Result<(), MoveError> {
        let (layer, shape) = (*layer, self.shape());
        if layer.index() >= shape.layers {
            return Err(MoveError::UnknownLayer { layer, layers: shape.layers });
        }
        if changes.is_empty() && shares.is_empty() {
            return Err(MoveError::Empty { layer });
        }
        let exists = |rank: crate::ids::RankId, slot: crate::ids::SlotIndex| {
            rank.index() < shape.ranks && slot.index() < self.slots_of_ranks().count(rank)
        };
        for (index, change) in changes.iter().enumerate() {
            let SlotChange { rank, slot, from, to, source } = *change;
            if !exists(rank, slot) {
                return Err(MoveError::UnknownSlot { layer, rank, slot });
            }
            if changes[..index].iter().any(|other| (other.rank, other.slot) == (rank, slot)) {
                return Err(MoveError::SlotTwice { layer, rank, slot });
            }
            let found = self.expert(layer, rank, slot);
            if found != from {
                return Err(MoveError::OtherExpert { layer, rank, slot, found, expected: from });
            }
            if source.index() >= shape.ranks || !self.rank(layer, source).contains(&to) {
                return Err(MoveError::SourceLacks { layer, source_rank: source, expert: to });
            }
        }
        for (index, &ShareChange { rank, slot, .. }) in shares.iter().enumerate() {
            if !exists(rank, slot) {
                return Err(MoveError::UnknownSlot { layer, rank, slot });
            }
            if shares[..index].iter().any(|other| (other.rank, other.slot) == (rank, slot)) {
                return Err(MoveError::SlotTwice { layer, rank, slot });
            }
        }
        Ok(())
    }
}

/// The slots of one layer and their shares on the way from one map to another.
#[derive(Clone, Debug)]
pub(crate) struct LayerState {
    pub slots: Vec<ExpertId>,
    /// `None` while every expert is shared evenly.
    pub shares: Option<Vec<u32>>,
    experts: usize,
}

impl LayerState {
    pub fn new(map: &ExpertMap, layer: LayerId) -> Self {
        let shares = map.shares(layer).map(<[u32]>::to_vec);
        Self { slots: map.layer(layer).to_vec(), shares, experts: map.shape().experts }
    }

    /// The experts that a transaction touches share evenly after it, unless it says otherwise. It fits the layer.
    pub fn apply(&mut self, of_ranks: &RankSlots, Transaction { changes, shares, .. }: &Transaction) {
        for &SlotChange { rank, slot, to, .. } in changes {
            self.slots[of_ranks.of(rank).start + slot.index()] = to;
        }
        if self.shares.is_none() && shares.is_empty() {
            return;
        }
        let even = even_shares(&self.slots, self.experts);
        let mut parts = self.shares.take().unwrap_or_else(|| even.clone());
        for (index, expert) in self.slots.iter().enumerate() {
            if changes.iter().any(|change| change.from == *expert || change.to == *expert) {
                parts[index] = even[index];
            }
        }
        for &ShareChange { rank, slot, share } in shares {
            parts[of_ranks.of(rank).start + slot.index()] = share;
        }
        self.shares = (parts != even).then_some(parts);
    }

    /// What each slot takes of its expert's tokens, `[slots]`.
    pub fn taken(&self) -> Vec<f64> {
        let mut counts = vec![0_u32; self.experts];
        for expert in &self.slots {
            counts[expert.index()] += 1;
        }
        match &self.shares {
            Some(shares) => shares.iter().map(|&share| f64::from(share) / f64::from(WHOLE)).collect(),
            None => self.slots.iter().map(|expert| 1.0 / f64::from(counts[expert.index()])).collect(),
        }
    }
}
