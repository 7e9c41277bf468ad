//! Which copy of an expert computes what. The integers here are the specification: every device chooses alike, so that all
//! ranks that a token could start on send it to the same place.

use crate::arena::PageId;

/// A slot of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Its rank.
    pub rank: u32,
    /// Which of the rank's slots of the layer.
    pub index: u32,
}

/// The copies of each expert of one layer, all in one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Copies of expert `e` are `slots[starts[e]..starts[e + 1]]`: those that take nothing of what starts here, then those that
    /// take a part, both by ascending rank. So the last of them takes one.
    pub starts: Vec<u32>,
    /// The slots.
    pub slots: Vec<Slot>,
    /// The least [`point`] of a token that each copy takes: the parts of the copies before it, of a whole of 2^32.
    pub bounds: Vec<u32>,
}

impl Copies {
    /// The slot that computes an expert for a token that starts on this rank.
    #[must_use]
    #[inline]
    pub fn choose(&self, expert: u32, sequence: u32, position: u32) -> Slot {
        let (first, end) = (self.starts[expert as usize] as usize, self.starts[expert as usize + 1] as usize);
        if end - first == 1 {
            return self.slots[first];
        }
        let point = point(expert, sequence, position);
        // Bounds rise, so as many further copies are passed as have bounds up to the point.
        let passed = self.bounds[first + 1..end].iter().map(|&bound| usize::from(bound <= point)).sum::<usize>();
        self.slots[first + passed]
    }
}

/// Where a token is among all tokens of an expert, of a whole of 2^32: the two-dimensional additive recurrence of the
/// plastic number, `frac(sequence / p + position / p^2)`. An odd multiple of the expert shifts each expert's sequence, so
/// that a token's experts do not all fall on their first copies.
#[must_use]
#[inline]
pub const fn point(expert: u32, sequence: u32, position: u32) -> u32 {
    const PLASTIC: u32 = 0xC13F_A9A9;
    const PLASTIC_SQUARED: u32 = 0x91E1_0DA5;
    const GOLDEN: u32 = 0x9E37_79B9;
    sequence
        .wrapping_mul(PLASTIC)
        .wrapping_add(position.wrapping_mul(PLASTIC_SQUARED))
        .wrapping_add(expert.wrapping_mul(GOLDEN))
}

/// A layer's routing, as one rank of the group has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerRouting {
    /// The layer, among MoE layers.
    pub layer: usize,
    /// Where the copies of its experts are.
    pub copies: Copies,
    /// The page of each of this rank's slots.
    pub pages: Vec<PageId>,
}

/// The group whose slots are routed to, as one rank of it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupShape {
    /// Ranks of the group.
    pub ranks: usize,
    /// The number of the rank that sees it so.
    pub rank: usize,
    /// MoE layers.
    pub layers: usize,
    /// Slots of each layer on each rank.
    pub slots: usize,
    /// Experts of each token.
    pub top_k: usize,
    /// Tokens that any rank computes in one step at most.
    pub tokens: usize,
}

impl GroupShape {
    /// Pairs that one rank's tokens have at most on another, or on itself.
    #[must_use]
    pub const fn pairs_between(&self) -> usize {
        self.tokens.saturating_mul(if self.top_k < self.slots { self.top_k } else { self.slots })
    }

    /// Pairs that a rank computes in one layer at most.
    #[must_use]
    pub const fn pairs(&self) -> usize {
        self.pairs_between().saturating_mul(self.ranks)
    }

    /// Rows that a rank computes with in one layer at most: its own, and one of each token of the others.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.tokens.saturating_mul(self.ranks)
    }

    /// Results that a rank has in one layer at most: those that it computed, and those of its own tokens from elsewhere.
    #[must_use]
    pub const fn results(&self) -> usize {
        self.pairs().saturating_add(self.tokens.saturating_mul(self.top_k))
    }
}

/// Where one (token, expert) pair is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// The slot.
    pub slot: Slot,
    /// Which of the pairs that this rank gives to that rank it is.
    pub ordinal: u32,
}

/// A row that is to go through the expert of a slot of this rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The slot.
    pub slot: u32,
    /// The row of the activations.
    pub row: u32,
}
