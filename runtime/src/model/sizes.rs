//! What the parts of a model take in memory: known from its configuration alone, whether or not its weights are there.

use std::path::Path;

use kernels::backend::PageShape;
use kernels::tensor::WeightKind;

use super::checkpoint::{CheckpointError, config_of};
use super::config::Config;
use super::json;
use super::weights;

/// Bytes of weights, as logs and answers tell them, in gigabytes.
#[must_use]
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e9)
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// The model.
    pub config: Config,
    /// An expert's page.
    pub expert: PageShape,
    /// The page of each dense layer's network.
    pub dense: Vec<PageShape>,
    /// Bytes of all weights that are in no page.
    pub shared: u64,
}

impl Sizes {
    /// Bytes of the angles by which positions turn queries and keys, with a cache of so many tokens.
    #[must_use]
    pub fn angles(&self, tokens: usize) -> u64 {
        let positions = self.config.max_positions.min(tokens);
        (positions * self.config.rotary.dimension * size_of::<f32>()) as u64
    }

    /// Of the model whose `config.json` is in a folder, with its weights stored as that says.
    ///
    /// # Errors
    /// If it cannot be read or is refused.
    pub fn of_folder(folder: &Path) -> Result<Self, CheckpointError> {
        let (config, json) = config_of(folder)?;
        Ok(Self::of_config(config, stored_as(&json)))
    }

    /// Of a model whose weights are all stored as `kind`.
    #[must_use]
    pub fn of_config(config: Config, kind: WeightKind) -> Self {
        let width = match kind {
            WeightKind::Bf16 => 2,
            WeightKind::F32 => 4,
        };
        let page = |intermediate| PageShape { hidden: config.hidden, intermediate, kind };
        let dense = weights::dense_networks(&config).map(|(_, intermediate)| page(intermediate)).collect();
        let (expert, shared) = (page(config.experts.intermediate), weights::shared_bytes(&config, width));
        Self { config, expert, dense, shared }
    }
}

/// How `config.json` says that weights are stored: as bfloat16, which stays so in memory, or as something that is widened. One that
/// says nothing means bfloat16, as every release that is served.
pub(super) fn stored_as(config: &[u8]) -> WeightKind {
    let config = json::parse(config).map(|document| document.value).unwrap_or_default();
    let named = ["dtype", "torch_dtype"].iter().find_map(|key| config.get(key)?.as_str());
    if matches!(named, Some("float16" | "float32")) { WeightKind::F32 } else { WeightKind::Bf16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::checkpoint::Checkpoint;

    #[test]
    fn the_configuration_alone_says_what_the_weights_will_take() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let variants = models.join("tests/models/variants");
        let mut folders: Vec<_> = std::fs::read_dir(variants).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.push(models.join("examples/models/tiny-moe"));
        let mut compared = 0;
        for folder in folders.iter().filter(|folder| folder.join("config.json").exists()) {
            let with_weights = Checkpoint::open(folder).unwrap().sizes();
            let foreseen = Sizes::of_config(with_weights.config.clone(), with_weights.expert.kind);
            assert_eq!(foreseen.expert, with_weights.expert, "{folder:?}");
            // Where weights of several types are mixed the configuration does not say which.
            let (least, most) = (with_weights.shared / 2, with_weights.shared * 2);
            assert!((least..=most).contains(&foreseen.shared), "{folder:?}: {} of {most}", foreseen.shared);
            compared += usize::from(foreseen == with_weights);
        }
        assert!(compared >= 3, "{compared} of {}", folders.len());
    }

    #[test]
    fn weights_are_kept_as_they_are_stored_and_widened_where_they_are_no_bfloat16() {
        for (config, kind) in [
            ("{}", WeightKind::Bf16),
            ("{\"torch_dtype\": \"bfloat16\"}", WeightKind::Bf16),
            ("{\"torch_dtype\": \"float16\"}", WeightKind::F32),
            ("{\"dtype\": \"float32\"}", WeightKind::F32),
            ("{\"dtype\": \"auto\"}", WeightKind::Bf16),
        ] {
            assert_eq!(stored_as(config.as_bytes()), kind, "{config}");
        }
    }
}
