//! Keys and values of one layer, on the device.

use std::sync::Arc;

use super::arena::element_bytes;
use super::context::Context;
use super::memory::Allocation;
use super::parameters::CacheTable;
use super::weights::kind_word;
use crate::backend::{CACHE_TILE, CacheShape, HeadShape};
use crate::error::DeviceError;
use crate::tensor::WeightKind;

/// Keys and values of one layer: `[blocks][key-value heads][keys, values][block tokens][dimension]`.
#[derive(Debug)]
pub struct Cache {
    shape: CacheShape,
    memory: Allocation,
}

impl Cache {
    /// # Panics
    /// If a block does not hold whole tiles.
    pub(super) fn new(context: &Arc<Context>, shape: CacheShape) -> Result<Self, DeviceError> {
        assert!(
            shape.block_tokens > 0 && shape.block_tokens.is_multiple_of(CACHE_TILE),
            "a block of {} tokens does not hold whole tiles of {CACHE_TILE}",
            shape.block_tokens
        );
        let bytes = Self::bytes(shape);
        let length = usize::try_from(bytes).map_err(|_| DeviceError::Memory { bytes })?;
        Ok(Self { shape, memory: Allocation::new(context, length)? })
    }

    /// Bytes that one takes; more than there ever are where they cannot be counted.
    pub(super) fn bytes(shape: CacheShape) -> u64 {
        let CacheShape { heads, blocks, block_tokens, kind } = shape;
        [2 * heads.key_value, block_tokens, heads.dimension, element_bytes(kind)]
            .into_iter()
            .fold(blocks as u64, |bytes, times| bytes.saturating_mul(times as u64))
    }

    pub(super) const fn heads(&self) -> HeadShape {
        self.shape.heads
    }

    /// How they are kept.
    pub(super) const fn kind(&self) -> WeightKind {
        self.shape.kind
    }

    pub(super) const fn table(&self) -> CacheTable {
        let CacheShape { heads: HeadShape { query, key_value, dimension }, blocks, block_tokens, kind } = self.shape;
        CacheTable {
            values: self.memory.address(),
            kind: kind_word(kind),
            blocks: blocks as u32,
            block_tokens: block_tokens as u32,
            query: query as u32,
            key_value: key_value as u32,
            dimension: dimension as u32,
        }
    }
}
