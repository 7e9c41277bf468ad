//! The names and shapes of a checkpoint's tensors, and the weights made from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kernels::backend::PageShape;
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::{Arena, Backend, Page};
use plan::ids::{ExpertId, LayerId};
use safetensors::Dtype;

use super::attention;
use super::checkpoint::{Checkpoint, CheckpointError, Loaded, Place};
use super::config::{Config, Experts, FeedForward, Linear, TensorNames};
use super::forward::{LoadModelError, LoadPageError};

/// How expert tensors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpertLayout {
    /// Each expert's gate, up and down matrices.
    Separate,
    /// Gate and up matrices of all experts in one, `[experts, 2 * intermediate, hidden]`, gate rows first, and all down matrices.
    Fused,
}

/// Is given the name and the shape of every tensor that the model must have, until it refuses one.
pub(super) type Expect<'a> = dyn FnMut(String, &[usize]) -> Result<(), CheckpointError> + 'a;

/// Checks that exactly the model's tensors are there. Returns how experts are stored and the kind that holds all of
/// them exactly.
pub(super) fn check(
    config: &Config,
    tensors: &BTreeMap<String, Place>,
) -> Result<(ExpertLayout, WeightKind), CheckpointError> {
    let names = config.names;
    let fused = format!("{}.{}", config.experts.name, config.experts.fused[0]);
    let fused = tensors.keys().any(|name| name.ends_with(&fused));
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
    if config.tied_embeddings && tensors.contains_key(names.head) {
        seen(names.head.to_owned(), &[config.vocabulary, config.hidden])?;
    }
    if let Some(name) = unseen.into_iter().find(|name| !names.is_derived(name)) {
        return Err(CheckpointError::Extra { tensor: name.into() });
    }
    let mut experts = tensors.iter().filter(|(name, _)| config.is_of_an_expert(name));
    let bf16 = experts.all(|(_, place)| place.dtype == Dtype::BF16);
    Ok((layout, if bf16 { WeightKind::Bf16 } else { WeightKind::F32 }))
}

/// Bytes in memory of all that is no network, where each element of a matrix takes `width`: vectors are f32, and a tied matrix is
/// there twice, as a table and as a matrix.
pub(super) fn shared_bytes(config: &Config, width: u64) -> u64 {
    let (mut bytes, of_networks) = (0_u64, dense_tensors(config));
    let mut add = |name: String, shape: &[usize]| {
        let times = if name == config.names.embedding && config.tied_embeddings { 2 } else { 1 };
        let width = if shape.len() == 1 { size_of::<f32>() as u64 } else { width };
        if !config.is_of_an_expert(&name) && !of_networks.contains(&name) {
            bytes = bytes.saturating_add(super::checkpoint::elements(shape).saturating_mul(times * width));
        }
        Ok(())
    };
    expect(config, ExpertLayout::Fused, &mut add).expect("nothing is refused");
    bytes
}

/// The matrices of each dense layer's network, with its width within.
pub(super) fn dense_networks(config: &Config) -> impl Iterator<Item = ([String; 3], usize)> {
    config.layers.iter().enumerate().filter_map(|(layer, feed_forward)| match *feed_forward {
        FeedForward::Dense { name, intermediate } => {
            let layer = config.names.layer(layer);
            Some((network_names(config.names).map(|matrix| format!("{layer}.{name}.{matrix}")), intermediate))
        }
        FeedForward::Sparse => None,
    })
}

/// The matrices of all dense layers' networks.
pub(super) fn dense_tensors(config: &Config) -> BTreeSet<String> {
    dense_networks(config).flat_map(|(names, _)| names).collect()
}

/// Gives `add` the name and the shape of every tensor of a model whose experts are stored so.
pub(super) fn expect(config: &Config, layout: ExpertLayout, add: &mut Expect<'_>) -> Result<(), CheckpointError> {
    let Config { hidden, vocabulary, names, router, .. } = *config;
    let Experts { count, intermediate, name, fused: [gate_up, down] } = config.experts;
    add(names.embedding.to_owned(), &[vocabulary, hidden])?;
    add(names.norm.to_owned(), &[hidden])?;
    if !config.tied_embeddings {
        add(names.head.to_owned(), &[vocabulary, hidden])?;
    }
    for (number, feed_forward) in config.layers.iter().enumerate() {
        let layer = names.layer(number);
        attention::expect(config, &layer, add)?;
        add(format!("{layer}.{}.weight", names.attention_norm), &[hidden])?;
        add(format!("{layer}.{}.weight", names.feed_forward_norm), &[hidden])?;
        match (*feed_forward, layout) {
            (FeedForward::Dense { name, intermediate }, _) => {
                expect_network(config, &format!("{layer}.{name}"), intermediate, add)?;
            }
            (FeedForward::Sparse, ExpertLayout::Separate) => {
                for expert in 0..count {
                    expect_network(config, &format!("{layer}.{name}.{expert}"), intermediate, add)?;
                }
            }
            (FeedForward::Sparse, ExpertLayout::Fused) => {
                add(format!("{layer}.{name}.{gate_up}"), &[count, 2 * intermediate, hidden])?;
                add(format!("{layer}.{name}.{down}"), &[count, hidden, intermediate])?;
            }
        }
        if *feed_forward == FeedForward::Sparse {
            expect_linear(&layer, router.linear, (&[count], hidden), add)?;
        }
    }
    Ok(())
}

