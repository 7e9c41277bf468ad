//! What the values of a template's fields may be, beside that Kubernetes takes them: nothing that takes the place of what the
//! operator gives, no GPU behind its back, nothing that makes a pod of a deployment privileged.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Capabilities, Container, PodSpec, ResourceRequirements, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use plan::wire::keys::FOLDER;
use plan::wire::process::{TERMINATION_FILE, variable};

use super::Own;
use super::error::{TemplateError, shorten};
use super::metadata::is_dns_label;
use crate::build::mounts::{
    API_KEYS_FOLDER, DOWNLOAD, GPU_CLAIM, MAP_FOLDER, MODEL, SCRATCH_FOLDER, SHARED_MEMORY, volume,
};
use crate::gpus::is_gpu;
use crate::names::Role;

/// Volumes of the operator's own, and how each is changed.
const VOLUMES: [(&str, &str); 5] = [
    (volume::MODEL, "set model.source"),
    (volume::KEYS, "the operator makes the keys, and rotates them"),
    (volume::EXPERT_MAP, "set eplb.expertMapRef"),
    (volume::SHARED_MEMORY, "set ranks.sharedMemory"),
    (volume::API_KEYS, "set coordinator.apiKeySecretRef"),
];
/// Variables of the operator's own.
const VARIABLES: [&str; 3] = [variable::ADDRESS, variable::NODE, variable::TERMINATION_FILE];
/// Variables by which a container runtime gives a container GPUs, or hides some that it has.
const GPU_VARIABLES: [&str; 2] = ["NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"];
/// Folders in the operator's own container in whose place, or around which, nothing else is mounted.
const FOLDERS: [(&str, &str); 7] = [
    (MODEL, "the checkpoint is there: set model.source"),
    (FOLDER, "the keys are there"),
    (MAP_FOLDER, "the expert map is there: set eplb.expertMapRef"),
    (API_KEYS_FOLDER, "the keys of the public API are there: set coordinator.apiKeySecretRef"),
    (SHARED_MEMORY, "shared memory is there: set ranks.sharedMemory"),
    (TERMINATION_FILE, "the last word of its process is there"),
    (SCRATCH_FOLDER, "the volume scratch is there: give a volume of that name in the template"),
];
/// Capabilities that give a container its node.
const CAPABILITIES: [&str; 10] = [
    "ALL",
    "BPF",
    "DAC_READ_SEARCH",
    "MKNOD",
    "NET_ADMIN",
    "PERFMON",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_RAWIO",
];
/// Names of ports by which Services and monitors find those of the operator.
const PORT_NAMES: [&str; 3] = ["http", "admin", "control"];
const PORT_PREFIXES: [&str; 3] = ["step-", "move-", "health-"];

const UNPRIVILEGED: &str = "pods of a deployment are unprivileged";

pub(super) fn restrict(spec: &PodSpec, own: &Own<'_>) -> Result<(), TemplateError> {
    let at = format!("{}.spec", own.at);
    resources(spec.resources.as_ref(), &format!("{at}.resources"), own)?;
    dns(spec, &at, own)?;
    let claims = || spec.resource_claims.iter().flatten().map(|claim| claim.name.as_str());
    once(claims(), |name| format!("{at}.resourceClaims[{}]", shorten(name)))?;
    if own.role == Role::Rank && claims().any(|name| name == GPU_CLAIM) {
        let instead = "the claim of a rank pod's GPUs is called so: set gpuClaimTemplateName, or choose another name";
        return Err(TemplateError::owned(format!("{at}.resourceClaims[{GPU_CLAIM}]"), instead));
    }
    let volumes = volumes(spec, &at)?;
    let mut names = BTreeSet::new();
    let lists = [("containers", Some(&spec.containers)), ("initContainers", spec.init_containers.as_ref())];
    for (list, containers) in lists {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let at = format!(
                "{at}.{list}[{}]",
                if container.name.is_empty() { index.to_string() } else { shorten(&container.name) }
            );
            if !names.insert(container.name.as_str()) {
                return Err(TemplateError::Twice { at });
            }
            let is_own = list == "containers" && container.name == own.container();
            each(container, &at, own)?;
            mounts(container, &at, is_own, &volumes)?;
            if is_own { of_own(container, &at, own)? } else { beside(container, &at, own)? }
        }
    }
    Ok(())
}

