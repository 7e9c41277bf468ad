//! Volumes of the operator's pods, their folders in its own containers, and the claim of GPUs of rank pods.

use plan::wire::keys::FOLDER as KEYS;

/// Where the model's volume is.
pub(crate) const MODEL: &str = "/model";
/// Where the map to start from is.
pub(crate) const MAP_FOLDER: &str = "/etc/swiftbalancer/expert-map";
/// Where the keys of the public API are.
pub(crate) const API_KEYS_FOLDER: &str = "/etc/swiftbalancer/api-keys";
/// Where the deployment's keys are.
pub(crate) const KEYS_FOLDER: &str = KEYS;
/// Where memory is that processes share.
pub(crate) const SHARED_MEMORY: &str = "/dev/shm";
/// Where a process may write what nobody keeps.
pub(crate) const SCRATCH_FOLDER: &str = "/tmp";
/// The container that downloads the checkpoint before others are started.
pub(crate) const DOWNLOAD: &str = "download";
/// The claim by which a rank pod gets its GPUs, where it gets them by one.
pub(crate) const GPU_CLAIM: &str = "gpus";

/// Names of the volumes.
pub(crate) mod volume {
    /// The checkpoint.
    pub(crate) const MODEL: &str = "model";
    /// What nobody keeps; the one that a template may replace.
    pub(crate) const SCRATCH: &str = "scratch";
    /// The deployment's keys.
    pub(crate) const KEYS: &str = "keys";
    /// The map to start from.
    pub(crate) const EXPERT_MAP: &str = "expert-map";
    /// Memory that processes share.
    pub(crate) const SHARED_MEMORY: &str = "shared-memory";
    /// The keys of the public API.
    pub(crate) const API_KEYS: &str = "api-keys";
}
