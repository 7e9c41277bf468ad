//! The coordinator's admin API, as a client.

use std::fmt::{self, Debug, Formatter};

use anyhow::{Context, Result};
use plan::wire::{State, path};

/// Where a coordinator's admin API is, and with which token it is asked.
#[derive(Clone)]
pub struct Endpoint {
    /// `http://host:port`.
    pub url: String,
    /// Its token; none where it listens on this machine alone.
    pub token: Option<String>,
}

impl Debug for Endpoint {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { url, token } = self;
        write!(formatter, "{url} {} a token", if token.is_some() { "with" } else { "without" })
    }
}

/// What the coordinator behind `endpoint` says of itself.
///
/// # Errors
/// If it does not answer, or with something else.
pub async fn state(endpoint: &Endpoint) -> Result<State> {
    let Endpoint { url, token } = endpoint;
    let mut request = reqwest::Client::new().get(format!("{url}{}", path::STATE));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await?.error_for_status()?;
    State::from_json(&response.bytes().await?).with_context(|| format!("the state of {url}"))
}
