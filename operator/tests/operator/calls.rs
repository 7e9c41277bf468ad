//! The chart grants what the operator calls, and no more.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::controller::{TINY, WARM, World};
use crate::fake_api::FakeApi;

#[derive(Deserialize)]
struct Rule {
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// Rights of the operator's two roles: the rules of the template need no rendering.
pub fn granted() -> BTreeSet<(String, String)> {
    let template = include_str!("../../../charts/swiftbalancer/templates/rbac.yaml");
    let parts = template.split("---\n").filter(|part| part.contains("\nrules:\n") && !part.contains("aggregate-to"));
    let rules = parts.flat_map(|role| {
        let (_, list) = role.split_once("rules:\n").unwrap();
        serde_saphyr::from_str::<Vec<Rule>>(list).unwrap()
    });
    rules
        .flat_map(|Rule { resources, verbs }| {
            resources
                .into_iter()
                .flat_map(move |resource| verbs.clone().into_iter().map(move |verb| (verb, resource.clone())))
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_chart_grants_what_the_operator_calls_and_no_more() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    // A label that somebody took, and a node that is not there.
    world.api.edit("pods", "tiny-moe-0-rank-2", |pod| {
        pod["metadata"]["labels"].as_object_mut().unwrap().remove("swiftbalancer.io/role");
    });
    world.api.until("the label is back", |api| api.count("patch", "pods") > 0).await;
    world.api.edit("pods", "tiny-moe-0-rank-3", |pod| pod["spec"]["nodeName"] = "node-9".into());
    world.api.until("the node is asked for", |api| api.count("get", "nodes") > 0).await;
    world.api.delete("pods", "tiny-moe-0-rank-1");
    world.ready(&name).await;
    world.api.edit("moedeployments", &name, |object| {
        object["metadata"]["annotations"]["swiftbalancer.io/rotate-keys"] = "1".into();
    });
    world.ready(&name).await;
    world.record("tiny-moe-0-coordinator");
    let second = world.apply(WARM);
    world.ready(&second).await;
    // A map of the user's own, which no watch covers.
    let third =
        WARM.replace("name: tiny-moe-warm", "name: tiny-moe-cold").replace("fromDeployment: tiny-moe", "name: absent");
    let third = world.apply(&third);
    world.condition(&third, "ExpertMapReady", "False", "ExpertMapMissing").await;
    // Fewer replicas: objects that are no longer wanted go.
    world.api.edit("moedeployments", &name, |object| object["spec"]["replicas"] = 0.into());
    let left = |api: &FakeApi| {
        api.get("poddisruptionbudgets", "tiny-moe-0").is_some() || api.get("pods", "tiny-moe-0-rank-0").is_some()
    };
    world.api.until("what belongs to the replica is gone", |api| !left(api)).await;
    let called: BTreeSet<(String, String)> =
        world.api.calls().into_iter().map(|call| (call.verb.to_owned(), call.resource)).collect();
    world.stop().await;

    let granted = granted();
    let missing: Vec<_> = called.difference(&granted).collect();
    assert!(missing.is_empty(), "not granted: {missing:?}");
    let unused: BTreeSet<(&str, &str)> =
        granted.difference(&called).map(|(verb, resource)| (verb.as_str(), resource.as_str())).collect();
    let expected: BTreeSet<(&str, &str)> = [
        // An apply that makes an object needs the right to create it.
        ("create", "services"),
        ("create", "serviceaccounts"),
        ("create", "poddisruptionbudgets"),
        // Asked of who makes objects that block the deletion of their owner.
        ("update", "moedeployments/finalizers"),
        // Conflicts of names: not provoked here.
        ("get", "pods"),
        // Only a deployment that is refused from then on would lose its account.
        ("delete", "serviceaccounts"),
        ("delete", "configmaps"),
    ]
    .into();
    assert_eq!(unused, expected);
}
