//! What the operator reports. Changing numbers are rounded, so that equal states give equal statuses.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::eplb::ExpertMapRef;

/// State of an MoEDeployment. Written by the operator alone.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoEDeploymentStatus {
    /// Generation of the specification that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Available`, `Progressing`, `Degraded`, `SpecValid`, `ExpertMapReady`, `Balanced`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Replicas that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Replicas that serve.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Selects one pod of each replica, for autoscalers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub selector: String,
    /// Ranks of each replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert_parallel_size: Option<i32>,
    /// Slots of each rank and layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_per_rank: Option<i32>,
    /// Measured expert load balance ratio of the last window, with two digits: of the replica that has the lowest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub ratio: Option<String>,
    /// Epoch of the map in force, of the first replica that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The last recorded map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert_map: Option<ExpertMapStatus>,
    /// The map that this deployment starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_map: Option<StartMapStatus>,
    /// What the revision of a downloaded model stands for, since it was downloaded first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelStatus>,
    /// The download of the model, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<DownloadStatus>,
    /// What was accepted last. It is kept up and scaled while what is asked for now cannot be built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<AcceptedStatus>,
    /// Each replica that exists or is asked for.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["index".into()]))]
    pub groups: Vec<GroupStatus>,
}

/// A recorded map.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpertMapStatus {
    /// The ConfigMap that holds it.
    #[schemars(length(max = 253))]
    pub config_map: String,
    /// Its content hash.
    #[schemars(length(max = 64))]
    pub hash: String,
    /// Balance ratio that it gives the load it was planned from, with two digits.
    #[schemars(length(max = 8))]
    pub ratio: String,
    /// Epoch in the deployment that recorded it.
    pub epoch: i64,
    /// When it was recorded.
    pub recorded_at: Time,
}

/// A revision of a downloaded model.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// The repository.
    #[schemars(length(max = 128))]
    pub repo: String,
    /// The revision that is asked for.
    #[schemars(length(max = 100))]
    pub revision: String,
    /// The commit that every pod reads.
    #[schemars(length(max = 40))]
    pub commit: String,
}

/// A download.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadStatus {
    /// The pod that downloads.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// How much is there, in whole percent, or `listing` or `waiting`.
    #[schemars(length(max = 64))]
    pub progress: String,
    /// Bytes of all files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// What keeps it from coming further at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub trouble: Option<String>,
}

/// The map that a deployment starts from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartMapStatus {
    /// The reference that was resolved.
    #[serde(rename = "ref")]
    pub reference: ExpertMapRef,
    /// The ConfigMap that it led to.
    #[schemars(length(max = 253))]
    pub config_map: String,
    /// Content hash of its map.
    #[schemars(length(max = 64))]
    pub hash: String,
}

/// A specification that was accepted.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedStatus {
    /// The specification, without `replicas` and `paused`, which hold as they are asked for now.
    #[schemars(schema_with = "any_object")]
    pub spec: serde_json::Value,
    /// The map that it starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_map: Option<StartMapStatus>,
}

/// Replacements of pods that ended for good.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplacementsStatus {
    /// How many, since the replica served for long or the specification changed.
    pub count: i32,
    /// When the last one was.
    pub last: Time,
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// One replica.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// Its number, from 0.
    pub index: i32,
    /// Whether it serves.
    pub ready: bool,
    /// Rank pods that are ready.
    pub ready_rank_pods: i32,
    /// Rank pods that it has when it is complete.
    pub rank_pods: i32,
    /// Whether its pods were made from the current specification.
    pub updated: bool,
    /// How often pods of it that ended for good were replaced in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacements: Option<ReplacementsStatus>,
    /// Measured balance ratio of its last window, with two digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub ratio: Option<String>,
    /// Epoch of its map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}
