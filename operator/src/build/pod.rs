//! What coordinator and rank pods have in common: identity, security, the model's volume.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction, HostPathVolumeSource,
    ImageVolumeSource, KeyToPath, LocalObjectReference, PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext,
    PodSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Toleration, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plan::wire::keys::{ADMIN_TOKEN, GROUP_SECRET};
use plan::wire::process::{ProcessOptions, TERMINATION_FILE, variable};

use super::mounts::{KEYS_FOLDER, MODEL, SCRATCH_FOLDER, volume};
use super::{download, metadata};
use crate::api::MoEDeploymentSpec;
use crate::api::model::{ModelSource, ModelSourceType};
use crate::api::placement::{Placement, Resources, RunAs};
use crate::names::{self, Role};
use crate::revision::Wanted;
use crate::validate::Checked;

/// The user that distroless images call nonroot.
const USER: i64 = 65532;
/// Readable by its owner, root, and by the group of the pod's volumes, which is that of [`USER`].
const KEYS_MODE: i32 = 0o440;
/// Where the cluster chooses user and group, by whoever runs in the pod: nobody else reaches its volumes.
const KEYS_MODE_OF_ANY_USER: i32 = 0o444;

/// Which pod is built, and from what.
pub(super) struct Identity<'a> {
    pub name: String,
    pub role: Role,
    pub group: usize,
    pub wanted: &'a Wanted,
    pub image: &'a str,
}

/// A pod without what its role adds.
pub(super) fn pod(checked: &Checked, identity: &Identity<'_>, containers: Vec<Container>) -> Pod {
    let mut metadata = metadata(&checked.deployment, identity.name.clone());
    metadata.labels = Some(names::pod_labels(&checked.name, identity.group, identity.role));
    metadata.annotations = Some(
        [(names::REVISION, identity.wanted.revision.as_str()), (names::IMAGE, identity.image)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    );
    let spec = &checked.deployment.spec;
    let own_account = || names::account(&checked.name);
    let secrets = &spec.runtime.image_pull_secrets;
    Pod {
        metadata,
        spec: Some(PodSpec {
            service_account_name: Some(spec.runtime.service_account_name.clone().unwrap_or_else(own_account)),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some("Always".to_owned()),
            init_containers: download::container(checked, identity).map(|download| vec![download]),
            containers,
            volumes: Some(
                [Some(model(&spec.model.source)), Some(scratch()), keys(checked, identity)]
                    .into_iter()
                    .flatten()
                    .collect(),
            ),
            image_pull_secrets: (!secrets.is_empty())
                .then(|| secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() }).collect()),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: user(spec),
                run_as_group: user(spec),
                fs_group: user(spec),
                // A checkpoint of hundreds of gigabytes is not to be walked at each start.
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            ..placed(spec, identity.role)
        }),
        status: None,
    }
}

/// Where the pods of a role may be, as the specification of a pod that says no more.
#[must_use]
pub fn placed(spec: &MoEDeploymentSpec, role: Role) -> PodSpec {
    let Placement { node_selector, tolerations, priority_class_name, runtime_class_name, spread: _ } =
        spec.placement_of(role);
    // What is said of all pods is the runtime class of those with GPUs.
    let has_runtime_class = role == Role::Rank || spec.coordinator.placement.is_some();
    PodSpec {
        node_selector: (!node_selector.is_empty()).then(|| node_selector.clone()),
        tolerations: (!tolerations.is_empty()).then(|| tolerations.iter().map(toleration).collect()),
        priority_class_name: priority_class_name.clone(),
        runtime_class_name: runtime_class_name.clone().filter(|_| has_runtime_class),
        ..PodSpec::default()
    }
}

/// The user that processes run as, where it is not the cluster that chooses.
fn user(spec: &MoEDeploymentSpec) -> Option<i64> {
    spec.runtime.run_as.is_fixed().then_some(USER)
}

/// What all processes of a deployment are told alike.
pub(super) fn process(spec: &MoEDeploymentSpec) -> ProcessOptions {
    ProcessOptions {
        weights_seed: spec.model.weights_seed.and_then(|seed| u64::try_from(seed).ok()),
        log_format: spec.runtime.log_format.map(Into::into),
    }
}

/// A volume with one key of a Secret, or several, as files of the same names.
pub(super) fn secret(spec: &MoEDeploymentSpec, volume: &str, secret: String, keys: &[&str]) -> Volume {
    let item = |key: &&str| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), ..KeyToPath::default() };
    let mode = match spec.runtime.run_as {
        RunAs::Fixed => KEYS_MODE,
        RunAs::Assigned => KEYS_MODE_OF_ANY_USER,
    };
    let source = SecretVolumeSource {
        secret_name: Some(secret),
        items: Some(keys.iter().map(item).collect()),
        default_mode: Some(mode),
        ..SecretVolumeSource::default()
    };
    Volume { name: volume.to_owned(), secret: Some(source), ..Volume::default() }
}

