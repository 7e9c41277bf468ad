//! The Service that clients use.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pod_template::{annotations, labels};
use super::rules;

/// The Service that clients use, which has the name of the deployment. It leads to the coordinators of all replicas.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::NODE_PORT.expression).message(rules::NODE_PORT.message),
    validation = Rule::new(rules::LOAD_BALANCER.expression).message(rules::LOAD_BALANCER.message),
    validation = Rule::new(rules::EXTERNAL_TRAFFIC.expression).message(rules::EXTERNAL_TRAFFIC.message),
    validation = Rule::new(rules::AFFINITY_SECONDS.expression).message(rules::AFFINITY_SECONDS.message)
)]
pub struct ServiceSettings {
    /// From where it is reached; `ClusterIP`, from within the cluster, if left out.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceType>,
    /// Its port; 80 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
    /// Port of every node that leads to it; one that Kubernetes chooses if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub node_port: Option<i32>,
    /// Labels, beside those that every object of the deployment has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations, as clouds and gateways read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Whether a client stays with the replica that it had first; `None` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
    /// Seconds without a request after which a client may get another replica; 10800 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub session_affinity_seconds: Option<i32>,
    /// Which controller makes the load balancer; that of the cloud if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 316))]
    pub load_balancer_class: Option<String>,
    /// Ranges of addresses from which the load balancer lets clients in; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub load_balancer_source_ranges: Option<Vec<String>>,
    /// Whether traffic from outside goes to replicas of its node alone, which keeps the client's address; `Cluster` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// Families of addresses that it has; one, which the cluster chooses, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
}

impl ServiceSettings {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// From where a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr)]
pub enum ServiceType {
    /// From within the cluster.
    ClusterIP,
    /// On a port of every node, too.
    NodePort,
    /// Through a load balancer, too.
    LoadBalancer,
}

/// Whether a client stays with a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr)]
pub enum SessionAffinity {
    /// Each connection gets any.
    None,
    /// All connections of one address get the same.
    ClientIP,
}

/// Where traffic from outside goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr)]
pub enum ExternalTrafficPolicy {
    /// To any replica.
    Cluster,
    /// To those of the node at which it arrives.
    Local,
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr)]
pub enum IpFamilyPolicy {
    /// Addresses of one family.
    SingleStack,
    /// Both, where the cluster has both.
    PreferDualStack,
    /// Addresses of both families; refused where the cluster has one alone.
    RequireDualStack,
}
