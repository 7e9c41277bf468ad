//! Images without Docker and without a registry: a folder and a Dockerfile become an OCI archive that containerd imports.
//! Equal contents give equal bytes. Knows nothing of clusters.

mod archive;
mod catalogue;
mod libraries;
mod recipe;

pub use archive::{Archive, short_hash, write_archive};
pub use catalogue::{
    MODEL_IMAGE, build_all, build_gpu, build_test_pod, gpu_runtime_image, nccl, operator_image, runtime_image,
};
pub use libraries::shared_libraries;
pub use recipe::{Recipe, RecipeError};
