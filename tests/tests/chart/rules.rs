//! Alerts: what is said of each, and when it fires.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;
use tests::cluster::program;
use tests::workspace;

use crate::helm::{Release, one, text};

const RULES: &str = "charts/swiftbalancer/files/rules.yaml";
const CASES: &str = "tests/rules/alerts.yaml";

fn read(path: &str) -> String {
    fs::read_to_string(workspace::root().join(path)).unwrap()
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap()
}

/// The rules of a file, those of every group.
pub fn rules(file: &Value) -> Vec<Value> {
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap()).collect()
}

pub fn alerts() -> Vec<Value> {
    rules(&yaml(RULES))
}

#[test]
fn every_alert_has_a_time_a_severity_a_summary_and_a_page_and_every_page_an_alert() {
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert, "/alert");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(!text(&alert, "/for").is_empty(), "{name}");
        assert!(["critical", "warning", "info"].contains(&text(&alert, "/labels/severity")), "{name}");
        assert!(!text(&alert, "/annotations/summary").is_empty(), "{name}");
        assert_eq!(text(&alert, "/annotations/runbook_url"), format!("RUNBOOKS/{name}.md"));
        let page = read(&format!("docs/runbooks/{name}.md"));
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        for heading in ["**Why it matters.**", "\n## Look\n", "\n## Do\n"] {
            assert!(page.contains(heading), "{name}: {heading}");
        }
    }
    let pages = fs::read_dir(workspace::root().join("docs/runbooks")).unwrap();
    let pages = pages.map(|page| page.unwrap().file_name().into_string().unwrap().replace(".md", ""));
    assert_eq!(pages.collect::<BTreeSet<_>>(), names);
}

#[test]
fn the_page_lists_every_alert_with_its_severity_and_its_time() {
    let page = read("docs/alerts.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| [")).collect();
    let alerts = alerts();
    assert_eq!(rows.len(), alerts.len());
    for (row, alert) in rows.into_iter().zip(&alerts) {
        let [name, severity, after] = ["/alert", "/labels/severity", "/for"].map(|path| text(alert, path));
        let expected = format!("| [{name}](runbooks/{name}.md) | {severity} | {after} | ");
        assert!(row.starts_with(&expected), "{row} instead of {expected}");
    }
}

#[test]
fn every_alert_fires_when_it_should_and_not_otherwise() {
    let cases = yaml(CASES);
    for alert in alerts() {
        let name = text(&alert, "/alert");
        let tests =
            cases["tests"].as_array().unwrap().iter().flat_map(|case| case["alert_rule_test"].as_array().unwrap());
        let of_it: Vec<_> = tests.filter(|test| test["alertname"] == name).collect();
        let fires = |test: &&&Value| test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
        let firing = of_it.iter().filter(fires).count();
        assert!(
            firing >= 1 && of_it.len() - firing >= 2,
            "{name} needs a case that fires, one before it does, and one that never does"
        );
    }
    let promtool = program("promtool").unwrap();
    for arguments in [["check", "rules", RULES], ["test", "rules", CASES]] {
        let tested = Command::new(&promtool).args(arguments).current_dir(workspace::root()).output().unwrap();
        let said = [tested.stdout, tested.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(tested.status.success(), "{arguments:?}: {said}");
    }
}

#[test]
fn the_chart_has_the_rules_as_they_are_but_for_where_their_pages_are() {
    let objects =
        Release::new(&["rules.enabled=true", "rules.runbookUrl=https://example.com/pages/", "rules.labels.release=x"]);
    let objects = objects.objects();
    let rule = one(&objects, "PrometheusRule");
    assert_eq!(text(rule, "/metadata/labels/release"), "x");
    let mut expected = alerts();
    for alert in &mut expected {
        let url = format!("https://example.com/pages/{}.md", text(alert, "/alert"));
        alert["annotations"]["runbook_url"] = url.into();
    }
    assert_eq!(rules(&rule["spec"]), expected);
}
