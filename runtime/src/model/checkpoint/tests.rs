use std::path::Path;
use std::sync::Arc;

use kernels::Arena;
use kernels::cpu::Cpu;
use plan::ids::{ExpertId, LayerId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::files::{INDEX, SINGLE};
use super::*;

/// A tensor of f32 zeros.
type Tensors = BTreeMap<String, Vec<usize>>;

fn config() -> Value {
    json!({
        "model_type": "qwen3_moe", "vocab_size": 5, "hidden_size": 6, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 2, "num_experts": 2, "num_experts_per_tok": 1,
        "moe_intermediate_size": 3,
    })
}

fn tensors() -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: &str, shape: &[usize]| tensors.insert(name.to_owned(), shape.to_vec());
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        add(name, &[5, 6]);
    }
    add("model.norm.weight", &[6]);
    for (name, shape) in [
        ("self_attn.q_proj.weight", &[2, 6][..]),
        ("self_attn.k_proj.weight", &[2, 6]),
        ("self_attn.v_proj.weight", &[2, 6]),
        ("self_attn.o_proj.weight", &[6, 2]),
        ("self_attn.q_norm.weight", &[2]),
        ("self_attn.k_norm.weight", &[2]),
        ("input_layernorm.weight", &[6]),
        ("post_attention_layernorm.weight", &[6]),
        ("mlp.gate.weight", &[2, 6]),
    ] {
        add(&format!("model.layers.0.{name}"), shape);
    }
    for expert in 0..2 {
        for (name, shape) in [("gate", [3, 6]), ("up", [3, 6]), ("down", [6, 3])] {
            add(&format!("model.layers.0.mlp.experts.{expert}.{name}_proj.weight"), &shape);
        }
    }
    tensors
}

/// The bytes of a safetensors file with these tensors; the elements of `marked` are all `mark`.
fn file(tensors: &Tensors, marked: &str, mark: f32) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(name, shape)| {
            let value: f32 = if name == marked { mark } else { 0.0 };
            value.to_le_bytes().repeat(shape.iter().product())
        })
        .collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn write(config: &Value, tensors: &Tensors) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(directory.path().join(SINGLE), file(tensors, "", 0.0)).unwrap();
    directory
}

fn refusal(directory: &Path) -> String {
    let error = Checkpoint::open(directory).expect_err("it should be refused");
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

/// What is said of a model with this change.
fn refusal_of(change: impl FnOnce(&mut Value, &mut Tensors)) -> String {
    let (mut config, mut tensors) = (config(), tensors());
    change(&mut config, &mut tensors);
    refusal(write(&config, &tensors).path())
}

#[test]
fn exactly_the_models_tensors_must_be_there() {
    Checkpoint::open(write(&config(), &tensors()).path()).unwrap();
    let missing = refusal_of(|_, tensors| drop(tensors.remove("lm_head.weight")));
    assert!(missing.starts_with("tensor lm_head.weight is missing"), "{missing}");
    let bias = refusal_of(|config, _| config["attention_bias"] = json!(true));
    assert!(bias.starts_with("tensor model.layers.0.self_attn.q_proj.bias is missing"), "{bias}");
    let extra = refusal_of(|_, tensors| drop(tensors.insert("model.layers.0.mlp.shared_expert.w".to_owned(), vec![1])));
    assert!(extra.starts_with("tensor model.layers.0.mlp.shared_expert.w is not part of this model"), "{extra}");
    let turned = refusal_of(|_, tensors| {
        tensors.retain(|name, _| !name.contains("experts"));
        // As some other fused formats have it.
        tensors.insert("model.layers.0.mlp.experts.gate_up_proj".to_owned(), vec![2, 6, 6]);
        tensors.insert("model.layers.0.mlp.experts.down_proj".to_owned(), vec![2, 3, 6]);
    });
    assert!(turned.starts_with("tensor model.layers.0.mlp.experts.down_proj has shape [2, 3, 6]"), "{turned}");
    assert!(turned.contains("asks for [2, 6, 3]"), "{turned}");
}

#[test]
fn stored_frequencies_of_the_rotary_embedding_are_no_weights() {
    let mut tensors = tensors();
    tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), vec![1]);
    tensors.insert("model.rotary_emb.inv_freq".to_owned(), vec![1]);
    Checkpoint::open(write(&config(), &tensors).path()).unwrap();
}

