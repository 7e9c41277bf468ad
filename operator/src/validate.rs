//! Specification and reads in, either what may be built or the reason why nothing may. Pure: no client, no clock.
//!
//! The rules of the schema are evaluated again, since an object may have been stored under an older definition; the
//! rest of the pipeline relies on them.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use kube::{CustomResourceExt as _, ResourceExt as _};
use plan::wire::MapDocument;
use plan::words::counted;

use crate::api::eplb::ExpertMapRef;
use crate::api::status::{AcceptedStatus, StartMapStatus};
use crate::api::{MoEDeployment, MoEDeploymentSpec};
use crate::decide::revisions;
use crate::gpus::{self, Unlike};
use crate::host_paths::AllowedHostPaths;
use crate::names::{self, Role};
use crate::observed::{Observed, Reference};
use crate::template::{self, Overlays};

/// Dimensions of each replica; they fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// EP size.
    pub ranks: usize,
    /// Ranks of each rank pod.
    pub ranks_per_pod: usize,
    /// GPUs of each rank: 0 or 1.
    pub gpus_per_rank: usize,
    /// Logical experts per layer.
    pub experts: usize,
    /// Extra physical experts per layer.
    pub redundancy: usize,
}

impl Shape {
    /// Slots of each rank and layer.
    #[must_use]
    pub const fn slots_per_rank(&self) -> usize {
        (self.experts + self.redundancy) / self.ranks
    }

    /// Rank pods.
    #[must_use]
    pub const fn rank_pods(&self) -> usize {
        self.ranks / self.ranks_per_pod
    }
}

/// What experts start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartMap {
    /// Evenly spread.
    Even,
    /// A file in the model source.
    InModelSource(String),
    /// A ConfigMap, checked against the deployment.
    ConfigMap {
        /// The reference that led to it.
        reference: ExpertMapRef,
        /// Its name.
        name: String,
        /// Content hash of its map.
        hash: String,
    },
}

/// A deployment that may be built.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Name of the deployment.
    pub name: String,
    /// The deployment.
    pub deployment: MoEDeployment,
    /// Dimensions of each replica.
    pub shape: Shape,
    /// Replicas.
    pub replicas: usize,
    /// What experts start from.
    pub start_map: StartMap,
    /// What users add to its pods.
    pub overlays: Overlays,
    /// Why it could not be built anew: its pods run, and what they need is kept up all the same.
    pub concern: Option<Refusal>,
}

/// Why a deployment may not be built, and what was found in order before that.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// What is wrong, and with what.
    pub refusal: Refusal,
    /// Dimensions, if they are consistent.
    pub shape: Option<Shape>,
    /// The map to start from, if it was looked at and fits.
    pub start_map: Option<StartMap>,
    /// What was accepted last, with as many replicas as are asked for now: it is kept up meanwhile.
    pub serving: Option<Box<Checked>>,
}

/// Why a deployment may not be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It breaks rules of the schema: their messages.
    Specification(Vec<String>),
    /// It mounts a folder of nodes that the operator does not allow.
    HostPathNotAllowed {
        /// Where it is named.
        at: String,
        /// The folder.
        path: String,
        /// Those that are allowed.
        allowed: AllowedHostPaths,
    },
    /// The ConfigMap to start from does not exist.
    MapMissing {
        /// Its name.
        config_map: String,
    },
    /// The deployment to start from has no recorded map.
    MapNotRecorded {
        /// Its name.
        deployment: String,
    },
    /// The ConfigMap to start from holds no valid map.
    MapInvalid {
        /// Its name.
        config_map: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The map to start from was made for something else.
    MapIncompatible {
        /// The ConfigMap's name.
        config_map: String,
        /// What differs.
        difference: String,
    },
    /// The cluster has too few GPUs.
    InsufficientGpus {
        /// Name of the resource.
        resource: String,
        /// How many are needed.
        needed: u64,
        /// How many all nodes together have for pods of as many.
        offered: u64,
        /// GPUs of a pod.
        per_pod: u64,
    },
    /// No node has as many GPUs as a pod.
    GpusPerPodTooMany {
        /// Name of the resource.
        resource: String,
        /// GPUs of a pod.
        per_pod: u64,
        /// The most that a node offers.
        most: u64,
    },
    /// The nodes have GPUs that are not alike.
    GpusNotAlike(Unlike),
    /// There is no image of a runtime that computes on GPUs.
    GpusNotSupported,
}

