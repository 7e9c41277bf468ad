//! The options that all planning commands have, and the load and the ranks that they give.

use std::path::{Path, PathBuf};

use ::plan::balance::Policy;
use ::plan::coverage::Coverage;
use ::plan::formats::loads::{self, Loads};
use ::plan::formats::statistics;
use ::plan::load::{ExpertLoad, summed};
use ::plan::map::MapShape;
use ::plan::slots::RankSlots;
use ::plan::topology::{Links, Topology};
use ::plan::wire::ModelIdentity;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::model::Model;
use super::{OfflineError, named, read};
use crate::Terminal;
use crate::words::counted;

/// The name of one of the policies.
pub(super) fn policy() -> impl clap::builder::TypedValueParser<Value = Policy> {
    PossibleValuesParser::new(Policy::ALL.map(Policy::as_str))
        .map(|name| name.parse::<Policy>().expect("only names of policies get here"))
}

#[derive(Args, Clone, Debug)]
pub(super) struct LoadOptions {
    /// Recorded load: .npy or JSON lists [layers, experts] or [windows, layers, experts], a load document of the
    /// coordinator, SGLang's dump as JSON, or the folder of TensorRT-LLM's statistics; may be given several times, oldest
    /// first; - is standard input
    #[arg(long, value_name = "FILE", required = true)]
    load: Vec<PathBuf>,
    /// Ranks of the expert-parallel group
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16384))]
    ranks: u32,
    /// Nodes, over which the ranks are spread evenly
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16384))]
    nodes: u32,
    /// Speed of each rank, in order: tokens that it computes while a rank of speed 1 computes one; all alike if left out
    #[arg(long, value_name = "S,..", value_delimiter = ',', value_parser = positive)]
    rank_speeds: Vec<f64>,
    /// Bytes per second that the links of a rank carry to and from ranks of its node, in each direction
    #[arg(long, value_name = "B", default_value_t = Links::default().within_nodes, value_parser = positive)]
    link_bytes_within_nodes: f64,
    /// Bytes per second that the links of a rank carry to and from ranks of other nodes, in each direction
    #[arg(long, value_name = "B", default_value_t = Links::default().between_nodes, value_parser = positive)]
    link_bytes_between_nodes: f64,
    /// Folder of the checkpoint, or its config.json, which gives the bytes of an expert, dense layers and router groups
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Bytes of one expert of one layer
    #[arg(long, value_name = "B")]
    expert_bytes: Option<u64>,
    /// Layers without experts before the first MoE layer: left out of SGLang's dumps, and counted where SGLang's and
    /// TensorRT-LLM's maps are read and written
    #[arg(long, value_name = "K")]
    dense_layers: Option<u32>,
    /// Groups of experts that the router chooses first; those of --model, or one, if left out
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u32).range(1..=16384))]
    router_groups: Option<u32>,
    /// Rows of the load, such as forward passes of SGLang's dump, that are summed to one window
    #[arg(long, value_name = "ROWS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rows_per_window: u32,
    /// Ranks of which any may be lost with every expert still present
    #[arg(long, value_name = "K", default_value_t = 0)]
    min_coverage: usize,
    /// Nodes of which any may be lost with every expert still present
    #[arg(long, value_name = "K", default_value_t = 0)]
    min_node_coverage: usize,
}

/// The model that a map of this shape is for, as far as it is known: name and digest that are given come first.
pub(super) fn identity(
    known: Option<ModelIdentity>,
    shape: MapShape,
    (name, digest): (Option<&str>, Option<&str>),
) -> ModelIdentity {
    let (known_name, known_digest) = known.map_or_else(Default::default, |model| (model.name, model.digest));
    ModelIdentity {
        name: name.map_or(known_name, str::to_owned),
        digest: digest.map_or(known_digest, str::to_owned),
        layers: shape.layers,
        experts: shape.experts,
    }
}

/// How two models differ, if both are known: what they are served as tells nothing of their experts.
pub(super) fn other_model(one: &ModelIdentity, other: &ModelIdentity) -> Option<String> {
    let known = !one.digest.is_empty() && !other.digest.is_empty();
    (known && one.digest != other.digest)
        .then(|| format!("{} with digest {}, not {} with {}", other.name, other.digest, one.name, one.digest))
}

