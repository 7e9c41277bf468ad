//! An `MoEDeployment` of a test: the example, with what the test changes in it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt};
use plan::wire::State;
use plan::wire::keys::{ADMIN_TOKEN, secret_name};
use serde_json::Value;
use tests::cluster::Forward;
use tests::namespace::Namespace;
use tests::traffic::{Answer, Domain, Target, ask};
use tests::{admin, wait, workspace};

pub const READY: Duration = Duration::from_secs(90);

pub struct Deployment<'a> {
    pub namespace: &'a Namespace<'a>,
    pub name: String,
    pub applied: Instant,
}

/// A coordinator's admin API, reached as long as this lives.
pub struct Admin {
    pub endpoint: admin::Endpoint,
    _forward: Forward,
}

impl<'a> Deployment<'a> {
    /// Applies `examples/FILE` under the name that it has there.
    pub fn apply(namespace: &'a Namespace<'a>, file: &str, edit: impl FnOnce(&mut Value)) -> Result<Self> {
        let mut object = example(file)?;
        edit(&mut object);
        let name = object["metadata"]["name"].as_str().context("an example has a name")?.to_owned();
        let applied = Instant::now();
        namespace.apply(&serde_json::to_string(&object)?)?;
        Ok(Self { namespace, name, applied })
    }

    /// Waits until the condition `Ready` of the current generation is true.
    pub async fn ready(&self) -> Result<()> {
        self.ready_within(READY).await
    }

    /// The same, for ranks that take longer.
    pub async fn ready_within(&self, patience: Duration) -> Result<()> {
        wait::until(&format!("{} is ready", self.name), patience, async || {
            let object = self.object().await?;
            let ready = condition(&object, "Ready").context("no condition Ready")?;
            let generation = object.metadata.generation.unwrap_or_default();
            ensure!(ready["observedGeneration"] == generation, "status is of an older generation than {generation}");
            ensure!(ready["status"] == "True", "{} {}", ready["reason"], ready["message"]);
            Ok(())
        })
        .await
    }

    pub async fn object(&self) -> Result<DynamicObject> {
        Ok(self.api().get(&self.name).await?)
    }

    pub async fn delete(&self) -> Result<()> {
        self.api().delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Its pods by name.
    pub async fn pods(&self) -> Result<BTreeMap<String, Pod>> {
        let pods = self.namespace.api::<Pod>().list(&ListParams::default()).await?;
        let prefix = format!("{}-0-", self.name);
        let own = pods.items.into_iter().map(|pod| (pod.name_any(), pod));
        Ok(own.filter(|(name, _)| name.starts_with(&prefix)).collect())
    }

    pub fn coordinator(&self) -> String {
        format!("{}-0-coordinator", self.name)
    }

    pub fn rank(&self, rank: usize) -> String {
        format!("{}-0-rank-{rank}", self.name)
    }

    /// What its coordinator says of itself.
    pub async fn state(&self) -> Result<State> {
        let admin = self.admin().await?;
        admin::state(&admin.endpoint).await
    }

    /// Its admin API, with the token of now.
    pub async fn admin(&self) -> Result<Admin> {
        let forward = self.namespace.forward_to_pod(&self.coordinator(), 8001).await?;
        let secret = self.keys().await?;
        let token = secret.data.and_then(|mut data| data.remove(ADMIN_TOKEN)).context("no token is stored")?;
        let endpoint = admin::Endpoint { url: forward.url(), token: Some(String::from_utf8(token.0)?) };
        Ok(Admin { endpoint, _forward: forward })
    }

    /// The Secret with its keys.
    pub async fn keys(&self) -> Result<Secret> {
        Ok(self.namespace.api::<Secret>().get(&secret_name(&self.name)).await?)
    }

    /// The OpenAI API through its service, as a client on `node` reaches it.
    pub async fn service(&self, node: usize) -> Result<Forward> {
        self.namespace.forward_to_service(&self.name, 80, node).await
    }

    /// Asks one question through the service until it is answered: the same question has the same answer, always.
    pub async fn answer(&self, node: usize, mut first_token: impl FnMut()) -> Result<Answer> {
        let domain = Domain::load("scripture")?;
        let service = self.service(node).await?;
        let target = target(&service.url());
        let http = reqwest::Client::new();
        wait::until("a question is answered", READY, async || {
            ask(&http, &target, domain.question(0), |_| first_token()).await
        })
        .await
    }

    fn api(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("swiftbalancer.io", "v1alpha1", "MoEDeployment");
        let resource = ApiResource::from_gvk_with_plural(&kind, "moedeployments");
        Api::namespaced_with(self.namespace.client.clone(), &self.namespace.name, &resource)
    }
}

/// The traffic of tests.
pub fn target(url: &str) -> Target {
    Target { url: url.to_owned(), model: "tiny-moe".into(), concurrency: 16, max_tokens: 24 }
}

pub fn example(file: &str) -> Result<Value> {
    let path = workspace::root().join("examples").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

pub fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a Value> {
    object.data["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Waits until there is no object of the deployment: pods, services, config maps and whatever else a namespace can hold.
pub async fn nothing_is_left(namespace: &Namespace<'_>) -> Result<()> {
    let kinds = namespace.cluster.kubectl(["api-resources", "--namespaced", "--verbs=list", "--output=name"])?.stdout;
    // What every namespace has, and what tells of the past.
    let kinds: Vec<_> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let kinds = kinds.join(",");
    wait::until("no object is left", Duration::from_mins(1), async || {
        let arguments = ["get", &kinds, "--namespace", &namespace.name, "--output=name", "--ignore-not-found"];
        let found = namespace.cluster.kubectl(arguments)?.stdout;
        let left: Vec<_> = found
            .lines()
            .filter(|object| !["configmap/kube-root-ca.crt", "serviceaccount/default"].contains(object))
            .collect();
        if left.is_empty() { Ok(()) } else { bail!("{}", left.join(" ")) }
    })
    .await
}