/// What no container of a pod may have.
fn each(container: &Container, at: &str, own: &Own<'_>) -> Result<(), TemplateError> {
    if !is_dns_label(&container.name) {
        let problem = "a container is named with at most 63 lower-case letters, digits and '-'";
        return Err(TemplateError::value(format!("{at}.name"), &container.name, problem));
    }
    resources(container.resources.as_ref(), &format!("{at}.resources"), own)?;
    privileges(container.security_context.as_ref(), &format!("{at}.securityContext"))?;
    let variables = container.env.iter().flatten().map(|variable| variable.name.as_str());
    once(variables.clone(), |name| format!("{at}.env[{}]", shorten(name)))?;
    let gpus = variables.into_iter().find(|name| GPU_VARIABLES.contains(name));
    gpus.map_or(Ok(()), |name| {
        let instead = "the GPUs of a rank are those that gpusPerPod asks for";
        Err(TemplateError::owned(format!("{at}.env[{name}]"), instead))
    })
}

/// The operator's own container.
fn of_own(container: &Container, at: &str, own: &Own<'_>) -> Result<(), TemplateError> {
    if let Some(variable) = container.env.iter().flatten().find(|variable| VARIABLES.contains(&variable.name.as_str()))
    {
        let instead = "the process is told by it what it is";
        return Err(TemplateError::owned(format!("{at}.env[{}]", variable.name), instead));
    }
    let instead = match own.role {
        Role::Coordinator => "set coordinator.resources",
        Role::Rank => "set ranks.resources",
    };
    let ResourceRequirements { claims: _, limits, requests } = container.resources.clone().unwrap_or_default();
    for (name, quantities) in [("limits", limits), ("requests", requests)] {
        if quantities.is_some() {
            return Err(TemplateError::owned(format!("{at}.resources.{name}"), instead));
        }
    }
    Ok(())
}

/// A container beside the operator's own.
fn beside(container: &Container, at: &str, own: &Own<'_>) -> Result<(), TemplateError> {
    if container.name == "coordinator" || container.name == "rank" || container.name.starts_with("rank-") {
        let instead = match own.role {
            Role::Coordinator => "the container of a coordinator is called coordinator, under containers",
            Role::Rank => "the container of ranks is called rank in a template, in every pod of them, under containers",
        };
        return Err(TemplateError::owned(at.to_owned(), instead));
    }
    if container.name == DOWNLOAD {
        return Err(TemplateError::owned(
            at.to_owned(),
            "the container that downloads the checkpoint is called so: choose another name",
        ));
    }
    if container.image.as_ref().is_none_or(String::is_empty) {
        let why = "a container beside the operator's own has an image of its own";
        return Err(TemplateError::Missing { at: format!("{at}.image"), why });
    }
    for port in container.ports.iter().flatten() {
        let at = || format!("{at}.ports[{}]", port.container_port);
        if own.ports.contains(&port.container_port) {
            return Err(TemplateError::owned(
                at(),
                "containers of a pod share their ports, and the operator's own listens there",
            ));
        }
        let is_own = |name: &String| {
            PORT_NAMES.contains(&name.as_str()) || PORT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        };
        if port.name.as_ref().is_some_and(is_own) {
            return Err(TemplateError::owned(
                at(),
                "ports of the operator's own container have such names: choose another",
            ));
        }
    }
    Ok(())
}

fn volumes(spec: &PodSpec, at: &str) -> Result<BTreeSet<String>, TemplateError> {
    let names = spec.volumes.iter().flatten().map(|volume| volume.name.as_str());
    once(names.clone(), |name| format!("{at}.volumes[{}]", shorten(name)))?;
    for name in names.clone() {
        let at = format!("{at}.volumes[{}]", shorten(name));
        if let Some((_, instead)) = VOLUMES.iter().find(|(own, _)| *own == name) {
            return Err(TemplateError::owned(at, instead));
        }
        if !is_dns_label(name) {
            let problem = "a volume is named with at most 63 lower-case letters, digits and '-'";
            return Err(TemplateError::value(format!("{at}.name"), name, problem));
        }
    }
    Ok(names.chain([volume::SCRATCH]).map(str::to_owned).collect())
}

