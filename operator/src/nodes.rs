//! What a node object says about whether it can run pods.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use crate::quantity;

/// How long a node may be out of reach before its pods are replaced: longer than the hiccup of a kubelet that restarts,
/// short against loading a model. The cluster itself takes some 50 s to notice that a node is gone.
pub const LOST_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// Whether a node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its kubelet reports.
    Ready,
    /// Out of reach, not yet for [`LOST_AFTER`]; lost at that time.
    Doubtful(Timestamp),
    /// Out of reach for [`LOST_AFTER`], or removed from the cluster.
    Lost,
}

/// Whether a node can be reached; `None` is a node that does not exist.
#[must_use]
pub fn reach(node: Option<&Node>, now: Timestamp) -> Reach {
    let Some(node) = node else { return Reach::Lost };
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let Some(ready) = conditions.iter().find(|condition| condition.type_ == "Ready") else { return Reach::Ready };
    if ready.status == "True" {
        return Reach::Ready;
    }
    let lost = ready.last_transition_time.as_ref().map_or(now, |time| time.0) + LOST_AFTER;
    if lost <= now { Reach::Lost } else { Reach::Doubtful(lost) }
}

/// GPUs that a node offers to new pods of a deployment with this node selector.
#[must_use]
pub fn offered(
    node: &Node,
    resource: &str,
    selector: &std::collections::BTreeMap<String, String>,
    now: Timestamp,
) -> u64 {
    let labels = node.metadata.labels.as_ref();
    let selected = selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    if !selected || cordoned || reach(Some(node), now) != Reach::Ready {
        return 0;
    }
    node.status
        .as_ref()
        .and_then(|status| status.allocatable.as_ref())
        .and_then(|allocatable| allocatable.get(resource))
        .and_then(|quantity| quantity::whole(&quantity.0))
        .unwrap_or(0)
}
