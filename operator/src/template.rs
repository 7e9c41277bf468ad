//! What users add to pods: a template is read as a pod is, what would break what the operator promises of its pods is refused by
//! name, and the rest is laid over a pod. Pure: no client, no clock.

mod error;
mod fields;
mod merge;
mod metadata;
mod read;
mod restrict;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements, Volume};
use plan::wire::process::port;

pub use error::TemplateError;
use metadata::check_metadata;

use crate::api::MoEDeploymentSpec;
use crate::api::placement::Resources;
use crate::api::pod_template::PodTemplate;
use crate::names::{self, ADMIN_PORT, API_PORT, CONTROL_PORT, Role};

/// What is laid over the pods of a role: it keeps every promise of the operator's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// With the operator's own container under the name that it has in templates.
    spec: PodSpec,
}

/// What is laid over the pods of each role.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlays {
    coordinator: Option<Overlay>,
    rank: Option<Overlay>,
}

impl Overlays {
    /// Reads the templates of a specification.
    ///
    /// # Errors
    /// What is wrong in them, the first of it.
    pub fn read(spec: &MoEDeploymentSpec) -> Result<Self, TemplateError> {
        let of = |template: Option<&PodTemplate>, role| {
            template.map(|template| read::read(template, &Own::of(role, spec))).transpose()
        };
        Ok(Self {
            coordinator: of(spec.coordinator.pod_template.as_ref(), Role::Coordinator)?,
            rank: of(spec.ranks.pod_template.as_ref(), Role::Rank)?,
        })
    }

    /// What is laid over the pods of a role.
    #[must_use]
    pub const fn of(&self, role: Role) -> Option<&Overlay> {
        match role {
            Role::Coordinator => self.coordinator.as_ref(),
            Role::Rank => self.rank.as_ref(),
        }
    }

    /// Folders of nodes that the templates mount, each with where it is named.
    #[must_use]
    pub fn host_paths(&self) -> Vec<(String, &str)> {
        let roles = [(Role::Coordinator, &self.coordinator), (Role::Rank, &self.rank)];
        let overlays = roles.into_iter().filter_map(|(role, overlay)| Some((role, overlay.as_ref()?)));
        let volumes = overlays
            .flat_map(|(role, overlay)| overlay.spec.volumes.iter().flatten().map(move |volume| (role, volume)));
        let of = |(role, volume): (Role, &Volume)| {
            format!("{}.spec.volumes[{}].hostPath.path", at(role), error::shorten(&volume.name))
        };
        volumes
            .filter_map(|(role, volume)| Some((of((role, volume)), volume.host_path.as_ref()?.path.as_str())))
            .collect()
    }
}

/// Checks everything of a specification that is read as Kubernetes reads it, and gives what is laid over pods.
///
/// # Errors
/// The first that is wrong.
pub fn check(spec: &MoEDeploymentSpec) -> Result<Overlays, TemplateError> {
    let of_role = [
        (Role::Coordinator, "coordinator.resources", &spec.coordinator.resources),
        (Role::Rank, "ranks.resources", &spec.ranks.resources),
    ];
    for (role, at, resources) in of_role {
        let Resources { requests, limits } = resources;
        let asked = ResourceRequirements {
            requests: Some(requests.clone()),
            limits: Some(limits.clone()),
            ..ResourceRequirements::default()
        };
        restrict::resources(Some(&asked), at, &Own::of(role, spec))?;
    }
    check_metadata("service", &spec.service.labels, &spec.service.annotations)?;
    Overlays::read(spec)
}

/// What the operator itself gives the pods of a role.
struct Own<'a> {
    role: Role,
    /// Where the template is in a specification.
    at: &'static str,
    ports: BTreeSet<i32>,
    /// Name of the resource under which nodes offer GPUs.
    gpu_resource_name: &'a str,
}

impl<'a> Own<'a> {
    fn of(role: Role, spec: &'a MoEDeploymentSpec) -> Self {
        let ports = match role {
            Role::Coordinator => [API_PORT, ADMIN_PORT, CONTROL_PORT].into(),
            Role::Rank => {
                let ranks = usize::try_from(spec.gpus_per_pod).unwrap_or_default().max(1);
                (0..ranks).flat_map(names::rank_ports).chain([i32::from(port::HEALTH)]).collect()
            }
        };
        Self { role, at: at(role), ports, gpu_resource_name: &spec.gpu_resource_name }
    }

    /// The name of the operator's own container in templates: the pods of ranks number theirs.
    fn container(&self) -> &'static str {
        self.role.into()
    }
}

const fn at(role: Role) -> &'static str {
    match role {
        Role::Coordinator => "coordinator.podTemplate",
        Role::Rank => "ranks.podTemplate",
    }
}
