//! Writes the status if it differs, then publishes events.
//!
//! API calls: `patch` on moedeployments/status; `create`, `patch` on events of events.k8s.io.

use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource as _, ResourceExt as _};
use plan::words::with_causes;
use serde_json::json;

use crate::api::MoEDeployment;
use crate::api::status::MoEDeploymentStatus;
use crate::context::Context;
use crate::error::Error;
use crate::names;
use crate::report::Notice;

/// Writes.
///
/// # Errors
/// If the API server refuses the status. Events that cannot be published are logged: they are told in the status too.
pub async fn write_status(
    context: &Context,
    deployment: &MoEDeployment,
    status: &MoEDeploymentStatus,
    notices: &[Notice],
) -> Result<(), Error> {
    if deployment.status.as_ref() != Some(status) {
        let api: Api<MoEDeployment> =
            Api::namespaced(context.client.clone(), &deployment.namespace().unwrap_or_default());
        let patch = json!({
            "apiVersion": MoEDeployment::api_version(&()),
            "kind": MoEDeployment::kind(&()),
            "metadata": {"name": deployment.name_any()},
            "status": status,
        });
        let parameters = PatchParams::apply(names::MANAGER).force();
        let written = api.patch_status(&deployment.name_any(), &parameters, &Patch::Apply(patch)).await;
        written.map_err(|source| Error::WriteStatus { source: Box::new(source) })?;
        context.metrics.wrote("MoEDeployment", "patch");
    }
    for notice in notices {
        let activity: &str = notice.activity.into();
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.to_owned(),
            note: Some(notice.note.clone()),
            action: activity.to_owned(),
            secondary: None,
        };
        match context.recorder.publish(&event, &deployment.object_ref(&())).await {
            Ok(()) => context.metrics.wrote("Event", "create"),
            Err(error) => {
                tracing::warn!(reason = notice.reason, error = with_causes(&error), "event was not published");
            }
        }
    }
    Ok(())
}