/// Checks a deployment against its own rules, the map it starts from, the GPUs of the cluster and what the runtime can use.
/// All but its own rules and the folders of nodes are for new pods: what runs as specified is kept up, since it needs neither
/// again. GPUs that are missing are no reason to create no pods, since an autoscaler adds nodes for pods that wait; they are one to
/// leave what serves as it is. A folder is mounted by each pod, so it must be allowed when a pod is made, whatever ran before.
///
/// # Errors
/// The first reason why it may not be built.
#[expect(clippy::result_large_err, reason = "made once in a pass and handed on by reference")]
pub fn validate(deployment: &MoEDeployment, observed: &Observed) -> Result<Checked, Refused> {
    let refuse =
        |refusal, shape, start_map| Refused { refusal, shape, start_map, serving: accepted(deployment, observed) };
    let broken = broken_rules(deployment);
    if !broken.is_empty() {
        return Err(refuse(Refusal::Specification(broken), None, None));
    }
    let overlays = match template::check(&deployment.spec) {
        Ok(overlays) => overlays,
        Err(error) => return Err(refuse(Refusal::Specification(vec![error.to_string()]), None, None)),
    };
    let shape = shape(deployment);
    if let Err(refusal) = host_paths(deployment, &overlays, &observed.allowed_host_paths) {
        return Err(refuse(refusal, Some(shape), None));
    }
    let checked = |start_map, concern| Checked {
        name: deployment.name_any(),
        deployment: deployment.clone(),
        shape,
        replicas: size(deployment.spec.replicas),
        start_map,
        overlays: overlays.clone(),
        concern,
    };
    let found = start_map(deployment, shape, &observed.reference);
    let replicas = size(deployment.spec.replicas);
    let resources = || {
        gpus::check(&deployment.spec, shape, replicas, observed)?;
        if shape.gpus_per_rank > 0 && observed.images.of(&deployment.spec).is_none() {
            return Err(Refusal::GpusNotSupported);
        }
        Ok(())
    };
    let (start_map, refusal) = match found {
        Ok(start_map) => match resources() {
            Ok(()) => return Ok(checked(start_map, None)),
            // Pods that wait for nodes are what makes an autoscaler add some.
            Err(lack @ (Refusal::InsufficientGpus { .. } | Refusal::GpusPerPodTooMany { .. }))
                if !serves_otherwise(&checked(start_map.clone(), None), observed) =>
            {
                return Ok(checked(start_map, Some(lack)));
            }
            Err(refusal) => (Some(start_map), refusal),
        },
        Err(refusal) => (None, refusal),
    };
    let running = start_map.clone().or_else(|| started(deployment)).map(|start| checked(start, Some(refusal.clone())));
    running.filter(|checked| runs(checked, observed)).ok_or_else(|| refuse(refusal, Some(shape), start_map))
}

/// What was accepted last, if it can be kept up: what runs needs neither its map again nor GPUs that are free.
fn accepted(deployment: &MoEDeployment, observed: &Observed) -> Option<Box<Checked>> {
    let AcceptedStatus { spec, start_map } = deployment.status.as_ref()?.accepted.clone()?;
    let mut kept = deployment.clone();
    let (replicas, paused) = (deployment.spec.replicas, deployment.spec.paused);
    kept.spec = MoEDeploymentSpec { replicas, paused, ..serde_json::from_value(spec).ok()? };
    if !broken_rules(&kept).is_empty() {
        return None;
    }
    let overlays = template::check(&kept.spec).ok()?;
    host_paths(&kept, &overlays, &observed.allowed_host_paths).ok()?;
    let eplb = &kept.spec.eplb;
    let start_map = match (start_map, &eplb.expert_map_path) {
        (Some(StartMapStatus { reference, config_map: name, hash }), _) => {
            StartMap::ConfigMap { reference, name, hash }
        }
        (None, Some(path)) => StartMap::InModelSource(path.clone()),
        (None, None) => StartMap::Even,
    };
    let (name, shape, replicas) = (kept.name_any(), shape(&kept), size(replicas));
    Some(Box::new(Checked { name, deployment: kept, shape, replicas, start_map, overlays, concern: None }))
}

/// The map that the deployment has started from, if it is the one that it asks for.
fn started(deployment: &MoEDeployment) -> Option<StartMap> {
    let asked = deployment.spec.eplb.expert_map_ref.as_ref()?;
    let started = deployment.status.as_ref()?.start_map.clone()?;
    let StartMapStatus { reference, config_map: name, hash } = started;
    (reference == *asked).then_some(StartMap::ConfigMap { reference, name, hash })
}

/// Whether there are pods of just this specification.
fn runs(checked: &Checked, observed: &Observed) -> bool {
    let revisions = revisions(checked, observed);
    observed.members.values().any(|member| revisions.include(member))
}

/// Whether a replica of another specification serves, which would be taken for one that may wait for nodes for ever.
fn serves_otherwise(checked: &Checked, observed: &Observed) -> bool {
    let revisions = revisions(checked, observed);
    let mut members = observed.members.values();
    members.any(|member| member.role == Role::Coordinator && member.ready && !revisions.include(member))
}

static SCHEMA: LazyLock<CompiledSchema> = LazyLock::new(|| {
    let definition = MoEDeployment::crd();
    let schema = definition.spec.versions.first().and_then(|version| version.schema.as_ref());
    let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()).expect("the definition has a schema");
    compile_schema(&serde_json::to_value(schema).expect("a schema is plain data"))
});

