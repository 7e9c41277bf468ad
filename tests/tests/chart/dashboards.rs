//! Dashboards: that they are what the program in `dashboards/` makes, and how the chart brings them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::workspace;

use crate::helm::{Release, of_kind, text};

const FOLDER: &str = "charts/swiftbalancer/files/dashboards";

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

/// Every dashboard, by the name of its file.
pub fn all() -> BTreeMap<String, Value> {
    let files = files(&workspace::root().join(FOLDER));
    files.into_iter().map(|(name, text)| (name, serde_json::from_str(&text).unwrap())).collect()
}

/// Panels of a dashboard, those of rows too.
pub fn panels(dashboard: &Value) -> Vec<Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    let inner = panels.iter().flat_map(|panel| panel["panels"].as_array().cloned().unwrap_or_default());
    panels.iter().cloned().chain(inner).filter(|panel| panel["type"] != "row").collect()
}

#[test]
fn the_dashboards_are_what_their_program_makes() {
    let made = tempfile::tempdir().unwrap();
    let program = workspace::root().join("dashboards");
    let run = Command::new("go").args(["run", "."]).arg(made.path()).current_dir(program).env("GOWORK", "off").output();
    let run = run.expect("Go 1.26 or newer, which https://go.dev/dl has");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let (kept, made) = (files(&workspace::root().join(FOLDER)), files(made.path()));
    assert_eq!(kept.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>());
    for (name, text) in &made {
        assert!(kept[name] == *text, "{name} is stale: `make dashboards` writes it anew");
    }
}

#[test]
fn every_panel_says_what_it_shows_and_what_to_make_of_it() {
    for (name, dashboard) in all() {
        let panels = panels(&dashboard);
        assert!(panels.len() > 8, "{name}");
        let mut titles: Vec<_> = panels.iter().map(|panel| (text(panel, "/type"), text(panel, "/title"))).collect();
        for panel in &panels {
            let title = text(panel, "/title");
            assert!(text(panel, "/description").ends_with('.'), "{name}: {title}");
            assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{name}: {title}");
        }
        let count = titles.len();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), count, "{name} has two panels of one kind and title");
    }
}

/// Panels of a dashboard under the rows that they are in.
fn listed(dashboard: &Value) -> String {
    let mut lines = String::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        if panel["type"] == "row" {
            writeln!(lines, "\n### {}\n", text(panel, "/title")).unwrap();
        } else {
            writeln!(lines, "- **{}**: {}", text(panel, "/title"), text(panel, "/description")).unwrap();
        }
    }
    lines
}

#[test]
fn the_page_lists_every_panel() {
    let path = workspace::root().join("docs/dashboards.md");
    let page = fs::read_to_string(&path).unwrap();
    let head = page.split("\n## ").next().unwrap();
    let mut expected = head.to_owned();
    let dashboards = all();
    for name in ["fleet.json", "deployment.json", "planner.json", "operator.json"] {
        let dashboard = &dashboards[name];
        let (title, picture) = (text(dashboard, "/title").rsplit(" / ").next().unwrap(), name.replace(".json", ".png"));
        let description = text(dashboard, "/description");
        let list = listed(dashboard);
        write!(expected, "\n## {title}\n\n{description}\n\n![{title}](dashboards/{picture})\n\n{}", list.trim_start())
            .unwrap();
    }
    assert_eq!(dashboards.len(), 4);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    } else {
        assert!(page == expected, "`UPDATE_DOCS=1 cargo test -p tests --test chart` writes docs/dashboards.md anew");
    }
    for name in dashboards.keys() {
        let picture = workspace::root().join("docs/dashboards").join(name.replace(".json", ".png"));
        assert!(picture.exists(), "{} is missing: `make dashboards-check` draws it", picture.display());
    }
}

#[test]
fn the_chart_brings_them_as_config_maps_that_grafanas_sidecar_finds() {
    let objects = Release::new(&["dashboards.enabled=true"]).objects();
    let maps = of_kind(&objects, "ConfigMap");
    let brought: BTreeMap<String, Value> = maps
        .iter()
        .flat_map(|map| {
            assert_eq!(text(map, "/metadata/labels/grafana_dashboard"), "1");
            map["data"].as_object().unwrap().clone()
        })
        .map(|(name, text)| (name, serde_json::from_str(text.as_str().unwrap()).unwrap()))
        .collect();
    assert_eq!(brought, all());
    assert!(of_kind(&Release::new(&[]).objects(), "ConfigMap").is_empty());
}

#[test]
fn the_grafana_operator_gets_what_leads_it_to_them() {
    let values = ["dashboards.grafanaOperator.enabled=true", "dashboards.grafanaOperator.folder=Mine"];
    let objects = Release::new(&values).objects();
    let (maps, dashboards) = (of_kind(&objects, "ConfigMap"), of_kind(&objects, "GrafanaDashboard"));
    assert_eq!((maps.len(), dashboards.len()), (all().len(), all().len()));
    for (map, dashboard) in maps.iter().zip(dashboards) {
        assert_eq!(text(dashboard, "/spec/configMapRef/name"), text(map, "/metadata/name"));
        assert!(map["data"].get(text(dashboard, "/spec/configMapRef/key")).is_some(), "{dashboard}");
        assert_eq!(text(dashboard, "/spec/folder"), "Mine");
        // The sidecar is to leave them alone.
        assert!(map["metadata"]["labels"].get("grafana_dashboard").is_none());
    }
}
