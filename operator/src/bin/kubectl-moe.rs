//! The kubectl plugin.

use std::time::Instant;

use clap::Parser as _;
use operator::plugin::{Arguments, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let began = Instant::now();
    print!("{}", run(Arguments::parse(), || began.elapsed()).await?);
    Ok(())
}
