//! Everything that a reconcile knows when it decides: what was read, at one time. Plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use plan::wire::{DownloadDocument, RecordedMap, State};

use crate::api::MoEDeploymentSpec;
use crate::host_paths::AllowedHostPaths;
use crate::keys::{Keys, StoredKeys};
use crate::pods::Member;
use crate::reach::Sighting;

/// Images of the runtime for deployments that name none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeImages {
    /// Of those without GPUs.
    pub cpu: String,
    /// Of those with, if there is one.
    pub gpu: Option<String>,
}

impl RuntimeImages {
    /// The image of a deployment, if there is one.
    #[must_use]
    pub fn of<'a>(&'a self, spec: &'a MoEDeploymentSpec) -> Option<&'a str> {
        let usual = if spec.gpus_per_pod > 0 { self.gpu.as_deref() } else { Some(self.cpu.as_str()) };
        spec.runtime.image.as_deref().or(usual)
    }
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The time at which it was observed.
    pub now: Timestamp,
    /// Images of the runtime that the operator was configured with.
    pub images: RuntimeImages,
    /// Folders of nodes that the operator allows to be mounted.
    pub allowed_host_paths: AllowedHostPaths,
    /// Keys of the deployment, if it controls a Secret of their name.
    pub keys: Option<StoredKeys>,
    /// Keys drawn for this pass, for where new ones are needed.
    pub fresh_keys: Keys,
    /// How long a node may be out of reach before its pods are replaced.
    pub node_lost_after: SignedDuration,
    /// Pods that the deployment controls, by name.
    pub members: BTreeMap<String, Member>,
    /// Names of objects of a deployment of this name that was deleted, which the garbage collector has not come to yet.
    pub predecessors: BTreeSet<String>,
    /// Services that the deployment controls, by name.
    pub services: BTreeMap<String, Arc<Service>>,
    /// Service accounts that the deployment controls, by name.
    pub accounts: BTreeMap<String, Arc<ServiceAccount>>,
    /// Disruption budgets that the deployment controls, by name.
    pub budgets: BTreeMap<String, Arc<PodDisruptionBudget>>,
    /// Recorded maps of the namespace, whoever owns them, by name; without their content.
    pub maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Recorded maps that other deployments start from.
    pub maps_in_use: BTreeSet<String>,
    /// What `expertMapRef` leads to.
    pub reference: Reference,
    /// How far downloads are, by the identity of their pods.
    pub downloads: BTreeMap<String, DownloadView>,
    /// Whether nodes are watched; if they are not, there are none.
    pub watches_nodes: bool,
    /// Nodes, by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// Since when nodes are seen as they are, by name.
    pub sightings: BTreeMap<String, Sighting>,
    /// What the coordinators say, by replica.
    pub runtimes: BTreeMap<usize, RuntimeView>,
    /// What the coordinators say that cannot be read, by replica.
    pub unreadable: BTreeMap<usize, Unreadable>,
}

/// What a download says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadView {
    /// How far it is.
    pub document: DownloadDocument,
    /// When it last came further, if it has since it was heard first.
    pub advanced: Option<Timestamp>,
}

/// What `expertMapRef` leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// Nothing is referred to.
    None,
    /// The ConfigMap does not exist.
    Missing {
        /// Its name.
        config_map: String,
    },
    /// The deployment does not exist, or has not recorded a map.
    NotRecorded {
        /// Its name.
        deployment: String,
    },
    /// A ConfigMap.
    Found(Arc<ConfigMap>),
}

/// An answer of a coordinator that cannot be read: it is of a release that tells what this one does not know, or no
/// coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Which answer, and what was found, in few words.
    pub found: String,
    /// Whether it is the map that it recorded last: everything else is read then.
    pub is_map: bool,
}

/// What a coordinator says.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeView {
    /// The pod that said it.
    pub pod_uid: String,
    /// When it said it last.
    pub heard: Timestamp,
    /// Its state.
    pub state: Arc<State>,
    /// The map it recorded last.
    pub recorded: Option<Arc<RecordedMap>>,
    /// Whether that map is larger than is read, and left out here.
    pub recorded_too_large: bool,
}
