//! Identity of a deployment's pods. They never call the API server, so it has no token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::names;
use crate::validate::Checked;

pub(super) fn build(checked: &Checked) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(&checked.deployment, names::account(&checked.name)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