fn broken_rules(deployment: &MoEDeployment) -> Vec<String> {
    let object = serde_json::to_value(deployment).expect("a deployment is plain data");
    match Validator::new().validate_compiled(&SCHEMA, &object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

fn shape(deployment: &MoEDeployment) -> Shape {
    let spec = &deployment.spec;
    Shape {
        ranks: size(spec.parallelism.tensor) * size(spec.parallelism.data),
        ranks_per_pod: size(spec.gpus_per_pod).max(1),
        gpus_per_rank: usize::from(spec.gpus_per_pod > 0),
        experts: size(spec.model.experts),
        redundancy: size(spec.eplb.init_redundancy_expert),
    }
}

fn host_paths(deployment: &MoEDeployment, overlays: &Overlays, allowed: &AllowedHostPaths) -> Result<(), Refusal> {
    let source = deployment.spec.model.source.host_path.as_ref();
    let of_source = source.map(|host| ("model.source.hostPath.path".to_owned(), host.path.as_str()));
    let mut asked = of_source.into_iter().chain(overlays.host_paths());
    asked.find(|(_, path)| !allowed.allows(path)).map_or(Ok(()), |(at, path)| {
        Err(Refusal::HostPathNotAllowed { at, path: path.to_owned(), allowed: allowed.clone() })
    })
}

fn start_map(deployment: &MoEDeployment, shape: Shape, reference: &Reference) -> Result<StartMap, Refusal> {
    let eplb = &deployment.spec.eplb;
    if let Some(path) = &eplb.expert_map_path {
        return Ok(StartMap::InModelSource(path.clone()));
    }
    let Some(asked) = &eplb.expert_map_ref else { return Ok(StartMap::Even) };
    match reference {
        Reference::None => Ok(StartMap::Even),
        Reference::Missing { config_map } => Err(Refusal::MapMissing { config_map: config_map.clone() }),
        Reference::NotRecorded { deployment } => Err(Refusal::MapNotRecorded { deployment: deployment.clone() }),
        Reference::Found(config_map) => {
            let hash = compatible(config_map, deployment, shape)?;
            Ok(StartMap::ConfigMap { reference: asked.clone(), name: config_map.name_any(), hash })
        }
    }
}

/// Content hash of a ConfigMap's map, if it is one for this deployment.
fn compatible(config_map: &ConfigMap, deployment: &MoEDeployment, shape: Shape) -> Result<String, Refusal> {
    let name = config_map.name_any();
    let invalid = |problem: String| Refusal::MapInvalid { config_map: name.clone(), problem };
    let json = config_map.data.as_ref().and_then(|data| data.get(names::MAP_KEY));
    let json = json.ok_or_else(|| invalid(format!("it has no key {:?}", names::MAP_KEY)))?;
    let map = MapDocument::from_json(json.as_bytes()).map_err(|error| invalid(error.to_string()))?;
    let served = &deployment.spec.model.name;
    let slots = shape.slots_per_rank();
    let mut differences = Vec::new();
    if !map.model.name.is_empty() && map.model.name != *served {
        differences.push(format!("it was made for model {:?}, not {served:?}", map.model.name));
    }
    if map.model.experts != shape.experts {
        differences.push(format!(
            "its model has {} per layer, not {}",
            counted(map.model.experts, "expert"),
            shape.experts
        ));
    }
    if map.ranks != shape.ranks {
        differences.push(format!("its EP size is {}, not {}", map.ranks, shape.ranks));
    }
    if map.slots_per_rank != slots {
        differences.push(format!("its ranks have {} per layer, not {slots}", counted(map.slots_per_rank, "slot")));
    }
    if map.slots_of_ranks.is_some() {
        differences.push("its ranks have unequal numbers of slots, those that serve have equally many".to_owned());
    }
    if !differences.is_empty() {
        return Err(Refusal::MapIncompatible { config_map: name, difference: differences.join("; ") });
    }
    map.to_map(&map.model).map_err(|error| invalid(error.to_string()))?;
    Ok(map.content_hash())
}

/// A number that the schema bounds from below by 0.
fn size(value: i32) -> usize {
    usize::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use plan::map::MapShape;

    use super::*;

    #[test]
    fn an_object_stored_under_an_older_definition_is_refused_and_does_not_divide_by_zero() {
        let mut deployment: MoEDeployment =
            serde_saphyr::from_str(include_str!("../../examples/tiny-moe.yaml")).unwrap();
        deployment.spec.parallelism.tensor = 0;
        assert!(broken_rules(&deployment).iter().any(|message| message.contains("tensor parallelism")));
    }

    #[test]
    fn slots_follow_from_experts_redundancy_and_ranks() {
        let deployment: MoEDeployment = serde_saphyr::from_str(include_str!("../../examples/tiny-moe.yaml")).unwrap();
        let shape = shape(&deployment);
        assert_eq!((shape.ranks, shape.rank_pods(), shape.slots_per_rank()), (4, 4, 9));
        let map = MapShape::with_redundancy(1, shape.experts, shape.ranks, shape.redundancy).unwrap();
        assert_eq!(map.slots_per_rank, shape.slots_per_rank());
    }
}
