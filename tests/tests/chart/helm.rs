//! The chart as Helm renders it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tests::cluster::program;
use tests::workspace;

/// What the Prometheus operator adds to a cluster, and Grafana's.
const APIS: [&str; 2] = ["--api-versions=monitoring.coreos.com/v1", "--api-versions=grafana.integreatly.org/v1beta1"];

pub fn helm(arguments: &[&str]) -> Output {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    let helm = HELM.get_or_init(|| program("helm").unwrap());
    Command::new(helm).args(arguments).current_dir(workspace::root()).output().unwrap()
}

/// A release that is rendered.
#[derive(Clone, Debug)]
pub struct Release<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    /// As of `--set`.
    pub values: Vec<String>,
}

impl<'a> Release<'a> {
    pub fn new(values: &[&str]) -> Self {
        Self::named("swiftbalancer", "system", values)
    }

    pub fn named(name: &'a str, namespace: &'a str, values: &[&str]) -> Self {
        Self { name, namespace, values: values.iter().map(|value| (*value).to_owned()).collect() }
    }

    /// Its objects on a cluster that has everything, or what Helm says.
    pub fn render(&self) -> Result<Vec<Value>, String> {
        self.render_on(&APIS)
    }

    /// The same on a cluster with these further APIs.
    pub fn render_on(&self, apis: &[&str]) -> Result<Vec<Value>, String> {
        let mut arguments = vec!["template", self.name, "charts/swiftbalancer", "--namespace", self.namespace];
        arguments.extend(apis);
        for value in &self.values {
            let option = if value.contains("=[") || value.contains("={\"") { "--set-json" } else { "--set" };
            arguments.extend([option, value.as_str()]);
        }
        let output = helm(&arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        let objects: Vec<Option<Value>> =
            serde_saphyr::from_multiple(&text).map_err(|error| format!("{self:?}: {error}\n{text}"))?;
        Ok(objects.into_iter().flatten().collect())
    }

    pub fn objects(&self) -> Vec<Value> {
        self.render().unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Whether objects of a kind belong to no namespace.
pub fn is_of_cluster(object: &Value) -> bool {
    ["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"].contains(&text(object, "/kind"))
}

/// What tells objects of a cluster apart.
pub fn identities(objects: &[Value]) -> BTreeSet<[String; 3]> {
    let identity =
        |object: &Value| ["/kind", "/metadata/namespace", "/metadata/name"].map(|path| text(object, path).to_owned());
    let identities: BTreeSet<_> = objects.iter().map(identity).collect();
    assert_eq!(identities.len(), objects.len(), "two objects of one name: {identities:?}");
    identities
}

pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| text(object, "/kind") == kind).collect()
}

pub fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}
