//! The SwiftBalancer operator.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use kube::CustomResourceExt as _;
use operator::api::MoEDeployment;

/// Runs MoEDeployments.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the CustomResourceDefinition as YAML.
    Crd,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Crd => {
            print!("{}", serde_saphyr::to_string(&MoEDeployment::crd()).context("write the definition as YAML")?);
            Ok(())
        }
    }
}
