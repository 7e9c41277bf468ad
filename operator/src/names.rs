//! Names, labels, annotations and ports of everything that the operator makes. Two operators of any version agree on
//! them, so none may change.

use std::collections::BTreeMap;

use plan::wire::process::port;

/// Field manager of everything that is written, and reporting controller of events.
pub const MANAGER: &str = "swiftbalancer-operator";

/// Label: name of the deployment that an object belongs to.
pub const DEPLOYMENT: &str = "swiftbalancer.io/deployment";
/// Label: number of the replica that an object belongs to.
pub const GROUP: &str = "swiftbalancer.io/group";
/// Label: what a pod is, [`Role`].
pub const ROLE: &str = "swiftbalancer.io/role";
/// Label of recorded maps; its value is [`RECORDED`].
pub const EXPERT_MAP: &str = "swiftbalancer.io/expert-map";
/// Value of [`EXPERT_MAP`].
pub const RECORDED: &str = "recorded";
/// Label of everything the operator made; its value is [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Annotation of pods: hash of what they were made from.
pub const REVISION: &str = "swiftbalancer.io/revision";
/// Annotation of the Service that clients use: hash of what the specification says of it, so that what it says no more is taken
/// away.
pub const SERVICE_SETTINGS: &str = "swiftbalancer.io/service-settings";
/// Annotation of pods: image of the runtime that the operator gave them, whatever an admission policy made of it.
pub const IMAGE: &str = "swiftbalancer.io/image";
/// Annotation of a deployment: a new value restarts its pods, one replica after the other.
pub const RESTARTED_AT: &str = "swiftbalancer.io/restarted-at";
/// Annotation of a deployment: a new value makes new keys and with them new pods, one replica after the other. On the Secret
/// with the keys it is the value for which they were made.
pub const ROTATE_KEYS: &str = "swiftbalancer.io/rotate-keys";
/// Annotation of recorded maps: content hash.
pub const MAP_HASH: &str = "swiftbalancer.io/map-hash";
/// Annotation of recorded maps: the model's served name.
pub const MAP_MODEL: &str = "swiftbalancer.io/model";
/// Annotation of recorded maps: digest of the checkpoint.
pub const MAP_MODEL_DIGEST: &str = "swiftbalancer.io/model-digest";
/// Annotation of recorded maps: revision of the model, if the deployment names one.
pub const MAP_MODEL_REVISION: &str = "swiftbalancer.io/model-revision";
/// Annotation of recorded maps: EP size.
pub const MAP_EP_SIZE: &str = "swiftbalancer.io/ep-size";
/// Annotation of recorded maps: number of the window, and its steps and (token, expert) pairs.
pub const MAP_WINDOW: &str = "swiftbalancer.io/window";
/// Annotation of recorded maps: steps of the window.
pub const MAP_WINDOW_STEPS: &str = "swiftbalancer.io/window-steps";
/// Annotation of recorded maps: (token, expert) pairs of the window.
pub const MAP_WINDOW_PAIRS: &str = "swiftbalancer.io/window-pairs";
/// Annotation of recorded maps: balance ratio with four digits.
pub const MAP_RATIO: &str = "swiftbalancer.io/ratio";
/// Annotation of recorded maps: epoch in the deployment that recorded it.
pub const MAP_EPOCH: &str = "swiftbalancer.io/epoch";

/// Key of a map in a ConfigMap.
pub const MAP_KEY: &str = "map.json";

/// Port of the OpenAI API on coordinators.
pub const API_PORT: i32 = port::API as i32;
/// Port of the admin API on coordinators.
pub const ADMIN_PORT: i32 = port::ADMIN as i32;
/// Port on which ranks register at coordinators.
pub const CONTROL_PORT: i32 = port::CONTROL as i32;

/// Ports of a rank by its place in its process: for steps, and for moves.
#[must_use]
pub fn rank_ports(place: usize) -> [i32; 2] {
    [port::STEP, port::MOVE].map(|port| i32::from(port) + i32::from(port::NEXT_RANK) * place as i32)
}

/// What a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum Role {
    /// Front end of a replica.
    Coordinator,
    /// One or more ranks.
    Rank,
}

/// The Service that clients use.
#[must_use]
pub fn service(deployment: &str) -> String {
    deployment.to_owned()
}

/// Service account of the pods.
#[must_use]
pub fn account(deployment: &str) -> String {
    format!("{deployment}-runtime")
}

/// Secret with the keys.
#[must_use]
pub fn keys(deployment: &str) -> String {
    plan::wire::keys::secret_name(deployment)
}