fn expect_network(
    config: &Config,
    prefix: &str,
    intermediate: usize,
    add: &mut Expect<'_>,
) -> Result<(), CheckpointError> {
    let [gate, up, down] = network_names(config.names);
    add(format!("{prefix}.{gate}"), &[intermediate, config.hidden])?;
    add(format!("{prefix}.{up}"), &[intermediate, config.hidden])?;
    add(format!("{prefix}.{down}"), &[config.hidden, intermediate])
}

/// Gives `add` the tensors of a linear layer, whose parts have so many rows each.
pub(super) fn expect_linear(
    layer: &str,
    linear: Linear,
    (rows, columns): (&[usize], usize),
    add: &mut Expect<'_>,
) -> Result<(), CheckpointError> {
    for (name, &rows) in linear.names.iter().zip(rows) {
        add(format!("{layer}.{name}.weight"), &[rows, columns])?;
        if linear.bias {
            add(format!("{layer}.{name}.bias"), &[rows])?;
        }
    }
    Ok(())
}

/// Names of a network's matrices, after its own.
fn network_names(names: &TensorNames) -> [String; 3] {
    names.network.map(|name| format!("{name}.weight"))
}

/// A linear layer of a layer.
pub(super) fn linear<B: Backend>(
    backend: &B,
    checkpoint: &Checkpoint,
    (layer, linear): (&str, Linear),
    columns: usize,
) -> Result<B::Matrix, LoadModelError> {
    let tensors = |kind: &str| linear.names.iter().map(|name| format!("{layer}.{name}.{kind}")).collect::<Vec<_>>();
    let weights = &tensors("weight");
    let bias = if linear.bias { Some(joined(checkpoint, &tensors("bias"))?) } else { None };
    let matrix = |values: Values<'_>| {
        let rows = values.len() / columns;
        backend.matrix(MatrixView::new(rows, columns, values), bias.as_deref())
    };
    match checkpoint.tensors(weights)? {
        // What is one tensor or all of one type stays as it is kept.
        Some(loaded) => match loaded.values() {
            Values::F16(_) => Ok(matrix(Values::F32(&widened(&loaded)))?),
            values => Ok(matrix(values)?),
        },
        None => Ok(matrix(Values::F32(&joined(checkpoint, weights)?))?),
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
    PageShape { hidden: config.hidden, intermediate: config.experts.intermediate, kind: checkpoint.expert_kind() }
}

/// Reads one expert into a page. `layer` counts MoE layers only.
pub(super) fn expert<B: Backend>(
    checkpoint: &Checkpoint,
    layer: LayerId,
    expert: ExpertId,
    page: &mut Page<B>,
) -> Result<(), LoadPageError> {
    let config = checkpoint.config();
    let sparse = |(_, feed_forward): &(usize, &FeedForward)| **feed_forward == FeedForward::Sparse;
    let (layer, _) = config.layers.iter().enumerate().filter(sparse).nth(layer.index()).expect("an MoE layer");
    let prefix = format!("{}.{}", config.names.layer(layer), config.experts.name);
    let shape = expert_shape(checkpoint);
    let (inside, size) = (shape.intermediate, shape.intermediate * shape.hidden);
    match checkpoint.expert_layout() {
        ExpertLayout::Separate => network(checkpoint, &format!("{prefix}.{}", expert.0), page),
        ExpertLayout::Fused => {
            let [gate_up, down] = config.experts.fused.map(|name| format!("{prefix}.{name}"));
            let gate = checkpoint.part(&gate_up, 2 * expert.index() * size, size)?;
            let up = checkpoint.part(&gate_up, (2 * expert.index() + 1) * size, size)?;
            let down = checkpoint.part(&down, expert.index() * size, size)?;
            Ok(page.pack(gate.matrix(inside), up.matrix(inside), down.matrix(shape.hidden))?)
        }
    }
}

/// Reads a dense layer's network, which is called `name`.
pub(super) fn dense<B: Backend>(
    backend: &Arc<B>,
    checkpoint: &Checkpoint,
    name: &str,
    intermediate: usize,
) -> Result<Page<B>, LoadModelError> {
    let config = checkpoint.config();
    let names = network_names(config.names).map(|matrix| format!("{name}.{matrix}"));
    let shape = PageShape { hidden: config.hidden, intermediate, kind: checkpoint.kind_of(&names)? };
    let mut page = Arena::new(Arc::clone(backend), shape)?.take()?;
    network(checkpoint, name, &mut page)?;
    Ok(page)
}

fn network<B: Backend>(checkpoint: &Checkpoint, prefix: &str, page: &mut Page<B>) -> Result<(), LoadPageError> {
    let PageShape { hidden, intermediate, .. } = page.arena().shape();
    let [gate, up, down] = network_names(checkpoint.config().names).map(|name| format!("{prefix}.{name}"));
    let (gate, up, down) = (checkpoint.tensor(&gate)?, checkpoint.tensor(&up)?, checkpoint.tensor(&down)?);
    Ok(page.pack(gate.matrix(intermediate), up.matrix(intermediate), down.matrix(hidden))?)
}
