//! How the runtime's processes are started, reached and end: what the operator builds pods from, and what the runtime takes
//! its command line and its defaults from.
//!
//! An operator starts images of other releases too. So an option that is added is set only where the specification asks for
//! what it does, and what every process should be told goes through the environment, where an earlier release passes it over.

mod command;
mod download;
mod last_word;
mod listener;

pub use command::{CoordinatorCommand, MoveOptions, ProcessOptions, Subcommand, WorkerCommand};
pub use download::{DownloadCommand, DownloadSource};
pub use last_word::LastWord;
pub use listener::{everywhere, listen};

/// Ports of a pod's processes.
pub mod port {
    /// The OpenAI API, on coordinators.
    pub const API: u16 = 8000;
    /// The admin API, on coordinators.
    pub const ADMIN: u16 = 8001;
    /// Where ranks register, on coordinators.
    pub const CONTROL: u16 = 8002;
    /// A rank's step path.
    pub const STEP: u16 = 8003;
    /// A rank's move path.
    pub const MOVE: u16 = 8004;
    /// A rank's probes and metrics.
    pub const HEALTH: u16 = 8005;
    /// Distance between the ports of two ranks of one process; they have one port of probes and metrics.
    pub const NEXT_RANK: u16 = 10;
}

/// The most ranks that one process has, each on a device of its own.
pub const MOST_RANKS_HERE: usize = 16;

/// What ranks compute on, as it is named on their command line.
pub mod backend {
    /// The processors of the machine.
    pub const CPU: &str = "cpu";
    /// GPUs of NVIDIA's.
    pub const CUDA: &str = "cuda";
}

/// Environment variables that processes read.
pub mod variable {
    /// Of a rank: the address by which others reach it.
    pub const ADDRESS: &str = "POD_IP";
    /// Of a rank: the name of its node, by which moves within a node are told from those between nodes.
    pub const NODE: &str = "SWIFTBALANCER_NODE";
    /// Of every process: the file that its [`LastWord`](super::LastWord) is written to, if it is set.
    pub const TERMINATION_FILE: &str = "SWIFTBALANCER_TERMINATION_FILE";
    /// Of a download from a hub of models: the token by which the hub knows who asks.
    pub const HUB_TOKEN: &str = "HF_TOKEN";
    /// Of a download from S3: the name of the access key.
    pub const S3_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
    /// Of a download from S3: the access key.
    pub const S3_SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
    /// Of a download from S3: what temporary keys come with.
    pub const S3_SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
}

/// The program that downloads checkpoints, in the images of the runtime.
pub const DOWNLOAD_PROGRAM: &str = "/usr/local/bin/swiftbalancer-download";

/// Where a container's last word is read by its kubelet, which makes the file.
pub const TERMINATION_FILE: &str = "/dev/termination-log";

/// How processes end, other than with 0 when they were told to.
pub mod exit {
    /// It could not start, or not go on.
    pub const FAILED: u8 = 1;
    /// It does not take its command line: it is of another release than whoever wrote that.
    pub const USAGE: u8 = 2;
}
