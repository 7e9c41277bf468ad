#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
//! Every command that the operator builds is one that the runtime takes, and means the same to both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::CustomResourceExt as _;
use operator::api::eplb::{ExpertMapRef, Policy};
use operator::api::{MoEDeployment, MoEDeploymentSpec};
use operator::build::build;
use operator::decide::{Decision, Group, MapChanges, pod_names};
use operator::names;
use operator::revision::Wanted;
use operator::template::Overlays;
use operator::validate::{Checked, Shape, StartMap};
use plan::wire::keys::{ADMIN_TOKEN, FOLDER, GROUP_SECRET};
use plan::wire::process::port::NEXT_RANK;
use plan::wire::process::{DOWNLOAD_PROGRAM, TERMINATION_FILE, variable};
use runtime::args::{Arguments, Command};
use runtime::coordinator::settings::{CoordinatorSettings, MinimumGain};
use runtime::device::Device;
use runtime::worker::WorkerSettings;
use serde_json::{Value, json};
use tests::workspace;

/// What a kubelet puts in place of a pod's fields.
const ADDRESS: &str = "10.0.0.7";

/// A deployment as its definition has it, with defaults.
fn deployment(yaml: &str) -> Value {
    let deployment: MoEDeployment = serde_saphyr::from_str(yaml).unwrap();
    serde_json::to_value(deployment).unwrap()
}

fn examples() -> Vec<Value> {
    let files = fs::read_dir(workspace::root().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|ending| ending == "yaml")).collect();
    files.sort();
    let examples: Vec<_> = files.iter().map(|file| deployment(&fs::read_to_string(file).unwrap())).collect();
    assert!(examples.len() >= 5);
    examples
}

/// The example of four ranks on CPUs.
fn tiny() -> Value {
    examples().into_iter().find(|example| example["metadata"]["name"] == "tiny-moe").unwrap()
}

/// What is built of a specification, whatever the cluster has.
fn checked(deployment: &Value, start_map: StartMap) -> Checked {
    let deployment: MoEDeployment = serde_json::from_value(deployment.clone()).unwrap();
    let count = |number: i32| usize::try_from(number).unwrap();
    let spec = &deployment.spec;
    let shape = Shape {
        ranks: count(spec.parallelism.data) * count(spec.parallelism.tensor),
        ranks_per_pod: count(spec.gpus_per_pod.max(1)),
        gpus_per_rank: usize::from(spec.gpus_per_pod > 0),
        experts: count(spec.model.experts),
        redundancy: count(spec.eplb.init_redundancy_expert),
    };
    let name = deployment.metadata.name.clone().unwrap();
    let overlays = Overlays::read(&deployment.spec).unwrap();
    Checked { name, deployment, shape, replicas: 1, start_map, overlays, concern: None }
}

fn pods(checked: &Checked) -> Vec<Pod> {
    let group = Group {
        index: 0,
        wanted: Wanted { revision: "r".to_owned(), with_keys: true },
        image: "docker.io/swiftbalancer/runtime:1".to_owned(),
        create: pod_names(checked, 0).into_keys().collect(),
    };
    let decision = Decision {
        hold: None,
        revisions: None,
        keys: None,
        groups: vec![group],
        budgets: BTreeMap::new(),
        remove: Vec::new(),
        relabel: Vec::new(),
        spared: None,
        exhausted: BTreeSet::new(),
        maps: MapChanges::default(),
        look_again: Duration::ZERO,
    };
    build(&checked.deployment, &Ok(checked.clone()), &decision).pods
}

/// An argument as a process gets it: a kubelet puts in the variables that the container has and takes one `$` of two.
fn expanded(argument: &str, variables: &BTreeMap<&str, &str>) -> String {
    let mut parts = argument.split('$');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    while let Some(part) = parts.next() {
        let variable = part.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        match variable.and_then(|(name, rest)| Some((variables.get(name)?, rest))) {
            Some((value, rest)) => whole.extend([value, rest]),
            None if part.is_empty() => whole.extend(["$", parts.next().unwrap_or_default()]),
            None => whole.extend(["$", part]),
        }
    }
    whole
}

