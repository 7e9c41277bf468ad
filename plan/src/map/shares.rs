//! The share of its expert's tokens that each slot takes.

use super::{ExpertMap, MapError};
use crate::ids::LayerId;

/// All tokens of an expert, of which each of its copies takes a whole number of parts.
pub const WHOLE: u32 = 1 << 16;

impl ExpertMap {
    /// The same placement with a share for each slot in parts of [`WHOLE`], `[layers, slots of all ranks]`. A copy may
    /// take none: it stands by for the loss of the others.
    ///
    /// # Errors
    /// If there is not one share for each slot, or those of an expert's copies do not add up to [`WHOLE`].
    pub fn with_shares(mut self, shares: Vec<u32>) -> Result<Self, MapError> {
        if shares.len() != self.slots.len() {
            return Err(MapError::SlotCount { found: shares.len(), expected: self.slots.len() });
        }
        for layer in self.layers() {
            let mut sums = vec![0_u64; self.shape.experts];
            for (expert, &share) in self.layer(layer).iter().zip(self.of_layer(&shares, layer)) {
                sums[expert.index()] += u64::from(share);
            }
            if let Some(expert) = sums.iter().position(|&sum| sum != u64::from(WHOLE)) {
                return Err(MapError::Shares { layer, expert: expert.into(), found: sums[expert] });
            }
        }
        // Even shares have one form, so that equal maps are equal.
        let even = self.layers().all(|layer| self.of_layer(&shares, layer) == self.even_shares(layer));
        self.shares = (!even).then_some(shares);
        Ok(self)
    }

    /// Parts of [`WHOLE`] that the slots of a layer take, `[slots of all ranks]`, where they are not even in the whole
    /// map.
    #[must_use]
    pub fn shares(&self, layer: LayerId) -> Option<&[u32]> {
        self.shares.as_ref().map(|shares| self.of_layer(shares, layer))
    }

    /// The fraction of its expert's tokens that each slot of a layer takes, `[slots of all ranks]`.
    #[must_use]
    pub fn fractions(&self, layer: LayerId) -> Vec<f64> {
        if let Some(shares) = self.shares(layer) {
            return shares.iter().map(|&share| f64::from(share) / f64::from(WHOLE)).collect();
        }
        let counts = self.replica_counts(layer);
        self.layer(layer).iter().map(|expert| 1.0 / f64::from(counts[expert.index()])).collect()
    }

    /// Parts of [`WHOLE`] when copies share evenly; where it does not divide, the first copies take one part more.
    pub(super) fn even_shares(&self, layer: LayerId) -> Vec<u32> {
        let counts = self.replica_counts(layer);
        let mut given = vec![0_u32; self.shape.experts];
        let share = |expert: usize| {
            let (count, number) = (counts[expert], given[expert]);
            given[expert] += 1;
            WHOLE / count + u32::from(number < WHOLE % count)
        };
        self.layer(layer).iter().map(|expert| expert.index()).map(share).collect()
    }

    /// Lets the copies of a layer's experts share evenly.
    pub(super) fn share_evenly(&mut self, layer: LayerId) {
        let Some(mut shares) = self.shares.take() else { return };
        let physical = self.physical();
        shares[layer.index() * physical..][..physical].copy_from_slice(&self.even_shares(layer));
        let even = self.layers().all(|layer| self.of_layer(&shares, layer) == self.even_shares(layer));
        self.shares = (!even).then_some(shares);
    }

    fn of_layer<'a>(&self, shares: &'a [u32], layer: LayerId) -> &'a [u32] {
        let physical = self.physical();
        &shares[layer.index() * physical..][..physical]
    }
}
