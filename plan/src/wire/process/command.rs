//! Command lines of the processes in pods.

use strum::IntoStaticStr;

use super::port;
use crate::balance::Policy;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Subcommand {
    /// The front end of a replica.
    Coordinator,
    /// A rank.
    Worker,
}

/// What the coordinator of a replica is started with. It listens on the ports of [`port`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorCommand {
    /// Folder of the checkpoint.
    pub model: String,
    /// Name of the model in requests.
    pub served_model_name: String,
    /// Experts that each layer of the model must have.
    pub expect_experts: usize,
    /// Ranks of the replica.
    pub ranks: usize,
    /// Seconds that it serves on after it was told to stop.
    pub shutdown_delay_seconds: u64,
    /// Steps of a window.
    pub num_iterations_eplb_update: u64,
    /// Steps before a plan may be applied.
    pub num_wait_worker_iterations: u64,
    /// Physical experts of each layer beyond one copy of each.
    pub init_redundancy_expert: usize,
    /// How a placement is found.
    pub eplb_policy: Policy,
    /// When experts move, and how many; what is left out is for the process to choose.
    pub moves: MoveOptions,
    /// File of the map to start from.
    pub expert_map_path: Option<String>,
    /// File that maps are recorded to.
    pub expert_map_record_path: Option<String>,
    /// Requests that may wait.
    pub max_queued_requests: Option<u64>,
    /// Tokens of prompt and answer together.
    pub max_model_len: Option<u64>,
    /// Sequences that each rank serves at a time.
    pub max_running_sequences: Option<u64>,
    /// Tokens that each rank computes in one step.
    pub max_step_tokens: Option<u64>,
    /// Bytes of a request's body.
    pub max_body_bytes: Option<u64>,
    /// Seconds in which every rank answers a step.
    pub step_deadline_seconds: Option<u64>,
    /// Seconds that requests may go on after it has left its Service.
    pub shutdown_grace_seconds: Option<u64>,
    /// Whether experts move while it serves.
    pub dynamic_eplb: bool,
    /// File of the group's secret; `None` for a release that knows none.
    pub secret_file: Option<String>,
    /// File of the admin API's token; `None` for a release that knows none.
    pub admin_token_file: Option<String>,
    /// File of the public API's keys.
    pub api_key_file: Option<String>,
    /// What its process has in common with those of ranks.
    pub process: ProcessOptions,
}

/// When experts move, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoveOptions {
    /// Least gain in balance ratio, a decimal.
    pub minimum_gain: Option<String>,
    /// Pages that each rank can receive before they are in use.
    pub staging_pages: Option<u64>,
    /// Bytes per second to one rank.
    pub move_bytes_per_second: Option<u64>,
    /// Bytes of one rebalance.
    pub max_rebalance_bytes: Option<u64>,
    /// Windows without moves after one with some.
    pub cool_down_windows: Option<u64>,
    /// Ranks of which any may be lost.
    pub min_coverage: Option<u64>,
    /// Nodes of which any may be lost.
    pub min_node_coverage: Option<u64>,
    /// Seconds of a transaction.
    pub move_deadline_seconds: Option<u64>,
}

/// What all processes of a deployment are told alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessOptions {
    /// The number that weights are drawn from instead of being read.
    pub weights_seed: Option<u64>,
    /// How logs are written.
    pub log_format: Option<&'static str>,
}

