//! What TensorRT-LLM counts where `EXPERT_STATISTIC_ITER_RANGE` is set, in a folder: `meta_info.json`, which names the number
//! of experts, and `rankN.safetensors` of each rank, with a tensor `ITERATION_LAYER` of the tokens of each expert
//! (`tensorrt_llm/_torch/modules/fused_moe/expert_statistic.py`). Layers have their numbers in the model; those without
//! experts are not there.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use thiserror::Error;

use super::loads::Loads;
use crate::load::ExpertLoad;
use crate::map::MAX_DIMENSION;
use crate::words::counted;

/// The file that tells the number of experts.
pub const META: &str = "meta_info.json";

/// Whether a file of the folder holds counts. Those of single tokens, `rankN_raw.safetensors`, are others.
#[must_use]
pub fn is_of_rank(name: &str) -> bool {
    let number = name.strip_prefix("rank").and_then(|rest| rest.strip_suffix(".safetensors"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

#[derive(Deserialize)]
struct Meta {
    num_experts: usize,
}

/// Reads the counts of all ranks, each with the name of its file: a window for each iteration.
///
/// # Errors
/// If a file is not in this form, or a layer of an iteration is missing.
pub fn read(meta: &[u8], ranks: &[(String, Vec<u8>)]) -> Result<Loads, StatisticsError> {
    let Meta { num_experts: experts } =
        serde_json::from_slice(meta).map_err(|source| StatisticsError::Meta { reason: source.to_string() })?;
    if experts == 0 || experts > MAX_DIMENSION {
        return Err(StatisticsError::Experts { found: experts });
    }
    let mut counts: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
    for (file, bytes) in ranks {
        add(&mut counts, file, bytes, experts)?;
    }
    let layers: BTreeSet<u64> = counts.keys().map(|&(_, layer)| layer).collect();
    let iterations: BTreeSet<u64> = counts.keys().map(|&(iteration, _)| iteration).collect();
    let window = |iteration: u64| {
        let row = |layer: &u64| {
            let row = counts.get(&(iteration, *layer)).cloned();
            row.ok_or(StatisticsError::Missing { iteration, layer: *layer })
        };
        let rows = layers.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        ExpertLoad::from_rows(&rows).ok_or(StatisticsError::Empty)
    };
    let windows = iterations.into_iter().map(window).collect::<Result<Vec<_>, _>>()?;
    if windows.is_empty() {
        return Err(StatisticsError::Empty);
    }
    Ok(Loads { windows, model: None, counts_dense_layers: false })
}

/// Adds what one rank counted.
fn add(
    counts: &mut BTreeMap<(u64, u64), Vec<u64>>,
    file: &str,
    bytes: &[u8],
    experts: usize,
) -> Result<(), StatisticsError> {
    let file = file.to_owned();
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|source| StatisticsError::File { file: file.clone(), reason: source.to_string() })?;
    for (name, tensor) in tensors.iter() {
        let tensor_name = || name.chars().take(SHOWN).collect::<String>();
        let key = name.split_once('_').and_then(|(first, second)| Some((first.parse().ok()?, second.parse().ok()?)));
        let key = key.ok_or_else(|| StatisticsError::Name { file: file.clone(), name: tensor_name() })?;
        let size = match tensor.dtype() {
            Dtype::I64 => 8,
            Dtype::I32 => 4,
            _ => 0,
        };
        if size == 0 || tensor.shape() != [experts] {
            return Err(StatisticsError::Tensor { file, name: tensor_name(), experts });
        }
        let sum = counts.entry(key).or_insert_with(|| vec![0; experts]);
        for (sum, value) in sum.iter_mut().zip(tensor.data().chunks_exact(size)) {
            let value = value.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
            if value >> (8 * size - 1) != 0 {
                return Err(StatisticsError::Negative { file, name: tensor_name() });
            }
            *sum = sum.saturating_add(value);
        }
    }
    Ok(())
}

/// Characters of a name that an error shows.
const SHOWN: usize = 40;

/// Why a folder holds no statistics. Reading it again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StatisticsError {
    /// The file that tells the number of experts is in another form.
    #[error("{META} is not as TensorRT-LLM writes it, {{\"num_experts\": ...}}: {reason}")]
    Meta {
        /// What the parser says.
        reason: String,
    },
    /// The number of experts is impossible.
    #[error("{META} tells of {found} experts; there are from 1 to {MAX_DIMENSION}")]
    Experts {
        /// What it tells.
        found: usize,
    },
    /// A file of a rank cannot be read.
    #[error("{file} is no file of tensors: {reason}")]
    File {
        /// The file.
        file: String,
        /// What the parser says.
        reason: String,
    },
    /// A tensor is of no iteration and layer.
    #[error("{file}: tensor {name:?} is not named by an iteration and a layer, such as 100_3")]
    Name {
        /// The file.
        file: String,
        /// Its name.
        name: String,
    },
    /// A tensor has no count for each expert.
    #[error(
        "{file}: tensor {name} is no list of {}, one for each expert",
        counted(*experts, "whole number")
    )]
    Tensor {
        /// The file.
        file: String,
        /// Its name.
        name: String,
        /// Experts.
        experts: usize,
    },
    /// A count is below 0.
    #[error("{file}: tensor {name} has a negative value; counts are not")]
    Negative {
        /// The file.
        file: String,
        /// Its name.
        name: String,
    },
    /// A layer of an iteration was not counted, as where the server was ended while it wrote.
    #[error(
        "layer {layer} of iteration {iteration} is missing; count a range of iterations that ends before the server does"
    )]
    Missing {
        /// The iteration.
        iteration: u64,
        /// The layer.
        layer: u64,
    },
    /// There is nothing in it.
    #[error("it has no counts: no rankN.safetensors with a tensor")]
    Empty,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of tensors of these names and counts.
    fn file(tensors: &[(&str, &[i64])]) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, counts)| counts.iter().flat_map(|count| count.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, counts), bytes)| {
            let view = safetensors::tensor::TensorView::new(Dtype::I64, vec![counts.len()], bytes).unwrap();
            ((*name).to_owned(), view)
        });
        safetensors::serialize(views, None).unwrap()
    }

    const META_OF_2: &[u8] = br#"{"num_experts": 2, "num_experts_per_token": 1}"#;

    fn ranks(files: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
        files.iter().enumerate().map(|(rank, bytes)| (format!("rank{rank}.safetensors"), bytes.clone())).collect()
    }

    fn refused(files: &[Vec<u8>]) -> String {
        read(META_OF_2, &ranks(files)).unwrap_err().to_string()
    }

    #[test]
    fn ranks_are_added_up_and_iterations_are_windows_in_their_order() {
        let first = file(&[("10_3", &[1, 2]), ("10_4", &[3, 4]), ("9_3", &[5, 6]), ("9_4", &[7, 8])]);
        let second = file(&[("9_3", &[10, 0]), ("9_4", &[0, 0]), ("10_3", &[0, 0]), ("10_4", &[0, 1])]);
        let loads = read(META_OF_2, &ranks(&[first, second])).unwrap();
        let window = |rows: [[u64; 2]; 2]| ExpertLoad::from_rows(&rows.map(|row| row.to_vec())).unwrap();
        assert_eq!(loads.windows, [window([[15, 6], [7, 8]]), window([[1, 2], [3, 5]])]);
        assert!(!loads.counts_dense_layers);
    }

    #[test]
    fn what_is_in_another_form_is_named() {
        assert_eq!(refused(&[]), "it has no counts: no rankN.safetensors with a tensor");
        assert!(refused(&[b"x".to_vec()]).starts_with("rank0.safetensors is no file of tensors: "));
        let name = refused(&[file(&[("a", &[1, 2])])]);
        assert_eq!(name, "rank0.safetensors: tensor \"a\" is not named by an iteration and a layer, such as 100_3");
        let short = refused(&[file(&[("1_3", &[1])])]);
        assert_eq!(short, "rank0.safetensors: tensor 1_3 is no list of 2 whole numbers, one for each expert");
        let negative = refused(&[file(&[("1_3", &[1, -1])])]);
        assert_eq!(negative, "rank0.safetensors: tensor 1_3 has a negative value; counts are not");
        let missing = refused(&[file(&[("1_3", &[1, 1]), ("1_4", &[1, 1]), ("2_3", &[1, 1])])]);
        assert!(missing.starts_with("layer 4 of iteration 2 is missing"), "{missing}");
        assert!(
            read(b"{}", &[]).unwrap_err().to_string().starts_with("meta_info.json is not as TensorRT-LLM writes it")
        );
        assert_eq!(read(br#"{"num_experts": 0}"#, &[]), Err(StatisticsError::Experts { found: 0 }));
    }

    #[test]
    fn only_files_of_counts_are_read() {
        let names =
            ["rank0.safetensors", "rank12.safetensors", "rank0_raw.safetensors", "rank.safetensors", "meta_info.json"];
        assert_eq!(names.map(is_of_rank), [true, true, false, false, false]);
    }
}
