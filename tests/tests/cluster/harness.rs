//! The harness itself: what later tests rely on is true of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, LogParams, ObjectMeta, PostParams};
use serde_json::json;
use tests::cluster::{Cluster, Family, node_number};
use tests::image::{Recipe, write_archive};
use tests::namespace::{Namespace, in_namespace, node_condition};
use tests::{wait, workspace};

use crate::deployment::{Deployment, READY};
use crate::moves::served_and_moved;
use crate::suite::{Suite, block_on};

const SERVER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  nodeSelector: {kubernetes.io/hostname: node-2}
  containers:
  - name: server
    image: docker.io/swiftbalancer/test-pod:1
    imagePullPolicy: Never
    args: [serve, /volume, ':8080']
    readinessProbe: {httpGet: {path: /greeting, port: 8080}, periodSeconds: 1}
    volumeMounts: [{name: volume, mountPath: /volume}]
  volumes:
  - name: volume
    image: {reference: 'docker.io/swiftbalancer/test-volume:1', pullPolicy: Never}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
";

const CLIENT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  restartPolicy: OnFailure
  nodeSelector: {kubernetes.io/hostname: node-3}
  containers:
  - name: client
    image: docker.io/swiftbalancer/test-pod:1
    imagePullPolicy: Never
    args: [get, 'http://server/greeting']
";

async fn start_server(namespace: &Namespace<'_>) -> Result<()> {
    let context = tempfile::tempdir()?;
    fs::create_dir(context.path().join("root"))?;
    fs::write(context.path().join("root/greeting"), "hello from an image volume")?;
    let path = workspace::target().join("images/test-volume.tar");
    let recipe = Recipe::parse("FROM scratch\nCOPY root/ /")?;
    let volume = write_archive("docker.io/swiftbalancer/test-volume:1", &recipe, context.path(), &path)?;
    namespace.cluster.load(&[volume])?;
    namespace.apply(SERVER)?;
    namespace.ready_pod("server", Duration::from_secs(30)).await?;
    Ok(())
}

async fn greeting(url: &str) -> Result<String> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
    Ok(client.get(format!("{url}/greeting")).send().await?.error_for_status()?.text().await?)
}

pub fn image_volume(suite: &Suite) -> Result<()> {
    let cluster = suite.cluster()?;
    block_on(in_namespace(cluster, "image_volume", async |namespace| {
        let began = Instant::now();
        start_server(namespace).await?;
        suite
            .figure("a pod with an image volume until ready", format_args!("{:.1} s", began.elapsed().as_secs_f64()))?;
        let pod = namespace.forward_to_pod("server", 8080).await?;
        ensure!(greeting(&pod.url()).await? == "hello from an image volume");
        let service = namespace.forward_to_service("server", 80, 1).await?;
        // kube-proxy learns of a ready pod a moment after the pod is.
        let answer = wait::until("the service leads to the pod", Duration::from_secs(10), async || {
            greeting(&service.url()).await
        });
        ensure!(answer.await? == "hello from an image volume");
        // By name, through DNS and the service, from a pod on another node.
        namespace.apply(CLIENT)?;
        wait::until("the client has its answer", Duration::from_secs(30), async || {
            let pod = namespace.api::<Pod>().get("client").await?;
            match pod.status.and_then(|status| status.phase).as_deref() {
                Some("Succeeded") => Ok(()),
                phase => bail!("{phase:?}"),
            }
        })
        .await?;
        ensure!(namespace.api::<Pod>().logs("client", &LogParams::default()).await? == "hello from an image volume");
        Ok(())
    }))
}

