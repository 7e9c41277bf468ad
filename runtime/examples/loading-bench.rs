//! What loading costs: one rank reads a whole checkpoint.
//!
//! `loading-bench DIR REPEATS` makes a checkpoint in DIR, if there is none: random weights in the shapes of Qwen3-30B-A3B, of which
//! it has two layers, 3.7 GB. Then it loads it, and prints a JSON line for each time: seconds and CPU seconds of all but the
//! experts, and of the experts. The file is in the page cache then, so that what a disk costs is not measured.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use kernels::Arena;
use kernels::cpu::Cpu;
use plan::ids::{ExpertId, LayerId};
use rayon::prelude::*;
use runtime::model::checkpoint::Checkpoint;
use runtime::model::forward::{Model, expert_shape, load_expert};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const LAYERS: usize = 2;
const HIDDEN: usize = 2048;
const VOCABULARY: usize = 151_936;
const EXPERTS: usize = 128;
const INTERMEDIATE: usize = 768;
const HEADS: usize = 32;
const KEY_VALUE_HEADS: usize = 4;
const HEAD: usize = 128;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, repeats] = &arguments[..] else { bail!("usage: loading-bench DIR REPEATS") };
    let folder = Path::new(folder);
    if !folder.join("config.json").exists() {
        make(folder)?;
    }
    for _ in 0..repeats.parse()? {
        let (shared, experts) = load(folder)?;
        let seconds = |duration: Duration| (duration.as_secs_f64() * 1e3).round() / 1e3;
        let line = json!({
            "shared_seconds": seconds(shared.wall), "shared_cpu_seconds": seconds(shared.cpu),
            "experts_seconds": seconds(experts.wall), "experts_cpu_seconds": seconds(experts.cpu),
            "cpu_seconds": seconds(shared.cpu + experts.cpu),
        });
        println!("{line}");
    }
    Ok(())
}

/// What something took.
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn costs<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Cost)> {
    let cpu = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let (started, before) = (Instant::now(), cpu());
    let done = work()?;
    Ok((done, Cost { wall: started.elapsed(), cpu: cpu().saturating_sub(before) }))
}

/// Loads as a rank that is alone does, and lets go of all of it.
fn load(folder: &Path) -> anyhow::Result<(Cost, Cost)> {
    let checkpoint = Checkpoint::open(folder)?;
    let backend = Arc::new(Cpu::new(1));
    let (_model, shared) = costs(|| Ok(Model::load(Arc::clone(&backend), &checkpoint)?))?;
    let config = checkpoint.config();
    let experts: Vec<(usize, usize)> = (0..config.sparse_layers())
        .flat_map(|layer| (0..config.experts.count).map(move |expert| (layer, expert)))
        .collect();
    let arena = Arena::new(backend, expert_shape(&checkpoint))?;
    let (_pages, experts) = costs(|| {
        let read = |&(layer, expert): &(usize, usize)| {
            let mut page = arena.take()?;
            load_expert(&checkpoint, LayerId::from(layer), ExpertId::from(expert), &mut page)?;
            Ok(page)
        };
        experts.par_iter().map(read).collect::<anyhow::Result<Vec<_>>>()
    })?;
    Ok((shared, experts))
}

/// Writes the checkpoint.
fn make(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let tensors = tensors();
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in &tensors {
        let bytes = 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [end, end + bytes]}));
        end += bytes;
    }
    let header = serde_json::to_vec(&header)?;
    let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    // Four weights a draw, of 2^-7 to 2^-5 or so and of either sign.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..end.div_ceil(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&(state & 0x80ff_80ff_80ff_80ff | 0x3c00_3c00_3c00_3c00).to_le_bytes())?;
    }
    file.into_inner()?.sync_all()?;
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS, "head_dim": HEAD, "num_experts": EXPERTS, "num_experts_per_tok": 8,
        "moe_intermediate_size": INTERMEDIATE, "norm_topk_prob": true, "rope_theta": 1_000_000,
        "max_position_embeddings": 40_960,
    });
    // Last: what was begun and not ended is no checkpoint.
    Ok(fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&config)?)?)
}

/// Names and shapes; each of them has a multiple of four weights.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let mut add = |name: String, shape: &[usize]| {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        };
        let (query, key_value) = (HEADS * HEAD, KEY_VALUE_HEADS * HEAD);
        add("input_layernorm".to_owned(), &[HIDDEN]);
        add("post_attention_layernorm".to_owned(), &[HIDDEN]);
        for (name, rows, columns) in
            [("q", query, HIDDEN), ("k", key_value, HIDDEN), ("v", key_value, HIDDEN), ("o", HIDDEN, query)]
        {
            add(format!("self_attn.{name}_proj"), &[rows, columns]);
        }
        add("self_attn.q_norm".to_owned(), &[HEAD]);
        add("self_attn.k_norm".to_owned(), &[HEAD]);
        add("mlp.gate".to_owned(), &[EXPERTS, HIDDEN]);
        for expert in 0..EXPERTS {
            add(format!("mlp.experts.{expert}.gate_proj"), &[INTERMEDIATE, HIDDEN]);
            add(format!("mlp.experts.{expert}.up_proj"), &[INTERMEDIATE, HIDDEN]);
            add(format!("mlp.experts.{expert}.down_proj"), &[HIDDEN, INTERMEDIATE]);
        }
    }
    tensors
}
