//! What was asked of the emulated driver, as its file of counters says, in the process that asks.

use std::fs;

use anyhow::{Context, Result};

/// Those that the tests look at, in the order of the driver's.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    pub synchronisations: u64,
    pub launches: u64,
    pub allocations: u64,
    pub frees: u64,
    pub copies: u64,
}

impl Counters {
    /// As they are now. The process was started with `CUDA_MODEL_COUNTERS`.
    pub fn now() -> Result<Self> {
        let file = std::env::var_os("CUDA_MODEL_COUNTERS").context("a process with a file of counters")?;
        let bytes = fs::read(file)?;
        let (words, _) = bytes.as_chunks::<8>();
        let count = |index: usize| words.get(index).map(|word| u64::from_le_bytes(*word)).context("fewer counters");
        Ok(Self {
            synchronisations: count(0)?,
            launches: count(1)?,
            allocations: count(3)?,
            frees: count(4)?,
            copies: count(5)?,
        })
    }

    /// What was asked since then.
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            synchronisations: self.synchronisations - before.synchronisations,
            launches: self.launches - before.launches,
            allocations: self.allocations - before.allocations,
            frees: self.frees - before.frees,
            copies: self.copies - before.copies,
        }
    }
}