#[test]
fn a_configuration_that_claims_a_billion_experts_is_refused_at_the_first_that_is_missing() {
    let message = refusal_of(|config, _| {
        config["num_hidden_layers"] = json!(16_384);
        config["num_experts"] = json!(16_384);
    });
    assert!(message.starts_with("tensor model.layers.0.mlp.experts.2.gate_proj.weight is missing"), "{message}");
}

#[test]
fn a_weight_that_is_no_number_is_refused_when_it_is_read() {
    let tensors = tensors();
    let directory = write(&config(), &tensors);
    let expert = "model.layers.0.mlp.experts.1.up_proj.weight";
    for mark in [f32::NAN, f32::NEG_INFINITY] {
        std::fs::write(directory.path().join(SINGLE), file(&tensors, expert, mark)).unwrap();
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let arena = Arena::new(Arc::new(Cpu::new(1)), weights::expert_shape(&checkpoint)).unwrap();
        let load = |expert| weights::expert(&checkpoint, LayerId(0), ExpertId(expert), &mut arena.take().unwrap());
        load(0).unwrap();
        let message = load(1).expect_err("it is not finite").to_string();
        assert_eq!(message, format!("tensor {expert} has a weight that is infinite or not a number, element 0"));
    }
}

#[test]
fn an_index_names_the_file_of_every_tensor_and_nothing_else() {
    let (config, tensors) = (config(), tensors());
    let directory = write(&config, &tensors);
    let path = |name: &str| directory.path().join(name);
    let index = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut map = tensors.keys().map(|name| (name.clone(), json!("a.safetensors"))).collect();
        change(&mut map);
        std::fs::write(path(INDEX), json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    };
    index(&|_| {});
    let both = refusal(directory.path());
    assert!(both.contains("does not name model.safetensors, which is there too"), "{both}");
    std::fs::rename(path(SINGLE), path("a.safetensors")).unwrap();
    Checkpoint::open(directory.path()).unwrap();

    index(&|map| drop(map.insert("lm_head.weight".to_owned(), json!("b.safetensors"))));
    assert!(refusal(directory.path()).starts_with("there is no b.safetensors"));
    std::fs::write(path("b.safetensors"), file(&Tensors::new(), "", 0.0)).unwrap();
    assert!(refusal(directory.path()).contains("does not name a.safetensors for tensor lm_head.weight"));
    index(&|map| drop(map.insert("other".to_owned(), json!("a.safetensors"))));
    assert!(refusal(directory.path()).starts_with("tensor other is missing"));
    index(&|map| drop(map.remove("lm_head.weight")));
    assert!(refusal(directory.path()).contains("does not name a.safetensors for tensor lm_head.weight"));
    index(&|map| map.values_mut().for_each(|file| *file = json!("gone.safetensors")));
    assert!(refusal(directory.path()).starts_with("there is no gone.safetensors, which model.safetensors.index.json"));
    for file in ["/etc/hostname", "../a.safetensors", "sub/a.safetensors", ".", ".."] {
        index(&|map| drop(map.insert("lm_head.weight".to_owned(), json!(file))));
        let message = refusal(directory.path());
        assert!(message.contains(&format!("{file:?} is no file of this directory")), "{message}");
    }
    index(&|map| drop(map.insert("lm_head.weight".to_owned(), json!(3))));
    assert!(refusal(directory.path()).starts_with("model.safetensors.index.json is corrupt"));
}

