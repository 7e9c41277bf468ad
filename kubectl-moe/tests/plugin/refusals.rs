//! What the commands are given and cannot work with: the error says what is wrong where, and there is no backtrace.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{run, text};

const LOAD: &str = "examples/tiny-moe-load.json";

/// A `.npy` file of a type, a shape and bytes.
fn npy(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes(), bytes].concat()
}

fn files(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    write("floats.npy", &npy("<f4", "(2, 8)", &[0; 64]));
    write("flat.npy", &npy("<u4", "(16,)", &[0; 64]));
    write("cut.npy", &npy("<u4", "(2, 8)", &[0; 60]));
    write("big-endian.npy", &npy(">u4", "(2, 8)", &[0; 64]));
    write("negative.npy", &npy("<i4", "(1, 2)", &[1, 0, 0, 0, 255, 255, 255, 255]));
    write("archive.npz", b"PK\x03\x04");
    write("ragged.json", b"[[1, 2, 3, 4], [1, 2, 3]]");
    write("fraction.json", b"[[1, 2.5]]");
    write("words.json", b"words");
    write("other.json", b"{\"tokens\": []}");
    write("one.json", b"[[5, 1, 1, 1], [1, 5, 1, 1]]");
    write("dense.json", b"{\"logical_count\": [[0, 0], [0, 0], [1, 2]]}");
    let ascend = |second: &str| {
        format!(
            "{{\"moe_layer_count\": 1, \"layer_list\": [{{\"layer_id\": 0, \"device_count\": 2, \"device_list\": [\
             {{\"device_id\": 0, \"device_expert\": [0, 1]}}, {{\"device_id\": 1, \"device_expert\": {second}}}]}}]}}"
        )
    };
    write("ascend.json", ascend("[2, 3]").as_bytes());
    write("ascend-missing.json", ascend("[1, 3]").as_bytes());
    write("ascend-twice.json", ascend("[3, 3]").as_bytes());
    write("ascend-unknown.json", ascend("[2, 9]").as_bytes());
    let swift = |digest: &str| {
        format!(
            "{{\"version\": \"swiftbalancer.io/v1\", \"model\": {{\"name\": \"m\", \"digest\": \"{digest}\", \
             \"layers\": 1, \"experts\": 4}}, \"ranks\": 2, \"slotsPerRank\": 2, \"placement\": [[[0, 1], [2, 3]]]}}"
        )
    };
    write("swift.json", swift("a1").as_bytes());
    write("load.json", load("b2").as_bytes());
    write("load-a1.json", load("a1").as_bytes());
    write("vllm.json", b"[[0, 1, 2, 3, 0]]");
    write("halves.npy", &npy("<f4", "(1, 2)", &[0, 0, 128, 63, 0, 0, 32, 64]));
    write("second.json", b"[[0, 1, 0, 2, 3, 1]]");
    write("full.json", b"[[0, 1, 1]]");
    write("online.yaml", b"num_slots: 6\nlayer_updates_per_iter: 2\n");
    write("options.yaml", b"moe_config:\n  backend: WIDEEP\n  load_balancer: ./moe_load_balancer.yaml\n");
    write("some-ids.json", ascend("[2, 3]").replace("\"device_id\": 1, ", "").as_bytes());
    let model = |hidden: &str| {
        format!(
            "{{\"num_hidden_layers\": 2, \"num_experts\": 4, \"hidden_size\": {hidden}, \"moe_intermediate_size\": 8, \
             \"torch_dtype\": \"bfloat16\"}}"
        )
    };
    write("no-width.json", model("0").as_bytes());
    write("wide.json", model("9223372036854775808").as_bytes());
    write("odd.json", model("8").replace("bfloat16", "int3").as_bytes());
}

fn load(digest: &str) -> String {
    format!(
        "{{\"version\": \"swiftbalancer.io/v1\", \"model\": {{\"name\": \"n\", \"digest\": \"{digest}\", \"layers\": 1, \
         \"experts\": 4}}, \"window\": 1, \"steps\": 400, \"counts\": [[5, 1, 1, 1]]}}"
    )
}

