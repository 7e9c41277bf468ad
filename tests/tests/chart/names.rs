//! Names of objects, and what is in a namespace and what is not.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm::{Release, identities, is_of_cluster, of_kind, text};

/// Everything that the chart can bring.
const ALL: [&str; 6] = [
    "metrics.serviceMonitor.enabled=true",
    "metrics.podMonitor.enabled=true",
    "networkPolicy.enabled=true",
    "podDisruptionBudget.enabled=true",
    "dashboards.enabled=true",
    "rules.enabled=true",
];

fn assert_names(objects: &[Value], of: &str) {
    identities(objects);
    for object in objects {
        let name = text(object, "/metadata/name");
        // The definition's name is what it defines.
        let most = if text(object, "/kind") == "CustomResourceDefinition" { 253 } else { 63 };
        assert!((1..=most).contains(&name.len()), "{of}: {name}");
        let is_label = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        assert!(is_label || is_of_cluster(object), "{of}: {name}");
        let ends = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.ends_with(|last: char| last.is_ascii_alphanumeric());
        assert!(ends || is_of_cluster(object), "{of}: {name}");
        assert_eq!(is_of_cluster(object), text(object, "/metadata/namespace").is_empty(), "{of}: {name}");
        for (key, value) in object["metadata"]["labels"].as_object().unwrap() {
            assert!(value.as_str().is_some_and(|value| value.len() <= 63), "{of}: {name}: {key}: {value}");
        }
    }
}

#[test]
fn no_object_of_any_release_has_a_name_that_is_too_long_or_no_name() {
    let longest = "prod-eu-west-1-inference-platform-moe-serving-alpha-0";
    assert_eq!(longest.len(), 53, "Helm's own limit");
    let lengths = [1, 13, 30, 40, 41, 42, 45, 46, 47, 52, 53].map(|length| longest[..length].trim_matches('-'));
    let awkward = ["9", "123", "1.2-b", "a.b.c", "swiftbalancer", "my-swiftbalancer-of-eu-west-1-and-others-of-it-too"];
    let namespaces = ["n", &"a-namespace-".repeat(6)[..62]];
    for (number, name) in lengths.into_iter().chain(awkward).enumerate() {
        let objects = Release::named(name, namespaces[number % 2], &ALL).objects();
        assert_names(&objects, name);
        let deployment = of_kind(&objects, "Deployment")[0];
        // Its pods are called after it, its ReplicaSet and themselves, and their name is their host name.
        assert!(text(deployment, "/metadata/name").len() + "-0123456789-abcde".len() <= 63, "{name}");
    }
}

#[test]
fn overridden_names_are_kept_or_cut() {
    let long = "o".repeat(63);
    for value in [format!("fullnameOverride={long}"), format!("nameOverride={long}"), "nameOverride=other".to_owned()] {
        let mut values: Vec<&str> = ALL.to_vec();
        values.push(&value);
        assert_names(&Release::new(&values).objects(), &value);
    }
    let named = Release::new(&["fullnameOverride=balancer"]).objects();
    assert_eq!(text(of_kind(&named, "Deployment")[0], "/metadata/name"), "balancer");
}

#[test]
fn names_that_are_cut_stay_different() {
    let begin = "a-release-with-a-name-that-is-as-long-as-helm-allows";
    let names = ["1", "2"].map(|end| format!("{begin}{end}"));
    let pairs = [[names[0].as_str(), names[1].as_str()], ["a.b", "a-b"], ["9", "r-9"]];
    for pair in pairs {
        let [first, second] = pair.map(|name| identities(&Release::named(name, "n", &ALL).objects()));
        let both: Vec<_> = first.intersection(&second).collect();
        assert_eq!(both.len(), 1, "the definition alone: {both:?}");
    }
}

#[test]
fn releases_of_one_name_in_two_namespaces_share_the_definition_alone() {
    let long = format!("team-{}", "a".repeat(58));
    let pairs = [
        ["team-a", "team-b"],
        // Names of namespace and release put together are the same.
        ["team", "team-a"],
        [&long[..62], &long],
    ];
    for [first, second] in pairs {
        let release = |namespace: &str| {
            let name = if namespace == "team-a" && first == "team" { "b-swiftbalancer" } else { "a-b-swiftbalancer" };
            let watched = format!("watchNamespace={namespace}");
            let mut values = ALL.to_vec();
            values.push(&watched);
            identities(&Release::named(name, namespace, &values).objects())
        };
        let (one, other) = (release(first), release(second));
        let both: Vec<_> = one.intersection(&other).map(|[kind, ..]| kind.as_str()).collect();
        assert_eq!(both, ["CustomResourceDefinition"], "{first} and {second}");
    }
}

#[test]
fn a_tenant_without_rights_beyond_a_namespace_can_install_it() {
    let values = ["watchNamespace=team", "nodes.watch=false", "crds.enabled=false", "aggregateClusterRoles=false"];
    let objects = Release::named("swiftbalancer", "team", &values).objects();
    let namespaces: BTreeSet<_> = objects.iter().map(|object| text(object, "/metadata/namespace")).collect();
    assert_eq!(namespaces, BTreeSet::from(["team"]));
    let arguments = text(of_kind(&objects, "Deployment")[0], "/metadata/name");
    assert_eq!(arguments, "swiftbalancer");
    let arguments = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"];
    for argument in ["--namespace=team", "--watch-nodes=false"] {
        assert!(arguments.as_array().unwrap().iter().any(|found| found == argument), "{arguments}");
    }
}

#[test]
fn the_rights_in_one_namespace_are_those_in_all() {
    let rules = |kind: &str, values: &[&str]| {
        let objects = Release::new(values).objects();
        let roles: Vec<_> = of_kind(&objects, kind)
            .into_iter()
            .filter(|role| role["rules"].to_string().contains("finalizers"))
            .collect();
        assert_eq!(roles.len(), 1);
        roles[0]["rules"].clone()
    };
    assert_eq!(rules("Role", &["watchNamespace=one"]), rules("ClusterRole", &[]));
}
