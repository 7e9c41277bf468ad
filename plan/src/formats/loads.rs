//! Recorded loads: NumPy arrays, lists in JSON, our own documents and SGLang's dumps of expert distributions.
//!
//! SGLang's dump is `{"logical_count": [[tokens...], ...], ...}` as JSON, one matrix or one for each recorded forward pass
//! (`python/sglang/srt/eplb/expert_distribution.py`). It has a row for each layer of the model, and those of dense layers are 0.
//! They stay, as the numbers of layers in SGLang's maps count them too, unless the number of dense layers is known.

use serde_json::Value;
use thiserror::Error;

use super::npy::{self, NpyError};
use crate::load::ExpertLoad;
use crate::wire::{LoadDocument, ModelIdentity, WireError};
use crate::words::counted;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loads {
    /// The windows, oldest first; at least one, all of one model.
    pub windows: Vec<ExpertLoad>,
    /// The model, where the file names it.
    pub model: Option<ModelIdentity>,
    /// Whether layers without experts are counted: it is a dump of SGLang.
    pub counts_dense_layers: bool,
}

/// Reads a load in any known form, which its bytes tell: `[layers, experts]` or `[windows, layers, experts]`.
///
/// # Errors
/// If it is in none of them, or has no windows, layers or experts, or unequal rows.
pub fn read(bytes: &[u8]) -> Result<Loads, LoadError> {
    if npy::recognize(bytes) {
        return of_array(npy::read(bytes)?);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(LoadError::Archive);
    }
    match super::document(bytes).map_err(|reason| LoadError::Json { reason })? {
        Value::Array(items) => Ok(Loads { windows: windows(&items)?, model: None, counts_dense_layers: false }),
        Value::Object(fields) if fields.contains_key("version") => of_document(&Value::Object(fields)),
        Value::Object(mut fields) => match fields.remove("logical_count") {
            Some(Value::Array(items)) => {
                Ok(Loads { windows: windows(&items)?, model: None, counts_dense_layers: true })
            }
            Some(_) => Err(LoadError::NoList),
            None => Err(LoadError::Unknown),
        },
        _ => Err(LoadError::Unknown),
    }
}

impl Loads {
    /// Without the rows of the first `dense` layers, if it has such rows.
    ///
    /// # Errors
    /// If one of them has load, or no other row is left.
    pub fn without_dense_layers(self, dense: usize) -> Result<Self, LoadError> {
        if !self.counts_dense_layers || dense == 0 {
            return Ok(self);
        }
        let cut = |load: ExpertLoad| {
            if dense >= load.layers() {
                return Err(LoadError::OnlyDense { layers: load.layers(), dense });
            }
            if let Some(layer) = (0..dense).find(|&layer| load.layer(layer.into()).iter().any(|&tokens| tokens > 0)) {
                return Err(LoadError::NotDense { layer, dense });
            }
            let rows: Vec<Vec<u64>> = (dense..load.layers()).map(|layer| load.layer(layer.into()).to_vec()).collect();
            Ok(ExpertLoad::from_rows(&rows).expect("rows of a load are even"))
        };
        let windows = self.windows.into_iter().map(cut).collect::<Result<_, _>>()?;
        Ok(Self { windows, counts_dense_layers: false, ..self })
    }
}

fn of_array(array: npy::Array) -> Result<Loads, LoadError> {
    let npy::Array { shape, values } = array;
    let (windows, layers, experts) = match shape[..] {
        [layers, experts] => (1, layers, experts),
        [windows, layers, experts] => (windows, layers, experts),
        _ => return Err(LoadError::Dimensions { shape }),
    };
    if windows * layers * experts == 0 {
        return Err(LoadError::Empty);
    }
    let window = |counts: &[u64]| {
        let rows: Vec<Vec<u64>> = counts.chunks_exact(experts).map(<[u64]>::to_vec).collect();
        ExpertLoad::from_rows(&rows).expect("rows of an array are even")
    };
    let windows = values.chunks_exact(layers * experts).map(window).collect();
    Ok(Loads { windows, model: None, counts_dense_layers: false })
}

fn of_document(value: &Value) -> Result<Loads, LoadError> {
    let document = LoadDocument::from_json(value.to_string().as_bytes())?;
    if document.counts.is_empty() || document.model.experts == 0 {
        return Err(LoadError::Empty);
    }
    let load = document.to_load(&document.model)?;
    Ok(Loads { windows: vec![load], model: Some(document.model), counts_dense_layers: false })
}

/// Windows of a list of layers or a list of lists of layers.
fn windows(items: &[Value]) -> Result<Vec<ExpertLoad>, LoadError> {
    let deep = items.first().and_then(|first| first.get(0)).is_some_and(Value::is_array);
    if !deep {
        return Ok(vec![window(items, 0)?]);
    }
    let windows: Vec<ExpertLoad> = items
        .iter()
        .enumerate()
        .map(|(number, layers)| window(layers.as_array().ok_or(LoadError::Depth { window: number })?, number))
        .collect::<Result<_, _>>()?;
    let size = |load: &ExpertLoad| (load.layers(), load.experts());
    if let Some(number) = windows.iter().position(|window| size(window) != size(&windows[0])) {
        let ((layers, experts), (first_layers, first_experts)) = (size(&windows[number]), size(&windows[0]));
        return Err(LoadError::Windows { window: number, layers, experts, first_layers, first_experts });
    }
    Ok(windows)
}

