#![forbid(unsafe_code)]
//! The test cluster and the images, by hand.

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::cluster::Cluster;
use tests::image;
use tests::workspace::Binaries;

#[derive(Parser)]
#[command(about = "A real Kubernetes cluster on this machine, with this checkout's images", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the cluster with this checkout's images; it runs until `down`.
    Up,
    /// Takes the cluster down.
    Down,
    /// Builds the images into target/images/archives.
    Images,
}

/// Whether the programs are built with kernels that need no compiler where they run.
fn has_compiled_kernels() -> bool {
    std::env::var_os("SWIFTBALANCER_NVCC").is_some_and(|compiler| !compiler.is_empty())
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Up => {
            let cluster = Cluster::start()?;
            cluster.load(&image::build_all(&Binaries::build()?)?)?;
            println!("The cluster runs until `make cluster-down`. For example:");
            println!("  CLUSTER_DIR={} tests/cluster/cluster run kubectl get nodes", cluster.state().display());
        }
        Command::Down => Cluster::stop()?,
        Command::Images => {
            let binaries = Binaries::build()?;
            let mut archives = image::build_all(&binaries)?;
            // What is given to people is whole, or is not made.
            match image::nccl() {
                Ok(nccl) if has_compiled_kernels() => archives.push(image::build_gpu(&binaries, Some(&nccl))?),
                Ok(_) => {
                    eprintln!("NO IMAGE FOR GPUS: SWIFTBALANCER_NVCC names no compiler, see kernels/cu/toolchain.sh");
                }
                Err(error) => eprintln!("NO IMAGE FOR GPUS: {error:#}"),
            }
            for archive in archives {
                let (path, size) = (archive.path.display(), archive.layer_bytes as f64 / 1e6);
                println!("{:<44} {size:6.1} MB  {path}", archive.name);
            }
        }
    }
    Ok(())
}
