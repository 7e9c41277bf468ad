//! The tokens of the coordinators' admin APIs, as the Secrets of their deployments held them last. In memory alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::keys::AdminToken;

/// Tokens by the uid of their deployment.
#[derive(Clone, Debug, Default)]
pub struct AdminTokens(Arc<Mutex<BTreeMap<String, AdminToken>>>);

impl AdminTokens {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, AdminToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the token of a deployment.
    pub fn set(&self, deployment_uid: &str, token: &AdminToken) {
        self.lock().insert(deployment_uid.to_owned(), token.clone());
    }

    /// The token of a deployment, once a pass over it has read or made its keys.
    #[must_use]
    pub fn of(&self, deployment_uid: &str) -> Option<AdminToken> {
        self.lock().get(deployment_uid).cloned()
    }

    /// Forgets deployments that are gone.
    pub fn keep(&self, deployment_uids: &BTreeSet<String>) {
        self.lock().retain(|uid, _| deployment_uids.contains(uid));
    }
}