fn window(layers: &[Value], window: usize) -> Result<ExpertLoad, LoadError> {
    let row = |(layer, row): (usize, &Value)| {
        let items = row.as_array().ok_or(LoadError::Depth { window })?;
        let count = |(expert, item): (usize, &Value)| {
            whole(item).ok_or_else(|| LoadError::Count { window, layer, expert, found: item.to_string() })
        };
        items.iter().enumerate().map(count).collect::<Result<Vec<u64>, _>>()
    };
    let rows = layers.iter().enumerate().map(row).collect::<Result<Vec<_>, _>>()?;
    let experts = rows.first().map_or(0, Vec::len);
    if experts == 0 {
        return Err(LoadError::Empty);
    }
    if let Some(layer) = rows.iter().position(|row| row.len() != experts) {
        return Err(LoadError::Rows { window, layer, found: rows[layer].len(), expected: experts });
    }
    Ok(ExpertLoad::from_rows(&rows).expect("rows are even"))
}

/// A count, which some tools write as 12.0.
fn whole(value: &Value) -> Option<u64> {
    /// From here on, numbers with a fraction part no longer tell whole numbers apart.
    const EXACT: f64 = (1_u64 << 53) as f64;
    let of_fraction = || {
        value
            .as_f64()
            .filter(|number| number.fract() == 0.0 && (0.0..EXACT).contains(number))
            .map(|number| number as u64)
    };
    value.as_u64().or_else(of_fraction)
}

/// Why a file is no load. Reading it again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// It is a `.npy` file, and refused.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// It is one of our documents, and refused.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It is no JSON.
    #[error("neither a .npy file nor JSON, nor YAML: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// It is an archive, as `.npz` and `.pt` files are.
    #[error(
        "an archive (.npz or .pt); of a .npz take one array with numpy.save, of SGLang's .pt write JSON: \
         json.dump({{\"logical_count\": torch.load(FILE)[\"logical_count\"].tolist()}}, ...)"
    )]
    Archive,
    /// Its fields are those of no known form.
    #[error(
        "not a load: neither a list of layers, nor a document with `version` (a load of this project), nor one with \
         `logical_count` (a dump of SGLang)"
    )]
    Unknown,
    /// The counts are no list.
    #[error("logical_count is no list; it must be [layers][experts] or [passes][layers][experts]")]
    NoList,
    /// An array with another number of dimensions.
    #[error("an array of shape {shape:?}; a load is [layers, experts] or [windows, layers, experts]")]
    Dimensions {
        /// Its shape.
        shape: Vec<usize>,
    },
    /// There is nothing in it.
    #[error("it has no windows, layers or experts")]
    Empty,
    /// Lists are nested in another way.
    #[error(
        "window {window}: something else is where a list should be; a load is [layers][experts] or [windows][layers][experts]"
    )]
    Depth {
        /// The window, from 0.
        window: usize,
    },
    /// Something is no count.
    #[error("window {window}, layer {layer}, expert {expert}: {found} is no count of tokens")]
    Count {
        /// The window, from 0.
        window: usize,
        /// The layer.
        layer: usize,
        /// The expert.
        expert: usize,
        /// What is there.
        found: String,
    },
    /// A layer has another number of experts.
    #[error("window {window}, layer {layer}: {}, layer 0 has {expected}", counted(*found, "expert"))]
    Rows {
        /// The window, from 0.
        window: usize,
        /// The layer.
        layer: usize,
        /// Experts of the layer.
        found: usize,
        /// Experts of the first layer.
        expected: usize,
    },
    /// A window is of another model.
    #[error(
        "window {window} has {} of {}, the first {first_layers} of {first_experts}; they must be of one model",
        counted(*layers, "layer"),
        counted(*experts, "expert")
    )]
    Windows {
        /// The window, from 0.
        window: usize,
        /// Layers of the window.
        layers: usize,
        /// Experts of the window.
        experts: usize,
        /// Layers of the first.
        first_layers: usize,
        /// Experts of the first.
        first_experts: usize,
    },
    /// A layer that should be dense has load.
    #[error("layer {layer} has load, but the model is said to start with {}", counted(*dense, "dense layer"))]
    NotDense {
        /// The layer.
        layer: usize,
        /// Dense layers named.
        dense: usize,
    },
    /// No layer is left.
    #[error(
        "it has {}, and the model is said to start with {}",
        counted(*layers, "layer"),
        counted(*dense, "dense layer")
    )]
    OnlyDense {
        /// Layers there are.
        layers: usize,
        /// Dense layers named.
        dense: usize,
    },
}

#[cfg(test)]
mod tests;
