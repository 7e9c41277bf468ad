//! The command line: what the program, and whoever builds commands for it, is held to.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Error, Parser, Subcommand, ValueEnum};
use plan::balance::Policy;
use plan::coverage::Coverage;
use plan::wire::process::{everywhere, port};

use crate::coordinator::settings::{CoordinatorSettings, MinimumGain};
use crate::device::Device;
use crate::fabric::secret::{Secret, SecretError};
use crate::inspect::{Inspected, Spread};
use crate::local::LocalSettings;
use crate::model::checkpoint::WeightSeed;
use crate::quoted::Quoted;
use crate::scheduler::Limits;
use crate::worker::{self, DeviceArguments, WorkerArguments};
use crate::{address, bounds};

/// Serves Mixture-of-Experts models over N ranks and moves experts while it serves
#[derive(Debug, Parser)]
#[command(name = "swiftbalancer-runtime", version)]
pub struct Arguments {
    /// How logs are written to standard error; what is logged is `RUST_LOG`'s to say (default: info)
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is run
    #[command(subcommand)]
    pub command: Command,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines to read
    #[default]
    Text,
    /// Lines of JSON
    Json,
}

/// What is run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the OpenAI API and drives the ranks that register
    Coordinator(Box<CoordinatorArguments>),
    /// Holds and computes one rank's experts
    Worker(Box<WorkerArguments>),
    /// Runs a coordinator and its ranks on this machine
    Local(Box<LocalArguments>),
    /// Prints what a checkpoint holds, or why it cannot be served
    Inspect {
        /// Folder of the checkpoint
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
        /// Read every weight too, as the ranks do together: a damaged one is found before they load it; or, with seed:N, draw them
        #[arg(long, value_name = "seed:N", num_args = 0..=1, default_missing_value = "all")]
        weights: Option<Inspected>,
        /// What each rank takes of its memory
        #[command(flatten)]
        spread: Option<SpreadArguments>,
    },
}

/// Tokens that a rank computes in one step where nobody says how many.
const STEP_TOKENS: usize = 512;

/// How a model is to be spread over ranks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What each rank takes of its memory")]
pub struct SpreadArguments {
    /// Ranks that the experts are to be spread over; prints what each takes, also of a folder with config.json and no weights
    #[arg(long, value_name = "N", required = false, allow_hyphen_values = true, value_parser = bounds::RANKS.parser::<usize>())]
    ranks: usize,
    /// Physical experts of each layer beyond one copy of each
    #[arg(long, value_name = "R", requires = "ranks", default_value_t = 0, allow_hyphen_values = true, value_parser = bounds::REDUNDANCY.parser::<usize>())]
    init_redundancy_expert: usize,
    /// Pages that each rank can receive before they are in use; one for each hundred that it holds, at most 16, and 2 if those are fewer, if it is not given
    #[arg(long, value_name = "PAGES", requires = "ranks", allow_hyphen_values = true, value_parser = bounds::STAGING.parser::<u32>())]
    staging_pages: Option<u32>,
    /// Blocks of each rank's KV cache; 80 % of what memory all else leaves it, if it is not given
    #[arg(long, value_name = "B", requires = "ranks", allow_hyphen_values = true, value_parser = bounds::KV_BLOCKS.parser::<usize>())]
    kv_blocks: Option<usize>,
    /// Tokens of a block, a multiple of 16
    #[arg(long, value_name = "N", requires = "ranks", default_value_t = 16, allow_hyphen_values = true, value_parser = worker::block_tokens)]
    block_tokens: u32,
    /// Tokens that each rank computes in one step
    #[arg(long, value_name = "T", requires = "ranks", default_value_t = STEP_TOKENS, allow_hyphen_values = true, value_parser = bounds::STEP_TOKENS.parser::<usize>())]
    max_step_tokens: usize,
    /// Bytes that each rank may have; its part of what this machine has, if it is not given
    #[arg(long, value_name = "BYTES", requires = "ranks", allow_hyphen_values = true, value_parser = bounds::MEMORY.parser::<u64>())]
    memory: Option<u64>,
    /// What the ranks are to compute on; the best that this machine has, if it is not given
    #[arg(long, value_name = "DEVICE", requires = "ranks")]
    backend: Option<Device>,
}