impl CoordinatorCommand {
    /// The command line after the program.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        // No `..`: a setting that is added has its option here before this compiles.
        let Self {
            model,
            served_model_name,
            expect_experts,
            ranks,
            shutdown_delay_seconds,
            num_iterations_eplb_update,
            num_wait_worker_iterations,
            init_redundancy_expert,
            eplb_policy,
            moves,
            expert_map_path,
            expert_map_record_path,
            max_queued_requests,
            max_model_len,
            max_running_sequences,
            max_step_tokens,
            max_body_bytes,
            step_deadline_seconds,
            shutdown_grace_seconds,
            dynamic_eplb,
            secret_file,
            admin_token_file,
            api_key_file,
            process,
        } = self;
        let MoveOptions {
            minimum_gain,
            staging_pages,
            move_bytes_per_second,
            max_rebalance_bytes,
            cool_down_windows,
            min_coverage,
            min_node_coverage,
            move_deadline_seconds,
        } = moves;
        let mut line = Line::new(Subcommand::Coordinator);
        line.set("model", model);
        line.set("served-model-name", served_model_name);
        line.set("expect-experts", expect_experts);
        line.set("ranks", ranks);
        line.set("shutdown-delay-seconds", shutdown_delay_seconds);
        line.set("num-iterations-eplb-update", num_iterations_eplb_update);
        line.set("num-wait-worker-iterations", num_wait_worker_iterations);
        line.set("init-redundancy-expert", init_redundancy_expert);
        line.set("eplb-policy", eplb_policy);
        line.set_if("expert-map-path", expert_map_path.as_ref());
        line.set_if("expert-map-record-path", expert_map_record_path.as_ref());
        line.set_if("max-queued-requests", max_queued_requests.as_ref());
        line.set_if("max-model-len", max_model_len.as_ref());
        line.set_if("max-running-sequences", max_running_sequences.as_ref());
        line.set_if("max-step-tokens", max_step_tokens.as_ref());
        line.set_if("max-body-bytes", max_body_bytes.as_ref());
        line.set_if("step-deadline-seconds", step_deadline_seconds.as_ref());
        line.set_if("shutdown-grace-seconds", shutdown_grace_seconds.as_ref());
        line.set_if("minimum-gain", minimum_gain.as_ref());
        line.set_if("staging-pages", staging_pages.as_ref());
        line.set_if("move-bytes-per-second", move_bytes_per_second.as_ref());
        line.set_if("max-rebalance-bytes", max_rebalance_bytes.as_ref());
        line.set_if("cool-down-windows", cool_down_windows.as_ref());
        line.set_if("min-coverage", min_coverage.as_ref());
        line.set_if("min-node-coverage", min_node_coverage.as_ref());
        line.set_if("move-deadline-seconds", move_deadline_seconds.as_ref());
        line.flag_if("dynamic-eplb", *dynamic_eplb);
        line.set_if("secret-file", secret_file.as_ref());
        line.set_if("admin-token-file", admin_token_file.as_ref());
        line.set_if("api-key-file", api_key_file.as_ref());
        line.of_process(process);
        line.0
    }
}

/// What a process of ranks is started with. It listens on the ports of [`port`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand {
    /// Folder of the checkpoint.
    pub model: String,
    /// Number of its first rank.
    pub rank: usize,
    /// Ranks of the process.
    pub ranks_here: usize,
    /// Host of its coordinator.
    pub coordinator: String,
    /// Host or address by which other ranks reach it.
    pub advertise_address: String,
    /// What each rank computes on, of [`backend`](super::backend), if that is not for the process to choose.
    pub backend: Option<&'static str>,
    /// How ranks exchange rows, if that is not for them to choose.
    pub exchange: Option<&'static str>,
    /// Compute threads of each rank.
    pub threads: Option<u64>,
    /// Blocks of each rank's KV cache.
    pub kv_blocks: Option<u64>,
    /// Tokens of each.
    pub block_tokens: Option<u64>,
    /// Whether every operation of every step is launched by itself.
    pub enforce_eager: bool,
    /// File of the group's secret; `None` for a release that knows none.
    pub secret_file: Option<String>,
    /// What its process has in common with the coordinator's.
    pub process: ProcessOptions,
}

impl WorkerCommand {
    /// The command line after the program.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let Self {
            model,
            rank,
            ranks_here,
            coordinator,
            advertise_address,
            backend,
            exchange,
            threads,
            kv_blocks,
            block_tokens,
            enforce_eager,
            secret_file,
            process,
        } = self;
        let mut line = Line::new(Subcommand::Worker);
        line.set("model", model);
        line.set("rank", rank);
        line.set_if("ranks-here", Some(ranks_here).filter(|&&ranks| ranks > 1));
        line.set("coordinator", &format!("{coordinator}:{}", port::CONTROL));
        line.set("advertise-address", advertise_address);
        line.set_if("backend", backend.as_ref());
        line.set_if("exchange", exchange.as_ref());
        line.set_if("threads", threads.as_ref());
        line.set_if("kv-blocks", kv_blocks.as_ref());
        line.set_if("block-tokens", block_tokens.as_ref());
        line.flag_if("enforce-eager", *enforce_eager);
        line.set_if("secret-file", secret_file.as_ref());
        line.of_process(process);
        line.0
    }
}

struct Line(Vec<String>);

impl Line {
    fn new(subcommand: Subcommand) -> Self {
        let word: &str = subcommand.into();
        Self(vec![word.to_owned()])
    }

    fn set(&mut self, option: &str, value: &impl ToString) {
        self.0.extend([format!("--{option}"), value.to_string()]);
    }

    fn set_if(&mut self, option: &str, value: Option<&impl ToString>) {
        if let Some(value) = value {
            self.0.extend([format!("--{option}"), value.to_string()]);
        }
    }

    fn of_process(&mut self, ProcessOptions { weights_seed, log_format }: &ProcessOptions) {
        self.set_if("weights", weights_seed.map(|seed| format!("seed:{seed}")).as_ref());
        self.set_if("log-format", log_format.as_ref());
    }

    fn flag_if(&mut self, option: &str, is_set: bool) {
        if is_set {
            self.0.push(format!("--{option}"));
        }
    }
}
