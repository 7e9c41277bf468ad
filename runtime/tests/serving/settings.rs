//! Settings that are wrong: each is refused with what to do, and nothing is started.

use std::path::Path;
use std::process::{Command, Stdio};

use kernels::cpu::Cpu;
use plan::wire::MapDocument;
use runtime::memory::of_cache;
use runtime::model::checkpoint::Checkpoint;
use runtime::model::forward::CacheSize;

use crate::group::{Group, MODEL, limited_program, program};

/// What the program says about these options when it ends.
pub fn refusal(options: &[&str]) -> String {
    refusal_by(program(), options)
}

fn refusal_by(mut program: Command, options: &[&str]) -> String {
    let least =
        [("--ranks", "2"), ("--admin-listen", "127.0.0.1:0"), ("--listen", "127.0.0.1:0"), ("--log-format", "json")];
    let least = least.into_iter().filter(|(name, _)| !options.contains(name)).flat_map(|(name, value)| [name, value]);
    let output = program.arg("local").args(least).args(options).stdout(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "{options:?} were taken");
    let log = String::from_utf8(output.stderr).unwrap();
    if let Some(refused) = log.lines().find_map(|line| line.strip_prefix("error: ")) {
        return refused.to_owned();
    }
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
        &["--move-deadline-seconds", "18446744073709551615"],
        &["--shutdown-grace-seconds", "-1"],
        &["--ranks", "three"],
        &["--admin-listen", "localhost"],
        &["--expert-map-path", &four_ranks],
        &["--expert-map-path", &other],
        &["--expert-map-path", &broken],
        &["--expert-map-path", "/nowhere/map.json"],
        &["--expert-map-path", "/dev/zero"],
        &["--api-key-file", "/dev/zero"],
        &["--served-model-name", ""],
        &["--expert-map-record-path", "/nowhere/map.json"],
        &["--expert-map-record-path", folder.path().to_str().unwrap()],
        &["--expert-map-record-path", "/dev/full"],
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

#[test]
fn a_failed_start_is_told_whatever_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef".repeat(4)).unwrap();
    for (filter, also) in [("off", None), ("runtime=off", None), ("info=loud=1", Some("which is no filter"))] {
        for command in ["coordinator", "local", "worker", "inspect"] {
            let mut process = program();
            process.args([command, "--model", "/nowhere"]).env("RUST_LOG", filter);
            match command {
                "worker" => process.args(["--rank", "0", "--coordinator", "127.0.0.1:1", "--advertise-address", "h"]),
                "inspect" => &mut process,
                _ => process.args(["--ranks", "2", "--listen", "localhost:0", "--admin-listen", "[::1]:0"]),
            };
            if matches!(command, "coordinator" | "worker") {
                process.arg("--secret-file").arg(&secret);
            }
            if command == "worker" {
                process.args(["--listen", ":0", "--move-listen", ":0", "--health-listen", "localhost:0"]);
                // It is not its parent's child, so that it ends instead of telling its failure for ever.
                process.args(["--parent", "1"]);
            }
            let output = process.output().unwrap();
            let log = String::from_utf8(output.stderr).unwrap();
            assert!(
                output.status.code() == Some(1) && log.contains("there is no such folder"),
                "{command} {filter}: {log}"
            );
            assert!(also.is_none_or(|also| log.contains(also)), "{command} {filter}: {log}");
            let told = String::from_utf8(output.stdout).unwrap();
            let is_told = told.contains("there is no such folder") && told.lines().count() == 1;
            assert!(if command == "worker" { is_told } else { told.is_empty() }, "{command} {filter}: {told}");
        }
    }
}

#[test]
fn a_cache_that_no_machine_has_is_refused_before_anything_is_started() {
    for (options, asked) in [
        (&["--kv-blocks", "1073741824"][..], "kv-blocks 1073741824 takes "),
        (&["--kv-blocks", "1048576", "--block-tokens", "1048576"], "kv-blocks 1048576 takes "),
    ] {
        let refused = refusal(&[&["--model", MODEL], options].concat());
        assert!(refused.starts_with(asked) && refused.ends_with("; lower it"), "{refused}");
        assert!(refused.contains(" on 2 rank(s), beside ") && refused.contains(" of weights, and this "), "{refused}");
    }
}

#[test]
fn a_cache_that_fits_alone_and_not_beside_the_weights_is_refused() {
    let (limit, checkpoint) = (2_u64 << 30, Checkpoint::open(Path::new(MODEL)).unwrap());
    let most = limit / of_cache::<Cpu>(&checkpoint.sizes(), CacheSize { blocks: 1, block_tokens: 16 });
    let blocks = most.to_string();
    let options = ["--model", MODEL, "--ranks", "1", "--block-tokens", "16", "--kv-blocks", &blocks];
    let refused = refusal_by(limited_program(&format!("-v {}", limit >> 10)), &options);
    let start = format!("kv-blocks {blocks} takes 2.0 GiB on 1 rank(s), beside ");
    assert!(refused.starts_with(&start), "{refused}");
    assert!(refused.ends_with(" MiB of weights, and a process (ulimit -v) has 2.0 GiB; lower it"), "{refused}");
    assert!(!refused.contains(" 0.0 MiB"), "{refused}");
}

#[test]
fn whoever_reads_the_first_lines_only_makes_nothing_panic() {
    for arguments in
        [&["inspect", "--model", MODEL][..], &["--help"], &["local", "--help"], &["worker", "--help"], &["--version"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        // Nobody reads, from the first byte on.
        drop(reader);
        let output = program().args(arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && log.is_empty(), "{arguments:?}: {log}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = program();
    command.args(["local", "--ranks", "2", "--model", "/nowhere", "--listen", "127.0.0.1:0"]);
    let status = command.args(["--admin-listen", "127.0.0.1:0"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1), "a log that nobody reads is no reason to panic");
}
