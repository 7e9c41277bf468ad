//! How replicas get a new specification.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// How replicas get a new specification. Numbers count replicas: a replica is replaced as a whole.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::ROLLOUT.expression).message(rules::ROLLOUT.message))]
pub struct Rollout {
    /// Replicas that may be out at a time, because they are replaced or for any other reason; 1 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub max_unavailable: Option<i32>,
    /// Replicas that there may be beyond `replicas` while others are replaced; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub max_surge: Option<i32>,
    /// Replicas with a lower number than this keep what they have while they serve; 0 if left out.
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
