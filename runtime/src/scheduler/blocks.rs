//! The KV blocks of one rank. A block is held by one [`Blocks`] at a time and comes back when that is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a rank's KV cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankCache {
    /// Blocks.
    pub blocks: u32,
    /// Tokens of a block; at least 1.
    pub block_tokens: u32,
}

impl RankCache {
    /// Tokens of the longest sequence that fits.
    #[must_use]
    pub const fn tokens(self) -> usize {
        self.blocks as usize * self.block_tokens as usize
    }

    /// Blocks that `tokens` tokens fill, the last one perhaps in part.
    #[must_use]
    pub const fn blocks_of(self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens as usize)
    }
}

/// Blocks that nobody holds.
#[derive(Clone, Debug)]
pub(super) struct BlockPool {
    size: RankCache,
    /// Behind a lock only so that a holder can give back on drop; one thread uses it.
    free: Arc<Mutex<Vec<u32>>>,
}

impl BlockPool {
    pub(super) fn new(size: RankCache) -> Self {
        // Descending, so that the lowest numbers go first.
        Self { size, free: Arc::new(Mutex::new((0..size.blocks).rev().collect())) }
    }

    pub(super) const fn size(&self) -> RankCache {
        self.size
    }

    pub(super) fn free(&self) -> usize {
        lock(&self.free).len()
    }

    pub(super) fn used(&self) -> usize {
        self.size.blocks as usize - self.free()
    }

    /// Blocks for a sequence of `tokens` tokens, or none at all.
    pub(super) fn take(&self, tokens: usize) -> Option<Blocks> {
        let mut blocks = Blocks { pool: self.clone(), numbers: Vec::new() };
        blocks.reach(tokens).then_some(blocks)
    }
}

/// Blocks of one sequence, in the order of its tokens.
#[derive(Debug)]
pub(super) struct Blocks {
    pool: BlockPool,
    numbers: Vec<u32>,
}

impl Blocks {
    /// Blocks of the first `tokens` tokens.
    pub(super) fn of(&self, tokens: usize) -> &[u32] {
        &self.numbers[..self.pool.size.blocks_of(tokens)]
    }

    /// Takes what is missing to hold `tokens` tokens; false, with nothing taken, if the pool has too few.
    #[must_use]
    pub(super) fn reach(&mut self, tokens: usize) -> bool {
        let missing = self.pool.size.blocks_of(tokens).saturating_sub(self.numbers.len());
        let mut free = lock(&self.pool.free);
        let Some(kept) = free.len().checked_sub(missing) else { return false };
        self.numbers.extend(free.drain(kept..).rev());
        true
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        lock(&self.pool.free).extend(self.numbers.drain(..).rev());
    }
}

/// A panic while the list was held cannot have left it half changed in a way that matters more than the panic.
fn lock(free: &Mutex<Vec<u32>>) -> MutexGuard<'_, Vec<u32>> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}
