#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
//! docs/refusals.md is what the product says. Each section but one is a snapshot that a test of the crate compares with the
//! product; the files of other engines are read here. `UPDATE_DOCS=1 cargo test -p tests --test refusals` writes the page.

use std::fmt::Write as _;
use std::fs;

use plan::formats;
use plan::wire::ModelIdentity;
use serde_json::{Value, json};
use tests::workspace;

const PAGE: &str = "docs/refusals.md";

const HEAD: &str = "\
# Refusals

What is given to SwiftBalancer and cannot work, and the error that comes back. Nothing here ends a process that serves or
loses another request. What the operator sees is refused before there is a pod. Checkpoints and maps on a volume are read by
the coordinator, which holds no GPU: ranks get their pods when it has found them right.

This page is written by `UPDATE_DOCS=1 cargo test -p tests --test refusals` from the tests of the crates, and a test fails
when they differ.
";

/// Heading, introduction, and the snapshot that holds inputs and errors.
const SNAPSHOTS: [(&str, &str, &str); 10] = [
    (
        "Specifications, by the API server",
        "`kubectl apply` fails; the object is not stored.",
        "operator/tests/operator/snapshots/operator__specification__a_specification_that_cannot_work_is_refused_with_what_to_do.snap",
    ),
    (
        "Specifications, by the operator",
        "What the cluster decides: the condition `Ready` is false with this reason and message, and no pod is created.",
        "operator/tests/operator/snapshots/operator__status__what_the_cluster_cannot_give_holds_no_pod_and_says_what_is_missing.snap",
    ),
    (
        "Pod templates, by the operator",
        "The condition `SpecValid` is false with the reason `Invalid` and this message, and no pod is created or replaced.",
        "operator/tests/operator/snapshots/operator__templates__what_takes_the_place_of_the_operators_own_is_refused_by_name.snap",
    ),
    (
        "Answers of the runtime, by the operator",
        "What the operator reads of a coordinator of another release, or of something else at its address: the condition \
         `Degraded` is true with this reason and message, and an event of this reason tells it once. Requests are served all the \
         same; it ends when 5 answers in a row can be read.",
        "operator/tests/operator/snapshots/operator__status__answers_that_cannot_be_read_say_what_was_found_and_what_to_do.snap",
    ),
    (
        "Settings and maps, by the runtime",
        "On the command line of 2 ranks; the process ends before anything is started.",
        "runtime/tests/serving/snapshots/serving__settings__wrong_settings_are_refused_before_anything_is_started.snap",
    ),
    (
        "Files and numbers, by kubectl moe",
        "By the commands that need no cluster, see [kubectl moe](kubectl-moe.md). LOAD is the load of the tiny model on 4 layers of 32 \
         experts.",
        "kubectl-moe/tests/plugin/snapshots/plugin__refusals__files_and_numbers_that_cannot_work_are_refused_with_what_is_wrong.snap",
    ),
    (
        "Checkpoints",
        "When the runtime starts, before any weight is used, and by `swiftbalancer-runtime inspect`; in a cluster the condition \
         `Ready` repeats it.",
        "runtime/tests/serving/snapshots/serving__folders__a_folder_that_cannot_be_served_is_refused_in_one_sentence_by_start_and_by_inspect.snap",
    ),
    (
        "Requests for completions",
        "Status and code, and the message of the error object.",
        "runtime/src/server/tests/snapshots/runtime__server__tests__refusals__bad_completions_are_refused_naming_the_field.snap",
    ),
    (
        "Requests for chat completions",
        "",
        "runtime/src/server/tests/snapshots/runtime__server__tests__refusals__bad_chats_are_refused_naming_the_field.snap",
    ),
    (
        "Other requests",
        "",
        "runtime/src/server/tests/snapshots/runtime__server__tests__refusals__bad_http_is_refused_in_the_same_form.snap",
    ),
];

/// An input, what is said of it in short, and the error.
type Row = (String, Option<String>, String);