/// Coordinator pod of a replica, and the headless Service by which its ranks find it.
#[must_use]
pub fn coordinator(deployment: &str, group: usize) -> String {
    format!("{deployment}-{group}-coordinator")
}

/// Disruption budget of a replica.
#[must_use]
pub fn budget(deployment: &str, group: usize) -> String {
    format!("{deployment}-{group}")
}

/// Pod whose first rank is `rank`.
#[must_use]
pub fn rank(deployment: &str, group: usize, rank: usize) -> String {
    format!("{deployment}-{group}-rank-{rank}")
}

/// Deployment, replica and role of the pod of this name, if it has the name of one. Labels, which anybody may change, say nothing
/// of what a pod is.
#[must_use]
pub fn parse_pod(name: &str) -> Option<(&str, usize, Role)> {
    let (rest, role) = if let Some(rest) = name.strip_suffix("-coordinator") {
        (rest, Role::Coordinator)
    } else {
        let (rest, rank) = name.rsplit_once("-rank-")?;
        rank.parse::<u32>().ok()?;
        (rest, Role::Rank)
    };
    let (deployment, group) = rest.rsplit_once('-')?;
    Some((deployment, group.parse().ok()?, role))
}

/// The container of a pod that runs the runtime: others are somebody else's, wherever they stand.
#[must_use]
pub fn is_own_container(role: Role, container: &str) -> bool {
    match role {
        Role::Coordinator => container == "coordinator",
        Role::Rank => container.strip_prefix("rank-").is_some_and(|rank| rank.parse::<u32>().is_ok()),
    }
}

/// ConfigMap of a recorded map.
#[must_use]
pub fn recorded_map(deployment: &str, hash: &str) -> String {
    format!("{deployment}-map-{}", &hash[..hash.len().min(10)])
}

/// Labels of every object of a deployment.
#[must_use]
pub fn labels(deployment: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "swiftbalancer"),
        ("app.kubernetes.io/instance", deployment),
        (MANAGED_BY, MANAGER),
        (DEPLOYMENT, deployment),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Labels of a pod, which Services, disruption budgets and watches select it by.
#[must_use]
pub fn pod_labels(deployment: &str, group: usize, role: Role) -> BTreeMap<String, String> {
    let text: &str = role.into();
    let mut labels = labels(deployment);
    labels.extend([
        ("app.kubernetes.io/component".to_owned(), text.to_owned()),
        (ROLE.to_owned(), text.to_owned()),
        (GROUP.to_owned(), group.to_string()),
    ]);
    labels
}

/// Selects the coordinators of a deployment, or of one of its replicas.
#[must_use]
pub fn coordinators(deployment: &str, group: Option<usize>) -> BTreeMap<String, String> {
    let mut selector: BTreeMap<_, _> = [(DEPLOYMENT, deployment), (ROLE, Role::Coordinator.into())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    if let Some(group) = group {
        selector.insert(GROUP.to_owned(), group.to_string());
    }
    selector
}

/// The same as text, for the scale subresource: one pod of each replica.
#[must_use]
pub fn scale_selector(deployment: &str) -> String {
    let role: &str = Role::Coordinator.into();
    format!("{DEPLOYMENT}={deployment},{ROLE}={role}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_its_name() {
        for deployment in ["tiny-moe", "a", "a-0-coordinator", "a-0-rank-1", "x-rank-2"] {
            for group in [0, 7, 63] {
                let name = coordinator(deployment, group);
                assert_eq!(parse_pod(&name), Some((deployment, group, Role::Coordinator)), "{name}");
                let name = rank(deployment, group, 511);
                assert_eq!(parse_pod(&name), Some((deployment, group, Role::Rank)), "{name}");
            }
        }
        for name in ["", "a", "a-coordinator", "a-0-rank-", "a-0-rank-x", "a-x-coordinator", "coordinator"] {
            assert_eq!(parse_pod(name), None, "{name}");
        }
    }

    /// Of the longest deployment, replica and rank that the definition allows.
    #[test]
    fn no_name_and_no_label_is_longer_than_kubernetes_takes() {
        let deployment = "a".repeat(40);
        let hash = "0".repeat(64);
        let names = [
            service(&deployment),
            account(&deployment),
            keys(&deployment),
            coordinator(&deployment, 63),
            budget(&deployment, 63),
            rank(&deployment, 63, 511),
            recorded_map(&deployment, &hash),
        ];
        assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
        let labels = pod_labels(&deployment, 63, Role::Coordinator);
        assert!(labels.values().all(|value| value.len() <= 63), "{labels:?}");
    }
}
