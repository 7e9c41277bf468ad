//! What the commands give: the figures of a plan are those of the map that it prints.

use std::fs;

use serde_json::Value;

use super::{printed, workspace};

const LOAD: &str = "examples/tiny-moe-load.json";

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(&[arguments, &["-o", "json"]].concat())).unwrap()
}

fn scratch(name: &str) -> String {
    let folder = std::env::temp_dir().join(format!("kubectl-moe-results-{}", std::process::id()));
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
fn a_decision_has_the_figures_of_the_plan_and_follows_its_options() {
    let even = scratch("even.json");
    plan(&["--policy", "off", "--out", &even]);
    let decided = |more: &[&str]| plan(&[&["--current", even.as_str()], more].concat());
    let report = decided(&[]);
    let decision = &report["decision"];
    assert_eq!((&decision["reason"], &decision["figures"]["pages"]), (&"worth_it".into(), &report["moved_slots"]));
    assert_eq!(decision["figures"]["bytes"], report["bytes"]);
    let close = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-9;
    assert!(close(&decision["figures"]["ratioAfter"], &report["ratio"]), "{report}");
    assert!(close(&decision["figures"]["ratioBefore"], &report["ratio_before"]), "{report}");
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
