//! A rank's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use plan::ids::RankId;
use plan::wire::process::{everywhere, port, variable};
use thiserror::Error;

use super::{WorkerSettings, next_port};
use crate::device::Device;
use crate::experts::load::BeforeRead;
use crate::experts::mover::Faults;
use crate::fabric::exchange::means::ExchangeChoice;
use crate::fabric::neighbours::Neighbours;
use crate::fabric::secret::{Secret, SecretError};
use crate::model::checkpoint::WeightSeed;
use crate::{address, bounds};

/// Options of `worker`.
#[derive(Args, Clone, Debug)]
pub struct WorkerArguments {
    /// Folder of the checkpoint: config.json, tokenizer.json and *.safetensors, the same on every rank
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Draw the weights from a seed instead of reading them, the same on every rank and as its coordinator
    #[arg(long, value_name = "seed:N")]
    pub weights: Option<WeightSeed>,
    /// Number of this rank, from 0
    #[arg(long, value_name = "K", allow_hyphen_values = true, value_parser = bounds::RANK.parser::<u32>())]
    pub rank: u32,
    /// Ranks of this process, numbered from that one on, each on the next device of the machine and on the next ports, 10 further;
    /// health and metrics of all are on one port
    #[arg(long, value_name = "N", default_value_t = 1, allow_hyphen_values = true, value_parser = bounds::RANKS_HERE.parser::<usize>())]
    pub ranks_here: usize,
    /// Where the coordinator accepts ranks
    #[arg(long, value_name = "HOST:PORT", value_parser = address::connect)]
    pub coordinator: String,
    /// Where other ranks reach this one's step path
    #[arg(long, value_name = "HOST:PORT", value_parser = address::listen, default_value_t = everywhere(port::STEP))]
    pub listen: SocketAddr,
    /// Where other ranks ask this one for pages
    #[arg(long, value_name = "HOST:PORT", value_parser = address::listen, default_value_t = everywhere(port::MOVE))]
    pub move_listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, value_name = "HOST:PORT", value_parser = address::listen, default_value_t = everywhere(port::HEALTH))]
    pub health_listen: SocketAddr,
    /// Host or address by which other ranks reach this one
    #[arg(long, value_name = "HOST", env = variable::ADDRESS)]
    pub advertise_address: String,
    /// Name of the node that it is on: experts travel less between ranks of one node; the host's name if it is not given
    #[arg(long, value_name = "NAME", env = variable::NODE)]
    pub node: Option<String>,
    /// File with what coordinator and ranks prove by that they belong together: 32 bytes or more, the same everywhere; read
    /// once, at the start
    #[arg(long, value_name = "FILE")]
    pub secret_file: PathBuf,
    /// Number of the process that started this one, to end with it
    #[arg(long, hide = true, value_name = "PID", allow_hyphen_values = true, value_parser = bounds::PARENT.parser::<u32>())]
    pub parent: Option<u32>,
    /// What it uses of its machine
    #[command(flatten)]
    pub device: DeviceArguments,
}

/// What a rank uses of its machine.
#[derive(Args, Clone, Debug)]
pub struct DeviceArguments {
    /// What each rank computes on; the best that its machine has, if it is not given
    #[arg(long, value_name = "DEVICE")]
    pub backend: Option<Device>,
    /// How ranks exchange rows; `auto` is the fastest that all of them can
    #[arg(long, value_name = "MEANS", value_enum, default_value_t)]
    pub exchange: ExchangeChoice,
    /// Compute threads of each rank
    #[arg(long, value_name = "T", default_value_t = 1, allow_hyphen_values = true, value_parser = bounds::THREADS.parser::<u16>())]
    pub threads: u16,
    /// On a GPU: launch every operation of every step, where a step that only generates is one CUDA graph otherwise; slower
    #[arg(long)]
    pub enforce_eager: bool,
    /// Blocks of each rank's KV cache; 80 % of what memory all else leaves it, if it is not given
    #[arg(long, value_name = "B", allow_hyphen_values = true, value_parser = bounds::KV_BLOCKS.parser::<u32>())]
    pub kv_blocks: Option<u32>,
    /// Tokens of a block, a multiple of 16
    #[arg(long, value_name = "N", default_value_t = 16, allow_hyphen_values = true, value_parser = block_tokens)]
    pub block_tokens: u32,
}

