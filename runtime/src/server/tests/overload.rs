use std::time::Duration;

use axum::http::StatusCode;
use futures::poll;
use serde_json::json;

use crate::coordinator::fake::Fake;
use crate::scheduler::Limits;
use crate::server::fixture::{Answer, Server};

const PATIENCE: Duration = Duration::from_secs(20);

/// One sequence runs, one may wait, and steps wait for permits.
fn narrow() -> Fake {
    Fake {
        gated: true,
        ranks: 1,
        limits: Limits { queued: 1, running_per_rank: 1, step_tokens: 64 },
        ..Fake::default()
    }
}

/// Lets a request go on until something holds.
async fn until(request: &mut (impl Future<Output = Answer> + Unpin), holds: impl Fn() -> bool) {
    let reached = async {
        while !holds() {
            assert!(poll!(&mut *request).is_pending());
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("in time");
}

#[tokio::test]
async fn a_full_queue_answers_429_with_when_to_come_back_and_loses_nothing() {
    let server = Server::start(narrow());
    let (long, short) =
        (json!({"prompt": "a", "max_tokens": 500, "ignore_eos": true}), json!({"prompt": "a", "max_tokens": 1}));
    let post = |body| Box::pin(server.post("/v1/completions", body));
    let (mut first, mut second, mut refused) = (post(&long), post(&short), post(&short));
    // The first runs; the step that computes it ends only when it is permitted to. Then the second waits.
    until(&mut first, || server.remote.begun.try_recv().is_ok()).await;
    until(&mut second, || server.app.driver.commands_waiting() == 1).await;
    until(&mut refused, || server.app.driver.commands_waiting() == 2).await;
    let permits = server.remote.permits.as_ref().unwrap();
    (0..600).for_each(|_| permits.send(()).unwrap());
    let refused = refused.await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    let error = json!({
        "message": "1 of at most 1 sequences are waiting",
        "type": "rate_limit_error",
        "param": null,
        "code": "rate_limit_exceeded",
    });
    assert_eq!(refused.json(), json!({"error": error}), "clients know the case by its form");
    assert_eq!(first.await.json()["usage"]["completion_tokens"], 500);
    assert_eq!(second.await.json()["usage"]["completion_tokens"], 1);
}
