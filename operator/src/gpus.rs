//! GPUs that the cluster has for a deployment: whether there are enough, whether a node has those of a pod, and whether all are
//! alike. Pure.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use crate::api::MoEDeploymentSpec;
use crate::build;
use crate::names::Role;
use crate::nodes;
use crate::observed::Observed;
use crate::template::Overlays;
use crate::validate::{Refusal, Shape};

/// The most GPUs of a pod, as the definition has it.
const MOST_PER_POD: u64 = 16;
/// Labels by which nodes say what GPUs they have, as NVIDIA's GPU feature discovery sets them. Ranks that compute with unlike
/// GPUs would not compute the same bits.
pub const LABELS: [&str; 4] =
    ["nvidia.com/gpu.product", "nvidia.com/gpu.memory", "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"];

/// What two nodes say of their GPUs that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlike {
    /// The label.
    pub label: &'static str,
    /// A node and its value.
    pub first: (String, String),
    /// Another node and its other value.
    pub second: (String, String),
}

/// A node that a deployment may use, and the GPUs that it offers.
struct Offer<'a> {
    node: &'a Node,
    gpus: u64,
}

fn offers<'a>(spec: &MoEDeploymentSpec, observed: &'a Observed) -> Vec<Offer<'a>> {
    let placed = build::placed(spec, Role::Rank);
    let overlays = Overlays::read(spec).unwrap_or_default();
    let pod = match overlays.of(Role::Rank) {
        Some(overlay) => overlay.over_spec(placed, Role::Rank),
        None => placed,
    };
    let usable = observed.nodes.values().filter(|node| nodes::takes(node, &pod));
    let offers = usable.map(|node| Offer { node, gpus: nodes::allocatable(node, &spec.gpu_resource_name) });
    offers.filter(|offer| offer.gpus > 0).collect()
}

/// Whether a resource is a GPU, or a part of one, under whatever name: the deployment's own, or one that device plugins use.
#[must_use]
pub fn is_gpu(resource: &str, of_deployment: &str) -> bool {
    let is_of_vendor = ["nvidia.com/mig-", "gpu.intel.com/"].iter().any(|prefix| resource.starts_with(prefix));
    resource == of_deployment
        || ["nvidia.com/gpu", "nvidia.com/gpu.shared", "amd.com/gpu"].contains(&resource)
        || is_of_vendor
}

/// Checks the GPUs of a deployment that asks for some. What devices there are for claims is the scheduler's to know.
///
/// # Errors
/// If there are too few, no node has as many as a pod, or the nodes have unlike ones.
pub fn check(spec: &MoEDeploymentSpec, shape: Shape, replicas: usize, observed: &Observed) -> Result<(), Refusal> {
    let needed = (replicas * shape.ranks * shape.gpus_per_rank) as u64;
    // Where nodes are not watched the scheduler alone counts.
    if needed == 0 || spec.gpu_claim_template_name.is_some() || !observed.watches_nodes {
        return Ok(());
    }
    let (per_pod, offers) = (shape.ranks_per_pod as u64, offers(spec, observed));
    let resource = spec.gpu_resource_name.clone();
    let most = offers.iter().map(|offer| offer.gpus).max().unwrap_or(0);
    if (1..per_pod).contains(&most) {
        return Err(Refusal::GpusPerPodTooMany { resource, per_pod, most });
    }
    // What is left of a node holds no pod.
    let offered = offers.iter().map(|offer| offer.gpus / per_pod * per_pod).sum();
    if offered < needed {
        return Err(Refusal::InsufficientGpus { resource, needed, offered, per_pod });
    }
    unlike(&offers).map_or(Ok(()), |unlike| Err(Refusal::GpusNotAlike(unlike)))
}

/// The first difference between what nodes say; those that say nothing are taken as they are.
fn unlike(offers: &[Offer<'_>]) -> Option<Unlike> {
    LABELS.iter().find_map(|label| {
        let mut said =
            offers.iter().filter_map(|offer| Some((offer.node.name_any(), offer.node.labels().get(*label)?)));
        let (name, value) = said.next()?;
        let (other, different) = said.find(|(_, different)| *different != value)?;
        Some(Unlike { label, first: (name, value.clone()), second: (other, different.clone()) })
    })
}

/// GPUs that each pod could have, where it has fewer than every node offers and ranks of a replica are in several pods: GPUs
/// reach each other directly within a pod alone.
#[must_use]
pub fn better_per_pod(spec: &MoEDeploymentSpec, shape: Shape, observed: &Observed) -> Option<u64> {
    let (ranks, per_pod) = (shape.ranks as u64, shape.ranks_per_pod as u64);
    if shape.gpus_per_rank == 0 || per_pod >= ranks || spec.gpu_claim_template_name.is_some() {
        return None;
    }
    let each = offers(spec, observed).iter().map(|offer| offer.gpus).min()?;
    (per_pod + 1..=each.min(MOST_PER_POD).min(ranks)).rev().find(|gpus| ranks.is_multiple_of(*gpus))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, labels: &Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
    }

    fn difference(nodes: &[Node]) -> Option<Unlike> {
        unlike(&nodes.iter().map(|node| Offer { node, gpus: 1 }).collect::<Vec<_>>())
    }

    #[test]
    fn nodes_that_say_other_things_of_their_gpus_are_unlike_and_those_that_say_nothing_are_not() {
        let like = json!({"nvidia.com/gpu.product": "H200", "nvidia.com/gpu.memory": "143771"});
        let silent = node("a", &json!({}));
        assert_eq!(difference(&[]), None);
        assert_eq!(difference(&[silent.clone(), node("b", &like), node("c", &like), silent.clone()]), None);
        for label in LABELS {
            let [one, other] = ["8", "9"].map(|value| json!({label: value, "nvidia.com/gpu.count": value}));
            let found = difference(&[silent.clone(), node("b", &one), node("c", &one), node("d", &other)]).unwrap();
            let (first, second) = (("b".to_owned(), "8".to_owned()), ("d".to_owned(), "9".to_owned()));
            assert_eq!(found, Unlike { label, first, second });
        }
    }
}
