//! A rank pod: one rank on the CPU, or as many as the pod has GPUs, each in a container of its own with one GPU.

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, ResourceRequirements, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::pod::{self, Identity};
use crate::names::{self, Role};
use crate::validate::Checked;

pub(super) fn build(checked: &Checked, identity: &Identity<'_>, first: usize) -> Pod {
    let ranks = (0..checked.shape.ranks_per_pod).map(|offset| container(checked, identity, first + offset, offset));
    let mut pod = pod::pod(checked, identity, ranks.collect());
    if let Some(spec) = &mut pod.spec {
        spec.runtime_class_name.clone_from(&checked.deployment.spec.placement.runtime_class_name);
        spec.topology_spread_constraints = Some(vec![spread(checked, identity.group)]);
    }
    pod
}

fn container(checked: &Checked, identity: &Identity<'_>, rank: usize, offset: usize) -> Container {
    let ports = offset as i32 * names::PORT_STEP;
    let health = names::HEALTH_PORT + ports;
    let spec = &checked.deployment.spec;
    let mut container = pod::container(checked, identity, format!("rank-{rank}"), &spec.ranks.resources);
    container.args = Some(arguments(checked, identity, rank, ports));
    container.env = Some(vec![of_pod("POD_IP", "status.podIP"), of_pod(names::NODE_VARIABLE, "spec.nodeName")]);
    container.ports = Some(vec![
        pod::port(format!("step-{offset}"), names::STEP_PORT + ports),
        pod::port(format!("move-{offset}"), names::MOVE_PORT + ports),
        pod::port(format!("health-{offset}"), health),
    ]);
    // A rank reads its experts before it answers: minutes for a large model on slow storage.
    container.startup_probe = Some(pod::probe("/livez", health, 1, 1800));
    container.liveness_probe = Some(pod::probe("/livez", health, 10, 6));
    container.readiness_probe = Some(pod::probe("/readyz", health, 1, 2));
    if checked.shape.gpus_per_rank > 0 {
        let gpus = (spec.gpu_resource_name.clone(), Quantity(checked.shape.gpus_per_rank.to_string()));
        let resources = container.resources.get_or_insert_with(ResourceRequirements::default);
        resources.limits.get_or_insert_default().extend([gpus]);
    }
    container
}

fn arguments(checked: &Checked, identity: &Identity<'_>, rank: usize, ports: i32) -> Vec<String> {
    let spec = &checked.deployment.spec;
    let mut arguments = vec!["worker".to_owned()];
    let mut set = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    set("model", pod::model_path(&spec.model.source));
    set("rank", rank.to_string());
    set("coordinator", format!("{}:{}", names::coordinator(&checked.name, identity.group), names::CONTROL_PORT));
    set("listen", format!("0.0.0.0:{}", names::STEP_PORT + ports));
    set("move-listen", format!("0.0.0.0:{}", names::MOVE_PORT + ports));
    set("advertise-address", "$(POD_IP)".to_owned());
    set("health-listen", format!("0.0.0.0:{}", names::HEALTH_PORT + ports));
    if let Some(threads) = spec.ranks.threads {
        set("threads", threads.to_string());
    }
    if let Some(blocks) = spec.ranks.kv_blocks {
        set("kv-blocks", blocks.to_string());
    }
    arguments.extend(pod::keys_arguments(identity));
    arguments
}

/// A variable with a field of the pod that is known only when it runs.
fn of_pod(variable: &str, field_path: &str) -> EnvVar {
    EnvVar {
        name: variable.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: field_path.to_owned(), api_version: None }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// Ranks of a replica go to different nodes as far as possible, so that a node takes few of them with it.
fn spread(checked: &Checked, group: usize) -> TopologySpreadConstraint {
    let role: &str = Role::Rank.into();
    let selector =
        [(names::DEPLOYMENT, checked.name.clone()), (names::GROUP, group.to_string()), (names::ROLE, role.to_owned())];
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(selector.map(|(key, value)| (key.to_owned(), value)).into()),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    }
}
