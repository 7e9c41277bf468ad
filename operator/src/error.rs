//! What a reconcile can fail with, and whether trying again helps.

use std::sync::Arc;

use thiserror::Error;

use crate::words::shorten;

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
    Apply(Arc<ApplyError>),
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
    /// An object of that name is left of a deployment of this name that was deleted.
    #[error("{kind} {name} of a deleted deployment of this name is still there: it is waited for")]
    Predecessor {
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
    /// The error in words for a status: what was to be done, in words that stay the same, and what the API server says of it,
    /// which may be worded anew each time.
    #[must_use]
    pub fn told(&self) -> (String, String) {
        match self {
            Self::NameConflict { .. } | Self::NamespaceEnding | Self::Predecessor { .. } => {
                (self.to_string(), String::new())
            }
            Self::Call { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => (format!("{self}: "), shorten(&status.message)),
                _ => (format!("{self}: the API server cannot be reached"), String::new()),
            },
        }
    }
}

/// What of a pass failed. What pods and Services need and what is done for recorded maps do not stop each other.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// The first of what pods, Services, disruption budgets and keys need.
    pub serving: Option<Arc<ApplyError>>,
    /// The first of what recorded maps need.
    pub maps: Option<Arc<ApplyError>>,
}

impl Failures {
    /// The first that failed, what serves before what is recorded.
    #[must_use]
    pub fn first(&self) -> Option<&Arc<ApplyError>> {
        self.serving.as_ref().or(self.maps.as_ref())
    }

    /// Whether the namespace is being deleted.
    #[must_use]
    pub fn is_end_of_namespace(&self) -> bool {
        let ending = |error: &Option<Arc<ApplyError>>| matches!(error.as_deref(), Some(ApplyError::NamespaceEnding));
        ending(&self.serving) || ending(&self.maps)
    }
}
