//! The model of a deployment and the volume that holds its checkpoint.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// A Mixture-of-Experts model.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Name under which the OpenAI API serves it.
    #[schemars(length(min = 1, max = 120), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._/:-]*$"))]
    pub name: String,
    /// Revision of the checkpoint, noted with each recorded expert map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 120))]
    pub revision: Option<String>,
    /// Routed experts of each layer, as in the checkpoint. Redundancy is checked with it before any pod exists, and the
    /// coordinator refuses a checkpoint that has another number.
    #[schemars(range(min = 1, max = 16384))]
    pub experts: i32,
    /// Where the checkpoint is.
    pub source: ModelSource,
    /// Draw the weights from this number instead of reading them, which needs no more of the checkpoint than `config.json`: to
    /// measure with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub weights_seed: Option<i64>,
}

/// Where a checkpoint is: `type` and the member of that name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::SOURCE_CLAIM.expression).message(rules::SOURCE_CLAIM.message),
    validation = Rule::new(rules::SOURCE_HOST_PATH.expression).message(rules::SOURCE_HOST_PATH.message),
    validation = Rule::new(rules::SOURCE_IMAGE.expression).message(rules::SOURCE_IMAGE.message)
)]
pub struct ModelSource {
    /// Which member is set.
    #[serde(rename = "type")]
    pub kind: ModelSourceType,
    /// A claim in the namespace of the deployment that every node of a rank can mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
    /// A folder that every node has under the same path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPathSource>,
    /// An OCI image whose files are the checkpoint, mounted as an image volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
}

/// Kind of a [`ModelSource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ModelSourceType {
    /// `persistentVolumeClaim`.
    PersistentVolumeClaim,
    /// `hostPath`.
    HostPath,
    /// `image`.
    Image,
}

/// A checkpoint on a persistent volume.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// Name of the claim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Folder of the checkpoint, relative to the root of the volume; the root if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(rules::RELATIVE_PATH.expression).message(rules::RELATIVE_PATH.message))]
    pub path: Option<String>,
    /// Whether the volume is attached to be read alone, as claims with the access mode `ReadOnlyMany` ask for. The checkpoint is
    /// mounted read-only in any case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// A checkpoint in a folder of the nodes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPathSource {
    /// The folder. It is mounted read-only.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(rules::HOST_PATH.expression).message(rules::HOST_PATH.message))]
    pub path: String,
}

/// A checkpoint in an OCI image.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// Reference of the image.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,
    /// When nodes pull it; `Always` for the tag `latest` and `IfNotPresent` otherwise, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// Folder of the checkpoint, relative to the root of the image; the root if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(rules::RELATIVE_PATH.expression).message(rules::RELATIVE_PATH.message))]
    pub path: Option<String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}
