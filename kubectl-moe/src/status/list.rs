//! Many deployments, a row each: the columns of `kubectl get moed`. Pure.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use operator::api::MoEDeployment;
use serde::Serialize;

use crate::cluster::resource_name;
use crate::output::{Output, json, yaml};
use crate::table::Columns;

pub(super) fn render(deployments: &[MoEDeployment], all_namespaces: bool, output: Output) -> String {
    match output {
        Output::Json | Output::Yaml => {
            let list = List { items: deployments };
            if output == Output::Json { json(&list) } else { yaml(&list) }
        }
        Output::Table | Output::Wide | Output::Name => Changes::new(all_namespaces, output).of(deployments),
    }
}

#[derive(Serialize)]
struct List<'a> {
    items: &'a [MoEDeployment],
}

/// What of a list has not been shown yet.
pub(super) struct Changes {
    all_namespaces: bool,
    output: Output,
    columns: Columns,
    /// What each deployment was last shown as.
    shown: BTreeMap<(String, String), String>,
}

impl Changes {
    pub fn new(all_namespaces: bool, output: Output) -> Self {
        Self { all_namespaces, output, columns: Columns::default(), shown: BTreeMap::new() }
    }

    /// The text of those that look otherwise than when they were last shown, under a header the first time.
    pub fn of(&mut self, deployments: &[MoEDeployment]) -> String {
        let mut cells = Vec::new();
        if self.shown.is_empty() && !deployments.is_empty() && self.has_columns() {
            cells.push(self.header());
        }
        let mut documents = String::new();
        for deployment in deployments {
            let (row, document) = match self.output {
                Output::Table | Output::Wide => (Some(self.row(deployment)), String::new()),
                Output::Name => (None, resource_name(&deployment.name_any()) + "\n"),
                Output::Json => (None, json(deployment)),
                Output::Yaml => (None, format!("---\n{}", yaml(deployment))),
            };
            let looks = row.as_ref().map_or_else(|| document.clone(), |row| row.join("\n"));
            let key = (deployment.namespace().unwrap_or_default(), deployment.name_any());
            if self.shown.insert(key, looks.clone()).is_none_or(|before| before != looks) {
                cells.extend(row);
                documents += &document;
            }
        }
        self.columns.lines(&cells) + &documents
    }

    /// A deployment that is there again is shown again.
    pub fn forget(&mut self, deployment: &MoEDeployment) {
        self.shown.remove(&(deployment.namespace().unwrap_or_default(), deployment.name_any()));
    }

    fn has_columns(&self) -> bool {
        matches!(self.output, Output::Table | Output::Wide)
    }

    fn header(&self) -> Vec<String> {
        let mut header = if self.all_namespaces { vec!["NAMESPACE"] } else { Vec::new() };
        header.extend(["NAME", "READY", "REASON", "RATIO", "EPOCH", "MAP"]);
        if self.output.is_wide() {
            header.extend(["EP SIZE", "SLOTS", "REPLICAS", "MODEL"]);
        }
        header.into_iter().map(str::to_owned).collect()
    }

    fn row(&self, deployment: &MoEDeployment) -> Vec<String> {
        fn or_dash<T: ToString>(value: Option<T>) -> String {
            value.map_or_else(|| "-".to_owned(), |value| value.to_string())
        }
        let status = deployment.status.as_ref();
        let ready = status.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == "Ready"));
        let mut row = if self.all_namespaces { vec![or_dash(deployment.namespace())] } else { Vec::new() };
        row.extend([
            deployment.name_any(),
            or_dash(ready.map(|ready| &ready.status)),
            or_dash(ready.map(|ready| &ready.reason)),
            or_dash(status.and_then(|status| status.ratio.as_ref())),
            or_dash(status.and_then(|status| status.epoch)),
            or_dash(status.and_then(|status| status.expert_map.as_ref()).map(|map| &map.config_map)),
        ]);
        if self.output.is_wide() {
            let ready = status.map_or(0, |status| status.ready_replicas);
            row.extend([
                or_dash(status.and_then(|status| status.expert_parallel_size)),
                or_dash(status.and_then(|status| status.slots_per_rank)),
                format!("{ready}/{}", deployment.spec.replicas),
                deployment.spec.model.name.clone(),
            ]);
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(name: &str, ratio: &str) -> MoEDeployment {
        let mut deployment: MoEDeployment =
            serde_saphyr::from_str(include_str!("../../../examples/tiny-moe.yaml")).unwrap();
        deployment.metadata.name = Some(name.to_owned());
        deployment.metadata.namespace = Some("models".to_owned());
        deployment.status = serde_json::from_value(serde_json::json!({
            "ratio": ratio, "epoch": 3, "readyReplicas": 1, "expertParallelSize": 4,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "AllReplicasReady", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        }))
        .unwrap();
        deployment
    }

    #[test]
    fn each_deployment_has_a_row_with_its_namespace_where_there_are_several() {
        let two = [deployment("a", "0.91"), MoEDeployment { status: None, ..deployment("longer", "") }];
        insta::assert_snapshot!(
            [render(&two, false, Output::Table), render(&two, true, Output::Wide), render(&two, true, Output::Name),]
                .join("\n")
        );
        let json: serde_json::Value = serde_json::from_str(&render(&two, false, Output::Json)).unwrap();
        assert_eq!(json["items"][0]["status"]["ratio"], "0.91");
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&render(&two, false, Output::Yaml)).unwrap(), json);
        assert_eq!(render(&[], false, Output::Table), "");
    }

    #[test]
    fn what_is_watched_is_shown_where_it_changes() {
        let mut changes = Changes::new(false, Output::Table);
        assert_eq!(changes.of(&[deployment("a", "0.91"), deployment("b", "0.50")]).lines().count(), 3);
        assert_eq!(changes.of(&[deployment("a", "0.91")]), "", "it looks as it did");
        let row = changes.of(&[deployment("a", "0.92")]);
        assert!(row.starts_with("a ") && row.contains("0.92") && row.lines().count() == 1, "{row}");
        changes.forget(&deployment("b", "0.50"));
        assert_eq!(changes.of(&[deployment("b", "0.50")]).lines().count(), 1);
    }
}
