//! docs/reference.md is what the definition says. `UPDATE_DOCS=1 cargo test -p tests --test chart` writes the page.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};
use tests::workspace;

use crate::helm::text;

const DEFINITION: &str = "charts/swiftbalancer/files/moedeployments.swiftbalancer.io.yaml";
const PAGE: &str = "docs/reference.md";

const HEAD: &str = "\
# MoEDeployment

Every field of `swiftbalancer.io/v1alpha1`, `MoEDeployment` (`moed` for short), with what the API server checks of it. The page is written
by `UPDATE_DOCS=1 cargo test -p tests --test chart` from the [definition](../charts/swiftbalancer/files/moedeployments.swiftbalancer.io.yaml),
and a test fails when they differ. `kubectl explain moed.spec.eplb` says the same in a cluster.
";

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn kind(schema: &Value) -> String {
    let of = |inner: &Value| if inner.is_null() { "object".to_owned() } else { kind(inner) };
    if schema["x-kubernetes-int-or-string"] == true {
        return "quantity".to_owned();
    }
    match text(schema, "/type") {
        "array" => format!("list of {}", of(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map to {}", of(&schema["additionalProperties"]))
        }
        other => other.to_owned(),
    }
}

/// What is checked of a value, beside its type.
fn bounds(schema: &Value) -> String {
    let mut said = Vec::new();
    let number = |value: &Value| value.as_f64().map(|value| format!("{value}"));
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
        said.push(values.join(", "));
    }
    let ranges =
        [("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " items")];
    for (least, most, what) in ranges {
        match (number(&schema[least]), number(&schema[most])) {
            (Some(least), Some(most)) => said.push(format!("{least} to {most}{what}")),
            (None, Some(most)) => said.push(format!("at most {most}{what}")),
            (Some(least), None) => said.push(format!("at least {least}{what}")),
            (None, None) => {}
        }
    }
    if let Some(most) = number(&schema["maxProperties"]) {
        said.push(format!("at most {most} entries"));
    }
    if let Some(pattern) = schema["pattern"].as_str().filter(|_| schema["x-kubernetes-int-or-string"] != true) {
        said.push(format!("matches `{pattern}`"));
    }
    cell(&said.join("; "))
}

/// Rows of a schema's fields and of those below them, and the rules that it has.
fn fields(schema: &Value, at: &str, page: &mut String, rules: &mut Vec<(String, String)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let said = rule["message"].as_str().or_else(|| rule["messageExpression"].as_str()).unwrap_or_default();
        rules.push((at.to_owned(), cell(said)));
    }
    let required = schema["required"].as_array();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        let is_required = required.is_some_and(|required| required.contains(&json!(name)));
        let default = match &field["default"] {
            Value::Null if is_required => "required".to_owned(),
            Value::Null => String::new(),
            Value::Object(_) | Value::Array(_) => "as below".to_owned(),
            value => format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        };
        let (kind, bounds, says) = (kind(field), bounds(field), cell(text(field, "/description")));
        writeln!(page, "| `{path}` | {kind} | {default} | {bounds} | {says} |").unwrap();
        let (below, more) = match text(field, "/type") {
            "array" => (&field["items"], "[]"),
            "object" if field["additionalProperties"].is_object() => (&field["additionalProperties"], "{}"),
            _ => (field, ""),
        };
        if !more.is_empty() {
            let mut own = field.clone();
            own["properties"] = Value::Null;
            fields(&own, &path, page, rules);
        }
        fields(below, &format!("{path}{more}"), page, rules);
    }
}

fn page() -> String {
    let definition = fs::read_to_string(workspace::root().join(DEFINITION)).unwrap();
    let definition: Value = serde_saphyr::from_str(&definition).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let (mut page, mut rules) = (HEAD.to_owned(), Vec::new());
    for part in ["spec", "status"] {
        let schema = &schema["properties"][part];
        write!(page, "\n## {part}\n\n{}\n\n", cell(text(schema, "/description"))).unwrap();
        page += "| field | type | default | checked | meaning |\n| --- | --- | --- | --- | --- |\n";
        fields(schema, part, &mut page, &mut rules);
    }
    page += "\n## Rules\n\nWhat is refused beside that, with these words.\n\n| of | words |\n| --- | --- |\n";
    let mut own = schema.clone();
    own["properties"] = Value::Null;
    fields(&own, "the whole", &mut String::new(), &mut rules);
    for (at, said) in rules {
        writeln!(page, "| `{at}` | {said} |").unwrap();
    }
    page
}

#[test]
fn the_page_is_what_the_definition_says() {
    let path = workspace::root().join(PAGE);
    let expected = page();
    assert!(expected.lines().filter(|line| line.starts_with("| `spec.")).count() > 40, "{expected}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "`UPDATE_DOCS=1 cargo test -p tests --test chart` writes {PAGE} anew");
}
