//! What users add to the pods of a role, in the words of Kubernetes.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Laid over the pods that the operator makes, as a strategic merge patch is: containers, variables, volumes and claims by their
/// names, mounts by their paths, labels by their keys. What the operator promises of its pods is refused by name.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations.
    #[serde(default, skip_serializing_if = "PodMetadata::is_empty")]
    pub metadata: PodMetadata,
    /// A `PodSpec`. The operator's own container is `coordinator`, or `rank` in every pod of ranks; others are added beside it. The
    /// operator reads it as the API server reads a pod, and says in `SpecValid` what it does not know or does not allow.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "sorted")]
    #[schemars(schema_with = "any_object")]
    pub spec: Option<Value>,
}

/// Labels and annotations of pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels that the pods get beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations that the pods get beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
}

impl PodMetadata {
    /// Whether nothing is added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// Fields in the order of their names, so that templates that say the same are equal.
fn sorted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let mut value = Option::<Value>::deserialize(deserializer)?;
    if let Some(value) = &mut value {
        value.sort_all_objects();
    }
    Ok(value)
}

/// Not the schema of a `PodSpec`, which is some 8,000 lines and differs from one Kubernetes to the next.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "x-kubernetes-preserve-unknown-fields": true
    })
}

/// Texts that a label may have.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
        }
    })
}

/// Texts that an annotation may have.
pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 32768}
    })
}
