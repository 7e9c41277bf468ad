//! What a person needs to understand a failed test whose namespace is about to be deleted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cluster::Cluster;
use crate::workspace;

const KINDS: &str = "pods,services,endpointslices,configmaps,events.events.k8s.io";

/// Collects in `target/cluster-failures/TEST`, replacing what an earlier run left; what cannot be had is noted there.
#[must_use]
pub fn collect(cluster: &Cluster, namespace: &str, test: &str) -> PathBuf {
    let folder = workspace::target().join("cluster-failures").join(test.replace("::", "/"));
    let _ = fs::remove_dir_all(&folder);
    let _ = fs::create_dir_all(&folder);
    let keep = |name: &str, arguments: &[&str]| {
        let printed = match cluster.kubectl(arguments.iter().copied()) {
            Ok(output) => output.stdout + &output.stderr,
            Err(error) => format!("{error:#}"),
        };
        let _ = fs::write(folder.join(name), printed);
    };
    keep("objects.yaml", &["get", KINDS, "--namespace", namespace, "--output", "yaml"]);
    keep("deployments.yaml", &["get", "moedeployments", "--namespace", namespace, "--output", "yaml"]);
    keep("pods.txt", &["describe", "pods", "--namespace", namespace]);
    keep("events.txt", &["get", "events", "--namespace", namespace, "--sort-by", ".lastTimestamp"]);
    keep("nodes.txt", &["describe", "nodes"]);
    keep("system-pods.txt", &["describe", "pods", "--namespace", "swiftbalancer-system"]);
    let _ = logs(cluster, namespace, &folder);
    let _ = logs(cluster, "swiftbalancer-system", &folder);
    let _ = component_logs(&cluster.component_logs(), &folder);
    folder
}

fn logs(cluster: &Cluster, namespace: &str, folder: &Path) -> Result<()> {
    let folder = folder.join("logs");
    fs::create_dir_all(&folder)?;
    let pods = cluster.kubectl(["get", "pods", "--namespace", namespace, "--output", "name"])?.stdout;
    for pod in pods.lines() {
        for (suffix, previous) in [("log", "--previous=false"), ("previous.log", "--previous=true")] {
            let arguments = ["logs", pod, "--namespace", namespace, "--all-containers", "--timestamps", previous];
            if let Ok(output) = cluster.kubectl(arguments) {
                fs::write(folder.join(format!("{}.{suffix}", pod.trim_start_matches("pod/"))), output.stdout)?;
            }
        }
    }
    Ok(())
}

fn component_logs(from: &Path, folder: &Path) -> Result<()> {
    let folder = folder.join("cluster");
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(())
}
