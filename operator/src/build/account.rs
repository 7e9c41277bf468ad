//! Identity of a deployment's pods. They never call the API server, so it has no token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::names;
use crate::validate::Checked;

/// None where the deployment names one that exists.
pub(super) fn build(checked: &Checked) -> Option<ServiceAccount> {
    let is_named = checked.deployment.spec.runtime.service_account_name.is_some();
    (!is_named).then(|| ServiceAccount {
        metadata: metadata(&checked.deployment, names::account(&checked.name)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
