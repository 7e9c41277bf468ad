//! One pass over one deployment, from top to bottom.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use plan::words::with_causes;

use crate::apply::{Outcome, apply};
use crate::attempt::Attempt;
use crate::build::build;
use crate::context::{Context, Guarded};
use crate::decide::decide;
use crate::error::Error;
use crate::observe::observe;
use crate::report::{notices, report};
use crate::validate::validate;
use crate::write_status::write_status;

/// When to look again at a deployment that is on its way out: its end is watched.
const ENDING: Duration = Duration::from_mins(5);

/// Makes the cluster match a deployment and its status match the cluster.
///
/// # Errors
/// If something cannot be read or written; whether to try again is the error's own knowledge.
#[tracing::instrument(skip_all, fields(namespace = guarded.namespace(), name = guarded.name_any()))]
pub async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let mut timer = context.metrics.reconcile();
    let action = Box::pin(pass(&guarded, &context)).await.inspect_err(|error| timer.failed(error.category()))?;
    Ok(Action::requeue(action))
}

async fn pass(guarded: &Guarded, context: &Context) -> Result<Duration, Error> {
    let deployment = guarded.0.as_ref().map_err(|invalid| Error::Invalid(Box::new(invalid.clone())))?;
    let uid = deployment.uid().unwrap_or_default();
    if deployment.metadata.deletion_timestamp.is_some() || context.is_ending(&uid) {
        // Everything is owned by the deployment, so it goes with it; nothing may come back meanwhile.
        return Ok(ENDING);
    }
    let observed = observe(context, deployment, Timestamp::now()).await?;
    let verdict = validate(deployment, &observed);
    let decision = decide(deployment, &verdict, &observed);
    let desired = build(deployment, &verdict, &decision);
    let attempt = Attempt::new(deployment, &observed, &decision, &desired);
    let not_due = context.not_due(&uid, &attempt);
    let wait = not_due.as_ref().map(|(_, wait)| *wait);
    let outcome = match not_due {
        Some((failures, _)) => Outcome { failures, ..Outcome::default() },
        None => apply(context, deployment, &observed, &decision, desired).await,
    };
    if outcome.failures.is_end_of_namespace() {
        // Pods go before their deployment does: each that goes would be created again, and refused.
        context.ends(&uid);
        tracing::info!("the namespace is being deleted");
        return Ok(ENDING);
    }
    let status = report(deployment, &observed, &verdict, &decision, &outcome);
    let notices = notices(&deployment.status.clone().unwrap_or_default(), &status, &outcome);
    write_status(context, deployment, &status, &notices).await?;
    match (wait, outcome.failures.first()) {
        (Some(wait), _) => Ok(wait.min(decision.look_again)),
        (None, Some(error)) => {
            context.tried(&uid, attempt, outcome.failures.clone());
            Err(Error::Apply(Arc::clone(error)))
        }
        (None, None) => {
            context.succeeded(&uid);
            Ok(decision.look_again)
        }
    }
}

/// When to try again.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "the controller passes them so")]
pub fn error_policy(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let (namespace, name) = (guarded.namespace(), guarded.name_any());
    if error.is_permanent() {
        tracing::error!(namespace, name, error = with_causes(error), "waiting for a change of the object");
        return Action::await_change();
    }
    let wait = context.failed(&guarded.uid().unwrap_or_default());
    tracing::warn!(namespace, name, error = with_causes(error), seconds = wait.as_secs_f64(), "trying again");
    Action::requeue(wait)
}
