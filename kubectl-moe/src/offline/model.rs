//! What the `config.json` of a checkpoint says of its experts: which layers have some, and how many bytes one has as it is
//! stored. Every family writes the same facts under names of its own; what a configuration leaves open is refused by name.

mod bytes;
mod layers;

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
    /// Layers with experts.
    pub moe_layers: usize,
    /// Layers after those, which predict further tokens.
    pub mtp_layers: usize,
    pub experts: usize,
    /// Groups of experts that the router chooses first.
    pub router_groups: usize,
    /// Bytes of one expert; why they are not known, otherwise.
    expert_bytes: Result<u64, String>,
}

/// Largest width of a layer: far above any model, and small enough that no product overflows.
const WIDEST: u64 = 1 << 20;
/// Most layers, and most experts of one.
const MOST: u64 = ::plan::map::MAX_DIMENSION as u64;

/// A configuration: the part on the language model, and the whole, where models of several modalities keep the rest.
#[derive(Clone, Copy)]
struct Config<'a> {
    text: &'a Value,
    whole: &'a Value,
}

impl<'a> Config<'a> {
    fn new(whole: &'a Value) -> Self {
        let text = ["text_config", "llm_config", "language_config"].into_iter().find_map(|name| whole.get(name));
        Self { text: text.filter(|text| text.is_object()).unwrap_or(whole), whole }
    }

    fn get(self, name: &str) -> Option<&'a Value> {
        self.text.get(name).filter(|value| !value.is_null())
    }

    /// What either part has.
    fn of_either(self, name: &str) -> Option<&'a Value> {
        self.get(name).or_else(|| self.whole.get(name).filter(|value| !value.is_null()))
    }

    fn text(self, name: &str) -> Option<&'a str> {
        self.of_either(name).and_then(Value::as_str)
    }

    /// A number from 1, or from 0 where that is said, to the most; of a list, the first.
    fn number(self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, String> {
        let Some(found) = self.get(name) else { return Ok(None) };
        let one = found.as_array().and_then(|list| list.first()).unwrap_or(found);
        let number = one.as_u64().filter(|number| range.contains(number));
        let refused = || {
            let shown: String = found.to_string().chars().take(40).collect();
            format!("has {name} {shown}; it must be from {} to {}", range.start(), range.end())
        };
        number.map(Some).ok_or_else(refused)
    }

    /// The first of these numbers that is there, with its name.
    fn first<'n>(
        self,
        names: &[&'n str],
        range: &std::ops::RangeInclusive<u64>,
    ) -> Result<Option<(&'n str, u64)>, String> {
        for &name in names {
            if let Some(number) = self.number(name, range.clone())? {
                return Ok(Some((name, number)));
            }
        }
        Ok(None)
    }
}

/// The number of experts, by the name that a family gives it.
const EXPERTS: [&str; 4] = ["n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"];

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
        let config = Config::new(&whole);
        let layers = config.number("num_hidden_layers", 1..=MOST)?.ok_or("has no num_hidden_layers")? as usize;
        let experts = config.first(&EXPERTS, &(1..=MOST))?.ok_or("is of a model without experts")?.1 as usize;
        let has_experts = layers::with_experts(config, layers)?;
        let moe_layers = has_experts.iter().filter(|&&has| has).count();
        if moe_layers == 0 {
            return Err("is of a model without experts: it has no layer with some".to_owned());
        }
        let further = ["num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers"];
        let mtp_layers = config.first(&further, &(0..=MOST))?.map_or(0, |(_, number)| number as usize);
        Ok(Self {
            path: path.to_owned(),
            layers,
            dense_layers: has_experts.iter().take_while(|&&has| !has).count(),
            moe_layers,
            mtp_layers,
            experts,
            router_groups: config.number("n_group", 0..=MOST)?.map_or(1, |groups| groups.max(1) as usize),
            expert_bytes: bytes::of_expert(config),
        })
    }

    pub fn expert_bytes(&self) -> Result<u64, OfflineError> {
        self.expert_bytes.clone().map_err(|what| OfflineError::Config {
            path: self.path.clone(),
            what: format!("{what}; give --expert-bytes"),
        })
    }
}

#[cfg(test)]
mod tests;