/// What the options give.
#[derive(Debug)]
pub(super) struct Input {
    pub windows: Vec<ExpertLoad>,
    /// The model, where the load names it.
    pub identity: Option<ModelIdentity>,
    /// The ranks, without slots.
    pub topology: Topology,
    pub nodes: usize,
    pub dense_layers: usize,
    pub expert_bytes: Option<u64>,
    /// Layers after the last of the model, which predict further tokens; maps of engines that serve them have them.
    pub mtp_layers: usize,
    /// Windows, or rows that are summed to windows, that had no load and were left out.
    pub windows_without_load: usize,
}

impl LoadOptions {
    /// What may be lost with every expert still present.
    pub const fn coverage(&self) -> Coverage {
        Coverage { ranks: self.min_coverage, nodes: self.min_node_coverage }
    }

    pub fn input(&self, terminal: &mut Terminal<'_>) -> Result<Input, OfflineError> {
        let model = self.model.as_deref().map(|path| Model::read(path, terminal)).transpose()?;
        let read = self.read(terminal)?;
        let mut dense_layers = self.dense_layers.map(|dense| dense as usize);
        let Loads { windows, model: identity, .. } = Self::loads(&read, dense_layers.unwrap_or(0))?;
        let experts = windows[0].experts();
        let mut windows = windows;
        if let Some(model) = &model {
            let dense = dense_layers.unwrap_or(model.dense_layers);
            let moe_layers = dense_layers.map_or(model.moe_layers, |dense| model.layers.saturating_sub(dense));
            // Without --dense-layers, a dump of SGLang of the whole model keeps its dense layers.
            if dense_layers.is_none() && windows[0].layers() >= model.layers {
                windows = Self::loads(&read, model.dense_layers)?.windows;
            }
            let layers = windows[0].layers();
            // Where layers with experts and without alternate, those without may have rows too.
            let fits = |layers: usize| layers == moe_layers || layers == model.layers.saturating_sub(dense);
            let further = (0..=model.mtp_layers).find(|&further| layers.checked_sub(further).is_some_and(fits));
            if let Some(further) = further.filter(|&further| further > 0) {
                terminal.warn(&format!("{}, left out", further_layers("the load", further)));
                windows = windows.iter().map(|window| window.first_layers(layers - further)).collect();
            }
            if further.is_none() || experts != model.experts {
                return Err(OfflineError::OtherModel {
                    path: model.path.clone(),
                    layers,
                    experts,
                    model_layers: moe_layers,
                    model_experts: model.experts,
                });
            }
            dense_layers = dense_layers.or(Some(model.dense_layers));
        }
        let expert_bytes = match (self.expert_bytes, &model) {
            (Some(bytes), _) => Some(bytes),
            (None, Some(model)) => Some(model.expert_bytes()?),
            (None, None) => None,
        };
        let windows_without_load = windows.iter().filter(|window| window.is_empty()).count();
        if windows_without_load == windows.len() {
            return Err(OfflineError::NoLoad { path: self.load[0].clone() });
        }
        let router_groups = self
            .router_groups
            .map_or_else(|| model.as_ref().map_or(1, |model| model.router_groups), |groups| groups as usize);
        if !experts.is_multiple_of(router_groups) {
            return Err(OfflineError::RouterGroups { groups: router_groups, experts });
        }
        Ok(Input {
            windows_without_load,
            mtp_layers: model.as_ref().map_or(0, |model| model.mtp_layers),
            windows: summed(&windows, self.rows_per_window as usize),
            identity,
            topology: self.topology()?.with_router_groups(router_groups),
            nodes: self.nodes as usize,
            dense_layers: dense_layers.unwrap_or(0),
            expert_bytes,
        })
    }

    /// The ranks, before it is known how many slots they have.
    fn topology(&self) -> Result<Topology, OfflineError> {
        let links = Links { within_nodes: self.link_bytes_within_nodes, between_nodes: self.link_bytes_between_nodes };
        let topology = Topology::even(self.nodes as usize, self.ranks as usize, 0)?.with_links(links)?;
        if self.rank_speeds.is_empty() {
            return Ok(topology);
        }
        Ok(topology.with_speeds(self.rank_speeds.clone())?)
    }

    /// What each file holds.
    fn read(&self, terminal: &mut Terminal<'_>) -> Result<Vec<(PathBuf, Loads)>, OfflineError> {
        let mut all = Vec::new();
        for path in &self.load {
            let loads = if path.is_dir() {
                terminal.progress.doing(&format!("reading {}", named(path)));
                of_folder(path)?
            } else {
                let bytes = read(path, terminal)?;
                loads::read(&bytes).map_err(|source| OfflineError::Load { path: path.clone(), source })?
            };
            all.push((path.clone(), loads));
        }
        Ok(all)
    }

