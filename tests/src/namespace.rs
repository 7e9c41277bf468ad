//! A namespace of its own for each test: evidence is collected if the test fails, and it is deleted in any case.

mod evidence;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
pub use evidence::collect as collect_evidence;
use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as NamespaceObject, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::cluster::{Cluster, Forward, From};
use crate::wait;

/// A test's namespace on the cluster.
pub struct Namespace<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: String,
    /// A client with all rights.
    pub client: Client,
}

/// Runs `test` in a new namespace. When it fails, pods, logs, events and objects are collected in
/// `target/cluster-failures/NAME`.
///
/// # Errors
/// The test's own, or if the namespace cannot be made or does not go away.
pub async fn in_namespace(
    cluster: &Cluster,
    name: &str,
    test: impl AsyncFnOnce(&Namespace<'_>) -> Result<()>,
) -> Result<()> {
    let client = cluster.client().await?;
    let api = Api::<NamespaceObject>::all(client.clone());
    let metadata = ObjectMeta { generate_name: Some(format!("{}-", label(name))), ..ObjectMeta::default() };
    let object = NamespaceObject { metadata, ..NamespaceObject::default() };
    let created = api.create(&PostParams::default(), &object).await.context("making a namespace")?;
    let namespace = Namespace { cluster, name: created.name_any(), client };
    wait::until("the namespace has its service account", Duration::from_secs(20), async || {
        Ok(namespace.api::<ServiceAccount>().get("default").await?)
    })
    .await?;

    let outcome = AssertUnwindSafe(test(&namespace)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", message(&*panic))));
    let outcome = match outcome {
        Ok(()) => Ok(()),
        Err(error) => {
            let folder = evidence::collect(cluster, &namespace.name, name);
            Err(error.context(format!("evidence is in {}", folder.display())))
        }
    };
    outcome.and(namespace.delete().await)
}

impl Namespace<'_> {
    /// Objects of a kind in this namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Applies YAML, as a user would with `kubectl apply`.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        std::io::Write::write_all(&mut file, yaml.as_bytes())?;
        let path = file.path().to_str().context("a path that is not UTF-8")?;
        self.cluster.kubectl(["apply", "--namespace", &self.name, "--filename", path]).map(drop)
    }

    /// The pod, once it is ready.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub async fn ready_pod(&self, name: &str, within: Duration) -> Result<Pod> {
        wait::until(&format!("pod {name} is ready"), within, async || {
            let pod = self.api::<Pod>().get(name).await?;
            if is_ready(&pod) { Ok(pod) } else { bail!("{}", phase(&pod)) }
        })
        .await
    }

    /// A local port that leads to a port of a pod.
    ///
    /// # Errors
    /// If the pod has no address.
    pub async fn forward_to_pod(&self, name: &str, port: u16) -> Result<Forward> {
        let pod = self.api::<Pod>().get(name).await?;
        let address = pod.status.and_then(|status| status.pod_ip).context("a pod without an address")?;
        self.cluster.forward(From::ControlPlane, (address.parse::<std::net::IpAddr>()?, port).into())
    }

    /// A local port that leads to a port of a service, as a client on `node` reaches it.
    ///
    /// # Errors
    /// If the service has no address.
    pub async fn forward_to_service(&self, name: &str, port: u16, node: usize) -> Result<Forward> {
        let service = self.api::<k8s_openapi::api::core::v1::Service>().get(name).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a service without an address")?;
        self.cluster.forward(From::Node(node), (address.parse::<std::net::IpAddr>()?, port).into())
    }

    /// Deletes a pod at once, as if its containers had been killed with its node.
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn kill_pod(&self, name: &str) -> Result<()> {
        self.api::<Pod>().delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        let api = Api::<NamespaceObject>::all(self.client.clone());
        api.delete(&self.name, &DeleteParams::default()).await?;
        wait::until(&format!("namespace {} is gone", self.name), Duration::from_secs(90), async || {
            if api.get_opt(&self.name).await?.is_none() {
                return Ok(());
            }
            let pods = self.api::<Pod>().list(&ListParams::default()).await?;
            let maps = self.api::<ConfigMap>().list(&ListParams::default()).await?;
            bail!("{} pods and {} config maps are left", pods.items.len(), maps.items.len())
        })
        .await
    }
}

/// Waits until the node's `Ready` condition is `status`.
///
/// # Errors
/// If it is not in time.
pub async fn node_condition(client: &Client, node: usize, status: &str, within: Duration) -> Result<()> {
    let api = Api::<Node>::all(client.clone());
    wait::until(&format!("Ready of node {node} is {status}"), within, async || {
        let conditions = api.get(&format!("node-{node}")).await?.status.and_then(|status| status.conditions);
        let ready = conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ == "Ready");
        match ready {
            Some(ready) if ready.status == status => Ok(()),
            ready => bail!("it is {:?}", ready.map(|ready| ready.status)),
        }
    })
    .await
}

/// Whether the pod's `Ready` condition holds and it is not being deleted.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn phase(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return "no status".to_owned() };
    let waiting = status.container_statuses.iter().flatten().filter_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some(format!("{}: {}", container.name, waiting.reason.as_deref().unwrap_or("waiting")))
    });
    format!("{} {}", status.phase.as_deref().unwrap_or("no phase"), waiting.collect::<Vec<_>>().join(", "))
}

/// A name that a namespace may have: generated suffixes still fit.
fn label(name: &str) -> String {
    let label: String = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' })
        .collect();
    label[..label.len().min(40)].trim_matches('-').to_owned()
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_tests_name_becomes_a_name_that_kubernetes_accepts() {
        assert_eq!(super::label("bad specs::are Refused"), "bad-specs--are-refused");
        let long = super::label("a_deployment_started_from_the_recorded_map_is_balanced");
        assert_eq!(long, "a-deployment-started-from-the-recorded-m");
    }
}