/// The runtime's reading of a container's command line. A template may add variables that the runtime does not know; the operator
/// gives none.
fn parsed(container: &Container, has_template: bool, keys: &Path) -> Command {
    let environment = container.env.iter().flatten();
    let known = [variable::ADDRESS, variable::NODE, variable::TERMINATION_FILE];
    let variables: BTreeMap<&str, &str> = environment
        .map(|variable| (variable.name.as_str(), variable.value.as_deref().unwrap_or(ADDRESS)))
        .filter(|(name, _)| {
            let is_known = known.contains(name);
            assert!(is_known || has_template, "{name} is no variable of the runtime");
            is_known
        })
        .collect();
    assert_eq!(variables.get(variable::TERMINATION_FILE), Some(&TERMINATION_FILE));
    assert_eq!(container.termination_message_path.as_deref(), Some(TERMINATION_FILE));
    let arguments = container.args.iter().flatten().map(|argument| expanded(argument, &variables));
    // The runtime reads its keys where this machine has some.
    let arguments = arguments.map(|argument| argument.replace(FOLDER, keys.to_str().unwrap()));
    let line: Vec<_> = std::iter::once("swiftbalancer-runtime".to_owned()).chain(arguments).collect();
    Arguments::try_parse_from(&line).unwrap_or_else(|error| panic!("{line:?}: {error}")).command
}

fn ports(container: &Container) -> BTreeSet<u16> {
    container.ports.iter().flatten().map(|port| u16::try_from(port.container_port).unwrap()).collect()
}

fn probed(container: &Container) -> BTreeSet<u16> {
    let probes =
        [&container.startup_probe, &container.liveness_probe, &container.readiness_probe].into_iter().flatten();
    let ports = probes.map(|probe| probe.http_get.as_ref().unwrap().port.clone());
    ports.map(|port| u16::try_from(serde_json::to_value(port).unwrap().as_u64().unwrap()).unwrap()).collect()
}

/// Whether a path is in a volume of the container.
fn is_mounted(container: &Container, path: &Path) -> bool {
    container.volume_mounts.iter().flatten().any(|mount| path.starts_with(&mount.mount_path))
}

/// Builds a specification and has the runtime read every command of it.
fn agree(deployment: &Value, start_map: StartMap) {
    let keys = tempfile::tempdir().unwrap();
    for key in [GROUP_SECRET, ADMIN_TOKEN] {
        fs::write(keys.path().join(key), "k".repeat(64)).unwrap();
    }
    let has_template = deployment["spec"].to_string().contains("podTemplate");
    let checked = checked(deployment, start_map);
    let mut ranks = BTreeSet::new();
    let mut coordinators = 0;
    let pods = pods(&checked);
    for pod in &pods {
        download_agrees(&checked, pod, keys.path());
    }
    for container in pods.into_iter().flat_map(|pod| pod.spec.unwrap().containers) {
        match parsed(&container, has_template, keys.path()) {
            Command::Coordinator(arguments) => {
                coordinator_agrees(&checked, &container, &(*arguments).try_into().unwrap(), keys.path());
                coordinators += 1;
            }
            Command::Worker(arguments) => {
                let settings: WorkerSettings = (*arguments).try_into().unwrap();
                rank_agrees(&checked, &container, &settings);
                ranks.extend((settings.rank.index()..).take(settings.ranks_here));
            }
            other => panic!("{other:?} is run in no pod"),
        }
    }
    assert_eq!((coordinators, ranks), (1, (0..checked.shape.ranks).collect()));
}

