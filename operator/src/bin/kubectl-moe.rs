//! The kubectl plugin.

use clap::Parser as _;
use operator::plugin::{Arguments, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    print!("{}", run(Arguments::parse()).await?);
    Ok(())
}