/// Rows of a snapshot: a line with the input, and the error indented below.
fn rows(snapshot: &str) -> Vec<Row> {
    let text =
        fs::read_to_string(workspace::root().join(snapshot)).unwrap_or_else(|error| panic!("{snapshot}: {error}"));
    let content = text.splitn(3, "---\n").nth(2).unwrap();
    let mut rows: Vec<Row> = Vec::new();
    for line in content.lines().filter(|line| !line.is_empty()) {
        match (line.strip_prefix("    "), rows.last_mut()) {
            (Some(error), Some(row)) if row.2.is_empty() => error.clone_into(&mut row.2),
            (Some(error), Some(row)) => write!(row.2, " {error}").unwrap(),
            _ => {
                let (input, said) = line.split_once(": ").map_or((line, None), |(input, said)| (input, Some(said)));
                rows.push((input.to_owned(), said.map(str::to_owned), String::new()));
            }
        }
    }
    assert!(rows.iter().all(|row| !row.2.is_empty()), "{snapshot}: {rows:?}");
    rows
}

/// `400 invalid_request_error top_p invalid_value` is told by its status and its code.
fn shorten(said: &str) -> String {
    match said.split(' ').collect::<Vec<_>>()[..] {
        [status, _, _, code] => format!("{status} `{code}`"),
        _ => format!("`{said}`"),
    }
}

fn section(page: &mut String, heading: &str, introduction: &str, rows: &[Row]) {
    write!(page, "\n## {heading}\n\n").unwrap();
    if !introduction.is_empty() {
        write!(page, "{introduction}\n\n").unwrap();
    }
    writeln!(page, "| input | error |\n| --- | --- |").unwrap();
    for (input, said, error) in rows {
        let said = said.as_deref().map_or_else(String::new, |said| format!("{}: ", shorten(said)));
        let input = if input.starts_with('-') { format!("`{input}`") } else { input.clone() };
        writeln!(page, "| {input} | {said}{} |", cell(error)).unwrap();
    }
}

/// An error as it is, in a cell of a table.
fn cell(error: &str) -> String {
    format!("`{}`", error.replace('|', "\\|").replace('`', "'"))
}

/// A file of vllm-ascend for 1 layer of 3 experts on 2 devices with 2 experts each, and what is wrong with it.
fn maps_of_vllm_ascend() -> Vec<Row> {
    let model = ModelIdentity { name: "small".to_owned(), digest: "d1".to_owned(), layers: 1, experts: 3 };
    let good = json!({"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 2, "device_list": [
        {"device_id": 0, "device_expert": [0, 1]}, {"device_id": 1, "device_expert": [2, 0]},
    ]}]});
    let refused = |what: &str, pointer: &str, value: Value| {
        let mut file = good.clone();
        *file.pointer_mut(pointer).unwrap() = value;
        let error = formats::read(file.to_string().as_bytes(), &model, 2).unwrap_err();
        (what.to_owned(), None, error.to_string())
    };
    formats::read(good.to_string().as_bytes(), &model, 2).unwrap();
    let experts = "/layer_list/0/device_list/1/device_expert";
    vec![
        refused("another number of layers than it says", "/moe_layer_count", json!(2)),
        refused("a negative layer", "/layer_list/0/layer_id", json!(-1)),
        refused("another number of devices than it says", "/layer_list/0/device_count", json!(3)),
        refused("a device twice", "/layer_list/0/device_list/1/device_id", json!(0)),
        refused("unequal slots", experts, json!([2])),
        refused("an unknown expert", experts, json!([2, 3])),
        refused("a negative expert", experts, json!([2, -1])),
        refused("a missing expert", experts, json!([1, 0])),
        refused("no list of layers", "/layer_list", json!(1)),
    ]
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (heading, introduction, snapshot) in SNAPSHOTS {
        section(&mut page, heading, introduction, &rows(snapshot));
        if heading.starts_with("Settings") {
            let introduction = "`--expert-map-path` and `eplb.expertMapPath` take the maps of other engines too: `eplb.json`, and those of vLLM, SGLang and \
             TensorRT-LLM.";
            section(&mut page, "Maps of vllm-ascend", introduction, &maps_of_vllm_ascend());
        }
    }
    page
}

#[test]
fn the_page_is_what_the_product_says() {
    let path = workspace::root().join(PAGE);
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    let differs = written.lines().zip(page.lines()).find(|(written, said)| written != said);
    assert!(written == page, "{PAGE} is stale: UPDATE_DOCS=1 cargo test -p tests --test refusals; first: {differs:#?}");
}
