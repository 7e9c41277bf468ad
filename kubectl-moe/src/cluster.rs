//! What the plugin reads of a cluster, with the rights of whoever calls: deployments, their keys and their coordinators.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use operator::api::MoEDeployment;
use operator::keys::{AdminToken, Keys};
use operator::names;
use operator::observe::controls;
use plan::wire::State;

use crate::PluginError;
use crate::connection::Connection;
use crate::coordinator::Coordinator;

/// Kind and group of a deployment, as kubectl names objects.
const RESOURCE: &str = "moedeployment.swiftbalancer.io";

/// The name that `-o name` gives a deployment.
pub(crate) fn resource_name(name: &str) -> String {
    format!("{RESOURCE}/{name}")
}

/// A cluster, seen from a namespace.
pub(crate) struct Cluster {
    pub client: Client,
    pub namespace: String,
    /// How long an answer may take.
    pub timeout: Option<Duration>,
}

/// What a coordinator says of its replica, or why it says nothing.
pub(crate) type Answer = Result<State, String>;

/// An answer, if it is there in time.
pub(crate) async fn within<T>(
    timeout: Option<Duration>,
    answer: impl Future<Output = Result<T, PluginError>>,
) -> Result<T, PluginError> {
    match timeout {
        None => answer.await,
        Some(after) => tokio::time::timeout(after, answer).await.unwrap_or_else(|_| Err(PluginError::Late { after })),
    }
}

impl Cluster {
    pub async fn reach(connection: &Connection) -> Result<Self, PluginError> {
        let (client, namespace) = connection.client().await?;
        Ok(Self { client, namespace, timeout: connection.request_timeout() })
    }

    /// The same, asked by somebody who waits for a word to be completed.
    pub fn hurried(self) -> Self {
        const PATIENCE: Duration = Duration::from_secs(2);
        Self { timeout: Some(self.timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE))), ..self }
    }

    /// An answer, if it is there in time.
    pub async fn within<T>(&self, answer: impl Future<Output = Result<T, PluginError>>) -> Result<T, PluginError> {
        within(self.timeout, answer).await
    }

    /// Deployments of the namespace, or of all.
    pub fn api(&self, all_namespaces: bool) -> Api<MoEDeployment> {
        if all_namespaces {
            Api::all(self.client.clone())
        } else {
            Api::namespaced(self.client.clone(), &self.namespace)
        }
    }

    /// The same in words.
    pub fn place(&self, all_namespaces: bool) -> String {
        if all_namespaces { "any namespace".to_owned() } else { format!("namespace {}", self.namespace) }
    }

    pub async fn deployment(&self, name: &str) -> Result<MoEDeployment, PluginError> {
        let found = async {
            self.api(false).get(name).await.map_err(|source| PluginError::Deployment {
                namespace: self.namespace.clone(),
                name: name.to_owned(),
                source: Box::new(source),
            })
        };
        self.within(found).await
    }

    pub async fn deployments(&self, all_namespaces: bool) -> Result<Vec<MoEDeployment>, PluginError> {
        let failed = |source| PluginError::List { place: self.place(all_namespaces), source: Box::new(source) };
        let found = async { self.api(all_namespaces).list(&ListParams::default()).await.map_err(failed) };
        Ok(self.within(found).await?.items)
    }

    pub async fn coordinator(&self, name: &str, replica: usize) -> Result<Coordinator, PluginError> {
        let deployment = self.deployment(name).await?;
        if usize::try_from(deployment.spec.replicas).unwrap_or(0) <= replica {
            let replicas = deployment.spec.replicas;
            return Err(PluginError::NoReplica { name: deployment.name_any(), replicas, replica });
        }
        let token = self.token(&deployment).await?;
        Ok(self.coordinator_of(name, replica, token))
    }

    fn coordinator_of(&self, name: &str, replica: usize, token: Option<AdminToken>) -> Coordinator {
        Coordinator::new(&self.client, &self.namespace, name, replica).with(token)
    }

    /// The token of a deployment's coordinators, read with the rights of whoever calls; none if it has no keys, as under a
    /// release that knew none.
    async fn token(&self, deployment: &MoEDeployment) -> Result<Option<AdminToken>, PluginError> {
        let name = deployment.name_any();
        let secret = names::keys(&name);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = async {
            api.get_opt(&secret).await.map_err(|source| PluginError::Token {
                name,
                namespace: self.namespace.clone(),
                secret: secret.clone(),
                source: Box::new(source),
            })
        };
        let own = self.within(found).await?.filter(|secret| controls(deployment, secret));
        Ok(own.as_ref().and_then(Keys::read).map(|keys| keys.admin_token().clone()))
    }

    /// The same cluster, seen from the namespace of a deployment.
    pub fn with_namespace_of(&self, deployment: &MoEDeployment) -> Self {
        let namespace = deployment.namespace().unwrap_or_else(|| self.namespace.clone());
        Self { client: self.client.clone(), namespace, timeout: self.timeout }
    }

    /// The coordinators of a deployment, by replica.
    pub async fn coordinators(&self, deployment: &MoEDeployment) -> Result<Vec<Coordinator>, PluginError> {
        let replicas = 0..usize::try_from(deployment.spec.replicas).unwrap_or(0);
        let (name, token) = (deployment.name_any(), self.token(deployment).await?);
        Ok(replicas.map(|replica| self.coordinator_of(&name, replica, token.clone())).collect())
    }

    /// What each coordinator of a deployment says. One that does not answer is told as such; the others are still of
    /// interest, and so is what the status alone tells.
    pub async fn answers(&self, deployment: &MoEDeployment) -> Vec<Answer> {
        let coordinators = match self.coordinators(deployment).await {
            Ok(coordinators) => coordinators,
            Err(error) => return (0..deployment.spec.replicas).map(|_| Err(error.to_string())).collect(),
        };
        let mut answers = Vec::new();
        for coordinator in coordinators {
            answers.push(self.within(coordinator.state()).await.map_err(|error| plan::words::with_causes(&error)));
        }
        answers
    }
}