#[test]
fn a_tensor_that_two_files_hold_is_refused_whichever_the_index_names() {
    let (config, tensors) = (config(), tensors());
    let directory = write(&config, &tensors);
    let path = |name: &str| directory.path().join(name);
    std::fs::rename(path(SINGLE), path("a.safetensors")).unwrap();
    let twice: Tensors = [("lm_head.weight".to_owned(), vec![5, 6])].into();
    std::fs::write(path("b.safetensors"), file(&twice, "", 0.0)).unwrap();
    let mut map: serde_json::Map<String, Value> =
        tensors.keys().map(|name| (name.clone(), json!("a.safetensors"))).collect();
    map.insert("lm_head.weight".to_owned(), json!("b.safetensors"));
    std::fs::write(path(INDEX), json!({"weight_map": map}).to_string()).unwrap();
    assert!(refusal(directory.path()).contains("does not name a.safetensors for tensor lm_head.weight"));
}

#[test]
fn damage_lasts_and_a_file_that_is_not_there_may_come() {
    let directory = write(&config(), &tensors());
    let file = directory.path().join(SINGLE);
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let length = std::fs::metadata(&file).unwrap().len();
    File::options().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
    let last = tensors().into_keys().map(|name| checkpoint.tensor(&name)).find_map(Result::err);
    assert!(last.is_some_and(|error| error.is_permanent()), "it was cut while it was open");
    assert!(Checkpoint::open(directory.path()).unwrap_err().is_permanent());
    std::fs::remove_file(file).unwrap();
    assert!(!Checkpoint::open(directory.path()).unwrap_err().is_permanent());
}

#[test]
fn only_regular_files_of_a_sane_size_are_read() {
    let directory = write(&config(), &tensors());
    File::create(directory.path().join("config.json")).unwrap().set_len(1 << 40).unwrap();
    assert!(refusal(directory.path()).starts_with("config.json has 1099511627776 bytes, more than"));

    let directory = write(&config(), &tensors());
    std::os::unix::fs::symlink("/dev/zero", directory.path().join(INDEX)).unwrap();
    assert!(refusal(directory.path()).contains("not a regular file"));
}