/// What is downloaded first of all goes to where the runtime reads it, and nobody else writes there.
fn download_agrees(checked: &Checked, pod: &Pod, keys: &Path) {
    let spec = pod.spec.as_ref().unwrap();
    let Some(init) = spec.init_containers.as_ref().map(|inits| &inits[0]) else { return };
    let own = &spec.containers[0];
    assert_eq!(init.command.as_deref(), Some([DOWNLOAD_PROGRAM.to_owned()].as_slice()));
    assert_eq!((&init.image, &init.security_context), (&own.image, &own.security_context));
    assert_eq!(init.termination_message_path.as_deref(), Some(TERMINATION_FILE));
    let line = init.args.iter().flatten().map(|argument| expanded(argument, &BTreeMap::new()));
    let line: Vec<String> = std::iter::once(DOWNLOAD_PROGRAM.to_owned()).chain(line).collect();
    let arguments =
        download::args::Arguments::try_parse_from(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    assert_eq!(arguments.listen.map(|listen| listen.port()), Some(names::ADMIN_PORT as u16));
    let settings = download::run::Settings::try_from(arguments).unwrap();
    let model = match parsed(own, true, keys) {
        Command::Coordinator(arguments) => CoordinatorSettings::try_from(*arguments).unwrap().model,
        Command::Worker(arguments) => WorkerSettings::try_from(*arguments).unwrap().model,
        other => panic!("{other:?} is run in no pod"),
    };
    assert_eq!(settings.folder, model);
    let is_read_only = |container: &Container| {
        let mount = container.volume_mounts.iter().flatten().find(|mount| model.starts_with(&mount.mount_path));
        mount.unwrap().read_only == Some(true)
    };
    let records = checked.deployment.spec.eplb.expert_map_record_path.is_some() && own.name == "coordinator";
    assert_eq!((is_read_only(init), is_read_only(own)), (false, !records));
}

fn coordinator_agrees(checked: &Checked, container: &Container, settings: &CoordinatorSettings, keys: &Path) {
    let (spec, shape) = (&checked.deployment.spec, checked.shape);
    let eplb = &spec.eplb;
    let number = |value: i32| u64::try_from(value).unwrap();
    let listens = [settings.listen, settings.admin_listen, settings.control_listen].map(|address| address.port());
    assert_eq!(BTreeSet::from(listens), ports(container));
    assert!(probed(container).iter().all(|port| listens[..2].contains(port)), "{:?}", probed(container));
    assert!(is_mounted(container, &settings.model));
    assert_eq!(settings.served_name.as_ref(), Some(&spec.model.name));
    assert_eq!((settings.ranks, settings.redundancy), (shape.ranks, Some(shape.redundancy)));
    assert_eq!(settings.expect_experts, Some(shape.experts));
    assert_eq!(settings.dynamic, eplb.dynamic_eplb);
    assert_eq!(settings.window_steps, number(eplb.num_iterations_eplb_update));
    assert_eq!(settings.wait_steps, number(eplb.num_wait_worker_iterations));
    let policy = match eplb.policy {
        Policy::Swift => plan::balance::Policy::Swift,
        Policy::DeepSeek => plan::balance::Policy::DeepSeek,
    };
    assert_eq!(settings.policy, policy);
    assert_eq!(settings.admin_token_path, Some(keys.join(ADMIN_TOKEN)));
    let in_source = |path: &String| Path::new("/model").join(path);
    match (&checked.start_map, &settings.map_path) {
        (StartMap::Even, None) => {}
        (StartMap::InModelSource(path), Some(found)) => assert_eq!(*found, in_source(path)),
        (StartMap::ConfigMap { .. }, Some(found)) => {
            assert!(found.ends_with(names::MAP_KEY) && is_mounted(container, found), "{}", found.display());
        }
        (start, found) => panic!("{start:?} is started from {found:?}"),
    }
    assert_eq!(settings.record_path, eplb.expert_map_record_path.as_ref().map(in_source));
    if let Some(requests) = spec.coordinator.max_queued_requests {
        assert_eq!(settings.limits.queued as u64, number(requests));
    }
    assert_eq!(settings.max_model_len.map(|tokens| tokens as u64), spec.coordinator.max_model_len.map(number));
    assert_eq!(settings.weights.map(|seed| seed.to_string()), seed(spec));
    let same =
        |found: u64, asked: Option<u64>| assert!(asked.is_none_or(|asked| asked == found), "{found} for {asked:?}");
    same(settings.limits.running_per_rank as u64, spec.coordinator.max_running_sequences.map(number));
    same(settings.limits.step_tokens as u64, spec.coordinator.max_step_tokens.map(number));
    assert_eq!(settings.body_limit.map(|bytes| bytes as u64), spec.coordinator.max_body_bytes.map(number));
    same(settings.step_deadline.as_secs(), spec.coordinator.step_deadline_seconds.map(number));
    same(settings.leave.as_secs(), spec.coordinator.shutdown_delay_seconds.map(number));
    same(settings.grace.as_secs(), spec.coordinator.shutdown_grace_seconds.map(number));
    assert_eq!(settings.api_keys_path.is_some(), spec.coordinator.api_key_secret_ref.is_some());
    assert!(settings.api_keys_path.iter().all(|path| is_mounted(container, path)));
    let gain = eplb.minimum_gain.as_ref().map(|gain| gain.parse::<MinimumGain>().unwrap());
    assert!(gain.is_none_or(|gain| gain == settings.minimum_gain));
    assert_eq!(settings.staging_pages.map(u64::from), eplb.staging_pages.map(number));
    let large = |value: i64| u64::try_from(value).unwrap();
    assert_eq!(settings.move_bytes_per_second, eplb.move_bytes_per_second.map(large));
    same(settings.rebalance_bytes, eplb.max_rebalance_bytes.map(large));
    same(settings.cool_down_windows, eplb.cool_down_windows.map(number));
    same(settings.min_coverage.ranks as u64, eplb.min_coverage.map(number));
    same(settings.min_coverage.nodes as u64, eplb.min_node_coverage.map(number));
    same(settings.move_deadline.as_secs(), eplb.move_deadline_seconds.map(number));
}

/// What weights are drawn from, as a command line says it.
fn seed(spec: &MoEDeploymentSpec) -> Option<String> {
    spec.model.weights_seed.map(|seed| format!("seed:{seed}"))
}

fn rank_agrees(checked: &Checked, container: &Container, settings: &WorkerSettings) {
    let spec = &checked.deployment.spec;
    assert_eq!(settings.ranks_here, checked.shape.ranks_per_pod);
    let first = [settings.listen, settings.move_listen].map(|address| address.port());
    let of_rank = |place: usize| first.map(|port| port + NEXT_RANK * place as u16);
    let health = settings.health_listen.port();
    let listens: BTreeSet<u16> = (0..settings.ranks_here).flat_map(of_rank).chain([health]).collect();
    assert_eq!((listens.len(), &listens), (2 * settings.ranks_here + 1, &ports(container)));
    assert_eq!(probed(container), BTreeSet::from([health]));
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let gpus = limits.and_then(|limits| limits.get(&spec.gpu_resource_name)).map(|gpus| gpus.0.clone());
    assert_eq!(gpus, (spec.gpus_per_pod > 0).then(|| settings.ranks_here.to_string()));
    assert_eq!(settings.device == Device::Cuda, spec.gpus_per_pod > 0);
    assert_eq!(container.name, format!("rank-{}", settings.rank.0));
    let coordinator = format!("{}:{}", names::coordinator(&checked.name, 0), names::CONTROL_PORT);
    assert_eq!((settings.coordinator.as_str(), settings.advertise_address.as_str()), (coordinator.as_str(), ADDRESS));
    assert!(is_mounted(container, &settings.model));
    if let Some(threads) = spec.ranks.threads {
        assert_eq!(settings.threads, usize::try_from(threads).unwrap());
    }
    assert_eq!(settings.weights.map(|seed| seed.to_string()), seed(spec));
    assert_eq!(settings.is_eager, spec.ranks.enforce_eager);
    assert!(spec.ranks.block_tokens.is_none_or(|tokens| settings.block_tokens == usize::try_from(tokens).unwrap()));
    assert_eq!(settings.kv_blocks, spec.ranks.kv_blocks.map(|blocks| usize::try_from(blocks).unwrap()));
}

fn in_config_map() -> StartMap {
    let reference = ExpertMapRef { name: Some("a-map-0123456789".to_owned()), from_deployment: None };
    StartMap::ConfigMap { reference, name: "a-map-0123456789".to_owned(), hash: "0123456789".to_owned() }
}

#[test]
fn every_example_is_started_as_it_says() {
    for example in examples() {
        agree(&example, StartMap::Even);
        agree(&example, in_config_map());
    }
}

/// Whole numbers of a specification that have a least and a most in the definition: where they are, and both.
fn numbers(schema: &Value, at: &str) -> Vec<(String, [i64; 2])> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let inner = properties.flat_map(|(name, schema)| numbers(schema, &format!("{at}/{name}")));
    let own = schema["minimum"].as_f64().zip(schema["maximum"].as_f64()).filter(|_| schema["type"] == "integer");
    inner.chain(own.map(|(least, most)| (at.to_owned(), [least as i64, most as i64]))).collect()
}

