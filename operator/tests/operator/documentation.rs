//! What the pages list is what there is.

use std::collections::BTreeSet;

use operator::api::conditions::{Reason, Type};
use operator::report::Happening;
use strum::VariantArray as _;

use crate::calls::granted;

const PAGE: &str = include_str!("../../../docs/operations.md");

/// Cells of the rows of a section's table whose first heading is `first`.
fn table(page: &str, first: &str) -> Vec<Vec<String>> {
    let mut lines = page.lines().skip_while(|line| !line.starts_with(&format!("| {first} |"))).skip(2);
    let rows = std::iter::from_fn(|| lines.next().filter(|line| line.starts_with('|')));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

fn firsts(rows: Vec<Vec<String>>) -> Vec<String> {
    rows.into_iter().map(|mut row| row.remove(0)).collect()
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort();
    items
}

#[test]
fn every_condition_and_every_reason_is_listed_once() {
    let types: Vec<&str> = Type::VARIANTS.iter().map(Into::into).collect();
    assert_eq!(firsts(table(PAGE, "condition")), types);
    let reasons = Reason::VARIANTS.iter().map(|reason| <&str>::from(reason).to_owned());
    assert_eq!(sorted(firsts(table(PAGE, "reason | of"))), sorted(reasons));
    for row in table(PAGE, "reason | of") {
        let known = row[1].split(", ").all(|name| types.contains(&name));
        assert!(known, "{row:?}");
    }
}

#[test]
fn every_event_that_no_condition_has_is_listed_once() {
    let events = Happening::VARIANTS.iter().map(|event| <&str>::from(event).to_owned());
    assert_eq!(firsts(table(PAGE, "reason | type")), events.collect::<Vec<_>>());
}

/// The page that says what tests show names tests that there are.
#[test]
fn every_test_of_the_checklist_exists() {
    let page = include_str!("../../../docs/operator-checklist.md");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut sources = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let named = page.split('`').filter(|word| word.matches('_').count() > 3);
    let missing: Vec<&str> = named.filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(page.contains("`a_pod_is_known_by_its_name`") && missing.is_empty(), "{missing:?}");
}

#[test]
fn every_metric_is_listed_once() {
    let sources = [include_str!("../../src/metrics.rs"), include_str!("../../src/metrics/deployments.rs")];
    let code = sources.map(|source| source.split("#[cfg(test)]").next().unwrap());
    let names: BTreeSet<String> = code
        .iter()
        .flat_map(|code| code.split('"'))
        .filter(|text| text.starts_with("swiftbalancer_operator_"))
        .map(str::to_owned)
        .collect();
    assert!(!names.is_empty());
    assert_eq!(sorted(firsts(table(PAGE, "metric"))), Vec::from_iter(names));
}

#[test]
fn the_rights_are_those_that_the_chart_grants() {
    let listed: BTreeSet<(String, String)> = table(PAGE, "resource | verbs")
        .into_iter()
        .flat_map(|row| row[1].split(", ").map(|verb| (verb.to_owned(), row[0].clone())).collect::<Vec<_>>())
        .collect();
    assert_eq!(listed, granted());
}

/// Paths of a chart's values; empty objects and lists are values.
fn paths(values: &serde_json::Value, prefix: &str) -> Vec<String> {
    let object = values.as_object().filter(|object| !object.is_empty() && !is_quantities(values));
    let Some(object) = object else { return vec![prefix.to_owned()] };
    let path = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    object.iter().flat_map(|(key, value)| paths(value, &path(key))).collect()
}

fn is_quantities(values: &serde_json::Value) -> bool {
    values.get("requests").is_some()
}

#[test]
fn every_value_of_the_chart_is_listed_once() {
    let values: serde_json::Value =
        serde_saphyr::from_str(include_str!("../../../charts/swiftbalancer/values.yaml")).unwrap();
    let readme = include_str!("../../../charts/swiftbalancer/README.md");
    assert_eq!(sorted(firsts(table(readme, "value"))), sorted(paths(&values, "")));
}
