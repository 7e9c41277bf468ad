//! The `MoEDeployment` custom resource: what users write and what they read back. Types and their schema only; what
//! follows from them is decided elsewhere.

pub mod conditions;
pub mod eplb;
pub mod model;
pub mod placement;
pub mod pod_template;
pub mod rollout;
pub mod rules;
pub mod service;
pub mod status;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use eplb::Eplb;
use model::Model;
use placement::{Coordinator, Placement, Ranks, Runtime};
use rollout::Rollout;
use service::ServiceSettings;
use status::MoEDeploymentStatus;

use crate::names::Role;

/// API group of the custom resource, and the domain of its labels and annotations.
pub const GROUP: &str = "swiftbalancer.io";

/// What serves, on how many ranks, and how its experts are balanced.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "swiftbalancer.io",
    version = "v1alpha1",
    kind = "MoEDeployment",
    plural = "moedeployments",
    singular = "moedeployment",
    shortname = "moed",
    category = "moe",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "MoEDeploymentStatus",
    doc = "MoEDeployment serves one Mixture-of-Experts model with expert parallelism and keeps its experts balanced.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether every replica serves the current specification"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why it is ready or not"
    ),
    printcolumn(
        name = "Download",
        type_ = "string",
        json_path = ".status.download.progress",
        description = "How much of the model is downloaded, while it is"
    ),
    printcolumn(
        name = "Ratio",
        type_ = "string",
        json_path = ".status.ratio",
        description = "Measured expert load balance ratio of the last window; 1.00 is perfect"
    ),
    printcolumn(
        name = "Epoch",
        type_ = "integer",
        json_path = ".status.epoch",
        description = "Version of the expert map in force"
    ),
    printcolumn(
        name = "Map",
        type_ = "string",
        json_path = ".status.expertMap.configMap",
        description = "ConfigMap with the last recorded expert map"
    ),
    printcolumn(
        name = "EP size",
        type_ = "integer",
        json_path = ".status.expertParallelSize",
        description = "Ranks over which the experts of a replica are spread",
        priority = 1
    ),
    printcolumn(
        name = "Replicas",
        type_ = "string",
        json_path = ".status.readyReplicas",
        description = "Replicas that serve",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(rules::NAME.expression).message(rules::NAME.message),
    validation = Rule::new(rules::NOT_ITSELF.expression).message(rules::NOT_ITSELF.message)
)]
#[x_kube(
    validation = Rule::new(rules::DIVISIBLE.expression).message(rules::DIVISIBLE.message),
    validation = Rule::new(rules::REDUNDANCY.expression).message(rules::REDUNDANCY.message),
    validation = Rule::new(rules::COPIES.expression).message(rules::COPIES.message),
    validation = Rule::new(rules::GPUS.expression).message(rules::GPUS.message),
    validation = Rule::new(rules::GPU_CLAIM.expression).message(rules::GPU_CLAIM.message),
    validation = Rule::new(rules::EXCHANGE_GPUS.expression).message(rules::EXCHANGE_GPUS.message),
    validation = Rule::new(rules::EXCHANGE_PEER.expression).message(rules::EXCHANGE_PEER.message),
    validation = Rule::new(rules::RECORD_PATH_WRITABLE.expression).message(rules::RECORD_PATH_WRITABLE.message),
    validation = Rule::new(rules::RECORD_PATH_READ_ONLY.expression).message(rules::RECORD_PATH_READ_ONLY.message),
    validation = Rule::new(rules::RECORD_PATH_REPLICAS.expression).message(rules::RECORD_PATH_REPLICAS.message),
)]
pub struct MoEDeploymentSpec {
    /// The model and where its checkpoint is.
    pub model: Model,
    /// Over how many ranks one replica is spread.
    #[serde(default)]
    pub parallelism: Parallelism,
    /// GPUs of each rank pod, one rank each; best as many as each node has, since GPUs reach each other directly within a pod
    /// alone. 0 serves on the CPU, with one rank per pod.
    #[serde(default)]
    #[schemars(range(min = 0, max = 16))]
    pub gpus_per_pod: i32,
    /// Name of the extended resource under which nodes offer GPUs.
    #[serde(default = "default_gpu_resource_name")]
    #[schemars(length(min = 3, max = 120), regex(pattern = r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$"))]
    pub gpu_resource_name: String,
    /// A `ResourceClaimTemplate` of the deployment's namespace, of which each rank pod gets a claim with its GPUs (dynamic resource
    /// allocation), in place of the extended resource. It has to ask for `gpusPerPod` GPUs of one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub gpu_claim_template_name: Option<String>,
    /// Independent serving groups, each with its own coordinator and ranks.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: i32,
    /// Stops every change to pods; what runs goes on serving and is reported.
    #[serde(default)]
    pub paused: bool,
    /// After so many seconds in which no pod comes further, `Progressing` turns false, with an event. Nothing is given up.
    #[serde(default = "default_progress_deadline_seconds")]
    #[schemars(range(min = 60, max = 86_400))]
    pub progress_deadline_seconds: i32,
    /// How many times pods of a replica that end for good, as evicted ones do, are replaced before that is given up; it begins anew
    /// when the replica has served for 10 minutes, and with a changed specification. Without it they are replaced for ever, later
    /// each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub restart_budget: Option<i32>,
    /// The image that coordinators and ranks run.
    #[serde(default)]
    pub runtime: Runtime,
    /// Front end of each replica.
    #[serde(default)]
    pub coordinator: Coordinator,
    /// Ranks of each replica.
    #[serde(default)]
    pub ranks: Ranks,
    /// Where pods may run, unless coordinator or ranks say otherwise.
    #[serde(default)]
    pub placement: Placement,
    /// The Service that clients use.
    #[serde(default, skip_serializing_if = "ServiceSettings::is_default")]
    pub service: ServiceSettings,
    /// How replicas get a new specification.
    #[serde(default, skip_serializing_if = "Rollout::is_default")]
    pub rollout: Rollout,
    /// Expert parallelism load balancing.
    #[serde(default)]
    pub eplb: Eplb,
}

impl MoEDeploymentSpec {
    /// Where the pods of a role may be.
    #[must_use]
    pub fn placement_of(&self, role: Role) -> &Placement {
        let own = match role {
            Role::Coordinator => self.coordinator.placement.as_ref(),
            Role::Rank => self.ranks.placement.as_ref(),
        };
        own.unwrap_or(&self.placement)
    }
}

/// How one replica is spread over ranks. The EP size is `tensor * data`.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parallelism {
    /// Ranks that share each attention head group.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    #[x_kube(validation = Rule::new(rules::TENSOR.expression).message(rules::TENSOR.message))]
    pub tensor: i32,
    /// Ranks, or groups of `tensor` ranks, that each serve their own sequences.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 512))]
    pub data: i32,
}

impl Default for Parallelism {
    fn default() -> Self {
        Self { tensor: one(), data: one() }
    }
}

/// What `x-kubernetes-validations` rules are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// CEL expression; false refuses the object.
    pub expression: &'static str,
    /// What is wrong and what to do.
    pub message: &'static str,
}

const fn one() -> i32 {
    1
}

const fn default_replicas() -> i32 {
    1
}

/// Longer than the startup probe of a rank lets it read.
const fn default_progress_deadline_seconds() -> i32 {
    2400
}

fn default_gpu_resource_name() -> String {
    "nvidia.com/gpu".to_owned()
}