/// Sets a value; objects on the way to it are made.
fn with(deployment: &Value, path: &str, value: Value) -> Value {
    let mut deployment = deployment.clone();
    *path.split('/').skip(1).fold(&mut deployment, |object, key| &mut object[key]) = value;
    deployment
}

#[test]
fn the_least_and_the_most_of_every_number_of_the_definition_is_taken() {
    let definition = serde_json::to_value(MoEDeployment::crd()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let numbers = numbers(schema, "/spec");
    assert!(numbers.len() >= 10, "{numbers:?}");
    let example = &tiny();
    for (path, bounds) in numbers {
        for number in bounds {
            let number = match path.as_str() {
                // A rule of the definition, which no bound of its schema says.
                "/spec/eplb/numWaitWorkerIterations" => number.max(30),
                // Ranks of a replica are pods of it.
                "/spec/gpusPerPod" => number.min(4),
                _ => number,
            };
            agree(&with(example, &path, json!(number)), StartMap::Even);
        }
    }
}

/// Sets all that a specification can say of the processes, beside numbers, which another test goes through.
#[test]
fn what_is_no_number_is_taken_too() {
    let example = tiny();
    for (path, value) in [
        ("/spec/coordinator/apiKeySecretRef", json!({"name": "clients", "key": "keys.txt"})),
        ("/spec/eplb/minimumGain", json!("0.0125")),
        ("/spec/eplb/minimumGain", json!("0")),
        ("/spec/ranks/enforceEager", json!(true)),
        ("/spec/runtime/logFormat", json!("Json")),
        ("/spec/runtime/logFormat", json!("Text")),
        (
            "/spec/ranks/podTemplate",
            json!({"spec": {"containers": [
                {"name": "rank", "env": [{"name": "RUST_LOG", "value": "debug"}, {"name": "A", "value": "$(POD_IP)"}]},
            ]}}),
        ),
    ] {
        agree(&with(&example, path, value), StartMap::Even);
    }
}

#[test]
fn settings_of_expert_load_balancing_are_taken_in_every_combination() {
    let paths = ["map.json", "of models/a $(POD_IP) $$ 100%.json", "-x=y.json"];
    for example in examples() {
        for dynamic in [false, true] {
            for policy in ["Swift", "DeepSeek"] {
                for redundancy in [0, 4, 64] {
                    let eplb = json!({
                        "dynamicEplb": dynamic, "policy": policy, "initRedundancyExpert": redundancy,
                        "numIterationsEplbUpdate": 1 + 100 * redundancy, "numWaitWorkerIterations": 30 + redundancy,
                    });
                    agree(&with(&example, "/spec/eplb", eplb.clone()), StartMap::Even);
                    agree(&with(&example, "/spec/eplb", eplb.clone()), in_config_map());
                    for path in paths {
                        let recorded = with(&example, "/spec/eplb", eplb.clone());
                        let recorded = with(&recorded, "/spec/eplb/expertMapRecordPath", json!(path));
                        agree(&recorded, StartMap::InModelSource(path.to_owned()));
                    }
                }
            }
        }
    }
}

#[test]
fn ranks_that_share_a_pod_are_told_apart() {
    let example = with(&tiny(), "/spec/parallelism/data", json!(16));
    for gpus in [1, 2, 8, 16] {
        agree(&with(&example, "/spec/gpusPerPod", json!(gpus)), StartMap::Even);
    }
}
