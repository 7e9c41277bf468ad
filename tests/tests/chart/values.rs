//! What values do, and which are refused.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tests::workspace;

use crate::helm::{Release, helm, identities, of_kind, one, text};

/// Values that switch something, other than as they are.
const SWITCHES: [&str; 15] = [
    "crds.enabled=false",
    "crds.keep=false",
    "watchNamespace=one",
    "nodes.watch=false",
    "serviceAccount.create=false",
    "aggregateClusterRoles=false",
    "podDisruptionBudget.enabled=true",
    "metrics.service.enabled=false",
    "metrics.serviceMonitor.enabled=true",
    "metrics.podMonitor.enabled=true",
    "networkPolicy.enabled=true",
    "runtime.gpuImage.repository=",
    "dashboards.enabled=true",
    "dashboards.grafanaOperator.enabled=true",
    "rules.enabled=true",
];

fn values() -> Value {
    let text = fs::read_to_string(workspace::root().join("charts/swiftbalancer/values.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// Every value by its path, those that hold others too.
fn paths(values: &Value, prefix: &str) -> Vec<String> {
    let inner = values.as_object().into_iter().flatten().flat_map(|(key, value)| {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let mut paths = paths(value, &path);
        paths.push(path);
        paths
    });
    inner.collect()
}

#[test]
fn it_is_what_helm_calls_a_chart() {
    let linted = helm(&["lint", "--strict", "charts/swiftbalancer"]);
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
}

/// What holds of every set of objects.
fn assert_consistent(objects: &[Value], of: &str) {
    identities(objects);
    let deployment = one(objects, "Deployment");
    let pod = &deployment["spec"]["template"];
    let labels = pod["metadata"]["labels"].as_object().unwrap();
    let selectors = [
        &deployment["spec"]["selector"]["matchLabels"],
        &of_kind(objects, "Service").first().map_or(Value::Null, |service| service["spec"]["selector"].clone()),
        &of_kind(objects, "PodDisruptionBudget")
            .first()
            .map_or(Value::Null, |budget| budget["spec"]["selector"]["matchLabels"].clone()),
        &of_kind(objects, "NetworkPolicy")
            .first()
            .map_or(Value::Null, |policy| policy["spec"]["podSelector"]["matchLabels"].clone()),
    ];
    for (key, value) in selectors.into_iter().filter_map(Value::as_object).flatten() {
        assert_eq!(labels.get(key), Some(value), "{of}");
    }
    let account = text(pod, "/spec/serviceAccountName");
    for account_made in of_kind(objects, "ServiceAccount") {
        assert_eq!(text(account_made, "/metadata/name"), account, "{of}");
    }
    for kind in ["Role", "ClusterRole"] {
        let roles: BTreeSet<_> = of_kind(objects, kind).iter().map(|role| text(role, "/metadata/name")).collect();
        for binding in of_kind(objects, &format!("{kind}Binding")) {
            assert!(roles.contains(text(binding, "/roleRef/name")), "{of}: {binding}");
            assert_eq!(binding["subjects"][0]["name"], account, "{of}");
        }
    }
    for object in objects {
        for label in ["name", "instance", "version", "managed-by"] {
            let is_test = text(object, "/kind") == "Pod";
            let found = object["metadata"]["labels"].get(format!("app.kubernetes.io/{label}"));
            assert!(found.is_some() || is_test, "{of}: {} has no label {label}", text(object, "/metadata/name"));
        }
    }
}

#[test]
fn every_two_switches_go_together() {
    for (number, first) in SWITCHES.iter().enumerate() {
        for second in &SWITCHES[number..] {
            let release = Release::new(&[first, second]);
            let both = format!("{first} {second}");
            if both.contains("service.enabled=false") && both.contains("serviceMonitor.enabled=true") {
                let refused = release.render().unwrap_err();
                assert!(refused.contains("metrics.serviceMonitor.enabled needs metrics.service.enabled"), "{refused}");
                continue;
            }
            assert_consistent(&release.objects(), &both);
        }
    }
}

#[test]
fn a_value_that_is_taken_away_is_done_without_or_refused_by_its_name() {
    let paths = paths(&values(), "");
    assert!(paths.len() > 60, "{paths:?}");
    for path in paths {
        let rendered = Release::new(&[&format!("{path}=null"), "metrics.podMonitor.enabled=true"]).render();
        // Taken away from above, what is below is not there to be set.
        if path == "metrics" || path == "metrics.podMonitor" {
            continue;
        }
        match rendered {
            Ok(objects) => assert_consistent(&objects, &path),
            Err(error) => {
                let name = path.rsplit('.').next().unwrap();
                let is_told = error.contains("missing property") && error.contains(&format!("'{name}'"));
                assert!(is_told, "{path}: {error}");
            }
        }
    }
    for (path, name) in [("metrics", "metrics"), ("metrics.podMonitor", "podMonitor")] {
        let error = Release::new(&[&format!("{path}=null")]).render().unwrap_err();
        assert!(error.contains("missing property") && error.contains(name), "{error}");
    }
}

#[test]
fn values_that_cannot_work_are_refused_by_their_names() {
    for (value, names) in [
        ("unknown=1", "'unknown'"),
        ("pollSeconds=soon", "/pollSeconds"),
        ("pollSeconds=0", "/pollSeconds"),
        ("watchNamespace=a\\,b", "/watchNamespace"),
        ("watchNamespace=Team", "/watchNamespace"),
        ("watchNamespace=123", "/watchNamespace"),
        ("image.tag=a b", "/image/tag"),
        ("image.repository=", "/image/repository"),
        ("image.repository=docker.io/swiftbalancer/operator: x", "/image/repository"),
        ("image.digest=sha256:0", "/image/digest"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("runtime.gpuImage.repository=UPPER CASE", "/runtime/gpuImage/repository"),
        ("allowedHostPaths={models}", "/allowedHostPaths/0"),
        ("allowedHostPaths={/srv/../etc}", "/allowedHostPaths/0"),
        ("allowedHostPaths=/srv", "/allowedHostPaths"),
        ("nameOverride=has_underscores", "/nameOverride"),
        ("fullnameOverride=-a", "/fullnameOverride"),
        ("podAnnotations.a=1", "/podAnnotations/a"),
        ("podLabels.app\\.kubernetes\\.io/name=other", "/podLabels"),
        ("nodeSelector.gpu=true", "/nodeSelector/gpu"),
        ("extraEnv=[{\"name\":\"A\",\"value\":1}]", "/extraEnv/0/value"),
        ("tolerations={a}", "/tolerations/0"),
        ("topologySpreadConstraints=[{\"maxSkew\":1}]", "/topologySpreadConstraints/0"),
        ("nodes.watch=maybe", "/nodes/watch"),
        ("metrics.podMonitor.interval=soon", "/metrics/podMonitor/interval"),
        ("podDisruptionBudget.maxUnavailable=-1", "/podDisruptionBudget/maxUnavailable"),
    ] {
        let error = Release::new(&[value]).render().unwrap_err();
        assert!(error.contains(names), "{value}: {error}");
    }
}

#[test]
fn what_the_cluster_cannot_do_is_refused_by_the_value_that_asks_for_it() {
    for value in ["metrics.serviceMonitor.enabled", "metrics.podMonitor.enabled", "rules.enabled"] {
        let error = Release::new(&[&format!("{value}=true")]).render_on(&[]).unwrap_err();
        assert!(error.contains(&format!("{value} needs the Prometheus operator")), "{error}");
    }
    let grafana = "dashboards.grafanaOperator.enabled";
    let error = Release::new(&[&format!("{grafana}=true")]).render_on(&[]).unwrap_err();
    assert!(error.contains(&format!("{grafana} needs the Grafana operator")), "{error}");
}

#[test]
fn values_of_the_pod_get_into_it() {
    for (value, pointer, expected) in [
        ("image.digest=sha256:DIGEST", "/containers/0/image", json!("docker.io/swiftbalancer/operator@sha256:DIGEST")),
        ("image.tag=v9", "/containers/0/image", json!("docker.io/swiftbalancer/operator:v9")),
        ("registry=mirror:5000/a", "/containers/0/image", json!("mirror:5000/a/swiftbalancer/operator:0.1.0")),
        ("image.pullPolicy=Always", "/containers/0/imagePullPolicy", json!("Always")),
        ("imagePullSecrets=[{\"name\":\"s\"}]", "/imagePullSecrets", json!([{"name": "s"}])),
        ("podSecurityContext.runAsUser=null", "/securityContext/runAsUser", Value::Null),
        ("podSecurityContext.fsGroup=7", "/securityContext/fsGroup", json!(7)),
        (
            "securityContext.readOnlyRootFilesystem=false",
            "/containers/0/securityContext/readOnlyRootFilesystem",
            json!(false),
        ),
        ("extraEnv=[{\"name\":\"A\",\"value\":\"1\"}]", "/containers/0/env/1", json!({"name": "A", "value": "1"})),
        ("affinity=[]", "/affinity", Value::Null),
        ("affinity={\"nodeAffinity\":{}}", "/affinity", json!({"nodeAffinity": {}})),
        ("nodeSelector.gpu=no", "/nodeSelector", json!({"gpu": "no"})),
        ("tolerations=[{\"operator\":\"Exists\"}]", "/tolerations", json!([{"operator": "Exists"}])),
        (
            "topologySpreadConstraints=[{\"maxSkew\":1,\"topologyKey\":\"k\",\"whenUnsatisfiable\":\"DoNotSchedule\"}]",
            "/topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule"}]),
        ),
        ("priorityClassName=high", "/priorityClassName", json!("high")),
        ("resources.limits.memory=1Gi", "/containers/0/resources/limits/memory", json!("1Gi")),
        ("log=debug\\,kube=\"x\"", "/containers/0/env/0/value", json!("debug,kube=\"x\"")),
        ("serviceAccount.name=mine", "/serviceAccountName", json!("mine")),
        ("runtime.image.tag=v9", "/containers/0/args/1", json!("--runtime-image=docker.io/swiftbalancer/runtime:v9")),
        ("runtime.gpuImage.repository=", "/containers/0/args/2", json!("--poll-seconds=2")),
    ] {
        let digest = "0123456789abcdef".repeat(4);
        let objects = match value {
            "affinity=[]" => {
                let error = Release::new(&[value]).render().unwrap_err();
                assert!(error.contains("/affinity"), "{error}");
                continue;
            }
            value => Release::new(&[&value.replace("DIGEST", &digest)]).objects(),
        };
        let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
        let found = pod.pointer(pointer).unwrap_or(&Value::Null).to_string().replace(&digest, "DIGEST");
        assert_eq!(found, expected.to_string(), "{value}");
    }
    let objects = Release::new(&["allowedHostPaths={/mnt/with a space}"]).objects();
    let arguments = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(arguments.as_array().unwrap().contains(&json!("--allow-host-path=/mnt/with a space")), "{arguments}");
    let objects = Release::new(&["podLabels.team=a", "podAnnotations.b\\.io/c=d"]).objects();
    let metadata = &one(&objects, "Deployment")["spec"]["template"]["metadata"];
    assert_eq!((text(metadata, "/labels/team"), text(metadata, "/annotations/b.io~1c")), ("a", "d"));
}

#[test]
fn helms_test_gets_through_the_policy_and_runs_where_the_operator_may() {
    let objects = Release::new(&["networkPolicy.enabled=true", "nodeSelector.pool=system"]).objects();
    let pod = one(&objects, "Pod");
    let allowed = &one(&objects, "NetworkPolicy")["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"];
    for (key, value) in allowed.as_object().unwrap() {
        assert_eq!(pod["metadata"]["labels"].get(key), Some(value));
    }
    assert_eq!(text(pod, "/spec/nodeSelector/pool"), "system");
    let service = one(&objects, "Service");
    let url = format!("http://{}.system:8080", text(service, "/metadata/name"));
    assert_eq!(pod["spec"]["containers"][0]["args"], json!(["check", url]));
}

#[test]
fn the_monitors_of_pods_select_what_the_operator_makes() {
    // What the operator's own tests hold the example to.
    let snapshot = "operator/tests/operator/snapshots/operator__desired__the_example_becomes_a_coordinator_four_ranks_and_what_they_need.snap";
    let text_of = fs::read_to_string(workspace::root().join(snapshot)).unwrap();
    let desired: Value = serde_saphyr::from_str(text_of.splitn(3, "---\n").nth(2).unwrap()).unwrap();
    let pods = desired["pods"].as_array().unwrap();
    let objects = Release::new(&["metrics.podMonitor.enabled=true"]).objects();
    let selected = of_kind(&objects, "PodMonitor").into_iter().map(|monitor| {
        let selector = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
        let port = text(monitor, "/spec/podMetricsEndpoints/0/port");
        let is_selected =
            |pod: &&Value| selector.iter().all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value));
        let selected: Vec<_> = pods.iter().filter(is_selected).collect();
        for pod in &selected {
            let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
            assert!(ports.iter().any(|found| found["name"] == port), "{port} in {ports:?}");
            for label in ["swiftbalancer.io/deployment", "swiftbalancer.io/group"] {
                assert!(pod["metadata"]["labels"][label].is_string(), "{pod}");
            }
        }
        selected.len()
    });
    assert_eq!(selected.collect::<Vec<_>>(), [1, 4]);
    let one_namespace = Release::new(&["metrics.podMonitor.enabled=true", "watchNamespace=one"]).objects();
    for monitor in of_kind(&one_namespace, "PodMonitor") {
        assert_eq!(monitor["spec"]["namespaceSelector"], json!({"matchNames": ["one"]}));
    }
}