fn mounts(container: &Container, at: &str, is_own: bool, volumes: &BTreeSet<String>) -> Result<(), TemplateError> {
    let mounts = || container.volume_mounts.iter().flatten();
    once(mounts().map(|mount| mount.mount_path.as_str()), |path| format!("{at}.volumeMounts[{}]", shorten(path)))?;
    for mount in mounts() {
        let at = || format!("{at}.volumeMounts[{}]", shorten(&mount.mount_path));
        let VolumeMount { name, mount_path, read_only, .. } = mount;
        if !mount_path.starts_with('/') || mount_path.split('/').any(|part| part == "..") {
            return Err(TemplateError::owned(at(), "a path to mount at is absolute and without '..'"));
        }
        match FOLDERS.iter().find(|(folder, _)| is_own && collides(mount_path, folder)) {
            Some((_, instead)) => return Err(TemplateError::owned(at(), instead)),
            None if name == volume::MODEL && *read_only != Some(true) => {
                return Err(TemplateError::owned(at(), "nobody writes to the checkpoint: set readOnly to true"));
            }
            None if name != volume::MODEL && !volumes.contains(name) => {
                let problem = "it names no volume of the template, nor model or scratch, which every pod has";
                return Err(TemplateError::value(format!("{}.name", at()), name, problem));
            }
            None => {}
        }
    }
    Ok(())
}

/// Whether what is mounted at a path takes the place of a folder, or lies around it. What lies within `/tmp` does not.
fn collides(path: &str, folder: &str) -> bool {
    let parts =
        |path: &str| path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect::<Vec<_>>();
    let (path, own) = (parts(path), parts(folder));
    own.starts_with(&path) || (folder != SCRATCH_FOLDER && path.starts_with(&own))
}

/// A pod on its node's network finds its coordinator through the cluster's names all the same.
fn dns(spec: &PodSpec, at: &str, own: &Own<'_>) -> Result<(), TemplateError> {
    let policy = spec.dns_policy.as_deref();
    let has_names = match policy {
        None | Some("ClusterFirstWithHostNet" | "None") => true,
        Some("ClusterFirst") => spec.host_network != Some(true),
        Some(_) => false,
    };
    if own.role == Role::Rank && !has_names {
        let problem = "ranks find their coordinator by the names of the cluster: take ClusterFirst, or with hostNetwork ClusterFirstWithHostNet";
        return Err(TemplateError::value(format!("{at}.dnsPolicy"), policy.unwrap_or_default(), problem));
    }
    Ok(())
}

pub(super) fn resources(
    resources: Option<&ResourceRequirements>,
    at: &str,
    own: &Own<'_>,
) -> Result<(), TemplateError> {
    let Some(ResourceRequirements { claims: _, limits, requests }) = resources else { return Ok(()) };
    let gpu = |quantities: Option<&BTreeMap<String, Quantity>>| {
        quantities.into_iter().flatten().map(|(name, _)| name).find(|name| is_gpu(name, own.gpu_resource_name)).cloned()
    };
    for (list, quantities) in [("limits", limits), ("requests", requests)] {
        if let Some(name) = gpu(quantities.as_ref()) {
            let instead = "GPUs are asked for by gpusPerPod alone, so that they are counted and used";
            return Err(TemplateError::owned(format!("{at}.{list}[{}]", shorten(&name)), instead));
        }
    }
    Ok(())
}

fn privileges(context: Option<&SecurityContext>, at: &str) -> Result<(), TemplateError> {
    let Some(context) = context else { return Ok(()) };
    if context.privileged == Some(true) {
        return Err(TemplateError::owned(format!("{at}.privileged"), UNPRIVILEGED));
    }
    if context.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
        return Err(TemplateError::owned(format!("{at}.procMount"), UNPRIVILEGED));
    }
    let Capabilities { add, drop: _ } = context.capabilities.clone().unwrap_or_default();
    let bare = |name: &str| name.strip_prefix("CAP_").unwrap_or(name).to_ascii_uppercase();
    let found = add.iter().flatten().find(|name| CAPABILITIES.contains(&bare(name).as_str()));
    found.map_or(Ok(()), |name| {
        Err(TemplateError::owned(format!("{at}.capabilities.add[{}]", shorten(name)), UNPRIVILEGED))
    })
}

/// Refuses names that are there twice.
fn once<'a>(names: impl Iterator<Item = &'a str>, at: impl Fn(&str) -> String) -> Result<(), TemplateError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(TemplateError::Twice { at: at(name) });
        }
    }
    Ok(())
}
