//! The share of its expert's tokens that each slot takes.

use super::{ExpertMap, MapError};
use crate::ids::{ExpertId, LayerId};

/// All tokens of an expert, of which each of its copies takes a whole number of parts.
pub const WHOLE: u32 = 1 << 16;

impl ExpertMap {
    /// The same placement with a share for each slot in parts of [`WHOLE`], `[layers, slots of all ranks]`. A copy may
    /// take none: it stands by for the loss of the others.
    ///
    /// # Errors
    /// If there is not one share for each slot, or those of an expert's copies do not add up to [`WHOLE`].
    pub fn with_shares(mut self, shares: &[u32]) -> Result<Self, MapError> {
        if shares.len() != self.slots.len() {
            return Err(MapError::SlotCount { found: shares.len(), expected: self.slots.len() });
        }
        for (layer, shares) in self.layers().zip(shares.chunks_exact(self.physical())) {
            self.set_shares(layer, Some(shares.to_vec()))?;
        }
        Ok(self)
    }

    /// The same placement, every expert shared evenly by its copies.
    #[must_use]
    pub fn with_even_shares(mut self) -> Self {
        self.shares.fill(None);
        self
    }

    /// Parts of [`WHOLE`] that the slots of a layer take, `[slots of all ranks]`, if an expert of the layer is not shared
    /// evenly.
    #[must_use]
    pub fn shares(&self, layer: LayerId) -> Option<&[u32]> {
        self.shares[layer.index()].as_deref()
    }

    /// Parts of [`WHOLE`] that the slots of a layer take, `[slots of all ranks]`.
    #[must_use]
    pub fn parts(&self, layer: LayerId) -> Vec<u32> {
        self.shares(layer).map_or_else(|| even(self.layer(layer), self.shape.experts), <[u32]>::to_vec)
    }

    /// The fraction of its expert's tokens that each slot of a layer takes, `[slots of all ranks]`.
    #[must_use]
    pub fn fractions(&self, layer: LayerId) -> Vec<f64> {
        if let Some(shares) = self.shares(layer) {
            return shares.iter().map(|&share| f64::from(share) / f64::from(WHOLE)).collect();
        }
        let counts = self.copy_counts(layer);
        self.layer(layer).iter().map(|expert| 1.0 / f64::from(counts[expert.index()])).collect()
    }

    /// `None` is even shares. Nothing is changed if they do not add up.
    pub(crate) fn set_shares(&mut self, layer: LayerId, shares: Option<Vec<u32>>) -> Result<(), MapError> {
        if let Some(shares) = &shares {
            let mut sums = vec![0_u64; self.shape.experts];
            for (expert, &share) in self.layer(layer).iter().zip(shares) {
                sums[expert.index()] += u64::from(share);
            }
            if let Some(expert) = sums.iter().position(|&sum| sum != u64::from(WHOLE)) {
                return Err(MapError::Shares { layer, expert: expert.into(), found: sums[expert] });
            }
        }
        let is_even = |shares: &Vec<u32>| shares.iter().copied().eq(evenly(self.layer(layer), self.shape.experts));
        let uneven = shares.filter(|shares| !is_even(shares));
        self.shares[layer.index()] = uneven;
        Ok(())
    }
}

/// Parts of [`WHOLE`] that the slots of a layer take when the copies of each of its `experts` share evenly; where it does
/// not divide, the first copies take one part more.
#[must_use]
pub fn even(slots: &[ExpertId], experts: usize) -> Vec<u32> {
    evenly(slots, experts).collect()
}

/// [`even`], one after the other.
fn evenly(slots: &[ExpertId], experts: usize) -> impl Iterator<Item = u32> + '_ {
    let mut counts = vec![0_u32; experts];
    for expert in slots {
        counts[expert.index()] += 1;
    }
    let mut given = vec![0_u32; experts];
    slots.iter().map(move |expert| {
        let (count, number) = (counts[expert.index()], &mut given[expert.index()]);
        *number += 1;
        WHOLE / count + u32::from(*number <= WHOLE % count)
    })
}
