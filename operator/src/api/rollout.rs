//! How replicas get a new specification.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How replicas get a new specification. Numbers count replicas: a replica is replaced as a whole.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Replicas that may be out at a time, because they are replaced or for any other reason, before one that serves is replaced;
    /// 1 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_unavailable: Option<i32>,
    /// Replicas with a lower number than this keep the specification that they have while they serve: with 1 below `replicas`, the
    /// last alone tries a new one; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub partition: Option<i32>,
}

impl Rollout {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