impl From<SpreadArguments> for Spread {
    fn from(arguments: SpreadArguments) -> Self {
        let SpreadArguments { ranks, init_redundancy_expert, staging_pages, kv_blocks, block_tokens, .. } = arguments;
        let SpreadArguments { max_step_tokens: step_tokens, memory, backend, .. } = arguments;
        let (redundancy, block_tokens) = (init_redundancy_expert, block_tokens as usize);
        let device = backend.unwrap_or_default();
        Self { ranks, redundancy, staging_pages, kv_blocks, block_tokens, step_tokens, memory, device }
    }
}

/// Options of `coordinator`.
#[derive(Args, Debug)]
pub struct CoordinatorArguments {
    #[command(flatten)]
    serving: ServingArguments,
    /// Where the OpenAI API, /health and /metrics are served
    #[arg(long, value_name = "HOST:PORT", value_parser = address::listen, default_value_t = everywhere(port::API))]
    listen: SocketAddr,
    /// Where the admin API, /livez and /metrics are served
    #[arg(long, value_name = "HOST:PORT", value_parser = address::listen, default_value_t = everywhere(port::ADMIN))]
    admin_listen: SocketAddr,
    /// Where ranks register
    #[arg(long, value_name = "HOST:PORT", value_parser = address::listen, default_value_t = everywhere(port::CONTROL))]
    control_listen: SocketAddr,
    /// File with what coordinator and ranks prove by that they belong together: 32 bytes or more, the same everywhere; read
    /// once, at the start
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
}

/// Options of `local`.
#[derive(Args, Debug)]
pub struct LocalArguments {
    #[command(flatten)]
    serving: ServingArguments,
    /// Where the OpenAI API, /health and /metrics are served
    #[arg(long, value_name = "HOST:PORT", value_parser = address::listen, default_value_t = here(port::API))]
    listen: SocketAddr,
    /// Where the admin API, /livez and /metrics are served
    #[arg(long, value_name = "HOST:PORT", value_parser = address::listen, default_value_t = here(port::ADMIN))]
    admin_listen: SocketAddr,
    #[command(flatten)]
    device: DeviceArguments,
}

/// What `coordinator` and `local` share.
#[derive(Args, Debug)]
struct ServingArguments {
    /// Folder of the checkpoint: config.json, tokenizer.json and *.safetensors
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Draw the weights from a seed instead of reading them, which needs no more of the folder than config.json: to measure with
    #[arg(long, value_name = "seed:N")]
    weights: Option<WeightSeed>,
    /// Name of the model in requests; the folder's name if it is not given
    #[arg(long, value_name = "NAME", value_parser = bounds::served_name)]
    served_model_name: Option<String>,
    /// Ranks that the experts are spread over
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = bounds::RANKS.parser::<usize>())]
    ranks: usize,
    /// Requests that may wait; further ones get status 429
    #[arg(long, value_name = "N", default_value_t = 256, allow_hyphen_values = true, value_parser = bounds::QUEUED.parser::<usize>())]
    max_queued_requests: usize,
    /// Tokens of prompt and answer together; the model's own bound if it is not given
    #[arg(long, value_name = "T", allow_hyphen_values = true, value_parser = bounds::MODEL_LEN.parser::<usize>())]
    max_model_len: Option<usize>,
    /// Sequences that each rank serves at a time
    #[arg(long, value_name = "N", default_value_t = 256, allow_hyphen_values = true, value_parser = bounds::RUNNING.parser::<usize>())]
    max_running_sequences: usize,
    /// Tokens that each rank computes in one step
    #[arg(long, value_name = "T", default_value_t = STEP_TOKENS, allow_hyphen_values = true, value_parser = bounds::STEP_TOKENS.parser::<usize>())]
    max_step_tokens: usize,
    /// Seconds in which every rank answers a step, or is lost: far more than the longest step takes, since one that hangs is all
    /// that this finds
    #[arg(long, value_name = "S", default_value_t = 300, allow_hyphen_values = true, value_parser = bounds::STEP_DEADLINE.parser::<u64>())]
    step_deadline_seconds: u64,
    /// Bytes of a request's body; what the context can hold if it is not given, see docs/limits.md
    #[arg(long, value_name = "B", allow_hyphen_values = true, value_parser = bounds::BODY.parser::<usize>())]
    max_body_bytes: Option<usize>,
    /// File with the bearer token of the admin API, at least 32 bytes; needed unless the admin API listens on loopback
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// File with the keys of the public API, one a line (those that begin with # are comments); without it the API needs none
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Seconds to serve on after the process was told to stop, closing each connection after its answer: the time that a load
    /// balancer needs to notice
    #[arg(long, value_name = "S", default_value_t = 0, allow_hyphen_values = true, value_parser = bounds::LEAVE.parser::<u64>())]
    shutdown_delay_seconds: u64,
    /// Seconds that requests may go on after that
    #[arg(long, value_name = "S", default_value_t = 25, allow_hyphen_values = true, value_parser = bounds::GRACE.parser::<u64>())]
    shutdown_grace_seconds: u64,
    #[command(flatten)]
    eplb: EplbArguments,
}

