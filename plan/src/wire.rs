//! The versioned JSON that the coordinator's admin API, the operator and the kubectl plugin exchange, and that expert
//! maps are stored as. An unknown version or field is an error, never ignored.

mod error;
mod load;
mod map;
mod state;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

pub use error::WireError;
pub use load::LoadDocument;
pub use map::{MapDocument, Provenance, RecordedMap};
pub use state::{MoveTotals, Phase, RankState, State, WindowReport};

/// `version` of every document this build writes and the only one it reads.
pub const VERSION: &str = "swiftbalancer.io/v1";

/// Paths of the coordinator's admin API.
pub mod path {
    /// `GET`: [`super::State`].
    pub const STATE: &str = "/admin/v1/state";
    /// `GET`: the map in force; `POST` a [`super::MapDocument`]: move to it. Both [`super::MapDocument`].
    pub const MAP: &str = "/admin/v1/map";
    /// `GET`: the last recorded map, [`super::RecordedMap`]; 404 before the first.
    pub const RECORDED_MAP: &str = "/admin/v1/map/recorded";
    /// `GET`: load of the last closed window, [`super::LoadDocument`]; 404 before the first.
    pub const LOAD: &str = "/admin/v1/load";
    /// `POST`: close the window now and plan, whatever its length.
    pub const REBALANCE: &str = "/admin/v1/rebalance";
}

/// The keys of a deployment: which Secret holds them, where pods find them and how the admin token travels.
pub mod keys {
    /// Fewest bytes of either key.
    pub const LEAST_BYTES: usize = 32;
    /// Key of the Secret, and name of the file, that holds what the members of a group share.
    pub const GROUP_SECRET: &str = "group-secret";
    /// Key of the Secret, and name of the file, that holds the bearer token of the admin API.
    pub const ADMIN_TOKEN: &str = "admin-token";
    /// Folder of both files in a pod.
    pub const FOLDER: &str = "/etc/swiftbalancer/keys";
    /// Header of the admin token where `Authorization` does not arrive: the API server's proxy drops that one.
    pub const ADMIN_TOKEN_HEADER: &str = "x-swiftbalancer-admin-token";

    /// The Secret that the operator makes for a deployment.
    #[must_use]
    pub fn secret_name(deployment: &str) -> String {
        format!("{deployment}-keys")
    }
}

/// Which model a map or load belongs to. A map that was planned without the checkpoint at hand has no name and no digest;
/// it fits every model with its layers and experts.
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
    fn check_same(&self, expected: &Self) -> Result<(), WireError> {
        let Self { name: _, digest, layers, experts } = self;
        let same = digest.is_empty() || *digest == expected.digest;
        if same && (layers, experts) == (&expected.layers, &expected.experts) {
            return Ok(());
        }
        Err(WireError::OtherModel { found: self.clone().into(), expected: expected.clone().into() })
    }
}

/// What every version of every document has.
#[derive(Deserialize)]
struct Version {
    version: Option<String>,
}

fn read<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, WireError> {
    let head: Version = parse(json)?;
    check_version(head.version.as_deref())?;
    parse(json)
}

fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(json).map_err(|source| WireError::Json { reason: source.to_string() })
}

fn check_version(found: Option<&str>) -> Result<(), WireError> {
    match found {
        Some(VERSION) => Ok(()),
        other => Err(WireError::Version { found: other.unwrap_or("none").to_owned() }),
    }
}

#[cfg(test)]
mod tests;
