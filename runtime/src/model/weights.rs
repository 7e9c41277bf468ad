//! The names and shapes of a Qwen3-MoE checkpoint's tensors, and the weights made from them.

use std::collections::{BTreeMap, BTreeSet};

use kernels::Backend;
use kernels::backend::PageShape;
use kernels::tensor::{MatrixView, Values, WeightKind};
use plan::ids::{ExpertId, LayerId};
use safetensors::Dtype;

use super::checkpoint::{Checkpoint, CheckpointError, Loaded, Place};
use super::config::{Config, LayerKind};
use super::qwen3_moe::LoadModelError;

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const HEAD: &str = "lm_head.weight";
pub(super) const NORM: &str = "model.norm.weight";

/// How expert tensors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpertLayout {
    /// `experts.E.{gate,up,down}_proj.weight`.
    Separate,
    /// `experts.gate_up_proj`, `[experts, 2 * intermediate, hidden]`, gate rows first, and `experts.down_proj`.
    Fused,
}

/// The prefix of layer `layer`'s tensors.
pub(super) fn prefix(layer: usize) -> String {
    format!("model.layers.{layer}")
}

/// Whether a tensor is no weight: old checkpoints hold the frequencies of the rotary embedding, which follow from the
/// configuration.
pub(super) fn is_derived(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

/// Whether a tensor belongs to experts.
pub(super) fn is_of_an_expert(name: &str) -> bool {
    name.contains(".mlp.experts.")
}

/// Checks that exactly the model's tensors are there. Returns how experts are stored and the kind that holds all of
/// them exactly.
pub(super) fn check(
    config: &Config,
    tensors: &BTreeMap<String, Place>,
) -> Result<(ExpertLayout, WeightKind), CheckpointError> {
    let fused = tensors.keys().any(|name| name.ends_with("mlp.experts.gate_up_proj"));
    let layout = if fused { ExpertLayout::Fused } else { ExpertLayout::Separate };
    let mut unseen: BTreeSet<&str> = tensors.keys().map(String::as_str).collect();
    // Ends at the first that is missing, so a configuration that claims billions of experts costs nothing.
    let mut seen = |name: String, shape: &[usize]| {
        let Some(place) = tensors.get(&name) else { return Err(CheckpointError::Missing { tensor: name.into() }) };
        if place.shape != shape {
            let (found, expected) = (format!("{:?}", place.shape).into(), format!("{shape:?}").into());
            return Err(CheckpointError::Shape { tensor: name.into(), found, expected });
        }
        unseen.remove(name.as_str());
        Ok(())
    };
    expect(config, layout, &mut seen)?;
    if config.tied_embeddings && tensors.contains_key(HEAD) {
        seen(HEAD.to_owned(), &[config.vocabulary, config.hidden])?;
    }
    if let Some(name) = unseen.into_iter().find(|name| !is_derived(name)) {
        return Err(CheckpointError::Extra { tensor: name.into() });
    }
    let mut experts = tensors.iter().filter(|(name, _)| is_of_an_expert(name));
    let bf16 = experts.all(|(_, place)| place.dtype == Dtype::BF16);
    Ok((layout, if bf16 { WeightKind::Bf16 } else { WeightKind::F32 }))
}

/// Weights of all but the experts, as they are in memory: a tied matrix is there twice, as a table and as a matrix.
pub(super) fn shared_elements(config: &Config) -> u64 {
    let mut elements = 0_u64;
    let mut add = |name: String, shape: &[usize]| {
        let times = if name == EMBEDDING && config.tied_embeddings { 2 } else { 1 };
        if !is_of_an_expert(&name) {
            elements = elements.saturating_add(super::checkpoint::elements(shape).saturating_mul(times));
        }
        Ok(())
    };
    expect(config, ExpertLayout::Fused, &mut add).expect("nothing is refused");
    elements
}

/// Gives `add` the name and the shape of every tensor that the model must have, until it refuses one.
fn expect(
    config: &Config,
    layout: ExpertLayout,
    add: &mut impl FnMut(String, &[usize]) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let Config { hidden, vocabulary, experts, expert_intermediate, dense_intermediate, .. } = *config;
    add(EMBEDDING.to_owned(), &[vocabulary, hidden])?;
    add(NORM.to_owned(), &[hidden])?;
    if !config.tied_embeddings {
        add(HEAD.to_owned(), &[vocabulary, hidden])?;
    }
    for (layer, kind) in config.layers.iter().enumerate() {
        let prefix = prefix(layer);
        expect_attention(config, &prefix, add)?;
        add(format!("{prefix}.input_layernorm.weight"), &[hidden])?;
        add(format!("{prefix}.post_attention_layernorm.weight"), &[hidden])?;
        match (kind, layout) {
            (LayerKind::Dense, _) => expect_network(&format!("{prefix}.mlp"), hidden, dense_intermediate, add)?,
            (LayerKind::Sparse, ExpertLayout::Separate) => {
                for expert in 0..experts {
                    expect_network(&format!("{prefix}.mlp.experts.{expert}"), hidden, expert_intermediate, add)?;
                }
            }
            (LayerKind::Sparse, ExpertLayout::Fused) => {
                add(format!("{prefix}.mlp.experts.gate_up_proj"), &[experts, 2 * expert_intermediate, hidden])?;
                add(format!("{prefix}.mlp.experts.down_proj"), &[experts, hidden, expert_intermediate])?;
            }
        }
        if *kind == LayerKind::Sparse {
            add(format!("{prefix}.mlp.gate.weight"), &[experts, hidden])?;
        }
    }
    Ok(())
}

fn expect_attention(
    config: &Config,
    prefix: &str,
    add: &mut impl FnMut(String, &[usize]) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let hidden = config.hidden;
    let (query, key_value) = (config.heads.query_width(), config.heads.key_value * config.heads.dimension);
    for (name, rows, columns) in
        [("q", query, hidden), ("k", key_value, hidden), ("v", key_value, hidden), ("o", hidden, query)]
    {
        add(format!("{prefix}.self_attn.{name}_proj.weight"), &[rows, columns])?;
        if config.attention_bias {
            add(format!("{prefix}.self_attn.{name}_proj.bias"), &[rows])?;
        }
    }
    add(format!("{prefix}.self_attn.q_norm.weight"), &[config.heads.dimension])?;
    add(format!("{prefix}.self_attn.k_norm.weight"), &[config.heads.dimension])
}

fn expect_network(
    prefix: &str,
    hidden: usize,
    intermediate: usize,
    add: &mut impl FnMut(String, &[usize]) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    add(format!("{prefix}.gate_proj.weight"), &[intermediate, hidden])?;
    add(format!("{prefix}.up_proj.weight"), &[intermediate, hidden])?;
    add(format!("{prefix}.down_proj.weight"), &[hidden, intermediate])
}

/// Linear layers of the same inputs as one, their outputs one after the other. No names of biases: no bias.
pub(super) fn linear<B: Backend>(
    backend: &B,
    checkpoint: &Checkpoint,
    names: &[String],
    biases: &[String],
    columns: usize,
) -> Result<B::Matrix, CheckpointError> {
    let bias = if biases.is_empty() { None } else { Some(joined(checkpoint, biases)?) };
    let matrix = |values: Values<'_>| {
        let rows = values.len() / columns;
        backend.matrix(MatrixView::new(rows, columns, values), bias.as_deref())
    };
    // What is all bfloat16 stays so.
    match checkpoint.tensors(names)? {
        Some(loaded) if loaded.values().kind() == WeightKind::Bf16 => Ok(matrix(loaded.values())),
        Some(loaded) => Ok(matrix(Values::F32(&widened(&loaded)))),
        None => Ok(matrix(Values::F32(&joined(checkpoint, names)?))),
    }
}