/// How experts are placed and when they move.
#[derive(Args, Debug)]
#[command(next_help_heading = "Expert load balancing")]
struct EplbArguments {
    /// Plan a better placement after each window of load, and move to it while serving
    #[arg(long)]
    dynamic_eplb: bool,
    /// Steps of a window
    #[arg(long, value_name = "STEPS", default_value_t = 400, allow_hyphen_values = true, value_parser = bounds::WINDOW.parser::<u64>())]
    num_iterations_eplb_update: u64,
    /// Steps after the start, and after a window has closed, before a plan may be applied; at least 30
    #[arg(long, value_name = "STEPS", default_value_t = 30, allow_hyphen_values = true, value_parser = bounds::WAIT.parser::<u64>())]
    num_wait_worker_iterations: u64,
    /// Physical experts of each layer beyond one copy of each; as in the given map, or 0
    #[arg(long, value_name = "R", allow_hyphen_values = true, value_parser = bounds::REDUNDANCY.parser::<usize>())]
    init_redundancy_expert: Option<usize>,
    /// How a placement is found: swift or deepseek
    #[arg(long, value_name = "POLICY", default_value = "swift")]
    eplb_policy: Policy,
    /// Start from this map: one of ours, a recorded one or vllm-ascend's
    #[arg(long, value_name = "FILE")]
    expert_map_path: Option<PathBuf>,
    /// Write each map that was moved to here
    #[arg(long, value_name = "FILE")]
    expert_map_record_path: Option<PathBuf>,
    /// Refuse a model that has another number of experts in each layer
    #[arg(long, value_name = "E", allow_hyphen_values = true, value_parser = bounds::EXPERTS.parser::<usize>())]
    expect_experts: Option<usize>,
    /// Least gain in balance ratio for which experts move
    #[arg(long, value_name = "SHARE", default_value_t, allow_hyphen_values = true)]
    minimum_gain: MinimumGain,
    /// Pages that each rank can receive before they are in use; one for each hundred that it holds, at most 16, and 2 if those are fewer, if it is not given
    #[arg(long, value_name = "PAGES", allow_hyphen_values = true, value_parser = bounds::STAGING.parser::<u32>())]
    staging_pages: Option<u32>,
    /// Bytes per second that moves to one rank may use, 0 is no limit; one hundredth of what the memory of its GPU does, and no limit on
    /// CPUs, if it is not given
    #[arg(long, value_name = "B", allow_hyphen_values = true, value_parser = bounds::MOVE_BYTES.parser::<u64>())]
    move_bytes_per_second: Option<u64>,
    /// Bytes that one rebalance may move, those first that pay most; 0 is no limit
    #[arg(long, value_name = "B", default_value_t = 0, allow_hyphen_values = true, value_parser = bounds::REBALANCE_BYTES.parser::<u64>())]
    max_rebalance_bytes: u64,
    /// Windows after one that moved experts in which none move
    #[arg(long, value_name = "WINDOWS", default_value_t = 0, allow_hyphen_values = true, value_parser = bounds::COOL_DOWN.parser::<u64>())]
    cool_down_windows: u64,
    /// Ranks of which any may be lost with every expert still present, where the slots allow it
    #[arg(long, value_name = "RANKS", default_value_t = 0, allow_hyphen_values = true, value_parser = bounds::COVERAGE.parser::<usize>())]
    min_coverage: usize,
    /// Nodes of which any may be lost with every expert still present, where the slots allow it
    #[arg(long, value_name = "NODES", default_value_t = 0, allow_hyphen_values = true, value_parser = bounds::NODE_COVERAGE.parser::<usize>())]
    min_node_coverage: usize,
    /// Seconds that a rank may take to receive the pages of one transaction
    #[arg(long, value_name = "S", default_value_t = 30, allow_hyphen_values = true, value_parser = bounds::MOVE_DEADLINE.parser::<u64>())]
    move_deadline_seconds: u64,
}

