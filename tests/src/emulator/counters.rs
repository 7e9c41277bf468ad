//! What was asked of the emulated driver, counted by it in the file that `CUDA_MODEL_COUNTERS` names.

use std::path::Path;

use anyhow::{Context, Result};

/// In the order of `tests/emulator/driver/counters.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Waits of the host: for a stream, an event or a context.
    pub synchronisations: u64,
    /// Kernels put on a stream, and launches of graphs.
    pub launches: u64,
    /// Kernels that ran, those of graphs too.
    pub kernels: u64,
    /// Allocations of device and of pinned memory.
    pub allocations: u64,
    /// What was given back of those.
    pub frees: u64,
    /// Copies and fills.
    pub copies: u64,
    /// Bytes of those.
    pub copied_bytes: u64,
    /// Graphs captured.
    pub captures: u64,
    /// Launches of graphs.
    pub graph_launches: u64,
    /// Tensor maps made.
    pub tensor_maps: u64,
    /// Mistakes found.
    pub findings: u64,
}

impl Counters {
    /// As they stand; the process may still run.
    ///
    /// # Errors
    /// If the file is not there, or is not one of counters.
    pub fn read(path: &Path) -> Result<Self> {
        let mut words = words(path)?.into_iter();
        let mut next = || words.next().context("a file of counters is too short");
        Ok(Self {
            synchronisations: next()?,
            launches: next()?,
            kernels: next()?,
            allocations: next()?,
            frees: next()?,
            copies: next()?,
            copied_bytes: next()?,
            captures: next()?,
            graph_launches: next()?,
            tensor_maps: next()?,
            findings: next()?,
        })
    }

    /// Bytes of the host's memory that kernels have read, which says how much a step is told.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn host_bytes(path: &Path) -> Result<u64> {
        const BEFORE: usize = 11;
        words(path)?.get(BEFORE).copied().context("a file of counters is too short")
    }
}

fn words(path: &Path) -> Result<Vec<u64>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read counters from {}", path.display()))?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}