pub(crate) fn block_tokens(text: &str) -> Result<u32, String> {
    let tile = kernels::backend::CACHE_TILE as u32;
    match bounds::BLOCK_TOKENS.parser::<u32>()(text) {
        Ok(tokens) if tokens.is_multiple_of(tile) => Ok(tokens),
        _ => Err(format!("must be a multiple of {tile} from {tile} to {}", bounds::BLOCK_TOKENS.most)),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// A rank cannot be set up as its command line says.
#[derive(Debug, Error)]
pub enum ArgumentsError {
    /// Its secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// There are too few ports for the ranks of the process.
    #[error(
        "--ranks-here {ranks} takes every {}th port from {address} on, and there are none beyond {}: choose a lower port",
        port::NEXT_RANK,
        u16::MAX
    )]
    Ports {
        /// Ranks of the process.
        ranks: usize,
        /// Where the first listens.
        address: SocketAddr,
    },
}

impl TryFrom<WorkerArguments> for WorkerSettings {
    type Error = ArgumentsError;

    fn try_from(arguments: WorkerArguments) -> Result<Self, ArgumentsError> {
        let WorkerArguments {
            model, weights, rank, ranks_here, coordinator, listen, move_listen, health_listen, ..
        } = arguments;
        let WorkerArguments { advertise_address, node, secret_file, parent, device, .. } = arguments;
        for address in [listen, move_listen] {
            next_port(address, ranks_here - 1).ok_or(ArgumentsError::Ports { ranks: ranks_here, address })?;
        }
        Ok(Self {
            model,
            weights,
            rank: RankId(rank),
            ranks_here,
            coordinator,
            listen,
            move_listen,
            health_listen,
            advertise_address,
            // A variable that is set to nothing names no node.
            node: node.filter(|node| !node.is_empty()).unwrap_or_else(host_name),
            device: device.backend.unwrap_or_default(),
            exchange: device.exchange,
            neighbours: Neighbours::default(),
            threads: device.threads.into(),
            is_eager: device.enforce_eager,
            kv_blocks: device.kv_blocks.map(|blocks| blocks as usize),
            block_tokens: device.block_tokens as usize,
            secret: Secret::read(&secret_file)?,
            faults: Faults::default(),
            before_read: BeforeRead::default(),
            parent,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn parse(more: &[&str]) -> Result<WorkerSettings, String> {
        let command = WorkerArguments::augment_args(Command::new("worker"));
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), [b'k'; 32]).unwrap();
        let least = ["worker", "--model", "m", "--rank", "1", "--coordinator", "c:8002", "--advertise-address", "h"];
        let least = least.into_iter().chain(["--secret-file", secret.path().to_str().unwrap()]);
        let matches =
            command.try_get_matches_from(least.chain(more.iter().copied())).map_err(|error| error.to_string())?;
        let arguments = WorkerArguments::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        arguments.try_into().map_err(|error: ArgumentsError| error.to_string())
    }

    #[test]
    fn the_least_that_is_needed_gives_the_documented_ports() {
        let settings = parse(&[]).unwrap();
        let ports = [settings.listen, settings.move_listen, settings.health_listen].map(|address| address.port());
        assert_eq!((ports, settings.block_tokens), ([8003, 8004, 8005], 16));
    }

    #[test]
    fn each_rank_of_a_process_has_the_next_number_and_ports_and_too_few_ports_are_refused() {
        let settings = parse(&["--ranks-here", "3", "--move-listen", "127.0.0.1:0"]).unwrap();
        let of = |place| {
            let WorkerSettings { rank, listen, move_listen, health_listen, .. } = settings.of(place);
            (rank.0, [listen, move_listen, health_listen].map(|address| address.port()))
        };
        assert_eq!([of(0), of(2)], [(1, [8003, 0, 8005]), (3, [8023, 0, 8005])]);
        assert!(parse(&["--ranks-here", "16", "--listen", "127.0.0.1:65385"]).is_ok());
        let error = parse(&["--ranks-here", "16", "--move-listen", "127.0.0.1:65386"]).unwrap_err();
        let said = "--ranks-here 16 takes every 10th port from 127.0.0.1:65386 on, and there are none beyond 65535: choose a lower port";
        assert_eq!(error, said);
    }

    #[test]
    fn a_rank_without_a_secret_is_told_which_option_it_lacks() {
        let command = WorkerArguments::augment_args(Command::new("worker"));
        let least = ["worker", "--model", "m", "--rank", "1", "--coordinator", "c:8002", "--advertise-address", "h"];
        let error = command.try_get_matches_from(least).unwrap_err().to_string();
        assert!(error.contains("--secret-file <FILE>"), "{error}");
    }

    #[test]
    fn a_block_that_is_no_multiple_of_a_tile_is_refused() {
        let error = parse(&["--block-tokens", "24"]).unwrap_err();
        assert!(error.contains("must be a multiple of 16 from 16 to 1048576"), "{error}");
        assert!(parse(&["--threads", "0"]).is_err());
    }
}
