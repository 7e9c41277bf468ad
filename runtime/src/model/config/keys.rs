//! Takes the keys of a `config.json` one after the other until none is left. What a key means is the same in every family that has
//! it; which it has, and what is usual there, the family says.

use kernels::backend::HeadShape;
use plan::map::MAX_DIMENSION;
use serde_json::{Map, Value, json};

use super::ConfigError;
use super::family::{FAMILIES, Family};
use super::known::{FIXED, Fixed, HARMLESS};

/// The largest width or vocabulary that is believed; far above any model, far below an overflow.
pub(super) const MAX_WIDTH: usize = 1 << 24;

/// The keys that have not been looked at yet.
pub(super) struct ConfigKeys {
    object: Map<String, Value>,
}

impl ConfigKeys {
    pub const fn of(object: Map<String, Value>) -> Self {
        Self { object }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.object.shift_remove(key).filter(|value| !value.is_null())
    }

    /// The family that it says it is of.
    pub fn family(&mut self) -> Result<&'static Family, ConfigError> {
        let kind = self.take("model_type");
        let names = self.take("architectures");
        let is = |family: &&&Family| {
            let for_text = json!([family.architecture]);
            kind.as_ref().is_some_and(|kind| kind == family.model_type)
                && names.as_ref().is_none_or(|names| *names == for_text || *names == json!([]))
        };
        if let Some(family) = FAMILIES.iter().find(is) {
            return Ok(family);
        }
        let text = |value: Option<Value>| value.map_or("none".to_owned(), |value| value.to_string());
        Err(ConfigError::Architecture { model_type: text(kind).into(), architectures: text(names).into() })
    }

    /// Quantized weights are told by their method: what describes them is long, and says nothing to who chose the release.
    pub fn quantization(&mut self) -> Result<(), ConfigError> {
        for key in ["quantization_config", "compression_config", "quantization"] {
            let Some(value) = self.take(key) else { continue };
            let named = ["quant_method", "quant_algo", "method"].iter().find_map(|name| value.get(name)?.as_str());
            let loads = |name: &str| value.get(name).is_some();
            let method = match named {
                Some(method) => method.to_owned(),
                None if loads("load_in_4bit") || loads("load_in_8bit") => "bitsandbytes".to_owned(),
                None => value.to_string(),
            };
            return Err(ConfigError::Quantized { key, method: method.into() });
        }
        Ok(())
    }

    /// Features that change the computation and are not supported.
    pub fn features(&mut self, fixed: &'static [Fixed]) -> Result<(), ConfigError> {
        for &(key, fixed) in FIXED.iter().chain(fixed) {
            if let Some(value) = self.take(key).filter(|value| serde_json::from_str(fixed).ok().as_ref() != Some(value))
            {
                return Err(unsupported(key, &value, fixed));
            }
        }
        if let Some(code) = self.take("auto_map") {
            return Err(unsupported("auto_map", &code, "a model without code of its own (no auto_map)"));
        }
        for key in ["torch_dtype", "dtype"] {
            let known = ["bfloat16", "float16", "float32", "auto"];
            if let Some(value) =
                self.take(key).filter(|value| !value.as_str().is_some_and(|name| known.contains(&name)))
            {
                return Err(unsupported(
                    key,
                    &value,
                    "\"bfloat16\", \"float16\", \"float32\" and \"auto\", or no such key",
                ));
            }
        }
        Ok(())
    }

    /// Every gate of a network is `silu`, which has two names.
    pub fn silu(&mut self, key: &'static str) -> Result<(), ConfigError> {
        match self.take(key).filter(|act| act != "silu" && act != "swish") {
            Some(act) => Err(unsupported(key, &act, "\"silu\"")),
            None => Ok(()),
        }
    }

    /// Every layer looks at all tokens. A window is used if `use_sliding_window` says so, and is `usual` long if no other is given;
    /// null turns it off.
    pub fn no_window(&mut self, usual: u64) -> Result<(), ConfigError> {
        if let Some(types) = self.take("layer_types") {
            let full = types.as_array().is_some_and(|types| types.iter().all(|kind| kind == "full_attention"));
            if !full {
                return Err(unsupported("layer_types", &types, "\"full_attention\" for each layer"));
            }
        }
        let null = self.object.get("sliding_window").is_some_and(Value::is_null);
        let window = self.take("sliding_window").unwrap_or(Value::from(usual));
        self.object.shift_remove("max_window_layers");
        if self.flag("use_sliding_window")?.unwrap_or(false) && !null {
            return Err(unsupported("sliding_window", &window, "with use_sliding_window = false"));
        }
        Ok(())
    }

    /// Grouped heads of a residual stream `hidden` wide; `usual` are the query and the key and value heads where no key says.
    pub fn heads(&mut self, hidden: usize, usual: (usize, usize)) -> Result<HeadShape, ConfigError> {
        let query = self.size("num_attention_heads", usual.0, MAX_DIMENSION)?;
        let key_value = self.size("num_key_value_heads", usual.1, MAX_DIMENSION)?;
        if !query.is_multiple_of(key_value) {
            return Err(ConfigError::Heads { query, key_value });
        }
        let dimension = self.optional_size("head_dim", MAX_WIDTH)?.unwrap_or(hidden / query);
        if dimension == 0 || !dimension.is_multiple_of(2) {
            return Err(ConfigError::Range {
                key: "head_dim",
                value: dimension.to_string().into(),
                expected: "an even number (hidden_size / num_attention_heads where it is not given)".to_owned(),
            });
        }
        Ok(HeadShape { query, key_value, dimension })
    }

    /// Experts of each layer, and how many of them each token goes to. transformers 5 may write either name.
    pub fn experts(&mut self, usual: (usize, usize)) -> Result<(usize, usize), ConfigError> {
        let experts = self.number_of_experts(usual.0)?;
        let top_k = self.size("num_experts_per_tok", usual.1, MAX_DIMENSION)?;
        if top_k > experts { Err(ConfigError::TopK { top_k, experts }) } else { Ok((experts, top_k)) }
    }

    fn number_of_experts(&mut self, usual: usize) -> Result<usize, ConfigError> {
        if self.object.get("num_experts").is_some_and(|experts| *experts == 0) {
            return Err(ConfigError::NoSparseLayer);
        }
        let old = self.optional_size("num_experts", MAX_DIMENSION)?;
        let new = self.optional_size("num_local_experts", MAX_DIMENSION)?;
        match (old, new) {
            (Some(old), Some(new)) if old != new => Err(ConfigError::Contradiction {
                keys: "num_experts and num_local_experts",
                values: format!("{old} and {new}").into(),
            }),
            (old, new) => Ok(old.or(new).unwrap_or(usual)),
        }
    }

    /// Whether each layer has experts, where every so many do and some are listed that do not.
    pub fn layers_with_experts(&mut self, layers: usize) -> Result<Vec<bool>, ConfigError> {
        let step = self.optional_size("decoder_sparse_step", MAX_WIDTH)?.unwrap_or(1);
        let mut dense = vec![false; layers];
        if let Some(value) = self.take("mlp_only_layers") {
            let range = || ConfigError::Range {
                key: "mlp_only_layers",
                value: value.to_string().into(),
                expected: format!("a list of layer numbers below {layers}"),
            };
            for layer in value.as_array().ok_or_else(range)? {
                let layer = layer.as_u64().and_then(|layer| dense.get_mut(layer as usize)).ok_or_else(range)?;
                *layer = true;
            }
        }
        let have = dense.iter().enumerate().map(|(layer, dense)| !dense && (layer + 1).is_multiple_of(step));
        let have: Vec<bool> = have.collect();
        if have.contains(&true) { Ok(have) } else { Err(ConfigError::NoSparseLayer) }
    }

    /// transformers 4 has `rope_theta` and `rope_scaling`, transformers 5 `rope_parameters`. Where both are given,
    /// versions differ in which of them counts.
    pub fn rope_base(&mut self, usual: f64) -> Result<f64, ConfigError> {
        let mut theta = self.positive("rope_theta")?;
        self.whole_rotation("partial_rotary_factor")?;
        let mut given = |key| self.take(key).filter(|value| value.as_object().is_none_or(|object| !object.is_empty()));
        let (old, new) = (given("rope_scaling"), given("rope_parameters"));
        if let (Some(old), Some(new)) = (&old, &new) {
            return Err(ConfigError::Contradiction {
                keys: "rope_scaling and rope_parameters",
                values: format!("{old} and {new}").into(),
            });
        }
        for (key, value) in [("rope_scaling", old), ("rope_parameters", new)] {
            let Some(value) = value else { continue };
            let refused = || unsupported(key, &value, "{\"rope_type\": \"default\", \"rope_theta\": a number}");
            let Value::Object(object) = &value else { return Err(refused()) };
            let mut inner = ConfigKeys { object: object.clone() };
            for name in ["rope_type", "type"] {
                if inner.take(name).is_some_and(|kind| kind != "default") {
                    return Err(refused());
                }
            }
            inner.whole_rotation("partial_rotary_factor")?;
            match (theta, inner.positive("rope_theta")?) {
                (Some(outer), Some(inner)) if outer.to_bits() != inner.to_bits() => {
                    return Err(ConfigError::Contradiction {
                        keys: "rope_theta and the one inside rope_parameters",
                        values: format!("{outer} and {inner}").into(),
                    });
                }
                (_, inner) => theta = inner.or(theta),
            }
            if inner.object.values().any(|value| !value.is_null()) {
                return Err(refused());
            }
        }
        Ok(theta.unwrap_or(usual))
    }

    fn whole_rotation(&mut self, key: &'static str) -> Result<(), ConfigError> {
        match self.take(key) {
            Some(value) if value.as_f64() != Some(1.0) => Err(unsupported(key, &value, "1.0")),
            _ => Ok(()),
        }
    }

    pub fn none_left(self) -> Result<(), ConfigError> {
        let unknown = |(key, value): &(String, Value)| !HARMLESS.contains(&key.as_str()) && !value.is_null();
        match self.object.into_iter().find(unknown) {
            Some((key, value)) => Err(ConfigError::Unknown { key: key.into(), value: value.to_string().into() }),
            None => Ok(()),
        }
    }

    pub fn size(&mut self, key: &'static str, default: usize, max: usize) -> Result<usize, ConfigError> {
        Ok(self.optional_size(key, max)?.unwrap_or(default))
    }

    fn optional_size(&mut self, key: &'static str, max: usize) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_u64().map(|size| size as usize) {
            Some(size) if (1..=max).contains(&size) => Ok(Some(size)),
            _ => Err(ConfigError::Range {
                key,
                value: value.to_string().into(),
                expected: format!("a whole number from 1 to {max}"),
            }),
        }
    }

    /// A number whose value and inverse f32 holds with room to spare.
    pub fn positive(&mut self, key: &'static str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (1e-30..=1e30).contains(&number) => Ok(Some(number)),
            _ => Err(ConfigError::Range {
                key,
                value: value.to_string().into(),
                expected: "a number from 1e-30 to 1e30".to_owned(),
            }),
        }
    }

    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => {
                Err(ConfigError::Range { key, value: value.to_string().into(), expected: "true or false".to_owned() })
            }
        }
    }
}

fn unsupported(key: &'static str, value: &Value, supported: &'static str) -> ConfigError {
    ConfigError::Unsupported { key, value: value.to_string().into(), supported }
}
