//! Which model a document belongs to.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::WireError;

/// Which model a map or load belongs to. A map that was planned without the checkpoint at hand has no name and no digest;
/// it fits every model with its layers and experts.
///
/// It is stored with maps, so it is read strictly; [`answered`] reads that of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelIdentity {
    /// The name it is served under; empty if not known.
    #[serde(default)]
    pub name: String,
    /// Hex SHA-256 of the checkpoint's `config.json` and of its tensors' names, types, shapes and offsets: two
    /// checkpoints with equal digests have the same experts in the same places. Empty if not known.
    #[serde(default)]
    pub digest: String,
    /// MoE layers.
    pub layers: usize,
    /// Logical experts per layer.
    pub experts: usize,
}

/// Documents leave out what is not known. The binary messages between ranks have no names of fields, so nothing can be
/// left out there.
impl Serialize for ModelIdentity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, digest, layers, experts } = self;
        let readable = serializer.is_human_readable();
        let written = |text: &str| !(readable && text.is_empty());
        let fields = 2 + usize::from(written(name)) + usize::from(written(digest));
        let mut model = serializer.serialize_struct("ModelIdentity", fields)?;
        for (field, text) in [("name", name), ("digest", digest)] {
            if written(text) {
                model.serialize_field(field, text)?;
            }
        }
        model.serialize_field("layers", layers)?;
        model.serialize_field("experts", experts)?;
        model.end()
    }
}

impl ModelIdentity {
    /// Refuses a document of a model that is known to have other experts, or in other places, whatever both are served as.
    pub(super) fn check_same(&self, expected: &Self) -> Result<(), WireError> {
        let Self { name: _, digest, layers, experts } = self;
        let same = digest.is_empty() || *digest == expected.digest;
        if same && (layers, experts) == (&expected.layers, &expected.experts) {
            return Ok(());
        }
        Err(WireError::OtherModel { found: self.clone().into(), expected: expected.clone().into() })
    }
}

/// Reads the model of an answer: what a later release tells of it besides is passed over.
pub(super) fn answered<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ModelIdentity, D::Error> {
    #[derive(Deserialize)]
    struct Answered {
        #[serde(default)]
        name: String,
        #[serde(default)]
        digest: String,
        layers: usize,
        experts: usize,
    }
    let Answered { name, digest, layers, experts } = Answered::deserialize(deserializer)?;
    Ok(ModelIdentity { name, digest, layers, experts })
}