/// Command lines that are refused, with FOLDER for the folder of the files above.
const REFUSED: &[&str] = &[
    "plan --load /nowhere/load.npy --ranks 4",
    "plan --load FOLDER --ranks 4",
    "plan --load FOLDER/floats.npy --ranks 4",
    "plan --load FOLDER/halves.npy --ranks 2",
    "plan --load FOLDER/flat.npy --ranks 4",
    "plan --load FOLDER/cut.npy --ranks 4",
    "plan --load FOLDER/big-endian.npy --ranks 4",
    "plan --load FOLDER/negative.npy --ranks 2",
    "plan --load FOLDER/archive.npz --ranks 4",
    "plan --load FOLDER/ragged.json --ranks 4",
    "plan --load FOLDER/fraction.json --ranks 2",
    "plan --load FOLDER/words.json --ranks 4",
    "plan --load FOLDER/other.json --ranks 4",
    "plan --load FOLDER/dense.json --ranks 2 --dense-layers 3",
    "plan --load LOAD --load FOLDER/one.json --ranks 4",
    "plan --load FOLDER/load-a1.json --load FOLDER/load.json --ranks 2",
    "plan --load LOAD --ranks 5",
    "plan --load LOAD --ranks 4 --redundancy 3",
    "plan --load LOAD --ranks 4 --redundancy 100",
    "plan --load LOAD --ranks 4 --nodes 3",
    "plan --load LOAD --ranks 4 --router-groups 3",
    "plan --load LOAD --ranks 4 --model examples/models",
    "plan --load FOLDER/one.json --ranks 4 --model examples/models/tiny-moe",
    "plan --load FOLDER/one.json --ranks 4 --model FOLDER/no-width.json",
    "plan --load FOLDER/one.json --ranks 4 --model FOLDER/wide.json",
    "plan --load FOLDER/one.json --ranks 4 --model FOLDER/odd.json",
    "plan --load LOAD --ranks 4 --max-rebalance-bytes 1000",
    "plan --load LOAD --ranks 4 --out /nowhere/map.json",
    "plan --load FOLDER/load.json --ranks 2 --current FOLDER/swift.json",
    "plan --load FOLDER/load-a1.json --ranks 2 --redundancy 2 --current FOLDER/swift.json",
    "plan --load LOAD --ranks 4 --current FOLDER/ascend.json",
    "simulate --load LOAD --ranks 4",
    "size --load LOAD --ranks 5 --max-redundancy 2",
    "map check --from FOLDER/ascend-missing.json --experts 4",
    "map check --from FOLDER/ascend-twice.json --experts 4",
    "map check --from FOLDER/ascend-unknown.json --experts 4",
    "map check --from FOLDER/ascend.json --layers 2",
    "map check --from FOLDER/vllm.json",
    "map check --from FOLDER/vllm.json --ranks 2",
    "map check --from FOLDER/one.json --ranks 2",
    "map check --from FOLDER/full.json --ranks 1",
    "map check --from FOLDER/online.yaml --ranks 2",
    "map check --from FOLDER/options.yaml --ranks 2",
    "map check --from FOLDER/some-ids.json",
    "map convert --from FOLDER/second.json --ranks 2 --to swift",
    "map check --from FOLDER/dense.json",
    "map check --from FOLDER/other.json",
    "plan --load LOAD --ranks 4 --rank-speeds 1,2",
    "size --load LOAD --ranks 4 --rank-speeds 1,1,1,1,1",
];

/// Command lines that no command has.
const WRONG: &[&str] = &[
    "plan --load LOAD",
    "plan --ranks 4",
    "plan --load LOAD --ranks 0",
    "plan --load LOAD --ranks 4 --nodes 0",
    "plan --load LOAD --ranks 4 --policy fast",
    "plan --load LOAD --ranks 4 --format yaml",
    "plan --load LOAD --ranks 4 --minimum-gain 1",
    "plan --load LOAD --ranks 4 --window-seconds 0",
    "plan --load LOAD --ranks 4 --rank-speeds 1,1,1,0",
    "plan --load LOAD --ranks 4 --link-bytes-within-nodes inf",
    "plan --load LOAD --ranks 4 --redundancy -1",
    "simulate --load LOAD --ranks 4 --history 0",
    "size --load LOAD --ranks 4 --worth=-1",
    "map convert --from FOLDER/ascend.json",
    "map check",
    "map check --from FOLDER/ascend.json -w",
    "plan --load LOAD --ranks 4 --watch",
    "rebalance tiny-moe --watch",
    "version -w",
];

/// What each command line is answered with, all with this exit status.
fn answers(lines: &[&str], status: i32) -> String {
    let folder = std::env::temp_dir().join(format!("kubectl-moe-refusals-{}-{status}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    files(&folder);
    let mut answers = String::new();
    for line in lines {
        let filled = line.replace("LOAD", LOAD).replace("FOLDER", folder.to_str().unwrap());
        let output = run(&filled.split(' ').collect::<Vec<_>>());
        let said = text(&output.stderr).replace(folder.to_str().unwrap(), "FOLDER").replace(LOAD, "LOAD");
        assert_eq!(output.status.code(), Some(status), "{line}: {said}");
        assert!(output.stdout.is_empty() && !said.to_lowercase().contains("backtrace"), "{line}: {said}");
        writeln!(answers, "{line}").unwrap();
        for line in said.lines().filter(|line| !line.is_empty()) {
            writeln!(answers, "    {}", line.trim()).unwrap();
        }
    }
    fs::remove_dir_all(&folder).unwrap();
    answers
}

#[test]
fn files_and_numbers_that_cannot_work_are_refused_with_what_is_wrong() {
    let answers = answers(REFUSED, 1);
    assert!(answers.lines().filter(|line| line.starts_with("    ")).all(|line| line.starts_with("    kubectl-moe: ")));
    insta::assert_snapshot!(answers);
}

#[test]
fn wrong_command_lines_are_refused_with_status_2() {
    insta::assert_snapshot!(answers(WRONG, 2));
}
