//! What a reconcile can fail with, and whether trying again helps.

use thiserror::Error;

/// Why a reconcile failed.
#[derive(Debug, Error, strum::IntoStaticStr)]
pub enum Error {
    /// The object does not have the form of the types of this build.
    #[error("the object cannot be read: {0}")]
    Invalid(Box<kube::core::error_boundary::InvalidObject>),
    /// Something could not be read.
    #[error("failed to read {what}")]
    Read {
        /// Kind and name.
        what: String,
        /// What the API server, or the way to it, says of it.
        source: Box<kube::Error>,
    },
    /// Something could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status could not be written.
    #[error("failed to write the status")]
    WriteStatus {
        /// What the API server, or the way to it, says of it.
        source: Box<kube::Error>,
    },
    /// The machine gives no randomness.
    #[error("no keys can be made: the machine gives no randomness")]
    Randomness(#[source] getrandom::Error),
    /// The operator is stopping.
    #[error("the operator is stopping")]
    Stopping,
}

impl Error {
    /// Whether only a change of the object can help.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Invalid(_) => true,
            Self::Read { .. } | Self::Apply(_) | Self::WriteStatus { .. } | Self::Randomness(_) | Self::Stopping => {
                false
            }
        }
    }

    /// Its name, for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        self.into()
    }
}

/// Why an object could not be made what it should be.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// An object of that name belongs to somebody else.
    #[error("{kind} {name} exists and does not belong to this deployment: remove or rename it")]
    NameConflict {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The namespace is being deleted, so nothing can be created in it any more.
    #[error("the namespace is being deleted")]
    NamespaceEnding,
    /// The API server did not do it.
    #[error("failed to {verb} {kind} {name}")]
    Call {
        /// What was asked for.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// What the API server, or the way to it, says of it.
        source: Box<kube::Error>,
    },
}

impl ApplyError {
    /// The error in words that stay the same as long as the cause does.
    #[must_use]
    pub fn stable_message(&self) -> String {
        match self {
            Self::NameConflict { .. } | Self::NamespaceEnding => self.to_string(),
            Self::Call { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => format!("{self}: {}", status.message),
                _ => format!("{self}: the API server cannot be reached"),
            },
        }
    }
}
