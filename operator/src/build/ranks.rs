//! A rank pod: one container with one process, of one rank on the CPU or of as many as the pod has GPUs. A container that saw one of
//! several GPUs would not reach the memory of the others.

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodResourceClaim, ResourceClaim,
    ResourceRequirements, TopologySpreadConstraint, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use plan::wire::keys::GROUP_SECRET;
use plan::wire::path;
use plan::wire::process::{WorkerCommand, backend, port, variable};

use super::mounts;
use super::pod::{self, Identity};
use crate::api::placement::Exchange;
use crate::names::{self, Role};
use crate::validate::Checked;

/// Shared memory of each pod whose ranks may use NCCL, where the specification does not say.
const SHARED_MEMORY: &str = "1Gi";
/// How long a pod may take until its process answers, where the specification does not say.
const STARTUP_SECONDS: i32 = 1800;

pub(super) fn build(checked: &Checked, identity: &Identity<'_>, first: usize) -> Pod {
    let mut pod = pod::pod(checked, identity, vec![container(checked, identity, first)]);
    if let Some(spec) = &mut pod.spec {
        let is_spread = checked.deployment.spec.placement_of(Role::Rank).spread.is_over_nodes();
        spec.topology_spread_constraints = is_spread.then(|| vec![spread(checked, identity.group)]);
        spec.volumes.get_or_insert_default().extend(shared_memory(checked));
        let template = checked.deployment.spec.gpu_claim_template_name.clone();
        spec.resource_claims = template.map(|template| vec![gpu_claim(template)]);
    }
    pod
}

fn container(checked: &Checked, identity: &Identity<'_>, first: usize) -> Container {
    let health = i32::from(port::HEALTH);
    let (spec, shape) = (&checked.deployment.spec, checked.shape);
    let mut container = pod::container(checked, identity, format!("rank-{first}"), &spec.ranks.resources);
    container.args = Some(command(checked, identity, first).arguments());
    let of_its_pod = [of_pod(variable::ADDRESS, "status.podIP"), of_pod(variable::NODE, "spec.nodeName")];
    container.env.get_or_insert_default().splice(0..0, of_its_pod);
    let of_rank = |place: usize| {
        let [step, moves] = names::rank_ports(place);
        [pod::port(format!("step-{place}"), step), pod::port(format!("move-{place}"), moves)]
    };
    let ports = (0..shape.ranks_per_pod).flat_map(of_rank);
    container.ports = Some(ports.chain([pod::port("health-0".to_owned(), health)]).collect());
    // Nothing else is probed while a process starts, however slow its storage is.
    let startup = spec.ranks.startup_seconds.unwrap_or(STARTUP_SECONDS);
    container.startup_probe = Some(pod::probe(path::LIVEZ, health, 1, startup));
    container.liveness_probe = Some(pod::probe(path::LIVEZ, health, 10, 6));
    container.readiness_probe = Some(pod::probe(path::READYZ, health, 1, 2));
    if shape.gpus_per_rank > 0 {
        let gpus = shape.gpus_per_rank * shape.ranks_per_pod;
        let resources = container.resources.get_or_insert_with(ResourceRequirements::default);
        if spec.gpu_claim_template_name.is_some() {
            let claim = ResourceClaim { name: mounts::GPU_CLAIM.to_owned(), ..ResourceClaim::default() };
            resources.claims = Some(vec![claim]);
        } else {
            let gpus = (spec.gpu_resource_name.clone(), Quantity(gpus.to_string()));
            resources.limits.get_or_insert_default().extend([gpus]);
        }
    }
    let shared = shared_memory(checked).map(|volume| pod::mount(&volume.name, mounts::SHARED_MEMORY, false));
    container.volume_mounts.get_or_insert_default().extend(shared);
    container
}

/// Whether its ranks may exchange rows through NCCL.
const fn has_nccl(checked: &Checked) -> bool {
    let exchange = checked.deployment.spec.ranks.exchange;
    checked.shape.gpus_per_rank > 0 && matches!(exchange, Exchange::Auto | Exchange::Nccl)
}

/// What NCCL keeps in memory that its threads and their peers share: container runtimes give a pod 64 MiB of it, which its documentation
/// says is too little. It counts as memory of the container as it comes into use.
fn shared_memory(checked: &Checked) -> Option<Volume> {
    let asked = checked.deployment.spec.ranks.shared_memory.as_deref();
    let size = asked.or_else(|| has_nccl(checked).then_some(SHARED_MEMORY))?;
    let source = EmptyDirVolumeSource {
        medium: Some("Memory".to_owned()),
        size_limit: Some(Quantity(size.to_owned())),
        ..EmptyDirVolumeSource::default()
    };
    Some(Volume { name: mounts::volume::SHARED_MEMORY.to_owned(), empty_dir: Some(source), ..Volume::default() })
}

fn gpu_claim(template: String) -> PodResourceClaim {
    PodResourceClaim {
        name: mounts::GPU_CLAIM.to_owned(),
        resource_claim_template_name: Some(template),
        ..PodResourceClaim::default()
    }
}

fn command(checked: &Checked, identity: &Identity<'_>, first: usize) -> WorkerCommand {
    let (spec, shape) = (&checked.deployment.spec, checked.shape);
    WorkerCommand {
        model: pod::model_path(&spec.model.source),
        rank: first,
        ranks_here: shape.ranks_per_pod,
        coordinator: names::coordinator(&checked.name, identity.group),
        advertise_address: format!("$({})", variable::ADDRESS),
        // A pod whose GPUs are not to be seen says so, instead of computing without them.
        backend: (shape.gpus_per_rank > 0).then_some(backend::CUDA),
        exchange: (!spec.ranks.exchange.is_auto()).then(|| spec.ranks.exchange.into()),
        threads: spec.ranks.threads.map(pod::number),
        kv_blocks: spec.ranks.kv_blocks.map(pod::number),
        block_tokens: spec.ranks.block_tokens.map(pod::number),
        enforce_eager: spec.ranks.enforce_eager,
        secret_file: pod::key_file(identity, GROUP_SECRET),
        process: pod::process(spec),
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
