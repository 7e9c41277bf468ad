//! The model of a deployment and the volume that holds its checkpoint.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::placement::{SecretKeyRef, SecretRef};
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
    validation = Rule::new(rules::SOURCE_IMAGE.expression).message(rules::SOURCE_IMAGE.message),
    validation = Rule::new(rules::SOURCE_HUGGING_FACE.expression).message(rules::SOURCE_HUGGING_FACE.message),
    validation = Rule::new(rules::SOURCE_S3.expression).message(rules::SOURCE_S3.message)
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
    /// A repository of a hub of models, downloaded before anything else of a pod is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFaceSource>,
    /// Objects of a store that speaks S3, downloaded before anything else of a pod is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Source>,
}

impl ModelSource {
    /// Where it is downloaded to, if it is.
    #[must_use]
    pub fn download_volume(&self) -> Option<&DownloadVolume> {
        let of_hub = self.hugging_face.as_ref().map(|hub| &hub.volume);
        of_hub.or_else(|| self.s3.as_ref().map(|store| &store.volume))
    }
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
    /// `huggingFace`.
    HuggingFace,
    /// `s3`.
    S3,
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

/// A checkpoint in a repository of a hub of models.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::EPHEMERAL_COMMIT.expression).message(rules::EPHEMERAL_COMMIT.message))]
pub struct HuggingFaceSource {
    /// The repository, `OWNER/NAME`.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(rules::REPO.expression).message(rules::REPO.message))]
    pub repo: String,
    /// Branch, tag or commit. What a branch or a tag stands for when it is downloaded first is kept: for another commit, name it.
    #[serde(default = "default_revision")]
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"))]
    #[x_kube(validation = Rule::new(rules::REVISION.expression).message(rules::REVISION.message))]
    pub revision: String,
    /// Token of an account that may read the repository, where not everybody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// URL of the hub, such as that of a mirror; <https://huggingface.co> if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$"))]
    pub endpoint: Option<String>,
    /// Where it is downloaded to.
    pub volume: DownloadVolume,
}

/// A checkpoint in a store that speaks S3.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Source {
    /// Folder of the checkpoint, `s3://BUCKET/PREFIX`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?$"))]
    #[x_kube(validation = Rule::new(rules::S3_URL.expression).message(rules::S3_URL.message))]
    pub url: String,
    /// Region of the bucket; `us-east-1`, which stores other than Amazon's take, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: Option<String>,
    /// A Secret with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, of temporary keys, `AWS_SESSION_TOKEN`; without it requests are
    /// not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// URL of the store; Amazon's of the region if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$"))]
    pub endpoint: Option<String>,
    /// Where it is downloaded to.
    pub volume: DownloadVolume,
}

/// The volume that a checkpoint is downloaded to. Pods that share it download once.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::DOWNLOAD_VOLUME.expression).message(rules::DOWNLOAD_VOLUME.message))]
pub struct DownloadVolume {
    /// A claim in the namespace of the deployment that every node of its pods can mount and write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// Folder of the volume in which checkpoints get folders of their own; the root if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(rules::RELATIVE_PATH.expression).message(rules::RELATIVE_PATH.message))]
    pub path: Option<String>,
    /// A volume of each pod's own, such as one on its node, that goes when the pod goes: each pod downloads for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<EphemeralVolume>,
}

/// A volume of a pod's own.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralVolume {
    /// Its size.
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[1-9][0-9]{0,15}(Ki|Mi|Gi|Ti|k|M|G|T)?$"))]
    pub size: String,
    /// Its storage class; that of the cluster if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

fn default_revision() -> String {
    "main".to_owned()
}
