//! What the commands give: the figures of a plan are those of the map that it prints.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::{printed, run, text, workspace};

const LOAD: &str = "examples/tiny-moe-load.json";

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(&[arguments, &["-o", "json"]].concat())).unwrap()
}

/// A file of this name in a folder of its own: tests run at the same time, and some give their files the same name.
fn scratch(name: &str) -> String {
    static FOLDERS: AtomicU32 = AtomicU32::new(0);
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("kubectl-moe-results-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder.join(name).to_str().unwrap().to_owned()
}

fn plan(more: &[&str]) -> Value {
    json(&[&["plan", "--load", LOAD, "--ranks", "4", "--redundancy", "4", "--expert-bytes", "49152"], more].concat())
}

#[test]
fn a_plan_that_is_in_force_is_planned_again_without_a_move() {
    let map = scratch("again.json");
    let first = plan(&["--out", &map]);
    assert!(first["moved_slots"].as_u64() > Some(0) && first["decision"].is_null(), "{first}");
    assert_eq!(first["bytes"].as_u64(), first["moved_slots"].as_u64().map(|slots| slots * 49152));
    assert_eq!(first["map"], serde_json::from_slice::<Value>(&fs::read(&map).unwrap()).unwrap());
    let again = plan(&["--current", &map]);
    assert_eq!(again["ratio_before"], first["ratio"], "the load and the map are the same");
    assert_eq!((again["moved_slots"].as_u64(), again["bytes"].as_u64()), (Some(0), Some(0)));
    assert_eq!(again["map"], first["map"]);
    assert_eq!(again["decision"]["figures"]["pages"], 0);
}

#[test]
fn ranks_of_other_speeds_and_links_are_planned_for_and_judged_as_such() {
    let even = scratch("even.json");
    plan(&["--policy", "off", "--out", &even]);
    let unequal = plan(&["--rank-speeds", "3,1,1,1"]);
    // A plan for ranks that are alike leaves the fast one idle for most of a step.
    let alike = scratch("alike.json");
    plan(&["--out", &alike]);
    let kept = plan(&["--policy", "off", "--current", &alike, "--rank-speeds", "3,1,1,1"]);
    let [planned, kept] = [&unequal, &kept].map(|report| report["ratio"].as_f64().unwrap());
    assert!(planned > 0.9 && kept < 0.75, "{planned} {kept}");
    let seconds = |more: &[&str]| {
        let report = plan(&[&["--nodes", "2", "--current", &even], more].concat());
        report["decision"]["figures"]["movingSeconds"].as_f64().unwrap()
    };
    assert!(seconds(&["--link-bytes-between-nodes", "1e6"]) > 100.0 * seconds(&[]));
}

#[test]
fn a_decision_has_the_figures_of_the_plan_and_follows_its_options() {
    let even = scratch("even.json");
    plan(&["--policy", "off", "--out", &even]);
    let decided = |more: &[&str]| plan(&[&["--current", even.as_str()], more].concat());
    let report = decided(&[]);
    let decision = &report["decision"];
    assert_eq!((&decision["reason"], &decision["figures"]["pages"]), (&"worth_it".into(), &report["moved_slots"]));
    assert_eq!(decision["figures"]["bytes"], report["bytes"]);
    // What is predicted of the next window counts in that it will not be the one that was recorded.
    let below = |figure: &str, ratio: &str| {
        let (predicted, ratio) = (decision["figures"][figure].as_f64().unwrap(), report[ratio].as_f64().unwrap());
        assert!((0.8 * ratio..ratio).contains(&predicted), "{report}");
    };
    below("ratioAfter", "ratio");
    below("ratioBefore", "ratio_before");
    let reason = |more: &[&str]| decided(more)["decision"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason(&["--minimum-gain", "0.9"]), "gain_too_small");
    assert_eq!(reason(&["--move-bytes-per-second", "1"]), "moves_too_long");
    assert_eq!(reason(&["--max-rebalance-bytes", "1"]), "over_budget");
    let most = (report["bytes"].as_u64().unwrap() * 2 / 3).to_string();
    assert_eq!(reason(&["--max-rebalance-bytes", &most]), "cut_to_budget");
}

#[test]
fn a_map_without_a_known_model_leaves_its_name_and_digest_out() {
    let plan = |more: &[&str]| json(&[&["plan", "--load", "examples/loads.json", "--ranks", "4"], more].concat());
    assert_eq!(plan(&[])["map"]["model"], serde_json::json!({"layers": 2, "experts": 8}));
    let named = plan(&["--model-name", "small", "--model-digest", "ab"]);
    let expected = serde_json::json!({"name": "small", "digest": "ab", "layers": 2, "experts": 8});
    assert_eq!(named["map"]["model"], expected);
}

#[test]
fn every_format_that_a_plan_is_written_in_converts_to_the_same_map() {
    let placement = plan(&["--policy", "off"])["map"]["placement"].clone();
    for format in ["swift", "vllm-ascend", "vllm", "sglang", "trtllm"] {
        let map = scratch(&format!("{format}.map"));
        plan(&["--policy", "off", "--format", format, "--out", &map]);
        let converted = printed(&["map", "convert", "--from", &map, "--ranks", "4", "--to", "swift"]);
        let converted: Value = serde_json::from_str(&converted).unwrap();
        assert_eq!(converted["placement"], placement, "{format}");
        let checked = printed(&["map", "check", "--from", &map, "--ranks", "4"]);
        assert!(checked.contains(&format!("valid, {format}")), "{checked}");
    }
}

#[test]
fn a_replay_decides_as_the_runtime_does() {
    let of = |more: &[&str]| {
        let all =
            ["simulate", "--load", "examples/loads.json", "--ranks", "4", "--redundancy", "4", "--policies", "swift"];
        let report = json(&[&all[..], &["--expert-bytes", "1000"], more].concat());
        report["policies"][0]["decisions"].as_array().unwrap().clone()
    };
    let moved = |decisions: &[Value]| -> Vec<u64> {
        decisions.iter().map(|decision| decision["moved_slots"].as_u64().unwrap()).collect()
    };
    let free = of(&[]);
    assert_eq!(free.len(), 9, "the last of ten windows is only judged on");
    assert!(moved(&free)[0] > 0 && moved(&free)[6] > 0, "it follows the load: {:?}", moved(&free));
    let budget = of(&["--max-rebalance-bytes", "2000"]);
    assert!(moved(&budget).iter().all(|&moved| moved <= 2), "{:?}", moved(&budget));
    let cooling = of(&["--cool-down-windows", "8"]);
    assert_eq!(moved(&cooling)[1..].iter().sum::<u64>(), 0, "{:?}", moved(&cooling));
    assert_eq!(free[6]["decision"]["reason"], "worth_it");
    assert_eq!(cooling[6]["decision"]["history"]["windowsSinceMove"], 6);
    assert_eq!(cooling[6]["decision"]["reason"], "shares_only", "shares need not wait");
    let dear = of(&["--minimum-gain", "0.99"]);
    assert_eq!(moved(&dear).iter().sum::<u64>(), 0);
}

#[test]
fn plots_are_svg_files() {
    for command in ["simulate", "size"] {
        let plot = scratch(&format!("{command}.svg"));
        printed(&[command, "--load", "examples/loads.json", "--ranks", "4", "--plot", &plot]);
        let svg = fs::read_to_string(workspace().join(plot)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("<polyline"), "{svg}");
    }
}

/// The document that a command prints, and what it warns of.
fn warned(arguments: &[&str]) -> (Value, String) {
    let output = run(&[arguments, &["-o", "json"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), text(&output.stderr))
}

fn written(name: &str, bytes: &[u8]) -> String {
    let path = scratch(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_map_in_force_that_has_experts_twice_on_a_rank_is_planned_from_as_it_is() {
    let row = "[0, 1, 0, 2, 3, 4, 5, 6, 7, 1, 2, 3]";
    let map = written("second.json", format!("[{row}, {row}]").as_bytes());
    let load = ["plan", "--load", "examples/loads.json", "--ranks", "4", "--redundancy", "4"];
    let (report, warning) = warned(&[&load[..], &["--current", &map]].concat());
    let second = "has 2 slots whose experts are on the same rank twice, such as expert 0 on rank 0 in MoE layer 0; it is taken \
                  as it is, and kubectl moe map convert --repair makes a map that uses them\n";
    assert!(warning.ends_with(second), "{warning}");
    assert!(report["decision"]["reason"].is_string(), "{report}");
    // Two of the three copies of expert 0 of a layer are on rank 0, one of expert 1: the rest of it is on rank 3.
    let (checked, _) = warned(&["map", "check", "--from", &map, "--ranks", "4"]);
    assert_eq!((&checked["second_copies"], &checked["experts"]), (&2.into(), &8.into()));
    let mended = scratch("mended.json");
    printed(&["map", "convert", "--from", &map, "--ranks", "4", "--to", "swift", "--repair", "--out", &mended]);
    let (mended, warning) = warned(&["map", "check", "--from", &mended]);
    assert_eq!((&mended["second_copies"], warning.as_str()), (&0.into(), ""));
    // With both copies on one rank, that rank has all of an expert's tokens: as with the one alone.
    let even = written("even.json", b"[[[8, 1, 1, 1]]]");
    let ratio = |row: &str| {
        let map = written("ratio.json", format!("[{row}]").as_bytes());
        warned(&["plan", "--load", &even, "--ranks", "2", "--redundancy", "2", "--current", &map]).0["ratio_before"]
            .clone()
    };
    assert_eq!(ratio("[0, 1, 0, 2, 3, 1]").as_f64(), Some((11.0 / 2.0) / 8.5));
}

/// Experts that a rank is to have and does not hold, over all layers of a plan from one row for each.
fn lacking(row: &[u64], ranks: usize, plan: &Value) -> u64 {
    let slots = row.len() / ranks;
    let layers = plan["map"]["placement"].as_array().unwrap();
    let of_rank = |rank: usize, wanted: &Value| {
        let held = &row[rank * slots..][..slots];
        wanted.as_array().unwrap().iter().filter(|expert| !held.contains(&expert.as_u64().unwrap())).count() as u64
    };
    let of_layer = |layer: &Value| {
        layer.as_array().unwrap().iter().enumerate().map(|(rank, wanted)| of_rank(rank, wanted)).sum::<u64>()
    };
    layers.iter().map(of_layer).sum()
}

#[test]
fn pages_that_a_second_copy_leaves_room_for_are_moved_and_decided_on() {
    let rows: &[(&[u64], usize)] = &[
        (&[0, 1, 0, 2, 3, 4, 5, 6, 7, 1, 2, 3], 4),
        (&[0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 7], 4),
        (&[7, 7, 6, 5, 4, 3, 2, 1, 0, 0], 2),
        (&[0, 1, 2, 3, 4, 5, 6, 6, 7, 0, 1, 2, 3, 4, 5, 6], 2),
    ];
    for &(row, ranks) in rows {
        let map = written("in-force.json", serde_json::to_string(&[row, row]).unwrap().as_bytes());
        let (ranks_given, redundancy) = (ranks.to_string(), (row.len() - 8).to_string());
        for policy in ["swift", "deepseek", "off"] {
            let plan = ["plan", "--load", "examples/loads.json", "--ranks", &ranks_given, "--redundancy", &redundancy];
            let more = ["--policy", policy, "--current", &map, "--expert-bytes", "1000"];
            let (report, _) = warned(&[&plan[..], &more].concat());
            let moved = lacking(row, ranks, &report);
            let figures = &report["decision"]["figures"];
            assert_eq!((&report["moved_slots"], &figures["pages"]), (&moved.into(), &moved.into()), "{row:?} {policy}");
            assert_eq!(
                (&report["bytes"], &figures["bytes"]),
                (&(moved * 1000).into(), &(moved * 1000).into()),
                "{row:?}"
            );
        }
    }
}

#[test]
fn windows_without_load_are_left_out_and_counted() {
    let load = written("idle.json", b"[[[8, 4, 2, 2], [1, 1, 1, 1]], [[0, 0, 0, 0], [0, 0, 0, 0]]]");
    let plan = json(&["plan", "--load", &load, "--ranks", "2", "--policy", "off"]);
    assert_eq!((&plan["windows"], &plan["windows_without_load"]), (&1.into(), &1.into()));
    assert_eq!(plan["ratio_of_windows"], plan["ratio"]);
    let table = printed(&["plan", "--load", &load, "--ranks", "2"]);
    assert!(table.contains("1 window of 2 layers with 4 experts, and 1 window without load, left out"), "{table}");
    let summed = json(&["simulate", "--load", "examples/loads.json", "--ranks", "4", "--rows-per-window", "4"]);
    assert_eq!(summed["windows"], 3, "of ten rows");
}

#[test]
fn statistics_of_tensorrt_llm_are_a_load() {
    let folder = scratch("statistics");
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(std::path::Path::new(&folder).join(name), bytes).unwrap();
    write("meta_info.json", br#"{"num_experts": 4, "num_experts_per_token": 2}"#);
    for rank in 0..2_u64 {
        let header = r#"{"100_3":{"dtype":"I64","shape":[4],"data_offsets":[0,32]}}"#;
        let counts: Vec<u8> = [rank, 1, 2, 3].iter().flat_map(|count| count.to_le_bytes()).collect();
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &counts].concat();
        write(&format!("rank{rank}.safetensors"), &file);
    }
    write("rank0_raw.safetensors", b"of single tokens");
    let plan = json(&["plan", "--load", &folder, "--ranks", "2", "--policy", "off"]);
    assert_eq!((&plan["layers"], &plan["experts"], &plan["windows"]), (&1.into(), &4.into(), &1.into()));
    assert_eq!(plan["ratio"].as_f64(), Some(6.5 / 10.0), "ranks have 3 and 10 of 13");
}

#[test]
fn layers_for_further_tokens_are_left_out_of_loads_and_maps() {
    let model = written(
        "mtp.json",
        br#"{"num_hidden_layers": 3, "first_k_dense_replace": 1, "n_routed_experts": 4, "num_nextn_predict_layers": 1,
            "hidden_size": 8, "moe_intermediate_size": 4, "torch_dtype": "bfloat16"}"#,
    );
    let load = written("mtp-load.json", b"[[1, 2, 3, 4], [4, 3, 2, 1], [9, 9, 9, 9]]");
    let map = written("mtp-map.json", b"[[0, 1, 2, 3], [0, 1, 2, 3], [3, 2, 1, 0]]");
    let arguments = ["plan", "--load", &load, "--ranks", "2", "--model", &model, "--current", &map];
    let (plan, warning) = warned(&arguments);
    assert_eq!((&plan["layers"], &plan["bytes_per_rank"]), (&2.into(), &(2 * 2 * 2 * 3 * 8 * 4).into()));
    assert_eq!(
        warning.matches("has 1 layer for predicting further tokens, its last, left out").count(),
        2,
        "{warning}"
    );
}
