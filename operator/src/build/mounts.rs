//! Folders in the operator's own containers, and the claim of GPUs of rank pods.

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
/// The claim by which a rank pod gets its GPUs, where it gets them by one.
pub(crate) const GPU_CLAIM: &str = "gpus";
