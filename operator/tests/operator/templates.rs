//! What users add to pods and Services: what becomes of it, and what is refused by name.

use std::fmt::Write as _;

use insta::{assert_snapshot, assert_yaml_snapshot};
use k8s_openapi::api::core::v1::Pod;
use operator::build::Desired;
use operator::host_paths::AllowedHostPaths;
use serde_json::{Value, json};

use crate::cluster::{Cluster, condition};

const TINY: &str = include_str!("../../../examples/tiny-moe.yaml");
const GPUS: &str = include_str!("fixtures/gpus.yaml");
const TEMPLATES: &str = include_str!("fixtures/templates.yaml");

/// The example with values set at paths such as `/spec/ranks/podTemplate/spec`.
fn with(example: &str, changes: &[(&str, Value)]) -> Cluster {
    let mut object: Value = serde_saphyr::from_str(example).unwrap();
    for (path, value) in changes {
        *path.split('/').skip(1).fold(&mut object, |object, key| &mut object[key]) = value.clone();
    }
    Cluster::new(&object.to_string())
}

/// All pods that it gets, when they run at once.
fn pods(mut cluster: Cluster) -> Vec<Pod> {
    cluster.settle();
    cluster.pods.into_values().collect()
}

fn revision(pod: &Pod) -> String {
    pod.metadata.annotations.as_ref().unwrap()["swiftbalancer.io/revision"].clone()
}

