//! Folders as people have them: what a start says of each, which `inspect` says too, and those that are served.

mod cases;
mod spoil;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;

use runtime::inspect::{Found, Inspected, WeightCheck, inspect};
use serde_json::{Value, json};

use self::spoil::{
    CONFIG, INDEX, Spoil, WEIGHTS, both, config, copy, edit, empty_tensors, nothing, remove, rename, weight,
};
use crate::group::{MODEL, PATIENCE, program};

/// Characters of a refusal, with the folder's path.
const MOST: usize = 300;

/// What `inspect` says of a folder that cannot be served.
fn refusal(folder: &Path, weights: Option<Inspected>) -> Option<String> {
    let error = inspect(folder, weights, None).err()?;
    let said = format!("{:#}", anyhow::Error::from(error));
    assert!(said.chars().count() <= MOST, "{} characters: {said}", said.chars().count());
    assert!(!said.contains(char::is_control), "{said:?}");
    Some(said)
}

/// What a start says of a folder that cannot be served.
fn start(folder: &Path) -> String {
    let local =
        ["--log-format", "json", "local", "--ranks", "2", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut process = program().args(local).arg("--model").arg(folder).stderr(Stdio::piped()).spawn().unwrap();
    let log = ended(&mut process);
    let line = log.lines().last().unwrap_or_default();
    let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{log}"));
    line["fields"]["message"].as_str().unwrap_or_default().to_owned()
}

/// What a process that fails has logged; one that does not end is ended.
fn ended(process: &mut Child) -> String {
    let mut stderr = process.stderr.take().unwrap();
    let (sender, read) = mpsc::channel();
    std::thread::spawn(move || {
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        sender.send(log)
    });
    let log = read.recv_timeout(PATIENCE);
    if log.is_err() {
        process.kill().unwrap();
    }
    assert_eq!(process.wait().unwrap().code(), Some(1), "{log:?}");
    log.unwrap()
}

#[test]
fn a_folder_that_cannot_be_served_is_refused_in_one_sentence_by_start_and_by_inspect() {
    let report = cases::all().into_iter().map(|(what, model, spoil)| {
        let folder = copy(model);
        spoil(folder.path());
        let said = refusal(folder.path(), None).unwrap_or_else(|| panic!("{what} is accepted"));
        assert_eq!(said, start(folder.path()), "{what}");
        let prefix = format!("the model in {} cannot be served: ", folder.path().display());
        format!("{what}\n    {}\n", said.strip_prefix(&prefix).unwrap_or(&said))
    });
    insta::assert_snapshot!(report.collect::<String>());
}

#[test]
fn folders_as_people_have_them_are_served() {
    for (what, model, spoil) in [
        ("as shipped", "tiny-moe", nothing()),
        ("weights under another name", "tiny-moe", rename(WEIGHTS, "tiny.safetensors")),
        (
            "files of the vendor's own form beside them",
            "tiny-moe",
            both(rename(WEIGHTS, "model-00001-of-00001.safetensors"), spoil::write("consolidated.safetensors", "")),
        ),
        ("shards counted from 0", "tiny-moe", rename(WEIGHTS, "model-00000-of-00001.safetensors")),
        ("weights of torch beside them", "tiny-moe", spoil::write("pytorch_model.bin", "PK")),
        ("hidden files", "tiny-moe", spoil::write("._model.safetensors", "")),
        ("a folder with more of them", "tiny-moe", spoil::write("original/consolidated.safetensors", "")),
        ("shards without an index", "sharded_v5", remove(INDEX)),
        ("a byte order mark", "tiny-moe", edit(CONFIG, |bytes| drop(bytes.splice(..0, *b"\xef\xbb\xbf")))),
        ("a number that only Python writes", "tiny-moe", spoil::config_text(", \"length_penalty\": NaN")),
        ("no quantization", "tiny-moe", config("quantization_config", json!(null))),
        ("no chat template", "tiny-moe", remove("tokenizer_config.json")),
        ("no generation_config.json", "tiny-moe", remove("generation_config.json")),
    ] {
        let folder = copy(model);
        spoil(folder.path());
        assert_eq!(refusal(folder.path(), Some(Inspected::All)), None, "{what}");
    }
    // As the hub's cache has it.
    let (cache, files) = (tempfile::tempdir().unwrap(), copy("tiny-moe"));
    for entry in fs::read_dir(files.path()).unwrap() {
        let entry = entry.unwrap();
        symlink(entry.path(), cache.path().join(entry.file_name())).unwrap();
    }
    assert_eq!(refusal(cache.path(), Some(Inspected::All)), None);
}

#[test]
fn a_damaged_weight_is_found_where_every_weight_is_read() {
    for (tensor, element) in [
        ("model.norm.weight", [0x80, 0x7f]),
        ("model.layers.3.mlp.experts.31.down_proj.weight", [0xc0, 0x7f]),
        ("model.embed_tokens.weight", [0x80, 0xff]),
    ] {
        let folder = copy("tiny-moe");
        weight(tensor, element)(folder.path());
        assert_eq!(refusal(folder.path(), None), None);
        let said = refusal(folder.path(), Some(Inspected::All)).unwrap();
        let found = format!("tensor {tensor} has a weight that is infinite or not a number, element 0");
        assert!(said.ends_with(&found), "{said}");
    }
}

#[test]
fn a_report_says_what_was_checked_and_ends_where_its_reader_does() {
    let report = |options: &[&str]| {
        let output = program().args(["inspect", "--model", MODEL]).args(options).output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let mut report_of_all = report(&["--weights"]);
    assert_eq!(report(&[])["weights"], json!("names-and-shapes"));
    report_of_all["model"]["digest"] = json!("DIGEST");
    insta::assert_json_snapshot!(report_of_all);
    let Found::Checkpoint(found) = inspect(Path::new(MODEL), Some(Inspected::All), None).unwrap() else {
        panic!("it has weights")
    };
    assert_eq!(found.weights, WeightCheck::EveryWeight);
    // A reader that has gone: what `head` leaves behind.
    let mut process =
        program().args(["inspect", "--model", MODEL]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(process.stdout.take());
    let mut said = String::new();
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((process.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn what_each_rank_takes_is_foreseen_with_or_without_the_weights() {
    let report = |folder: &Path, options: &[&str]| {
        let output = program().args(["inspect", "--model"]).arg(folder).args(options).output().unwrap();
        let (said, log) = (output.stdout, String::from_utf8(output.stderr).unwrap());
        if output.status.success() { serde_json::from_slice::<Value>(&said).unwrap() } else { json!(log) }
    };
    let bare = tempfile::tempdir().unwrap();
    fs::copy(Path::new(MODEL).join("config.json"), bare.path().join("config.json")).unwrap();
    let options = ["--ranks", "4", "--init-redundancy-expert", "8", "--memory", "100000000"];
    let (with, without) = (report(Path::new(MODEL), &options), report(bare.path(), &options));
    assert_eq!(with["eachRank"], without["eachRank"]);
    assert_eq!(without["weights"], json!("absent"));
    insta::assert_json_snapshot!(with["eachRank"]);
    let rank = |name: &str| with["eachRank"][name].as_u64().unwrap();
    let parts = ["experts", "otherWeights", "activations", "staging", "kv"];
    assert_eq!(rank("total"), parts.map(rank).iter().sum::<u64>());
    assert!(rank("total") < 100_000_000);
    let small = report(bare.path(), &[&options[..2], &["--kv-blocks", "6", "--staging-pages", "3"]].concat());
    let of_rank = |name: &str| small["eachRank"][name].as_u64().unwrap();
    assert_eq!((of_rank("kvTokens"), of_rank("contextTokens"), of_rank("stagingPages")), (96, 96, 3));
    let step = |tokens: &str| report(bare.path(), &[&options[..], &["--max-step-tokens", tokens]].concat());
    let [few, usual, many] = ["64", "512", "1024"].map(|tokens| step(tokens)["eachRank"].clone());
    assert_eq!(usual, with["eachRank"]);
    let takes = |rank: &Value, name: &str| rank[name].as_u64().unwrap();
    assert!(takes(&few, "activations") * 6 < takes(&many, "activations"));
    assert!(takes(&few, "kvTokens") > takes(&many, "kvTokens"));
    for (options, said) in [
        (&["--max-step-tokens", "8"][..], "--ranks"),
        (&["--ranks", "2", "--max-step-tokens", "65536", "--memory", "100000000"], "max-step-tokens 65536 takes "),
        (&["--ranks", "3"][..], "3"),
        (&["--memory", "1000"], "--ranks"),
        (&["--ranks", "2", "--memory", "1000000"], "the weights of the model take"),
        (&[], "the folder has no weights"),
    ] {
        let log = report(bare.path(), options);
        assert!(log.as_str().unwrap().contains(said), "{options:?}: {log}");
    }
}

#[test]
fn no_refusal_is_longer_than_a_sentence_whatever_the_folder_says() {
    const LONG: usize = 10_000;
    let names = ["x".repeat(LONG), "\u{1b}[2J\n\"é\u{202e}".repeat(LONG / 8), "{[\"".repeat(LONG / 3)];
    for name in names {
        let keys = [
            "model_type",
            "architectures",
            "hidden_size",
            "hidden_act",
            "rope_theta",
            "rope_scaling",
            "rope_parameters",
            "mlp_only_layers",
            "quantization_config",
            "quantization",
            "torch_dtype",
            "layer_types",
            "auto_map",
            "head_dim",
            "norm_topk_prob",
            "sliding_window",
            "num_experts",
            "partial_rotary_factor",
            "an_unknown_key",
        ];
        let values = [json!(name), json!([name, name]), json!({"quant_method": name}), json!({(name.clone()): [name]})];
        let mut spoils: Vec<Spoil> = Vec::new();
        for key in keys {
            spoils.extend(
                values.iter().map(|value| both(config("use_sliding_window", json!(true)), config(key, value.clone()))),
            );
        }
        let name = || name.clone();
        let (unknown, key, long, dtype, other, index, text) = (name(), name(), name(), name(), name(), name(), name());
        spoils.push(spoil::json(CONFIG, move |config| drop(config.insert(unknown, json!(1)))));
        let twice = format!(", {}: 1, {}: 2", json!(key), json!(key));
        spoils.push(edit(CONFIG, move |config| {
            let end = config.iter().rposition(|&byte| byte == b'}').unwrap();
            config.splice(end..end, twice.into_bytes());
        }));
        spoils.push(spoil::header(move |header| {
            header.insert(long, json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}));
        }));
        spoils.push(spoil::header(move |header| header["model.norm.weight"]["dtype"] = json!(dtype)));
        spoils.push(spoil::header(move |header| drop(header.insert(other, json!("none")))));
        spoils.push(both(nothing(), spoil::write(INDEX, json!({"weight_map": {(index): text}}).to_string())));
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            let (added, value) = (name(), name());
            spoils.push(spoil::json(file, move |object| {
                for key in ["decoder", "model", "pre_tokenizer", "chat_template", "eos_token", "eos_token_id", "top_k"]
                {
                    object.insert(key.to_owned(), json!({"type": value, (added.clone()): value}));
                }
            }));
        }
        spoils.extend(long_file_names());
        let folder = tempfile::tempdir().unwrap();
        let long_path = (0..15).fold(folder.path().to_owned(), |path, _| path.join("p".repeat(200)));
        fs::create_dir_all(&long_path).unwrap();
        let mut refused = 0;
        for spoil in spoils {
            let folder = copy("base");
            spoil(folder.path());
            let place = long_path.join("model");
            symlink(folder.path(), &place).unwrap();
            refused += usize::from(refusal(&place, None).is_some());
            fs::remove_file(place).unwrap();
        }
        assert!(refused > 75, "{refused}");
    }
}

/// Folders in which a file has the longest name that a system takes.
fn long_file_names() -> [Spoil; 5] {
    const STEM: usize = 240;
    let name =
        |extension: &str| -> &'static str { Box::leak(format!("{}{extension}", "n".repeat(STEM)).into_boxed_str()) };
    let weights = name(".safetensors");
    [
        both(rename(WEIGHTS, weights), edit(weights, |bytes| bytes.truncate(900))),
        both(rename(WEIGHTS, weights), edit(weights, |bytes| bytes.fill(b'G'))),
        both(remove(WEIGHTS), spoil::link(weights, name(".blob"))),
        both(remove(WEIGHTS), spoil::write(name(".bin"), "")),
        spoil::write(INDEX, json!({"weight_map": {"a": weights}}).to_string()),
    ]
}

#[test]
fn a_header_of_millions_of_tensors_costs_no_more_than_its_bytes() {
    let folder = copy("base");
    fs::write(folder.path().join(WEIGHTS), empty_tensors(500_000)).unwrap();
    let before = most_memory();
    let said = refusal(folder.path(), None).unwrap();
    assert!(said.contains("has more tensors than the"), "{said}");
    assert!(most_memory() - before < 128 << 20, "{} bytes", most_memory() - before);
}

/// The most memory that this process has had, bytes.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
