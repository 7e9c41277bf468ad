//! What the `config.json` of a checkpoint says of its experts.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{OfflineError, is_standard, read};
use crate::Terminal;

/// A model's experts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub path: PathBuf,
    /// Layers of the model, dense ones included.
    pub layers: usize,
    /// Layers without experts before the first that has some.
    pub dense_layers: usize,
    pub experts: usize,
    /// Groups of experts that the router chooses first.
    pub router_groups: usize,
    /// Bytes of one expert; why they are not known, otherwise.
    expert_bytes: Result<u64, String>,
}

impl Model {
    /// Reads `config.json`, or the one in a folder.
    pub fn read(path: &Path, terminal: &mut Terminal<'_>) -> Result<Self, OfflineError> {
        let is_file = is_standard(path) || path.is_file();
        let path = if is_file { path.to_owned() } else { path.join("config.json") };
        let text = read(&path, terminal)?;
        Self::parse(&text, &path).map_err(|what| OfflineError::Config { path, what })
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, String> {
        let whole: Value = serde_json::from_slice(text).map_err(|source| format!("is no JSON: {source}"))?;
        // Models of several modalities keep their language model's numbers apart.
        let config = whole.get("text_config").unwrap_or(&whole);
        let number = |name: &str| config.get(name).and_then(Value::as_u64).map(|number| number as usize);
        let needed = |name: &str| number(name).ok_or_else(|| format!("has no {name}"));
        let experts = ["num_experts", "n_routed_experts", "num_local_experts"].into_iter().find_map(number);
        Ok(Self {
            path: path.to_owned(),
            layers: needed("num_hidden_layers")?,
            dense_layers: number("first_k_dense_replace").unwrap_or(0),
            experts: experts.ok_or("is of a model without experts")?,
            router_groups: number("n_group").unwrap_or(1),
            expert_bytes: expert_bytes(config, &whole),
        })
    }

    pub fn expert_bytes(&self) -> Result<u64, OfflineError> {
        self.expert_bytes.clone().map_err(|what| OfflineError::Config {
            path: self.path.clone(),
            what: format!("{what}; give --expert-bytes"),
        })
    }
}

/// Bytes of the three matrices of one expert, with the scales of FP8 weights.
fn expert_bytes(config: &Value, whole: &Value) -> Result<u64, String> {
    let number = |name: &str| config.get(name).and_then(Value::as_u64);
    let hidden = number("hidden_size").ok_or("has no hidden_size")?;
    let of_experts = number("moe_intermediate_size");
    let of_all = || number("num_local_experts").and_then(|_| number("intermediate_size"));
    let inner = of_experts.or_else(of_all).ok_or("has no moe_intermediate_size")?;
    let weights = 3 * hidden * inner;
    let of_either = |name: &str| config.get(name).or_else(|| whole.get(name)).filter(|value| !value.is_null());
    if let Some(quantization) = of_either("quantization_config") {
        let method = quantization.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
        if method != "fp8" {
            return Err(format!("names the quantization {method}, whose size is not known here"));
        }
        let block: Vec<u64> = quantization
            .get("weight_block_size")
            .and_then(Value::as_array)
            .map(|sides| sides.iter().filter_map(Value::as_u64).collect())
            .unwrap_or_default();
        let scales = match block[..] {
            [rows, columns] if rows > 0 && columns > 0 => {
                2 * inner.div_ceil(rows) * hidden.div_ceil(columns) + hidden.div_ceil(rows) * inner.div_ceil(columns)
            }
            _ => 3,
        };
        return Ok(weights + 4 * scales);
    }
    match of_either("dtype").or_else(|| of_either("torch_dtype")).and_then(Value::as_str) {
        Some("bfloat16" | "float16") => Ok(2 * weights),
        Some("float32") => Ok(4 * weights),
        Some(other) => Err(format!("names the type {other}, whose size is not known here")),
        None => Err("names no torch_dtype".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(config: &str) -> Result<Model, String> {
        Model::parse(config.as_bytes(), Path::new("config.json"))
    }

    #[test]
    fn the_sizes_of_known_models_are_read() {
        let tiny = parsed(include_str!("../../../examples/models/tiny-moe/config.json")).unwrap();
        assert_eq!((tiny.layers, tiny.dense_layers, tiny.experts, tiny.router_groups), (4, 0, 32, 1));
        assert_eq!(tiny.expert_bytes, Ok(2 * 3 * 128 * 64));
        let deepseek = parsed(
            r#"{"num_hidden_layers": 61, "first_k_dense_replace": 3, "n_routed_experts": 256, "n_group": 8,
                "hidden_size": 7168, "moe_intermediate_size": 2048, "torch_dtype": "bfloat16",
                "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#,
        );
        let deepseek = deepseek.unwrap();
        assert_eq!((deepseek.layers, deepseek.dense_layers, deepseek.router_groups), (61, 3, 8));
        assert_eq!(deepseek.expert_bytes, Ok(3 * 7168 * 2048 + 4 * 3 * 56 * 16));
        let mixtral = parsed(
            r#"{"text_config": {"num_hidden_layers": 2, "num_local_experts": 8, "hidden_size": 10,
                "intermediate_size": 20, "dtype": "float32"}}"#,
        );
        assert_eq!(mixtral.unwrap().expert_bytes, Ok(4 * 600));
    }

    #[test]
    fn what_is_missing_or_unknown_is_said() {
        assert!(parsed("{").unwrap_err().starts_with("is no JSON"));
        assert_eq!(parsed("{}").unwrap_err(), "has no num_hidden_layers");
        assert_eq!(parsed(r#"{"num_hidden_layers": 2}"#).unwrap_err(), "is of a model without experts");
        let sized = |rest: &str| {
            let config = format!(
                r#"{{"num_hidden_layers": 2, "num_experts": 8, "hidden_size": 10, "moe_intermediate_size": 20{rest}}}"#
            );
            parsed(&config).unwrap().expert_bytes().unwrap_err().to_string()
        };
        assert_eq!(sized(""), "config.json names no torch_dtype; give --expert-bytes");
        let awq = sized(r#", "quantization_config": {"quant_method": "awq"}"#);
        assert_eq!(awq, "config.json names the quantization awq, whose size is not known here; give --expert-bytes");
    }
}
