//! The queries of the dashboards and of the alerts, and what they may ask for.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::workspace;

use crate::prometheus::Prometheus;

/// A query of a panel or of an alert.
#[derive(Debug)]
pub struct Query {
    /// Whose it is.
    pub place: String,
    /// As Grafana sends it when everything is chosen.
    pub expression: String,
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace::root().join(path)).unwrap()
}

/// Every dashboard, by name.
pub fn dashboards() -> Vec<(String, Value)> {
    let folder = workspace::root().join("charts/swiftbalancer/files/dashboards");
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let read = |name: String| {
        let text = read(&format!("charts/swiftbalancer/files/dashboards/{name}"));
        (name.replace(".json", ""), serde_json::from_str(&text).unwrap())
    };
    names.into_iter().map(read).collect()
}

/// An expression in which everything is chosen, over ten seconds where Grafana chooses the time.
pub fn expanded(expression: &str) -> String {
    let expression = ["namespace", "deployment", "replica"]
        .iter()
        .fold(expression.to_owned(), |expression, variable| expression.replace(&format!("${variable}\""), ".*\""));
    expression.replace("$__rate_interval", "10s")
}

pub fn of_dashboards() -> Vec<Query> {
    let mut queries = Vec::new();
    for (name, dashboard) in dashboards() {
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["query"].as_str().filter(|query| query.starts_with("label_values(")) else {
                continue;
            };
            let inner = query.trim_start_matches("label_values(").trim_end_matches(')');
            let (metric, label) = inner.rsplit_once(", ").unwrap();
            let expression = format!("count by ({label}) ({})", expanded(metric));
            queries.push(Query { place: format!("{name}: the choice of {label}"), expression });
        }
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let place = format!("{name}: {}", panel["title"].as_str().unwrap());
                let expression = expanded(target["expr"].as_str().unwrap());
                assert!(!expression.contains('$'), "{place}: {expression}");
                queries.push(Query { place, expression });
            }
        }
    }
    queries
}

pub fn of_alerts() -> Vec<Query> {
    let rules: Value = serde_saphyr::from_str(&read("charts/swiftbalancer/files/rules.yaml")).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules.map(|rule| Query { place: text(&rule["alert"]), expression: text(&rule["expr"]) }).collect()
}

/// Checks that an expression asks for metrics that are exported, by labels that they have. Returns the labels below a part of it.
pub async fn check(prometheus: &Prometheus, place: &str, tree: &Value) -> Result<BTreeSet<String>> {
    let mut labels = BTreeSet::new();
    if let Some(metric) = tree["name"].as_str().filter(|_| tree["matchers"].is_array()) {
        let series = prometheus.series(metric).await?;
        ensure!(!series.is_empty(), "{place}: nothing exports {metric}");
        labels = series.iter().flat_map(|series| series.as_object().unwrap().keys().cloned()).collect();
        for matcher in tree["matchers"].as_array().into_iter().flatten() {
            let label = matcher["name"].as_str().unwrap();
            ensure!(labels.contains(label), "{place}: {metric} has no label {label}");
            let value = matcher["value"].as_str().unwrap();
            // A value that is asked for by itself is one that the metric has.
            let has = |series: &Value| series[label] == value;
            ensure!(matcher["type"] != "=" || series.iter().any(has), "{place}: no {metric} has {label}={value}");
        }
    }
    let parts = ["expr", "lhs", "rhs", "param"].into_iter().map(|key| &tree[key]).filter(|part| part.is_object());
    for part in parts.chain(tree["args"].as_array().into_iter().flatten()) {
        labels.extend(Box::pin(check(prometheus, place, part)).await?);
    }
    let named = [&tree["grouping"], &tree["matching"]["labels"]].into_iter().filter_map(Value::as_array).flatten();
    for label in named.filter_map(Value::as_str) {
        ensure!(labels.contains(label), "{place}: nothing below has the label {label}");
    }
    Ok(labels)
}