/// A refusal that quotes no more of what was given than any other does.
#[must_use]
pub fn shortened(mut error: Error) -> Error {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
        let value = match error.get(kind) {
            Some(ContextValue::String(value)) => Quoted::<128>::from(value).to_string(),
            _ => continue,
        };
        error.insert(kind, ContextValue::String(value));
    }
    error
}

/// An address that this machine alone reaches.
fn here(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Where a coordinator listens.
struct Addresses {
    listen: SocketAddr,
    admin_listen: SocketAddr,
    control_listen: SocketAddr,
}

impl ServingArguments {
    fn into_settings(self, addresses: &Addresses, secret: Secret) -> CoordinatorSettings {
        let &Addresses { listen, admin_listen, control_listen } = addresses;
        CoordinatorSettings {
            model: self.model,
            weights: self.weights,
            served_name: self.served_model_name,
            ranks: self.ranks,
            listen,
            admin_listen,
            control_listen,
            secret,
            dynamic: self.eplb.dynamic_eplb,
            window_steps: self.eplb.num_iterations_eplb_update,
            wait_steps: self.eplb.num_wait_worker_iterations,
            move_deadline: Duration::from_secs(self.eplb.move_deadline_seconds),
            staging_pages: self.eplb.staging_pages,
            policy: self.eplb.eplb_policy,
            minimum_gain: self.eplb.minimum_gain,
            move_bytes_per_second: self.eplb.move_bytes_per_second,
            rebalance_bytes: self.eplb.max_rebalance_bytes,
            cool_down_windows: self.eplb.cool_down_windows,
            min_coverage: Coverage { ranks: self.eplb.min_coverage, nodes: self.eplb.min_node_coverage },
            redundancy: self.eplb.init_redundancy_expert,
            map_path: self.eplb.expert_map_path,
            record_path: self.eplb.expert_map_record_path,
            expect_experts: self.eplb.expect_experts,
            limits: Limits {
                queued: self.max_queued_requests,
                running_per_rank: self.max_running_sequences,
                step_tokens: self.max_step_tokens,
            },
            max_model_len: self.max_model_len,
            body_limit: self.max_body_bytes,
            admin_token_path: self.admin_token_file,
            api_keys_path: self.api_key_file,
            step_deadline: Duration::from_secs(self.step_deadline_seconds),
            leave: Duration::from_secs(self.shutdown_delay_seconds),
            grace: Duration::from_secs(self.shutdown_grace_seconds),
        }
    }
}

impl TryFrom<CoordinatorArguments> for CoordinatorSettings {
    type Error = SecretError;

    fn try_from(arguments: CoordinatorArguments) -> Result<Self, SecretError> {
        let CoordinatorArguments { serving, listen, admin_listen, control_listen, secret_file } = arguments;
        let secret = Secret::read(&secret_file)?;
        Ok(serving.into_settings(&Addresses { listen, admin_listen, control_listen }, secret))
    }
}

impl TryFrom<LocalArguments> for LocalSettings {
    type Error = SecretError;

    fn try_from(arguments: LocalArguments) -> Result<Self, SecretError> {
        let LocalArguments { serving, listen, admin_listen, device } = arguments;
        let control_listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let (addresses, secret) = (Addresses { listen, admin_listen, control_listen }, Secret::draw()?);
        Ok(Self { coordinator: serving.into_settings(&addresses, secret), device })
    }
}

#[cfg(test)]
mod tests;