#[test]
fn a_template_is_laid_over_the_pods_of_its_role() {
    let mut cluster = Cluster::new(TEMPLATES);
    for (node, product) in [("node-1", "NVIDIA-H200"), ("node-2", "NVIDIA-H200"), ("node-3", "Tesla-T4")] {
        cluster.label_node(node, "nvidia.com/gpu.product", product);
        cluster.label_node(node, "pool", "gpu");
    }
    let mut desired = cluster.pass().desired;
    cluster.run_pods();
    desired.pods.extend(cluster.pass().desired.pods);
    desired.keys = None;
    assert_eq!(desired.pods.len(), 2);
    assert_yaml_snapshot!(desired);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, of which every row is a test")]
fn what_takes_the_place_of_the_operators_own_is_refused_by_name() {
    let container = |name: &str, fields: Value| {
        let mut container = json!({"name": name});
        container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"containers": [container]})
    };
    let rank = |fields: Value| ("/spec/ranks/podTemplate/spec", container("rank", fields));
    let pod = |fields: Value| ("/spec/ranks/podTemplate/spec", fields);
    let coordinator = |fields: Value| ("/spec/coordinator/podTemplate/spec", container("coordinator", fields));
    let beside = |fields: Value| ("/spec/coordinator/podTemplate/spec", container("proxy", fields));
    let metadata = |fields: Value| ("/spec/ranks/podTemplate/metadata", fields);
    let table = [
        ("a label by which pods are found", metadata(json!({"labels": {"swiftbalancer.io/role": "rank"}}))),
        ("a label that every object has", metadata(json!({"labels": {"app.kubernetes.io/name": "mine"}}))),
        ("a label that Kubernetes does not take", metadata(json!({"labels": {"team": "a b"}}))),
        ("an annotation under no name", metadata(json!({"annotations": {"example.com/": "x"}}))),
        ("a field that pods do not have", pod(json!({"tollerations": []}))),
        ("a field that containers do not have", rank(json!({"enviroment": []}))),
        ("a field that variables do not have", rank(json!({"env": [{"name": "A", "val": "b"}]}))),
        ("a variable that is a number", rank(json!({"env": [{"name": "NCCL_DEBUG", "value": 1}]}))),
        ("a field that is taken away", pod(json!({"securityContext": null}))),
        ("a list that is none", pod(json!({"volumes": {"name": "cache"}}))),
        ("a command line", coordinator(json!({"args": ["coordinator"]}))),
        ("a program", rank(json!({"command": ["bash"]}))),
        ("ports", coordinator(json!({"ports": [{"containerPort": 9000}]}))),
        ("an image of its own", rank(json!({"image": "docker.io/own:1"}))),
        ("a probe", rank(json!({"livenessProbe": {"exec": {"command": ["true"]}}}))),
        ("a hook", coordinator(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}))),
        ("another place for the last word", rank(json!({"terminationMessagePath": "/tmp/word"}))),
        ("a variable of the operator's", rank(json!({"env": [{"name": "POD_IP", "value": "::1"}]}))),
        ("a variable twice", rank(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}))),
        ("GPUs behind its back", rank(json!({"resources": {"limits": {"nvidia.com/gpu": 8}}}))),
        (
            "a part of a GPU in a sidecar",
            beside(json!({"image": "i", "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}})),
        ),
        ("all GPUs of the node", rank(json!({"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}))),
        ("memory in two places", rank(json!({"resources": {"limits": {"memory": "1Gi"}}}))),
        ("a container by the number of its rank", pod(json!({"containers": [{"name": "rank-0", "image": "i"}]}))),
        ("a container twice", pod(json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}))),
        ("a container without a name", pod(json!({"containers": [{"image": "i"}]}))),
        ("a sidecar without an image", beside(json!({}))),
        ("a sidecar on a port of the coordinator's", beside(json!({"image": "i", "ports": [{"containerPort": 8001}]}))),
        (
            "a sidecar's port under a name of the coordinator's",
            beside(json!({"image": "i", "ports": [{"containerPort": 9000, "name": "admin"}]})),
        ),
        ("a volume of the operator's", pod(json!({"volumes": [{"name": "model", "emptyDir": {}}]}))),
        ("shared memory as a volume", pod(json!({"volumes": [{"name": "shared-memory", "emptyDir": {}}]}))),
        (
            "a mount in place of the keys",
            pod(json!({
                "containers": [{"name": "rank", "volumeMounts": [{"name": "own", "mountPath": "/etc/swiftbalancer/keys/"}]}],
                "volumes": [{"name": "own", "emptyDir": {}}],
            })),
        ),
        (
            "a mount around them",
            pod(json!({
                "containers": [{"name": "rank", "volumeMounts": [{"name": "own", "mountPath": "/etc"}]}],
                "volumes": [{"name": "own", "emptyDir": {}}],
            })),
        ),
        ("a mount of nothing", rank(json!({"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}))),
        (
            "a checkpoint to write to",
            beside(json!({"image": "i", "volumeMounts": [{"name": "model", "mountPath": "/m"}]})),
        ),
        ("another host name", pod(json!({"hostname": "rank"}))),
        ("a subdomain", pod(json!({"subdomain": "ranks"}))),
        ("a pod that is not started again", pod(json!({"restartPolicy": "Never"}))),
        ("a pod that ends by itself", pod(json!({"activeDeadlineSeconds": 3600}))),
        ("a node by its name", pod(json!({"nodeName": "node-1"}))),
        ("an account", pod(json!({"serviceAccountName": "cloud"}))),
        ("another time to end", pod(json!({"terminationGracePeriodSeconds": 300}))),
        ("the node's processes", pod(json!({"hostPID": true}))),
        ("the node's shared memory", pod(json!({"hostIPC": true}))),
        ("a privileged container", rank(json!({"securityContext": {"privileged": true}}))),
        (
            "a capability that gives the node",
            rank(json!({"securityContext": {"capabilities": {"add": ["CAP_SYS_ADMIN"]}}})),
        ),
        ("names of the node alone", pod(json!({"dnsPolicy": "Default"}))),
        (
            "a claim under the name of the operator's",
            pod(json!({"resourceClaims": [{"name": "gpus", "resourceClaimName": "c"}]})),
        ),
        ("GPUs among the resources of ranks", ("/spec/ranks/resources", json!({"limits": {"nvidia.com/gpu": "8"}}))),
        ("GPUs for the coordinator", ("/spec/coordinator/resources", json!({"requests": {"amd.com/gpu": 1}}))),
        (
            "a label of the operator's on the Service",
            ("/spec/service", json!({"labels": {"swiftbalancer.io/group": "0"}})),
        ),
    ];
    let mut report = String::new();
    for (what, change) in table {
        let mut cluster = with(TINY, std::slice::from_ref(&change));
        let pass = cluster.pass();
        let (status, reason, message) = condition(&pass.status, "SpecValid");
        assert_eq!((status, reason, &pass.desired), ("False", "Invalid", &Desired::default()), "{what}");
        assert!(message.chars().count() <= 300, "{message}");
        assert_eq!(condition(&pass.status, "Ready").2, message);
        let (path, value) = change;
        writeln!(report, "{what} ({} = {value})\n    {message}", path[1..].replace('/', ".")).unwrap();
    }
    assert_snapshot!(report);
}

#[test]
fn long_names_and_what_a_terminal_obeys_are_shortened() {
    let long = "x".repeat(900);
    for spec in [
        json!({&long: 1}),
        json!({"containers": [{"name": &long, "image": "i"}]}),
        json!({"containers": [{"name": "rank", "env": [{"name": &long}, {"name": &long}]}]}),
        json!({"containers": [{"name": "rank", "volumeMounts": [{"name": &long, "mountPath": format!("/{long}")}]}]}),
        json!({"volumes": [{"name": "\u{1b}[31m\n"}]}),
        json!({"containers": long}),
        json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": {&long: 1}}}]}),
    ] {
        let mut cluster = with(TINY, &[("/spec/ranks/podTemplate/spec", spec)]);
        let status = cluster.pass().status;
        let (_, reason, message) = condition(&status, "SpecValid");
        assert_eq!(reason, "Invalid");
        assert!(message.chars().count() <= 300 && !message.contains(char::is_control), "{message}");
    }
}

#[test]
fn folders_of_nodes_in_a_template_have_to_be_allowed_as_those_of_a_model() {
    let volumes = json!({"volumes": [{"name": "drivers", "hostPath": {"path": "/opt/drivers"}}]});
    let mut cluster = with(TINY, &[("/spec/ranks/podTemplate/spec", volumes)]);
    let pass = cluster.pass();
    assert_eq!(pass.desired, Desired::default());
    let (_, reason, message) = condition(&pass.status, "SpecValid");
    assert_eq!(reason, "HostPathNotAllowed");
    assert!(
        message.starts_with("ranks.podTemplate.spec.volumes[drivers].hostPath.path is \"/opt/drivers\""),
        "{message}"
    );
    cluster.allowed_host_paths = AllowedHostPaths::new(vec!["/opt".parse().unwrap()]);
    assert_eq!(cluster.pass().desired.pods.len(), 1);
}

/// Every setting that pods are made from changes what they are made from, and what is about other objects does not.
#[test]
fn what_pods_are_made_from_restarts_them_and_nothing_else_does() {
    let before = pods(Cluster::new(TINY));
    let changed = |path: &str, value: Value| {
        let pods = pods(with(TINY, &[(path, value)]));
        assert!(pods.iter().all(|pod| revision(pod) == revision(&pods[0])), "{path}");
        revision(&pods[0]) != revision(&before[0])
    };
    for (path, value) in [
        ("/spec/service", json!({"type": "NodePort", "annotations": {"a": "b"}})),
        ("/spec/rollout", json!({"maxUnavailable": 2})),
    ] {
        assert!(!changed(path, value), "{path}");
    }
    let seconds = || json!(60);
    for (path, value) in [
        ("/spec/coordinator/podTemplate", json!({"metadata": {"labels": {"team": "a"}}})),
        ("/spec/ranks/podTemplate", json!({"spec": {"schedulerName": "volcano"}})),
        ("/spec/coordinator/placement", json!({"nodeSelector": {}})),
        ("/spec/ranks/placement", json!({"spread": "Unconstrained"})),
        ("/spec/coordinator/maxRunningSequences", json!(8)),
        ("/spec/coordinator/maxStepTokens", json!(64)),
        ("/spec/coordinator/maxBodyBytes", json!(1000)),
        ("/spec/coordinator/stepDeadlineSeconds", seconds()),
        ("/spec/coordinator/apiKeySecretRef", json!({"name": "keys", "key": "api"})),
        ("/spec/coordinator/startupSeconds", seconds()),
        ("/spec/coordinator/shutdownDelaySeconds", seconds()),
        ("/spec/coordinator/shutdownGraceSeconds", seconds()),
        ("/spec/ranks/blockTokens", json!(32)),
        ("/spec/ranks/enforceEager", json!(true)),
        ("/spec/ranks/sharedMemory", json!("2Gi")),
        ("/spec/ranks/startupSeconds", seconds()),
        ("/spec/runtime/serviceAccountName", json!("cloud")),
        ("/spec/runtime/runAs", json!("Assigned")),
        ("/spec/runtime/logFormat", json!("Json")),
        ("/spec/model/weightsSeed", json!(1)),
        ("/spec/eplb/minimumGain", json!("0.05")),
        ("/spec/eplb/stagingPages", json!(2)),
        ("/spec/eplb/moveBytesPerSecond", json!(1_000_000)),
        ("/spec/eplb/maxRebalanceBytes", json!(1_000_000)),
        ("/spec/eplb/coolDownWindows", json!(2)),
        ("/spec/eplb/minCoverage", json!(1)),
        ("/spec/eplb/minNodeCoverage", json!(1)),
        ("/spec/eplb/moveDeadlineSeconds", seconds()),
    ] {
        assert!(changed(path, value), "{path}");
    }
}

#[test]
fn the_order_of_a_templates_fields_is_no_change() {
    let spec = |text: &str| ("/spec/ranks/podTemplate/spec", serde_json::from_str::<Value>(text).unwrap());
    let one = pods(with(TINY, &[spec(r#"{"schedulerName": "kai", "hostUsers": false}"#)]));
    let other = pods(with(TINY, &[spec(r#"{"hostUsers": false, "schedulerName": "kai"}"#)]));
    assert_eq!(revision(&one[0]), revision(&other[0]));
}

#[test]
fn ranks_are_placed_apart_from_their_coordinator_and_only_nodes_that_they_may_use_have_gpus_for_them() {
    let placement = json!({"nodeSelector": {"pool": "cpu"}});
    let mut cluster = with(GPUS, &[("/spec/coordinator/placement", placement)]);
    for node in ["node-1", "node-2", "node-3"] {
        cluster.label_node(node, "gpu", "h100");
    }
    let coordinator = cluster.pass().desired.pods.remove(0).spec.unwrap();
    assert_eq!(coordinator.node_selector, Some([("pool".to_owned(), "cpu".to_owned())].into()));
    assert_eq!((coordinator.tolerations, coordinator.priority_class_name), (None, None));
    cluster.run_pods();
    let rank = cluster.pass().desired.pods.remove(0).spec.unwrap();
    assert_eq!(rank.node_selector, Some([("gpu".to_owned(), "h100".to_owned())].into()));

    // A template's own terms count, too: one node is too few for two pods of 8 GPUs.
    let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}],
    }}}});
    let mut cluster = with(GPUS, &[("/spec/ranks/podTemplate/spec", affinity)]);
    for node in ["node-1", "node-2", "node-3"] {
        cluster.label_node(node, "gpu", "h100");
    }
    cluster.label_node("node-1", "zone", "a");
    let said = "0 of 1 replicas serve; 16 nvidia.com/gpu are needed and all nodes together offer 8 in pods of 8: add nodes, or lower replicas or parallelism.data";
    assert_eq!(condition(&cluster.pass().status, "Ready").2, said);
    cluster.label_node("node-3", "zone", "a");
    assert_eq!(condition(&cluster.pass().status, "Ready").1, "WaitingForPods");
}

#[test]
fn a_pod_of_a_cluster_that_chooses_users_names_none_and_its_keys_can_be_read() {
    let pods = pods(with(TINY, &[("/spec/runtime/runAs", json!("Assigned"))]));
    for pod in pods {
        let spec = pod.spec.unwrap();
        let context = spec.security_context.unwrap();
        assert_eq!((context.run_as_user, context.run_as_group, context.fs_group), (None, None, None));
        assert_eq!(context.run_as_non_root, Some(true));
        let keys = spec.volumes.unwrap().into_iter().find(|volume| volume.name == "keys").unwrap();
        assert_eq!(keys.secret.unwrap().default_mode, Some(0o444));
    }
}

#[test]
fn a_coordinator_has_the_time_that_its_requests_are_given() {
    let grace = |changes: &[(&str, Value)]| {
        let mut pods = pods(with(TINY, changes));
        pods.remove(0).spec.unwrap().termination_grace_period_seconds
    };
    assert_eq!(grace(&[]), None, "an upgrade of the operator changes no pod");
    assert_eq!(grace(&[("/spec/coordinator/shutdownGraceSeconds", json!(600))]), Some(605));
    assert_eq!(grace(&[("/spec/coordinator/shutdownDelaySeconds", json!(20))]), Some(47));
}

#[test]
fn as_many_replicas_are_replaced_at_a_time_as_may_be_out_and_those_before_the_partition_stay() {
    let replaced = |rollout: Value| {
        let mut cluster = with(TINY, &[("/spec/replicas", json!(4))]);
        cluster.settle();
        cluster.deployment.spec.coordinator.max_queued_requests = Some(9);
        cluster.deployment.spec.rollout = serde_json::from_value(rollout).unwrap();
        let removed = cluster.pass().decision.remove;
        [0, 1, 2, 3].map(|group| removed.iter().any(|removal| removal.name == format!("tiny-moe-{group}-coordinator")))
    };
    assert_eq!(replaced(json!({})), [true, false, false, false]);
    assert_eq!(replaced(json!({"maxUnavailable": 2})), [true, true, false, false]);
    assert_eq!(replaced(json!({"maxUnavailable": 64})), [true; 4]);
    assert_eq!(replaced(json!({"partition": 3})), [false, false, false, true]);
    assert_eq!(replaced(json!({"partition": 2, "maxUnavailable": 3})), [false, false, true, true]);
    assert_eq!(replaced(json!({"partition": 4})), [false; 4]);
}

#[test]
fn replicas_that_are_out_count_and_get_the_new_specification_wherever_they_are() {
    let mut cluster =
        with(TINY, &[("/spec/replicas", json!(4)), ("/spec/rollout", json!({"maxUnavailable": 2, "partition": 2}))]);
    cluster.settle();
    cluster.set_ready("tiny-moe-0-coordinator", false);
    cluster.deployment.spec.coordinator.max_queued_requests = Some(9);
    let pass = cluster.pass();
    let mut groups: Vec<_> = pass.decision.remove.iter().map(|removal| removal.name[9..10].to_owned()).collect();
    groups.dedup();
    assert_eq!(groups, ["0", "2"], "one is out, and one more may be");
}

#[test]
fn gpus_come_by_a_claim_where_the_specification_names_its_template() {
    let change = ("/spec/gpuClaimTemplateName", json!("eight-h200"));
    let other = (
        "/spec/ranks/podTemplate/spec",
        json!({
            "resourceClaims": [{"name": "imex", "resourceClaimTemplateName": "domain"}],
            "containers": [{"name": "rank", "resources": {"claims": [{"name": "imex"}]}}],
        }),
    );
    // No node offers the extended resource, and none needs to.
    let mut cluster = with(GPUS, &[change, other]);
    for node in ["node-1", "node-2", "node-3"] {
        cluster.set_node(node, true, 0);
    }
    cluster.settle();
    let spec = cluster.pods["large-0-rank-8"].spec.clone().unwrap();
    let claims = serde_json::to_value(spec.resource_claims).unwrap();
    let expected = json!([
        {"name": "gpus", "resourceClaimTemplateName": "eight-h200"}, {"name": "imex", "resourceClaimTemplateName": "domain"},
    ]);
    assert_eq!(claims, expected);
    let resources = spec.containers[0].resources.clone().unwrap();
    assert_eq!(serde_json::to_value(resources.claims).unwrap(), json!([{"name": "gpus"}, {"name": "imex"}]));
    assert_eq!(resources.limits, None);
    assert_eq!(cluster.pods["large-0-coordinator"].spec.as_ref().unwrap().resource_claims, None);
}