#[test]
fn a_damaged_file_is_refused_or_read_whole_but_never_ends_the_process() {
    let seed = 0x5EED;
    println!("seed {seed:#x}");
    let mut random = StdRng::seed_from_u64(seed);
    let good = file(&tensors(), "", 0.0);
    let header = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    let directory = write(&config(), &tensors());
    let mut refused = 0;
    for _ in 0..600 {
        let mut bytes = good.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..header);
            match random.random_range(0..4) {
                0 => bytes[at] = random.random(),
                1 => bytes[at] ^= 1 << random.random_range(0..8),
                // A digit is the likeliest to leave a header that can be parsed.
                2 => bytes.iter_mut().skip(at).find(|byte| byte.is_ascii_digit()).into_iter().for_each(|b| *b = b'9'),
                _ => {
                    bytes.truncate(random.random_range(0..good.len()));
                    break;
                }
            }
        }
        std::fs::write(directory.path().join(SINGLE), &bytes).unwrap();
        match Checkpoint::open(directory.path()) {
            Err(_) => refused += 1,
            Ok(checkpoint) => assert!(checkpoint.tensor(checkpoint.config().names.embedding).is_ok()),
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_file_with_weights_whose_name_is_no_text_is_told_by_its_name() {
    use std::os::unix::ffi::OsStrExt as _;
    let directory = write(&config(), &tensors());
    let name = |bytes: &[u8]| directory.path().join(std::ffi::OsStr::from_bytes(bytes));
    std::fs::write(name(b"notes-\xe9.txt"), "").unwrap();
    std::fs::write(name(b"._model-\xe9.safetensors"), "").unwrap();
    assert!(Checkpoint::open(directory.path()).is_ok(), "it is not asked for");
    std::fs::rename(directory.path().join(SINGLE), name(b"mod\xe8le.safetensors")).unwrap();
    let expected =
        "the folder has a file with weights whose name, mod\u{fffd}le.safetensors, is no UTF-8 text: rename it";
    assert_eq!(refusal(directory.path()), expected);
    assert!(Checkpoint::open(directory.path()).unwrap_err().is_permanent());
    let index = json!({"weight_map": {"model.embed_tokens.weight": "mod\u{e8}le.safetensors"}});
    std::fs::write(directory.path().join(INDEX), index.to_string()).unwrap();
    assert_eq!(refusal(directory.path()), expected);
}

/// Of a folder with nothing but `config.json`.
fn drawn(config: &Value, seed: u64) -> Checkpoint {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    Checkpoint::drawn(directory.path(), WeightSeed(seed)).unwrap()
}

/// The fingerprints of all experts of a checkpoint.
fn experts(checkpoint: &Checkpoint) -> Vec<u128> {
    let arena = Arena::new(Arc::new(Cpu::new(1)), weights::expert_shape(checkpoint)).unwrap();
    let mut page = arena.take().unwrap();
    let fingerprint = |expert| {
        weights::expert(checkpoint, LayerId(0), ExpertId(expert), &mut page).unwrap();
        page.fingerprints().page()
    };
    (0..2).map(fingerprint).collect()
}

#[test]
fn weights_are_drawn_the_same_on_every_rank_and_another_seed_is_another_model() {
    let (one, other) = (drawn(&config(), 7), drawn(&config(), 7));
    assert_eq!(one.identity("a").digest, other.identity("a").digest);
    assert_eq!(experts(&one), experts(&other));
    let next = drawn(&config(), 8);
    assert_ne!(one.identity("a").digest, next.identity("a").digest);
    let all: std::collections::BTreeSet<u128> = experts(&one).into_iter().chain(experts(&next)).collect();
    assert_eq!(all.len(), 4, "no two experts are alike");
    let read = write(&config(), &tensors());
    assert_ne!(Checkpoint::open(read.path()).unwrap().identity("a").digest, one.identity("a").digest);
    assert_eq!(Checkpoint::of(read.path(), Some(WeightSeed(7))).unwrap().identity("a"), one.identity("a"));
}

#[test]
fn drawn_weights_are_those_of_the_configuration_and_are_counted_as_they_are_kept() {
    for (dtype, kind, width) in [("bfloat16", WeightKind::Bf16, 2), ("float32", WeightKind::F32, 4)] {
        let mut config = config();
        config["torch_dtype"] = json!(dtype);
        let checkpoint = drawn(&config, 1);
        let elements: usize = tensors().values().map(|shape| shape.iter().product::<usize>()).sum();
        assert_eq!((checkpoint.parameters(), checkpoint.bytes()), (elements as u64, (elements * width) as u64));
        assert_eq!(checkpoint.expert_kind(), kind);
        assert_eq!(checkpoint.sizes(), Sizes::of_config(checkpoint.config().clone(), kind));
        let names = ["self_attn.q_proj", "self_attn.k_proj"].map(|name| format!("model.layers.0.{name}.weight"));
        let both = checkpoint.tensors(&names).unwrap().unwrap();
        let apart = names.each_ref().map(|name| checkpoint.tensor(name).unwrap());
        for index in 0..24 {
            let expected = apart[index / 12].values().get(index % 12);
            assert_eq!(both.values().get(index).to_bits(), expected.to_bits());
        }
        assert_eq!(checkpoint.bytes_read(), (48 * width) as u64);
        let norm = checkpoint.tensor("model.norm.weight").unwrap();
        assert!((0..6).all(|index| (norm.values().get(index) - 1.0).abs() < 0.5));
        checkpoint.check_weights().unwrap();
    }
}

#[test]
fn a_configuration_that_claims_billions_is_refused_before_anything_is_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config();
    config["num_hidden_layers"] = json!(100_000);
    config["num_experts"] = json!(100_000);
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let said = Checkpoint::drawn(directory.path(), WeightSeed(1)).unwrap_err().to_string();
    assert!(said.starts_with("config.json"), "{said}");
    std::fs::remove_file(directory.path().join("config.json")).unwrap();
    let said = Checkpoint::drawn(directory.path(), WeightSeed(1)).unwrap_err().to_string();
    assert!(said.contains("config.json"), "{said}");
}
