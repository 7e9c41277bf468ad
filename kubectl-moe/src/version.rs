//! `kubectl moe version`: this program's version, and those of what it talks to, as their images tell them.

use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use operator::names;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::output::Output;
use crate::{PluginError, Terminal};

/// Arguments of `kubectl moe version`.
#[derive(Args, Debug)]
pub(crate) struct VersionArguments {
    /// The version of this program only; asks no cluster
    #[arg(long)]
    client: bool,
    /// How the result is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: String,
    operators: Vec<Running>,
    coordinators: Vec<Running>,
}

/// A program that runs in the cluster.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Running {
    namespace: String,
    name: String,
    version: String,
}

/// Prints the versions. A cluster that says nothing keeps that of this program from nobody.
pub(crate) async fn version(
    arguments: &VersionArguments,
    connection: &Connection,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    let mut versions = Versions { client_version: env!("CARGO_PKG_VERSION").to_owned(), ..Versions::default() };
    if !arguments.client {
        terminal.progress.doing("asking the API server");
        if let Err(error) = ask(connection, &mut versions).await {
            terminal.warn(&format!("versions of the cluster are not known: {}", plan::words::with_causes(&error)));
        }
    }
    terminal.print(&render(&versions, arguments.output))
}

async fn ask(connection: &Connection, versions: &mut Versions) -> Result<(), PluginError> {
    let cluster = Cluster::reach(connection).await?;
    let of_chart = ListParams::default().labels("app.kubernetes.io/component=operator,helm.sh/chart");
    let operators = async {
        let found = Api::<Deployment>::all(cluster.client.clone()).list(&of_chart).await;
        found.map_err(|source| PluginError::Versions { what: "the operator's Deployments", source: Box::new(source) })
    };
    versions.operators =
        cluster.within(operators).await?.iter().filter(|found| is_of_chart(found)).map(operator).collect();
    let role: &str = names::Role::Coordinator.into();
    let of_role = ListParams::default().labels(&format!("{}={role}", names::ROLE));
    let coordinators = async {
        let found = Api::<Pod>::all(cluster.client.clone()).list(&of_role).await;
        found.map_err(|source| PluginError::Versions { what: "the coordinators' pods", source: Box::new(source) })
    };
    versions.coordinators = cluster.within(coordinators).await?.iter().map(coordinator).collect();
    versions.operators.sort();
    versions.coordinators.sort();
    Ok(())
}

/// Whether it is of the chart `swiftbalancer`, whatever the release is called.
fn is_of_chart(deployment: &Deployment) -> bool {
    deployment.labels().get("helm.sh/chart").is_some_and(|chart| chart.starts_with("swiftbalancer-"))
}

fn operator(deployment: &Deployment) -> Running {
    let pod = deployment.spec.template.spec.as_ref();
    running(deployment, pod, deployment.labels().get("app.kubernetes.io/version"))
}

fn coordinator(pod: &Pod) -> Running {
    running(pod, pod.spec.as_ref(), None)
}

/// Who tags images says what is in them; where none is tagged, the chart's word is as good as any.
fn running(object: &impl kube::Resource, pod: Option<&PodSpec>, said: Option<&String>) -> Running {
    let image = pod.and_then(|pod| pod.containers.first()?.image.as_deref());
    let version = image.and_then(tag).or_else(|| said.cloned()).unwrap_or_else(|| "unknown".to_owned());
    Running { namespace: object.namespace().unwrap_or_default(), name: object.name_any(), version }
}

/// The tag of an image; a colon before a slash is that of a port.
fn tag(image: &str) -> Option<String> {
    let named = image.split('@').next().unwrap_or_default();
    let (_, tag) = named.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?;
    Some(tag.to_owned())
}

fn render(versions: &Versions, output: Output) -> String {
    let running = |what: &str, of: &[Running]| -> String {
        let line = |one: &Running| format!("{what} Version: {} ({}/{})\n", one.version, one.namespace, one.name);
        of.iter().map(line).collect()
    };
    let table = |versions: &Versions| {
        let Versions { client_version, operators, coordinators } = versions;
        format!(
            "Client Version: {client_version}\n{}{}",
            running("Operator", operators),
            running("Coordinator", coordinators)
        )
    };
    output.print(versions, table, |versions| format!("kubectl-moe/{}", versions.client_version))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_version_is_the_tag_of_the_image_or_what_the_chart_says() {
        let tagged = |image: &str| {
            let deployment = json!({
                "metadata": {"name": "o", "namespace": "n", "labels": {"app.kubernetes.io/version": "0.0.9"}},
                "spec": {
                    "selector": {},
                    "template": {"spec": {"containers": [{"name": "operator", "image": image}]}},
                },
            });
            operator(&serde_json::from_value(deployment).unwrap()).version
        };
        assert_eq!(tagged("docker.io/swiftbalancer/operator:0.1.0"), "0.1.0");
        assert_eq!(tagged("localhost:5000/operator:0.1.0@sha256:ab"), "0.1.0");
        assert_eq!(tagged("localhost:5000/operator"), "0.0.9");
        assert_eq!(tagged("operator@sha256:ab"), "0.0.9");
        assert_eq!(coordinator(&Pod::default()).version, "unknown");
    }

    #[test]
    fn every_program_has_a_line() {
        let one =
            |name: &str| Running { namespace: "n".to_owned(), name: name.to_owned(), version: "0.1.0".to_owned() };
        let versions =
            Versions { client_version: "0.2.0".to_owned(), operators: vec![one("o")], coordinators: vec![one("c-0")] };
        assert_eq!(
            render(&versions, Output::Table),
            "Client Version: 0.2.0\nOperator Version: 0.1.0 (n/o)\nCoordinator Version: 0.1.0 (n/c-0)\n"
        );
        let json: serde_json::Value = serde_json::from_str(&render(&versions, Output::Json)).unwrap();
        assert_eq!((&json["clientVersion"], &json["operators"][0]["version"]), (&"0.2.0".into(), &"0.1.0".into()));
    }
}
