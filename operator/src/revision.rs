//! From what a replica's pods are made, as a hash. Pods of another revision are replaced, so only what the user decided
//! goes in: what a newer operator builds differently, or its default image, must not restart what serves.
//!
//! A field that is added to the specification must be left out of its serialized form while it has its default
//! (`skip_serializing_if`), or every pod restarts when the operator is upgraded; a test pins the hash of an example.
//!
//! The keys go in too, since the members of a group must have the same: new keys replace pods as a new specification does.

use std::fmt::Write as _;

use kube::ResourceExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::api::eplb::{Eplb, Policy};
use crate::api::model::Model;
use crate::api::placement::{Coordinator, Placement, Ranks, Runtime};
use crate::api::{MoEDeploymentSpec, Parallelism};
use crate::keys::Keys;
use crate::names;
use crate::pods::Member;
use crate::validate::{Checked, StartMap};

#[derive(Serialize)]
struct Inputs<'a> {
    model: &'a Model,
    parallelism: Parallelism,
    gpus_per_pod: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_resource_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_claim_template_name: Option<&'a str>,
    runtime: &'a Runtime,
    coordinator: &'a Coordinator,
    ranks: &'a Ranks,
    placement: &'a Placement,
    dynamic_eplb: bool,
    num_iterations_eplb_update: i32,
    num_wait_worker_iterations: i32,
    init_redundancy_expert: i32,
    policy: Policy,
    #[serde(flatten)]
    moves: Moves<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_map: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expert_map_record_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restarted_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
}

/// How experts move.
#[derive(Serialize)]
struct Moves<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum_gain: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    staging_pages: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    move_bytes_per_second: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rebalance_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cool_down_windows: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_coverage: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_node_coverage: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    move_deadline_seconds: Option<i32>,
}

/// Revisions that the pods of a deployment may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revisions {
    with_keys: String,
    /// Of pods that a release made which knew no keys; `None` if these are to go.
    without_keys: Option<String>,
}

/// What the pods of one replica are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Their revision.
    pub revision: String,
    /// Whether they have keys. A release that knew none made the others: an upgrade of the operator does not restart them, and
    /// one that is lost comes back as it was, since with the others it has its image from that release.
    pub with_keys: bool,
}

impl Revisions {
    /// Of the pods of a deployment with these keys.
    #[must_use]
    pub fn new(checked: &Checked, keys: &Keys) -> Self {
        let asked_for_keys = checked.deployment.annotations().contains_key(names::ROTATE_KEYS);
        Self {
            with_keys: revision(checked, Some(keys)),
            without_keys: (!asked_for_keys).then(|| revision(checked, None)),
        }
    }

    /// What the pods of a replica are made from, of which these are there.
    #[must_use]
    pub fn of<'a>(&self, members: impl IntoIterator<Item = &'a Member>) -> Wanted {
        let mut members = members.into_iter().peekable();
        let is_there = members.peek().is_some();
        match &self.without_keys {
            Some(revision) if is_there && members.all(|member| member.revision == *revision) => {
                Wanted { revision: revision.clone(), with_keys: false }
            }
            _ => Wanted { revision: self.with_keys.clone(), with_keys: true },
        }
    }

    /// Whether a pod is of one of these revisions.
    #[must_use]
    pub fn include(&self, member: &Member) -> bool {
        member.revision == self.with_keys || Some(&member.revision) == self.without_keys.as_ref()
    }
}

/// Hash of everything that the pods of a deployment are made from.
fn revision(checked: &Checked, keys: Option<&Keys>) -> String {
    // No `..`: a new setting has to be counted in or out here before this compiles.
    let MoEDeploymentSpec {
        model,
        parallelism,
        gpus_per_pod,
        gpu_resource_name,
        gpu_claim_template_name,
        replicas: _,
        paused: _,
        progress_deadline_seconds: _,
        restart_budget: _,
        runtime,
        coordinator,
        ranks,
        placement,
        // Of the Service alone, and of when pods are replaced.
        service: _,
        rollout: _,
        eplb,
    } = &checked.deployment.spec;
    let Eplb {
        dynamic_eplb,
        num_iterations_eplb_update,
        num_wait_worker_iterations,
        init_redundancy_expert,
        max_redundant_experts_per_gpu: _,
        policy,
        minimum_gain,
        staging_pages,
        move_bytes_per_second,
        max_rebalance_bytes,
        cool_down_windows,
        min_coverage,
        min_node_coverage,
        move_deadline_seconds,
        expert_map_ref: _,
        expert_map_path: _,
        expert_map_record_path,
        record: _,
    } = eplb;
    let inputs = Inputs {
        model,
        parallelism: *parallelism,
        gpus_per_pod: *gpus_per_pod,
        gpu_resource_name: (*gpus_per_pod > 0).then_some(gpu_resource_name),
        gpu_claim_template_name: gpu_claim_template_name.as_deref(),
        runtime,
        coordinator,
        ranks,
        placement,
        dynamic_eplb: *dynamic_eplb,
        num_iterations_eplb_update: *num_iterations_eplb_update,
        num_wait_worker_iterations: *num_wait_worker_iterations,
        init_redundancy_expert: *init_redundancy_expert,
        policy: *policy,
        moves: Moves {
            minimum_gain: minimum_gain.as_deref(),
            staging_pages: *staging_pages,
            move_bytes_per_second: *move_bytes_per_second,
            max_rebalance_bytes: *max_rebalance_bytes,
            cool_down_windows: *cool_down_windows,
            min_coverage: *min_coverage,
            min_node_coverage: *min_node_coverage,
            move_deadline_seconds: *move_deadline_seconds,
        },
        start_map: match &checked.start_map {
            StartMap::Even => None,
            StartMap::InModelSource(path) => Some(path),
            StartMap::ConfigMap { hash, .. } => Some(hash),
        },
        expert_map_record_path: expert_map_record_path.as_deref(),
        restarted_at: checked.deployment.annotations().get(names::RESTARTED_AT).map(String::as_str),
        keys: keys.map(Keys::identity),
    };
    short_hash(&serde_json::to_vec(&inputs).expect("the inputs are plain data"))
}

/// A hash of bytes in 16 digits.
#[must_use]
pub fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}
