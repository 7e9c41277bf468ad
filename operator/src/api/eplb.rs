//! Settings of expert parallelism load balancing, under the names that its users know.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Expert parallelism load balancing.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::ONE_STATIC_MAP.expression).message(rules::ONE_STATIC_MAP.message),
    validation = Rule::new(rules::STATIC_OR_RECORDED.expression).message(rules::STATIC_OR_RECORDED.message),
    validation = Rule::new(rules::RECORD_PATH_DYNAMIC.expression).message(rules::RECORD_PATH_DYNAMIC.message)
)]
pub struct Eplb {
    /// Moves experts while serving, as the load asks for it.
    #[serde(default)]
    pub dynamic_eplb: bool,
    /// Steps of a window: over these load is counted before it is decided whether to move.
    #[serde(default = "default_window")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub num_iterations_eplb_update: i32,
    /// Steps after the start, and after a window's end, before a plan may be applied.
    #[serde(default = "default_wait")]
    #[schemars(range(min = 1, max = 1_000_000))]
    #[x_kube(validation = Rule::new(rules::WAIT.expression).message(rules::WAIT.message))]
    pub num_wait_worker_iterations: i32,
    /// Extra physical experts of each layer: copies of hot ones.
    #[serde(default)]
    #[schemars(range(min = 0, max = 16384))]
    pub init_redundancy_expert: i32,
    /// Extra physical experts of each layer that one GPU (or CPU rank) may hold.
    #[serde(default = "default_max_redundant")]
    #[schemars(range(min = 1, max = 64))]
    pub max_redundant_experts_per_gpu: i32,
    /// How a target map is computed from the load.
    #[serde(default)]
    pub policy: Policy,
    /// Least gain in balance ratio for which experts move, a decimal from 0 to below 1; the runtime's own value if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 12), regex(pattern = r"^0(\.[0-9]{1,10})?$"))]
    pub minimum_gain: Option<String>,
    /// Pages that each rank can receive before they are in use; one for each hundred that it holds, at most 16, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_536))]
    pub staging_pages: Option<i32>,
    /// Bytes per second that moves to one rank may use, 0 is no limit; one hundredth of what the memory of its GPU does, and no
    /// limit on CPUs, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_000_i64))]
    pub move_bytes_per_second: Option<i64>,
    /// Bytes that one rebalance may move, those first that pay most; 0, which is no limit, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_000_i64))]
    pub max_rebalance_bytes: Option<i64>,
    /// Windows after one that moved experts in which none move; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub cool_down_windows: Option<i32>,
    /// Ranks of which any may be lost with every expert still present, where the slots allow it; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16_384))]
    pub min_coverage: Option<i32>,
    /// Nodes of which any may be lost with every expert still present, where the slots allow it; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16_384))]
    pub min_node_coverage: Option<i32>,
    /// Seconds that a rank may take to receive the pages of one transaction; 30 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub move_deadline_seconds: Option<i32>,
    /// A recorded map to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert_map_ref: Option<ExpertMapRef>,
    /// A map to start from, as a file relative to the root of `model.source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(rules::RELATIVE_PATH.expression).message(rules::RELATIVE_PATH.message))]
    pub expert_map_path: Option<String>,
    /// A file, relative to the root of `model.source`, to which the coordinator also writes each map it records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(rules::RELATIVE_PATH.expression).message(rules::RELATIVE_PATH.message))]
    pub expert_map_record_path: Option<String>,
    /// Recording of maps as ConfigMaps.
    #[serde(default)]
    pub record: Record,
}

impl Default for Eplb {
    fn default() -> Self {
        Self {
            dynamic_eplb: false,
            num_iterations_eplb_update: default_window(),
            num_wait_worker_iterations: default_wait(),
            init_redundancy_expert: 0,
            max_redundant_experts_per_gpu: default_max_redundant(),
            policy: Policy::default(),
            minimum_gain: None,
            staging_pages: None,
            move_bytes_per_second: None,
            max_rebalance_bytes: None,
            cool_down_windows: None,
            min_coverage: None,
            min_node_coverage: None,
            move_deadline_seconds: None,
            expert_map_ref: None,
            expert_map_path: None,
            expert_map_record_path: None,
            record: Record::default(),
        }
    }
}

/// How a target map is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Policy {
    /// Balances with few moves from the map in force.
    #[default]
    Swift,
    /// The published hierarchical and global algorithm, which starts from nothing each time.
    DeepSeek,
}

impl From<Policy> for plan::balance::Policy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Swift => Self::Swift,
            Policy::DeepSeek => Self::DeepSeek,
        }
    }
}

/// A recorded expert map of the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::MAP_REF.expression).message(rules::MAP_REF.message))]
pub struct ExpertMapRef {
    /// A ConfigMap with the map under the key `map.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// An MoEDeployment: the map that it has recorded last when this deployment first starts, and that one from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub from_deployment: Option<String>,
}

/// Recording of maps as ConfigMaps named `NAME-map-HASH`.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Whether maps are recorded.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Recorded maps that are kept; older ones are deleted unless another deployment starts from them.
    #[serde(default = "default_keep")]
    #[schemars(range(min = 1, max = 100))]
    pub keep: i32,
    /// Least time between two records, so that a lively load does not fill the API server.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 1, max = 86_400))]
    pub min_interval_seconds: i32,
}

impl Default for Record {
    fn default() -> Self {
        Self { enabled: yes(), keep: default_keep(), min_interval_seconds: default_interval() }
    }
}

const fn default_window() -> i32 {
    400
}

const fn default_wait() -> i32 {
    30
}

const fn default_max_redundant() -> i32 {
    1
}

const fn default_keep() -> i32 {
    3
}

const fn default_interval() -> i32 {
    30
}

const fn yes() -> bool {
    true
}