    /// All files as one sequence of windows.
    fn loads(read: &[(PathBuf, Loads)], dense_layers: usize) -> Result<Loads, OfflineError> {
        let one = |(path, loads): &(PathBuf, Loads)| {
            let loads = loads.clone().without_dense_layers(dense_layers);
            loads.map_err(|source| OfflineError::Load { path: path.clone(), source })
        };
        let (first_read, rest) = read.split_first().expect("the option is required");
        let first = &first_read.0;
        let mut all = one(first_read)?;
        let (first_layers, first_experts) = (all.windows[0].layers(), all.windows[0].experts());
        for read in rest {
            let (path, loads) = (&read.0, one(read)?);
            let (layers, experts) = (loads.windows[0].layers(), loads.windows[0].experts());
            if (layers, experts) != (first_layers, first_experts) {
                return Err(OfflineError::Loads {
                    path: path.clone(),
                    layers,
                    experts,
                    first: first.clone(),
                    first_layers,
                    first_experts,
                });
            }
            if let (Some(of_first), Some(of_this)) = (&all.model, &loads.model)
                && let Some(difference) = other_model(of_first, of_this)
            {
                return Err(OfflineError::LoadModels { path: path.clone(), first: first.clone(), difference });
            }
            all.model = all.model.or(loads.model);
            all.windows.extend(loads.windows);
        }
        Ok(all)
    }
}

/// The statistics of TensorRT-LLM in a folder.
fn of_folder(folder: &Path) -> Result<Loads, OfflineError> {
    let failed = |source| OfflineError::Read { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
    });
    let mut names: Vec<String> = entries.map_err(failed)?;
    if !names.iter().any(|name| name == statistics::META) {
        return Err(OfflineError::Folder { path: folder.to_owned() });
    }
    names.retain(|name| statistics::is_of_rank(name));
    names.sort();
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|source| OfflineError::Read { path, source })
    };
    let meta = file(statistics::META)?;
    let ranks =
        names.into_iter().map(|name| Ok((name.clone(), file(&name)?))).collect::<Result<Vec<_>, OfflineError>>()?;
    statistics::read(&meta, &ranks).map_err(|source| OfflineError::Statistics { path: folder.to_owned(), source })
}

/// A number that is more than 0 and finite.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("must be more than 0".to_owned()) }
}

/// That something has layers that no plan is for.
pub(super) fn further_layers(what: &str, layers: usize) -> String {
    let them = if layers == 1 { "its last" } else { "its last ones" };
    format!("{what} has {} for predicting further tokens, {them}", counted(layers, "layer"))
}

impl Input {
    /// Number of ranks.
    pub const fn ranks(&self) -> usize {
        self.topology.ranks()
    }

    /// The ranks with so many slots each.
    pub fn topology(&self, slots_per_rank: usize) -> Result<Topology, OfflineError> {
        let slots = RankSlots::even(self.ranks(), slots_per_rank);
        Ok(self.topology.clone().with_slots(slots)?)
    }

    pub fn layers(&self) -> usize {
        self.windows[0].layers()
    }

    pub fn experts(&self) -> usize {
        self.windows[0].experts()
    }

    /// The layers that some window has load for; all of them if there is none. The others have nothing to say on a
    /// placement: dense layers in SGLang's dumps are such.
    pub fn busy_layers(&self) -> Vec<usize> {
        let loaded = |load: &ExpertLoad, layer: usize| load.layer(layer.into()).iter().any(|&tokens| tokens > 0);
        let busy: Vec<usize> =
            (0..self.layers()).filter(|&layer| self.windows.iter().any(|window| loaded(window, layer))).collect();
        if busy.is_empty() { (0..self.layers()).collect() } else { busy }
    }

    /// The windows with some of their layers only.
    pub fn windows_of(&self, layers: &[usize]) -> Vec<ExpertLoad> {
        let of_window = |window: &ExpertLoad| {
            let rows: Vec<Vec<u64>> = layers.iter().map(|&layer| window.layer(layer.into()).to_vec()).collect();
            ExpertLoad::from_rows(&rows).expect("rows of a load are even")
        };
        self.windows.iter().map(of_window).collect()
    }

    /// The load in words.
    pub fn title(&self) -> String {
        let windows = counted(self.windows.len(), "window");
        let idle = match self.windows_without_load {
            0 => String::new(),
            some => format!(", and {} without load, left out", counted(some, "window")),
        };
        format!("{windows} of {} with {}{idle}", counted(self.layers(), "layer"), counted(self.experts(), "expert"))
    }
}
