//! The coordinator's admin API, as a client.

use anyhow::{Context, Result};
use plan::wire::{State, path};

/// What the coordinator behind `url` says of itself.
///
/// # Errors
/// If it does not answer, or with something else.
pub async fn state(url: &str) -> Result<State> {
    let response = reqwest::get(format!("{url}{}", path::STATE)).await?.error_for_status()?;
    State::from_json(&response.bytes().await?).with_context(|| format!("the state of {url}"))
}
