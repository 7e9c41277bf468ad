//! A rank pod: one rank on the CPU, or as many as the pod has GPUs, each in a container of its own with one GPU.

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, ResourceRequirements, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use plan::wire::keys::GROUP_SECRET;
use plan::wire::path;
use plan::wire::process::{WorkerCommand, port, variable};

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
    let ports = Ports::at(offset);
    let health = i32::from(ports.health);
    let spec = &checked.deployment.spec;
    let mut container = pod::container(checked, identity, format!("rank-{rank}"), &spec.ranks.resources);
    container.args = Some(command(checked, identity, rank, ports).arguments());
    let of_its_pod = [of_pod(variable::ADDRESS, "status.podIP"), of_pod(variable::NODE, "spec.nodeName")];
    container.env.get_or_insert_default().splice(0..0, of_its_pod);
    container.ports = Some(vec![
        pod::port(format!("step-{offset}"), i32::from(ports.step)),
        pod::port(format!("move-{offset}"), i32::from(ports.moves)),
        pod::port(format!("health-{offset}"), health),
    ]);
    // A rank reads its experts before it answers: minutes for a large model on slow storage.
    container.startup_probe = Some(pod::probe(path::LIVEZ, health, 1, 1800));
    container.liveness_probe = Some(pod::probe(path::LIVEZ, health, 10, 6));
    container.readiness_probe = Some(pod::probe(path::READYZ, health, 1, 2));
    if checked.shape.gpus_per_rank > 0 {
        let gpus = (spec.gpu_resource_name.clone(), Quantity(checked.shape.gpus_per_rank.to_string()));
        let resources = container.resources.get_or_insert_with(ResourceRequirements::default);
        resources.limits.get_or_insert_default().extend([gpus]);
    }
    container
}

fn command(checked: &Checked, identity: &Identity<'_>, rank: usize, ports: Ports) -> WorkerCommand {
    let spec = &checked.deployment.spec;
    WorkerCommand {
        model: pod::model_path(&spec.model.source),
        rank,
        coordinator: names::coordinator(&checked.name, identity.group),
        step_port: ports.step,
        move_port: ports.moves,
        advertise_address: format!("$({})", variable::ADDRESS),
        health_port: ports.health,
        threads: spec.ranks.threads.map(pod::number),
        kv_blocks: spec.ranks.kv_blocks.map(pod::number),
        secret_file: pod::key_file(identity, GROUP_SECRET),
    }
}

/// Where a rank of a pod is reached.
#[derive(Clone, Copy)]
struct Ports {
    step: u16,
    moves: u16,
    health: u16,
}

impl Ports {
    /// Of the rank at this place in its pod.
    const fn at(place: usize) -> Self {
        let further = port::NEXT_RANK * place as u16;
        Self { step: port::STEP + further, moves: port::MOVE + further, health: port::HEALTH + further }
    }
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
