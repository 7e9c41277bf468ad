//! The document of a window's load.

use serde::{Deserialize, Serialize};

use super::{ModelIdentity, VERSION, WireError, check_version, model, read};
use crate::load::ExpertLoad;

/// Load of one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadDocument {
    /// [`VERSION`].
    pub version: String,
    /// The model it was counted on.
    #[serde(deserialize_with = "model::answered")]
    pub model: ModelIdentity,
    /// Number of the window, from 1.
    pub window: u64,
    /// Steps in it.
    pub steps: u64,
    /// (token, expert) pairs, `[layers][experts]`.
    pub counts: Vec<Vec<u64>>,
}

impl LoadDocument {
    /// The document of a window's load.
    #[must_use]
    pub fn new(model: ModelIdentity, window: u64, steps: u64, load: &ExpertLoad) -> Self {
        let counts = (0..load.layers()).map(|layer| load.layer(layer.into()).to_vec()).collect();
        Self { version: VERSION.to_owned(), model, window, steps, counts }
    }

    /// Reads a document, its version first.
    ///
    /// # Errors
    /// If it is no JSON, of another version, or lacks a field.
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        read(json)
    }

    /// The load, checked against the model that it is to be used for.
    ///
    /// # Errors
    /// If it is of another version or model, or its counts have other dimensions than the model.
    pub fn to_load(&self, model: &ModelIdentity) -> Result<ExpertLoad, WireError> {
        check_version(Some(&self.version))?;
        self.model.check_same(model)?;
        if self.counts.len() != model.layers {
            return Err(WireError::Layers { found: self.counts.len(), expected: model.layers });
        }
        if let Some(layer) = self.counts.iter().position(|counts| counts.len() != model.experts) {
            return Err(WireError::Experts { layer, found: self.counts[layer].len(), expected: model.experts });
        }
        Ok(ExpertLoad::from_rows(&self.counts).unwrap_or_else(|| ExpertLoad::zero(model.layers, model.experts)))
    }
}
