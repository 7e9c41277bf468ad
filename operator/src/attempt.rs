//! What a pass is going to write, to tell whether it is the same that has just failed. Pure.
//!
//! A pass that fails changes the status, which is a change of the object that is watched, which is a reason for a pass: what
//! failed would be tried again at once, and for ever as fast as the API server answers. So what has failed waits for its time,
//! and anything else that is to be done does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use crate::api::MoEDeployment;
use crate::apply::is_kept;
use crate::build::Desired;
use crate::decide::{Decision, Hold, KeysChange, Relabel, Removal};
use crate::lean::Lean;
use crate::observed::Observed;

/// Everything that a pass is going to write, without what is drawn anew in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    generation: Option<i64>,
    annotations: BTreeMap<String, String>,
    hold: Option<Hold>,
    create: BTreeMap<String, String>,
    remove: Vec<Removal>,
    relabel: Vec<Relabel>,
    apply: BTreeSet<(&'static str, String)>,
    superfluous: BTreeSet<String>,
    predecessors: BTreeSet<String>,
    /// Whether keys are stored, and the Secret that goes for them.
    keys: (bool, Option<String>),
    maps: (Option<String>, Vec<String>, Option<String>, Vec<String>),
}

impl Attempt {
    /// Of what was decided.
    #[must_use]
    pub fn new(deployment: &MoEDeployment, observed: &Observed, decision: &Decision, desired: &Desired) -> Self {
        // No `..`: what is added to what a pass writes has to be counted in here before this compiles.
        let Desired { accounts, services, budgets, keys: _, map, pods, is_whole: _ } = desired;
        let mut apply = BTreeSet::new();
        apply.extend(drifted("ServiceAccount", accounts, &observed.accounts));
        apply.extend(drifted("Service", services, &observed.services));
        apply.extend(drifted("PodDisruptionBudget", budgets, &observed.budgets));
        let there = observed.services.keys().chain(observed.budgets.keys()).chain(observed.accounts.keys());
        let wanted: BTreeSet<String> =
            names(services).into_iter().chain(names(budgets)).chain(names(accounts)).collect();
        let maps = &decision.maps;
        let image = |name: &String| {
            decision.groups.iter().find(|group| group.create.contains(name)).map(|group| group.image.clone())
        };
        let create = names(pods).into_iter().map(|name| (name.clone(), image(&name).unwrap_or_default()));
        Self {
            generation: deployment.metadata.generation,
            annotations: deployment.annotations().clone(),
            hold: decision.hold,
            create: create.collect(),
            remove: decision.remove.clone(),
            relabel: decision.relabel.clone(),
            apply,
            superfluous: there.filter(|name| !wanted.contains(*name)).cloned().collect(),
            predecessors: observed.predecessors.clone(),
            keys: match &decision.keys {
                None => (false, None),
                Some(KeysChange::Create(_)) => (true, None),
                Some(KeysChange::Replace { uid, keys: _ }) => (true, Some(uid.clone())),
            },
            maps: (
                map.as_ref().map(kube::ResourceExt::name_any),
                maps.prune.clone(),
                maps.pin.clone(),
                maps.unpin.clone(),
            ),
        }
    }
}

fn names<K: Resource<DynamicType = ()>>(objects: &[K]) -> Vec<String> {
    objects.iter().map(kube::ResourceExt::name_any).collect()
}

/// Objects that are not there or not as they should be.
fn drifted<K: Resource<DynamicType = ()> + Lean + Clone + Serialize>(
    kind: &'static str,
    desired: &[K],
    observed: &BTreeMap<String, Arc<K>>,
) -> BTreeSet<(&'static str, String)> {
    let is_as_it_should_be =
        |object: &&K| observed.get(&object.name_any()).is_some_and(|there| is_kept(there.as_ref(), *object));
    desired.iter().filter(|object| !is_as_it_should_be(object)).map(|object| (kind, object.name_any())).collect()
}
