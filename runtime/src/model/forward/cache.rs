//! Where a rank keeps keys and values of its sequences, as long as its group lasts; and the angles of the positions that they
//! can have.

use std::sync::Arc;

use kernels::{Backend, DeviceError};

use super::CacheSize;
use crate::model::attention::cache_shape;
use crate::model::config::Config;
use crate::model::rotary;

/// The angles of as many positions as a cache of some size holds: the same for every cache of that size.
pub type Angles<B> = Arc<<B as Backend>::Buffer<f32>>;

/// See the module's documentation.
pub struct KvCache<B: Backend> {
    pub(super) size: CacheSize,
    /// Most positions of a sequence.
    pub(super) positions: usize,
    pub(in crate::model) angles: Angles<B>,
    pub(in crate::model) layers: Vec<B::Cache>,
}

impl<B: Backend> KvCache<B> {
    /// An empty one, with the angles of one that there was before, or its own.
    ///
    /// # Errors
    /// If the device has no memory for it.
    ///
    /// # Panics
    /// If a block does not hold whole tiles.
    pub fn new(backend: &B, config: &Config, size: CacheSize, angles: Option<Angles<B>>) -> Result<Self, DeviceError> {
        // A sequence never has more positions than the cache has places, whatever the configuration allows.
        let positions = config.max_positions.min(size.blocks * size.block_tokens);
        let elements = positions.saturating_mul(config.rotary.dimension);
        let made = || backend.made(elements, rotary::angles(config.rotary)).map(Arc::new);
        let angles = angles.map_or_else(made, Ok)?;
        let layers = config.layers.iter().map(|_| backend.cache(cache_shape(config, size)));
        Ok(Self { size, positions, angles, layers: layers.collect::<Result<_, _>>()? })
    }

    /// For the next of this size.
    #[must_use]
    pub fn angles(&self) -> Angles<B> {
        Arc::clone(&self.angles)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kernels::cpu::Cpu;

    use super::*;
    use crate::model::checkpoint::Checkpoint;

    #[test]
    fn angles_that_find_no_memory_are_an_error_before_the_cache_is_made() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-moe");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let config = Config { max_positions: 1 << 50, ..checkpoint.config().clone() };
        let size = CacheSize { blocks: 1 << 46, block_tokens: 16 };
        let Err(error) = KvCache::new(&Cpu::new(1), &config, size, None) else { panic!("2^50 positions have angles") };
        let bytes = (1 << 50) * (config.rotary.dimension * size_of::<f32>()) as u64;
        assert!(matches!(error, DeviceError::Memory { bytes: found } if found == bytes), "{error}");
    }
}
