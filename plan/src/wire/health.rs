//! The document of whether requests are served.

use serde::{Deserialize, Serialize};

use super::Told;

/// Whether requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthStatus {
    /// Every rank is part of the group.
    #[serde(rename = "serving")]
    Serving,
    /// Requests wait, or the server stops.
    #[serde(rename = "not serving")]
    NotServing,
    /// Requests are refused until somebody changes something.
    #[serde(rename = "failed")]
    Failed,
}

/// `GET` [`super::path::HEALTH`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthDocument {
    /// Whether requests are served.
    pub status: Told<HealthStatus>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
