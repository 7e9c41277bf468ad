//! All that the coordinator, the operator and `kubectl moe` share: the versioned JSON that they exchange and that expert maps
//! are stored as, and how processes are started, reached and end.
//!
//! **Documents are types of their own**, never those of the planner or of the rebalancer, which change as these do. Their names
//! and forms stay: a field that was released is told by every later release, with the same meaning, and one that is added later
//! is an `Option`, since earlier releases do not tell it. `plan/tests/documents` keeps the documents of every release.
//!
//! **What is answered** ([`State`], [`LoadDocument`], [`MonitorDocument`], [`HealthDocument`], [`DownloadDocument`],
//! [`LastWord`](process::LastWord)) is read tolerantly,
//! since an operator runs beside coordinators of other releases: unknown fields are passed over, and the unknown value of a
//! list is [`Told::Other`]. **What is stored** ([`MapDocument`], [`RecordedMap`]) is read strictly: a map of which a part is
//! passed over is another map. An unknown version is an error in both.

mod decision;
mod download;
mod error;
mod health;
mod load;
mod map;
mod model;
mod monitor;
pub mod process;
mod state;
mod told;

use serde::Deserialize;

pub use decision::{DecisionFigures, DecisionHistory, DecisionReason, DecisionReport, DecisionTerms};
pub use download::{DownloadDocument, DownloadPhase};
pub use error::WireError;
pub use health::{HealthDocument, HealthStatus};
pub use load::LoadDocument;
pub use map::{MapDocument, Provenance, RecordedMap};
pub use model::ModelIdentity;
pub use monitor::{Happening, Latency, MonitorDocument, MonitorEvent, MovedExpert, Quantiles};
pub use state::{MoveTotals, Phase, RankState, State, WindowReport};
pub use told::{Told, Word};

/// `version` of every document this build writes and the only one it reads.
pub const VERSION: &str = "swiftbalancer.io/v1";

/// Paths at which processes answer.
pub mod path {
    /// `GET` on the API's port of a coordinator: [`super::HealthDocument`], with status 200 while requests are served and 503
    /// otherwise.
    pub const HEALTH: &str = "/health";
    /// `GET` on the admin API's port of a coordinator and on the health port of a rank: whether the process answers.
    pub const LIVEZ: &str = "/livez";
    /// `GET` on the health port of a rank: whether it is part of a group.
    pub const READYZ: &str = "/readyz";
    /// `GET`: [`super::State`].
    pub const STATE: &str = "/admin/v1/state";
    /// `GET`: the map in force; `POST` a [`super::MapDocument`]: move to it. Both [`super::MapDocument`].
    pub const MAP: &str = "/admin/v1/map";
    /// `GET`: the last recorded map, [`super::RecordedMap`]; 404 before the first.
    pub const RECORDED_MAP: &str = "/admin/v1/map/recorded";
    /// `GET`: load of the last closed window, [`super::LoadDocument`]; 404 before the first.
    pub const LOAD: &str = "/admin/v1/load";
    /// `GET`: what goes on now, [`super::MonitorDocument`]; with `?after=NUMBER` of what happened only what came after that number.
    pub const MONITOR: &str = "/admin/v1/monitor";
    /// `GET` on the admin API's port of a pod whose checkpoint is being downloaded: [`super::DownloadDocument`].
    pub const DOWNLOAD: &str = "/download/v1/progress";
    /// `POST`: close the window now and plan, whatever its length.
    pub const REBALANCE: &str = "/admin/v1/rebalance";
}

/// The keys of a deployment: which Secret holds them, where pods find them and how the admin token travels.
pub mod keys {
    /// Fewest bytes of either key.
    pub const LEAST_BYTES: usize = 32;
    /// Key of the Secret, and name of the file, that holds what the members of a group share.
    pub const GROUP_SECRET: &str = "group-secret";
    /// Key of the Secret, and name of the file, that holds the bearer token of the admin API.
    pub const ADMIN_TOKEN: &str = "admin-token";
    /// Folder of both files in a pod.
    pub const FOLDER: &str = "/etc/swiftbalancer/keys";
    /// Header of the admin token where `Authorization` does not arrive: the API server's proxy drops that one.
    pub const ADMIN_TOKEN_HEADER: &str = "x-swiftbalancer-admin-token";

    /// The Secret that the operator makes for a deployment.
    #[must_use]
    pub fn secret_name(deployment: &str) -> String {
        format!("{deployment}-keys")
    }
}

/// What every version of every document has.
#[derive(Deserialize)]
struct Version {
    version: Option<String>,
}

fn read<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, WireError> {
    let head: Version = parse(json)?;
    check_version(head.version.as_deref())?;
    parse(json)
}

fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(json).map_err(|source| WireError::Json { reason: source.to_string() })
}

fn check_version(found: Option<&str>) -> Result<(), WireError> {
    match found {
        Some(VERSION) => Ok(()),
        other => Err(WireError::Version { found: other.unwrap_or("none").to_owned() }),
    }
}

#[cfg(test)]
mod tests;
