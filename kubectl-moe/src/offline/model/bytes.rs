//! How many bytes an expert has as a checkpoint stores it: its matrices, and what quantisation keeps beside them. Scales and
//! biases count; a few bytes for shapes of tensors do not.

use serde_json::Value;

use super::{Config, MOST, WIDEST};

/// The matrices of an expert: rows and columns of each.
struct Matrices {
    all: Vec<(u64, u64)>,
}

impl Matrices {
    fn weights(&self) -> u64 {
        self.all.iter().map(|(rows, columns)| rows * columns).sum()
    }

    /// Groups of so many weights of a row.
    fn groups(&self, size: u64) -> u64 {
        self.all.iter().map(|(rows, columns)| rows * columns.div_ceil(size)).sum()
    }

    fn blocks(&self, height: u64, width: u64) -> u64 {
        self.all.iter().map(|(rows, columns)| rows.div_ceil(height) * columns.div_ceil(width)).sum()
    }

    fn rows(&self) -> u64 {
        self.all.iter().map(|(rows, _)| rows).sum()
    }

    fn columns(&self) -> u64 {
        self.all.iter().map(|(_, columns)| columns).sum()
    }

    const fn count(&self) -> u64 {
        self.all.len() as u64
    }
}

pub(super) fn of_expert(config: Config<'_>) -> Result<u64, String> {
    let hidden = config.number("hidden_size", 1..=WIDEST)?.ok_or("has no hidden_size")?;
    let inner = width(config)?;
    // An activation that is not gated has no gate.
    let is_gated = !config.text("mlp_hidden_act").is_some_and(|activation| activation.starts_with("relu2"));
    let up = if is_gated { 2 } else { 1 };
    let mut all = vec![(inner, hidden); up];
    all.push((hidden, inner));
    let matrices = Matrices { all };
    // Those of gpt-oss have a bias for each row.
    let bias = if config.text("model_type") == Some("gpt_oss") { 2 * matrices.rows() } else { 0 };
    let quantization = config.of_either("quantization_config").or_else(|| config.of_either("compression_config"));
    let weights = match quantization {
        Some(quantization) => quantized(&matrices, quantization, config)?,
        None => matrices.weights() * unquantized(config)?,
    };
    Ok(weights + bias)
}

/// The inner width of an expert; families whose every layer has experts call it as others call that of dense layers.
fn width(config: Config<'_>) -> Result<u64, String> {
    let of_experts = ["moe_intermediate_size", "expert_hidden_dim", "moe_ffn_hidden_size", "expert_ffn_hidden_size"];
    if let Some((_, width)) = config.first(&of_experts, &(1..=WIDEST))? {
        return Ok(width);
    }
    let is_of_experts = ["num_local_experts", "num_experts"].iter().any(|name| config.get(name).is_some());
    let of_layers = if is_of_experts { config.number("intermediate_size", 1..=WIDEST)? } else { None };
    of_layers.ok_or_else(|| "has no moe_intermediate_size".to_owned())
}

/// Bytes of a weight.
fn unquantized(config: Config<'_>) -> Result<u64, String> {
    match config.text("dtype").or_else(|| config.text("torch_dtype")) {
        Some("bfloat16" | "float16") => Ok(2),
        Some("float32") => Ok(4),
        Some(other) => Err(format!("names the type {}, whose size is not known here", shown(other))),
        None => Err("names no torch_dtype".to_owned()),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).filter(|character| !plan::words::is_hidden(*character)).collect()
}

fn quantized(matrices: &Matrices, quantization: &Value, config: Config<'_>) -> Result<u64, String> {
    let text = |name: &str| quantization.get(name).and_then(Value::as_str);
    let number =
        |name: &str| quantization.get(name).and_then(Value::as_u64).filter(|number| (1..=MOST).contains(number));
    let method = text("quant_method").unwrap_or("unnamed");
    match method {
        "fp8" => Ok(fp8(matrices, quantization)),
        // A block of 32 weights of 4 bits has a scale of 8.
        "mxfp4" => Ok(matrices.groups(2) + matrices.groups(32)),
        "awq" | "gptq" => {
            let bits = number("bits").or_else(|| number("w_bit")).unwrap_or(4);
            let size = number("group_size").or_else(|| number("q_group_size"));
            let groups = size.map_or_else(|| matrices.rows(), |size| matrices.groups(size));
            // Each group has a scale of 16 bits and a zero; gptq has the group of each column too.
            let order = if method == "gptq" { 4 * matrices.columns() } else { 0 };
            Ok((matrices.weights() * bits).div_ceil(8) + 2 * groups + (groups * bits).div_ceil(8) + order)
        }
        "compressed-tensors" => compressed(matrices, quantization, config),
        "modelopt" => match text("quant_algo") {
            // A block of 16 weights of 4 bits has a scale of 8, a matrix two of 32.
            Some("NVFP4") => Ok(matrices.groups(2) + matrices.groups(16) + 8 * matrices.count()),
            Some("FP8") => Ok(matrices.weights() + 8 * matrices.count()),
            other => Err(unknown(&format!("modelopt {}", other.unwrap_or("without quant_algo")))),
        },
        other => Err(unknown(other)),
    }
}

fn unknown(method: &str) -> String {
    format!("names the quantization {}, whose size is not known here", shown(method))
}

/// Weights of 8 bits with scales of 32: one of each block, or of each matrix.
fn fp8(matrices: &Matrices, quantization: &Value) -> u64 {
    let scales = match sides(quantization.get("weight_block_size"))[..] {
        [rows, columns] => matrices.blocks(rows, columns),
        _ => matrices.count(),
    };
    matrices.weights() + 4 * scales
}

fn sides(list: Option<&Value>) -> Vec<u64> {
    let items = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items.iter().filter_map(Value::as_u64).filter(|&side| side > 0).collect()
}

/// What is written of the weights of the one group that all linear layers are in, scales as wide as weights are elsewhere.
fn compressed(matrices: &Matrices, quantization: &Value, config: Config<'_>) -> Result<u64, String> {
    let groups = quantization.get("config_groups").and_then(Value::as_object);
    let weights = groups.and_then(|groups| groups.values().next()).and_then(|group| group.get("weights"));
    let weights = weights.ok_or_else(|| unknown("compressed-tensors without config_groups"))?;
    let bits = weights.get("num_bits").and_then(Value::as_u64).filter(|bits| (1..=16).contains(bits));
    let bits = bits.ok_or_else(|| unknown("compressed-tensors without num_bits"))?;
    let size = weights.get("group_size").and_then(Value::as_u64).filter(|&size| size > 0);
    let scales = match (weights.get("strategy").and_then(Value::as_str), size) {
        (Some("group" | "tensor_group"), Some(size)) => matrices.groups(size),
        (Some("channel"), _) => matrices.rows(),
        (Some("tensor"), _) => matrices.count(),
        (Some("block"), _) => match sides(weights.get("block_structure"))[..] {
            [rows, columns] => matrices.blocks(rows, columns),
            _ => return Err(unknown("compressed-tensors without block_structure")),
        },
        (other, _) => {
            return Err(unknown(&format!("compressed-tensors with the strategy {}", other.unwrap_or("none"))));
        }
    };
    let is_fp4 = bits == 4 && weights.get("type").and_then(Value::as_str) == Some("float");
    // NVFP4 has scales of 8 bits, and two of 32 for each matrix.
    let scales = if is_fp4 { scales + 8 * matrices.count() } else { scales * unquantized(config)? };
    Ok((matrices.weights() * bits).div_ceil(8) + scales)
}
