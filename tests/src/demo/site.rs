//! Where the demo runs: a cluster of its own, or the cluster of a kubectl context.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use plan::wire::keys::{ADMIN_TOKEN, secret_name};

use crate::chart;
use crate::cluster::{Cluster, Family, Forward, From};
use crate::image::Archive;
use crate::workspace;

/// The namespace of the demo's deployments.
pub const NAMESPACE: &str = "swiftbalancer-demo";

pub enum Site {
    Own(Arc<Cluster>),
    Context(String),
}

/// Stops what the demo started; for use when it is interrupted.
pub struct Stop(Inner);

enum Inner {
    Own(Arc<Cluster>),
    Context(String),
}

impl Stop {
    /// Stops it.
    ///
    /// # Errors
    /// If something stays.
    pub fn stop(self) -> Result<()> {
        match self.0 {
            Inner::Own(cluster) => cluster.take_down(),
            Inner::Context(context) => clean_up(&context),
        }
    }
}

impl Site {
    pub fn open(context: Option<String>, images: &[Archive]) -> Result<Self> {
        let Some(context) = context else {
            let cluster = Cluster::separate("demo", Family::IPv4)?;
            cluster.load(images)?;
            return Ok(Self::Own(Arc::new(cluster)));
        };
        // Replacing the operator of somebody's deployments, and removing it at the end, is no demo.
        let list = call(
            "helm",
            &["--kube-context", &context],
            &["list", "--all-namespaces", "--short", "--filter=swiftbalancer"],
        )?;
        if !list.trim().is_empty() {
            bail!("{context} has SwiftBalancer installed already (helm release {})", list.trim());
        }
        load_images(&context, images)?;
        Ok(Self::Context(context))
    }

    pub fn stop(&self) -> Stop {
        Stop(match self {
            Self::Own(cluster) => Inner::Own(Arc::clone(cluster)),
            Self::Context(context) => Inner::Context(context.clone()),
        })
    }

    pub fn close(self) -> Result<()> {
        self.stop().stop()
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        match self {
            Self::Own(cluster) => Ok(cluster.kubectl(arguments.iter().copied())?.stdout),
            Self::Context(context) => call("kubectl", &["--context", context], arguments),
        }
    }

    pub fn install_chart(&self, images: &[Archive]) -> Result<()> {
        let arguments = chart::install_arguments(images);
        let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        match self {
            Self::Own(cluster) => cluster.helm(arguments).map(drop),
            // With the definition of the custom resource removed at the end.
            Self::Context(context) => {
                arguments.push("--set=crds.keep=false");
                call("helm", &["--kube-context", context], &arguments).map(drop)
            }
        }
    }

    /// A local port that leads to a port of a pod.
    pub fn reach_pod(&self, pod: &str, port: u16) -> Result<Reach> {
        match self {
            Self::Own(cluster) => {
                let address = self.field("pod", pod, "{.status.podIP}")?;
                Ok(Reach::Own(cluster.forward(From::ControlPlane, (address.parse::<IpAddr>()?, port).into())?))
            }
            Self::Context(context) => Reach::port_forward(context, &format!("pod/{pod}"), port),
        }
    }

    /// A local port that leads to a port of a service.
    pub fn reach_service(&self, service: &str, port: u16) -> Result<Reach> {
        match self {
            Self::Own(cluster) => {
                let address = self.field("service", service, "{.spec.clusterIP}")?;
                Ok(Reach::Own(cluster.forward(From::Node(1), (address.parse::<IpAddr>()?, port).into())?))
            }
            Self::Context(context) => Reach::port_forward(context, &format!("service/{service}"), port),
        }
    }

    /// The token of a deployment's admin API.
    pub fn admin_token(&self, deployment: &str) -> Result<String> {
        let template = format!("go-template={{{{index .data \"{ADMIN_TOKEN}\" | base64decode}}}}");
        let secret = secret_name(deployment);
        self.kubectl(&["get", "secret", &secret, "--namespace", NAMESPACE, "--output", &template])
    }

    /// A field of an object of the demo's namespace.
    pub fn field(&self, kind: &str, name: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", kind, name, "--namespace", NAMESPACE, "--output", &format!("jsonpath={path}")])
    }
}

/// A way in, open until it is dropped.
pub enum Reach {
    Own(Forward),
    PortForward { child: Child, url: String },
}

impl Reach {
    pub fn url(&self) -> String {
        match self {
            Self::Own(forward) => forward.url(),
            Self::PortForward { url, .. } => url.clone(),
        }
    }

    /// kubectl chooses the local port and prints `Forwarding from 127.0.0.1:PORT -> ...`.
    fn port_forward(context: &str, to: &str, port: u16) -> Result<Self> {
        let mut child = Command::new("kubectl")
            .args(["--context", context, "port-forward", "--namespace", NAMESPACE, to, &format!(":{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("running kubectl")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("kubectl's output")?).read_line(&mut line)?;
        let address = line.split_whitespace().nth(2).map(str::to_owned);
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("kubectl forwards no port to {to}: {line}");
        };
        Ok(Self::PortForward { child, url: format!("http://{address}") })
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        if let Self::PortForward { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The images have no registry: they go to the nodes of the local clusters that have a command for that.
fn load_images(context: &str, images: &[Archive]) -> Result<()> {
    for image in images {
        let path = image.path.to_str().context("a path that is not UTF-8")?;
        if let Some(name) = context.strip_prefix("kind-") {
            call("kind", &["load", "image-archive", path, "--name", name], &[])?;
        } else if let Some(name) = context.strip_prefix("k3d-") {
            call("k3d", &["image", "import", path, "--cluster", name], &[])?;
        } else if context == "minikube" {
            call("minikube", &["image", "load", path], &[])?;
        } else {
            println!("   {} must be known to the nodes: {path}", image.name);
        }
    }
    Ok(())
}

fn clean_up(context: &str) -> Result<()> {
    let before = ["--context", context];
    call("kubectl", &before, &["delete", "namespace", NAMESPACE, "--ignore-not-found"])?;
    let arguments = chart::uninstall_arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    call("helm", &["--kube-context", context], &arguments).map(drop)
}

fn call(program: &str, before: &[&str], arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(before)
        .args(arguments)
        .current_dir(workspace::root())
        .output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
