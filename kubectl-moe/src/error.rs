//! Why a command failed.

use std::time::Duration;

use thiserror::Error;

use crate::OfflineError;
use crate::words::counted;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum PluginError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The deployment cannot be read.
    #[error("failed to read MoEDeployment {namespace}/{name}")]
    Deployment {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// How the call failed.
        source: Box<kube::Error>,
    },
    /// The API server cannot be asked.
    #[error("the API server cannot be asked")]
    Client(#[source] Box<kube::Error>),
    /// A coordinator cannot be asked.
    #[error(
        "coordinator {pod} cannot be asked for {path}: this needs the right to {verb} pods/proxy, and a pod that runs"
    )]
    Coordinator {
        /// Its pod.
        pod: String,
        /// What was asked for.
        path: &'static str,
        /// The right that is needed.
        verb: &'static str,
        /// How the call failed.
        source: Box<kube::Error>,
    },
    /// A coordinator at an address cannot be asked.
    #[error("{url} cannot be asked for {path}: this needs the admin port of a coordinator that runs")]
    Address {
        /// The address.
        url: String,
        /// What was asked for.
        path: &'static str,
        /// How the call failed.
        source: Box<kube::Error>,
    },
    /// What should be an address is none.
    #[error("\"{url}\" is no URL of {what}; one is written http://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
        /// Whose it should be.
        what: &'static str,
    },
    /// The file with the token cannot be used.
    #[error("the token cannot be read from {}", path.display())]
    TokenFile {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The file with the API key cannot be used.
    #[error("the API key cannot be read from {}", path.display())]
    KeyFile {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The API server passes no key of an API on.
    #[error("{target} is asked through the API server, which passes no API key on; give a URL with --api-key-file")]
    KeyByName {
        /// What was given.
        target: String,
    },
    /// What is to be measured cannot be reached.
    #[error(
        "{target} cannot be asked: a URL needs a server that runs, and the name of a deployment the right to get and create \
         services/proxy"
    )]
    Unreachable {
        /// What was given.
        target: String,
        /// How the call failed.
        source: Box<kube::Error>,
    },
    /// What is to be measured does not answer as a server of the OpenAI API does.
    #[error("{target} answers with: {reason}")]
    Benchmark {
        /// What was given.
        target: String,
        /// Why, in its words.
        reason: String,
    },
    /// The token of the coordinators cannot be read.
    #[error(
        "the coordinators of {name} ask for a token, and the Secret {secret} that holds it cannot be read: this needs the right \
         to get secrets {secret} in namespace {namespace}"
    )]
    Token {
        /// The deployment.
        name: String,
        /// Its namespace.
        namespace: String,
        /// The Secret.
        secret: String,
        /// How the call failed.
        source: Box<kube::Error>,
    },
    /// A coordinator answers with more than is read.
    #[error("coordinator {pod} answers {path} with more than {most} bytes, as no coordinator does")]
    TooLarge {
        /// Its pod.
        pod: String,
        /// What was asked for.
        path: &'static str,
        /// Bytes that are read.
        most: usize,
    },
    /// A coordinator does not come to an end.
    #[error("coordinator {pod} has not answered {path} within {seconds} s")]
    TooSlow {
        /// Its pod.
        pod: String,
        /// What was asked for.
        path: &'static str,
        /// Seconds that are waited.
        seconds: u64,
    },
    /// A coordinator does not do what it is asked for, or not yet.
    #[error("coordinator {pod} answers {path} with: {message}")]
    Refused {
        /// Its pod.
        pod: String,
        /// What was asked for.
        path: &'static str,
        /// Why, in its words.
        message: String,
    },
    /// A coordinator's answer cannot be read.
    #[error("the answer of coordinator {pod} cannot be read")]
    Document {
        /// Its pod.
        pod: String,
        /// What is wrong with it.
        source: plan::wire::WireError,
    },
    /// There is no such replica.
    #[error("MoEDeployment {name} has {}, so none has the number {replica}{}", replicas_of(*replicas), first_number(*replicas))]
    NoReplica {
        /// The deployment.
        name: String,
        /// How many it has.
        replicas: i32,
        /// The one that was asked for.
        replica: usize,
    },
    /// The deployments of a namespace, or of all, cannot be read.
    #[error("failed to list MoEDeployments in {place}")]
    List {
        /// The namespace that was asked for, in words.
        place: String,
        /// How the call failed.
        source: Box<kube::Error>,
    },
    /// The deployments cannot be watched.
    #[error("MoEDeployments in {place} can no longer be watched")]
    Watch {
        /// The namespace that was asked for, in words.
        place: String,
        /// How the watch failed.
        source: Box<kube::runtime::watcher::Error>,
    },
    /// What runs in the cluster cannot be read.
    #[error("failed to list {what} of all namespaces")]
    Versions {
        /// What was asked for.
        what: &'static str,
        /// How the call failed.
        source: Box<kube::Error>,
    },
    /// The pages of the manual cannot be written.
    #[error("the pages cannot be written into {}", path.display())]
    Manual {
        /// The folder.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// An answer takes longer than it may.
    #[error("no answer within {} s, the --request-timeout", after.as_secs_f64())]
    Late {
        /// How long was waited.
        after: Duration,
    },
    /// The result cannot be written.
    #[error("the result cannot be written")]
    Output(#[source] std::io::Error),
    /// A map cannot be written in a format.
    #[error(transparent)]
    Format(#[from] plan::formats::WriteError),
    /// A command that needs no cluster failed.
    #[error(transparent)]
    Offline(#[from] OfflineError),
}

impl PluginError {
    /// Whether the same may be answered later: a coordinator is starting, or was too slow.
    pub(crate) const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Coordinator { .. }
                | Self::Address { .. }
                | Self::Refused { .. }
                | Self::TooSlow { .. }
                | Self::Late { .. }
        )
    }
}

fn replicas_of(replicas: i32) -> String {
    match replicas {
        ..=0 => "no replica".to_owned(),
        some => counted(usize::try_from(some).unwrap_or(0), "replica"),
    }
}

/// Counting begins with 0, which surprises where there is one.
const fn first_number(replicas: i32) -> &'static str {
    if replicas > 0 { "; the first is 0" } else { "" }
}