pub fn writes_are_counted(suite: &Suite) -> Result<()> {
    let cluster = suite.cluster()?;
    block_on(in_namespace(cluster, "writes_are_counted", async |namespace| {
        let mut audit = cluster.audit_log();
        audit.skip_to_end()?;
        let metadata = ObjectMeta { name: Some("counted".into()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        let api = namespace.api::<ConfigMap>();
        api.create(&PostParams::default(), &map).await?;
        api.get("counted").await?; // a read is no write
        api.delete("counted", &DeleteParams::default()).await?;
        let writes = audit.read()?;
        let ours = writes.iter().filter(|write| write.namespace == namespace.name && write.name == "counted");
        let ours: Vec<_> = ours.map(|write| (write.user.as_str(), write.verb.as_str(), write.code)).collect();
        ensure!(ours == [("admin", "create", 201), ("admin", "delete", 200)], "{writes:?}");
        Ok(())
    }))
}

pub fn cut_link(suite: &Suite) -> Result<()> {
    let cluster = suite.cluster()?;
    block_on(in_namespace(cluster, "cut_link", async |namespace| {
        start_server(namespace).await?;
        let node = node_of(namespace, "server").await?;
        let server = namespace.forward_to_pod("server", 8080).await?;
        let began = Instant::now();
        cluster.cut_link(node)?;
        let noticed = node_condition(&namespace.client, node, "Unknown", Duration::from_secs(40)).await;
        let lost = greeting(&server.url()).await.is_err();
        suite.figure("a node cut off until noticed", format_args!("{:.1} s", began.elapsed().as_secs_f64()))?;
        cluster.restore_link(node)?; // before anything that may fail: the next test wants the node
        noticed?;
        ensure!(lost, "a pod behind a cut link answered");
        node_condition(&namespace.client, node, "True", Duration::from_secs(40)).await?;
        wait::until("the pod answers again", Duration::from_secs(30), async || greeting(&server.url()).await).await?;
        Ok(())
    }))
}

pub fn switch_off(suite: &Suite) -> Result<()> {
    let cluster = suite.cluster()?;
    block_on(in_namespace(cluster, "switch_off", async |namespace| {
        start_server(namespace).await?;
        let node = node_of(namespace, "server").await?;
        let server = namespace.forward_to_pod("server", 8080).await?;
        let began = Instant::now();
        cluster.switch_off(node)?;
        suite.figure("switching a node off", format_args!("{:.2} s", began.elapsed().as_secs_f64()))?;
        let lost = greeting(&server.url()).await.is_err();
        let noticed = node_condition(&namespace.client, node, "Unknown", Duration::from_secs(40)).await;
        let began = Instant::now();
        cluster.switch_on(node)?;
        noticed?;
        ensure!(lost, "a pod on a node without power answered");
        node_condition(&namespace.client, node, "True", Duration::from_mins(1)).await?;
        suite.figure("a node switched on until ready", format_args!("{:.1} s", began.elapsed().as_secs_f64()))?;
        // Its address may be another one now.
        wait::until("the pod runs again", Duration::from_mins(1), async || {
            let restarts =
                namespace.api::<Pod>().get("server").await?.status.and_then(|status| status.container_statuses);
            ensure!(restarts.into_iter().flatten().any(|status| status.restart_count > 0), "not restarted");
            let server = namespace.forward_to_pod("server", 8080).await?;
            greeting(&server.url()).await
        })
        .await?;
        Ok(())
    }))
}

async fn node_of(namespace: &Namespace<'_>, pod: &str) -> Result<usize> {
    let pod = namespace.api::<Pod>().get(pod).await?;
    node_number(&pod.spec.and_then(|spec| spec.node_name).context("a pod on no node")?)
}

/// A second cluster beside the shared one, with other addresses: both run at once, ranks serve and move on both, and one leaves no
/// trace on the machine.
pub fn second_cluster(suite: &Suite) -> Result<()> {
    let before = traces()?;
    let began = Instant::now();
    let cluster = Cluster::separate("second", Family::IPv6)?;
    suite.figure("a cluster of 3 nodes until ready", format_args!("{:.1} s", began.elapsed().as_secs_f64()))?;
    let state = cluster.state().to_owned();
    suite.install(&cluster)?;
    block_on(in_namespace(&cluster, "second_cluster", async |namespace| {
        let deployment = Deployment::apply(namespace, "tiny-moe.yaml", |object| {
            // Nothing moves but what is asked for.
            object["spec"]["eplb"]["dynamicEplb"] = json!(false);
            object["spec"]["eplb"]["numIterationsEplbUpdate"] = json!(5);
        })?;
        served_and_moved(&deployment, READY).await?;
        let pods = deployment.pods().await?;
        let addresses: Vec<_> = pods.values().filter_map(|pod| pod.status.as_ref()?.pod_ip.as_deref()).collect();
        ensure!(!addresses.is_empty() && addresses.iter().all(|address| address.contains(':')), "{addresses:?}");
        Ok(())
    }))?;
    ensure!(state.exists());
    let began = Instant::now();
    drop(cluster);
    suite.figure("taking it down", format_args!("{:.1} s", began.elapsed().as_secs_f64()))?;
    ensure!(!state.exists(), "{} is still there", state.display());
    let after = traces()?;
    let left: Vec<_> = after.difference(&before).collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    let processes = processes_that_mention(&state)?;
    ensure!(processes.is_empty(), "still running: {processes:#?}");
    Ok(())
}

/// What a cluster could leave: mounts, files in the places that its programs write to, cgroups, kernel parameters.
fn traces() -> Result<BTreeSet<String>> {
    let mut traces = BTreeSet::new();
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        traces.insert(format!("mount {}", line.split_once(" - ").map_or(line, |(mount, _)| mount)));
    }
    let folders = [
        "/run",
        "/run/netns",
        "/run/containerd",
        "/var/lib",
        "/var/lib/cni",
        "/var/lib/kubelet",
        "/var/log",
        "/etc/cni",
        "/opt",
        "/opt/containerd",
        "/usr/libexec",
    ];
    let cgroups = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/pids"];
    for folder in folders.iter().chain(&cgroups) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            traces.insert(format!("file {}", entry?.path().display()));
        }
    }
    for parameter in ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"] {
        let value = fs::read_to_string(Path::new("/proc/sys").join(parameter)).unwrap_or_default();
        traces.insert(format!("parameter {parameter}={}", value.trim()));
    }
    Ok(traces)
}

fn processes_that_mention(state: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let command = fs::read_to_string(entry?.path().join("cmdline")).unwrap_or_default().replace('\0', " ");
        if command.contains(&*state.to_string_lossy()) {
            found.push(command);
        }
    }
    Ok(found)
}