/// A container that runs the runtime.
pub(super) fn container(checked: &Checked, identity: &Identity<'_>, name: String, resources: &Resources) -> Container {
    Container {
        name,
        image: Some(identity.image.to_owned()),
        image_pull_policy: checked.deployment.spec.runtime.image_pull_policy.map(|policy| {
            let policy: &str = policy.into();
            policy.to_owned()
        }),
        resources: (!resources.is_empty()).then(|| ResourceRequirements {
            requests: (!resources.requests.is_empty()).then(|| resources.requests.clone()),
            limits: (!resources.limits.is_empty()).then(|| resources.limits.clone()),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        // An environment variable, which a release that leaves no last word passes over.
        env: Some(vec![variable_of(variable::TERMINATION_FILE, TERMINATION_FILE)]),
        termination_message_path: Some(TERMINATION_FILE.to_owned()),
        // Where a process was killed before it could say anything, the end of its log is there for whoever describes the pod;
        // the operator reads last words alone.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(
            [
                Some(mount(volume::MODEL, MODEL, true)),
                Some(mount(volume::SCRATCH, SCRATCH_FOLDER, false)),
                keys_mount(identity),
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        ..Container::default()
    }
}

pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn variable_of(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

pub(super) fn port(name: String, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// A probe by HTTP; `failures` in a row, `period_seconds` apart, are a failure.
pub(super) fn probe(path: &str, port: i32, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// Folder of the checkpoint in a container.
pub(super) fn model_path(source: &ModelSource) -> String {
    let path = match source.kind {
        ModelSourceType::PersistentVolumeClaim => {
            source.persistent_volume_claim.as_ref().and_then(|claim| claim.path.as_deref())
        }
        ModelSourceType::HostPath => None,
        ModelSourceType::Image => source.image.as_ref().and_then(|image| image.path.as_deref()),
        ModelSourceType::HuggingFace | ModelSourceType::S3 => {
            return download::folder(source).map_or_else(|| MODEL.to_owned(), |folder| source_file(&folder));
        }
    };
    path.map_or_else(|| MODEL.to_owned(), source_file)
}

/// A file of the model source in a container.
pub(super) fn source_file(path: &str) -> String {
    // A kubelet puts variables into a command line wherever it finds `$(`.
    format!("{MODEL}/{}", path.replace('$', "$$"))
}

fn model(source: &ModelSource) -> Volume {
    if let Some(volume) = source.download_volume() {
        return download::volume(volume);
    }
    Volume {
        name: volume::MODEL.to_owned(),
        persistent_volume_claim: source.persistent_volume_claim.as_ref().map(|claim| {
            PersistentVolumeClaimVolumeSource {
                claim_name: claim.claim_name.clone(),
                read_only: claim.read_only.then_some(true),
            }
        }),
        host_path: source
            .host_path
            .as_ref()
            .map(|host| HostPathVolumeSource { path: host.path.clone(), type_: Some("Directory".to_owned()) }),
        image: source.image.as_ref().map(|image| ImageVolumeSource {
            reference: Some(image.reference.clone()),
            pull_policy: image.pull_policy.map(|policy| {
                let policy: &str = policy.into();
                policy.to_owned()
            }),
        }),
        ..Volume::default()
    }
}

/// The keys that a pod needs, and no others: a rank has no use for the token of the admin API.
fn keys(checked: &Checked, identity: &Identity<'_>) -> Option<Volume> {
    let files: &[&str] = match identity.role {
        Role::Coordinator => &[GROUP_SECRET, ADMIN_TOKEN],
        Role::Rank => &[GROUP_SECRET],
    };
    let volume = || secret(&checked.deployment.spec, volume::KEYS, names::keys(&checked.name), files);
    identity.wanted.with_keys.then(volume)
}

fn keys_mount(identity: &Identity<'_>) -> Option<VolumeMount> {
    identity.wanted.with_keys.then(|| mount(volume::KEYS, KEYS_FOLDER, true))
}

/// The file of one of a pod's keys, if it has any.
pub(super) fn key_file(identity: &Identity<'_>, key: &str) -> Option<String> {
    identity.wanted.with_keys.then(|| format!("{KEYS_FOLDER}/{key}"))
}

/// A number of a specification, none of which may be below 0, as an option has it.
pub(super) fn number(value: impl Into<i64>) -> u64 {
    u64::try_from(value.into()).unwrap_or_default()
}

fn scratch() -> Volume {
    Volume { name: volume::SCRATCH.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

fn toleration(toleration: &crate::api::placement::Toleration) -> Toleration {
    let text = |text: &'static str| text.to_owned();
    Toleration {
        key: toleration.key.clone(),
        operator: toleration.operator.map(|operator| text(operator.into())),
        value: toleration.value.clone(),
        effect: toleration.effect.map(|effect| text(effect.into())),
        toleration_seconds: toleration.toleration_seconds,
    }
}
