//! Settings that are wrong: each is refused with what to do, and nothing is started.

use std::process::Stdio;

use plan::wire::MapDocument;

use crate::group::{Group, MODEL, program};

/// What the program says about these options when it ends.
fn refusal(options: &[&str]) -> String {
    let least = ["--ranks", "2", "--admin-listen", "127.0.0.1:0", "--log-format", "json"];
    let listen = if options.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] };
    let output = program().arg("local").args(least).args(listen).args(options).stdout(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "{options:?} were taken");
    let log = String::from_utf8(output.stderr).unwrap();
    let line = log.lines().last().unwrap_or_default();
    let fields = serde_json::from_str::<serde_json::Value>(line).map(|line| line["fields"].clone());
    fields.map_or(log.clone(), |fields| fields["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn wrong_settings_are_refused_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let group = Group::start(4, &[]).await;
    let map = reqwest::get(format!("{}{}", group.admin, plan::wire::path::MAP)).await.unwrap().bytes().await.unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut other = MapDocument::from_json(&map).unwrap();
    other.model.digest = "0".repeat(8);
    let four_ranks = file("four.json", &map);
    let other = file("other.json", &serde_json::to_vec(&other).unwrap());
    let broken = file("broken.json", b"{\"version\": \"swiftbalancer.io/v9\"}");
    let model = ["--model", MODEL];
    let report: Vec<String> = [
        (&["--num-wait-worker-iterations", "29"][..]),
        &["--num-iterations-eplb-update", "0"],
        &["--init-redundancy-expert", "3"],
        &["--init-redundancy-expert", "64"],
        &["--expect-experts", "64"],
        &["--max-model-len", "2048"],
        &["--max-queued-requests", "0"],
        &["--max-step-tokens", "8"],
        &["--minimum-gain", "1.5"],
        &["--expert-map-path", &four_ranks],
        &["--expert-map-path", &other],
        &["--expert-map-path", &broken],
        &["--expert-map-path", "/nowhere/map.json"],
        &["--expert-map-record-path", "/nowhere/map.json"],
        &["--listen", group.url.strip_prefix("http://").unwrap()],
    ]
    .iter()
    .map(|options| format!("{}\n    {}", options.join(" "), refusal(&[&model, *options].concat())))
    .chain([format!("missing model\n    {}", refusal(&["--model", "/nowhere"]))])
    .collect();
    let report = report.join("\n").replace(folder.path().to_str().unwrap(), "FOLDER").replace(MODEL, "MODEL");
    let report = report.replace(group.url.strip_prefix("http://").unwrap(), "ADDRESS");
    insta::assert_snapshot!(report);
}

#[test]
fn a_checkpoint_is_inspected_without_being_served() {
    let output = program().args(["inspect", "--model", MODEL]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["model"]["experts"], 32);
    assert_eq!(report["maxModelLen"], 1024);
    let output = program().args(["inspect", "--model", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere"));
}