/// A vector as f32.
pub(super) fn vector<B: Backend>(
    backend: &B,
    checkpoint: &Checkpoint,
    name: &str,
) -> Result<B::Buffer<f32>, LoadModelError> {
    Ok(backend.filled(&widened(&checkpoint.tensor(name)?))?)
}

/// Tensors as f32, one after the other.
fn joined(checkpoint: &Checkpoint, names: &[String]) -> Result<Vec<f32>, CheckpointError> {
    let mut values = Vec::new();
    for name in names {
        values.extend(widened(&checkpoint.tensor(name)?));
    }
    Ok(values)
}

fn widened(loaded: &Loaded<'_>) -> Vec<f32> {
    let values = loaded.values();
    (0..values.len()).map(|index| values.get(index)).collect()
}

/// Shape of an expert's page.
#[must_use]
pub(super) fn expert_shape(checkpoint: &Checkpoint) -> PageShape {
    let config = checkpoint.config();
    PageShape { hidden: config.hidden, intermediate: config.expert_intermediate, kind: checkpoint.expert_kind() }
}

/// Reads one expert. `layer` counts MoE layers only.
pub(super) fn expert<B: Backend>(
    backend: &B,
    checkpoint: &Checkpoint,
    layer: LayerId,
    expert: ExpertId,
) -> Result<B::Page, CheckpointError> {
    let config = checkpoint.config();
    let sparse = |(_, kind): &(usize, &LayerKind)| **kind == LayerKind::Sparse;
    let (layer, _) = config.layers.iter().enumerate().filter(sparse).nth(layer.index()).expect("an MoE layer");
    let prefix = format!("{}.mlp.experts", prefix(layer));
    let shape = expert_shape(checkpoint);
    let (inside, size) = (shape.intermediate, shape.intermediate * shape.hidden);
    match checkpoint.expert_layout() {
        ExpertLayout::Separate => network(backend, checkpoint, &format!("{prefix}.{}", expert.0), shape),
        ExpertLayout::Fused => {
            let gate_up = format!("{prefix}.gate_up_proj");
            let gate = checkpoint.part(&gate_up, 2 * expert.index() * size, size)?;
            let up = checkpoint.part(&gate_up, (2 * expert.index() + 1) * size, size)?;
            let down = checkpoint.part(&format!("{prefix}.down_proj"), expert.index() * size, size)?;
            Ok(backend.page(shape, gate.matrix(inside), up.matrix(inside), down.matrix(shape.hidden)))
        }
    }
}

/// Reads a dense layer's feed-forward.
pub(super) fn dense<B: Backend>(
    backend: &B,
    checkpoint: &Checkpoint,
    layer: usize,
) -> Result<B::Page, CheckpointError> {
    let config = checkpoint.config();
    let prefix = format!("{}.mlp", prefix(layer));
    let names = ["gate", "up", "down"].map(|name| format!("{prefix}.{name}_proj.weight"));
    let kind = checkpoint.kind_of(&names)?;
    let shape = PageShape { hidden: config.hidden, intermediate: config.dense_intermediate, kind };
    network(backend, checkpoint, &prefix, shape)
}

fn network<B: Backend>(
    backend: &B,
    checkpoint: &Checkpoint,
    prefix: &str,
    shape: PageShape,
) -> Result<B::Page, CheckpointError> {
    let gate = checkpoint.tensor(&format!("{prefix}.gate_proj.weight"))?;
    let up = checkpoint.tensor(&format!("{prefix}.up_proj.weight"))?;
    let down = checkpoint.tensor(&format!("{prefix}.down_proj.weight"))?;
    Ok(backend.page(shape, gate.matrix(shape.intermediate), up.matrix(shape.intermediate), down.matrix(shape.hidden)))
}
