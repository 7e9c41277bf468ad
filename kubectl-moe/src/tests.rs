//! What the plugin asks of a cluster, and with which rights.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

#[test]
fn the_command_line_is_consistent() {
    <Arguments as clap::CommandFactory>::command().debug_assert();
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// What was asked for: the path, and the token.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A cluster with the example, whose Secret and coordinator answer with this status and body.
fn cluster(secret: (u16, Value), coordinator: (u16, String)) -> (Plugin, Asked) {
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        let token =
            request.headers().get("x-swiftbalancer-admin-token").map(|token| token.to_str().unwrap().to_owned());
        assert!(request.headers().get("authorization").is_none(), "the token is no credential of the API server's");
        log.lock().unwrap().push((path.clone(), token));
        let (status, body) = if path.contains("/proxy/") {
            coordinator.clone()
        } else if path.contains("/secrets/") {
            (secret.0, secret.1.to_string())
        } else {
            (200, deployment().to_string())
        };
        async move { Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(body.into_bytes())).unwrap()) }
    });
    (Plugin { client: Client::new(service, "default"), namespace: "default".to_owned() }, asked)
}

fn deployment() -> Value {
    let mut object: Value = serde_saphyr::from_str(include_str!("../../examples/tiny-moe.yaml")).unwrap();
    object["metadata"]["uid"] = json!("uid-1");
    object
}

fn secret(owner: &str) -> Value {
    let encoded = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    json!({
        "metadata": {
            "name": "tiny-moe-keys",
            "ownerReferences": [{
                "apiVersion": "swiftbalancer.io/v1alpha1", "kind": "MoEDeployment", "name": "tiny-moe", "uid": owner,
                "controller": true,
            }],
        },
        "data": {"group-secret": encoded, "admin-token": encoded},
    })
}

fn refused(code: u16) -> Value {
    let message = format!("secrets \"tiny-moe-keys\": {code}");
    let reason = if code == 404 { "NotFound" } else { "Forbidden" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

/// The tokens that the coordinator was asked with, one for each question.
fn sent(asked: &Asked) -> Vec<Option<String>> {
    let asked = asked.lock().unwrap();
    asked.iter().filter(|(path, _)| path.contains("/proxy/")).map(|(_, token)| token.clone()).collect()
}

#[tokio::test]
async fn a_coordinator_is_asked_with_the_token_that_the_user_may_read() {
    let (plugin, asked) = cluster((200, secret("uid-1")), (202, "{}".to_owned()));
    plugin.rebalance("tiny-moe", 0).await.unwrap();
    assert_eq!(sent(&asked), [Some(TOKEN.to_owned())]);
    let elsewhere =
        asked.lock().unwrap().iter().filter(|(path, token)| token.is_some() && !path.contains("/proxy/")).count();
    assert_eq!(elsewhere, 0, "the token goes to the coordinator alone");
}

#[tokio::test]
async fn a_deployment_without_keys_of_its_own_is_asked_without_a_token() {
    for answer in [(404, refused(404)), (200, secret("uid-of-another")), (200, json!({"metadata": {"name": "k"}}))] {
        let (plugin, asked) = cluster(answer, (202, "{}".to_owned()));
        plugin.rebalance("tiny-moe", 0).await.unwrap();
        assert_eq!(sent(&asked), [None]);
    }
}

#[tokio::test]
async fn who_may_not_read_the_token_is_told_which_right_is_missing() {
    let (plugin, asked) = cluster((403, refused(403)), (202, "{}".to_owned()));
    let error = plugin.rebalance("tiny-moe", 0).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the coordinators of tiny-moe ask for a token, and the Secret tiny-moe-keys that holds it cannot be read: this needs \
         the right to get secrets tiny-moe-keys in namespace default"
    );
    assert_eq!(sent(&asked), []);
    // What the status alone tells is told all the same.
    let status = plugin.status("tiny-moe").await.unwrap();
    assert!(
        status.starts_with("MoEDeployment tiny-moe\n")
            && status.ends_with(&format!("From the status alone: {error}\n"))
    );
}

#[tokio::test]
async fn what_a_pod_answers_is_bounded_and_controls_no_terminal() {
    let endless = "[".repeat(65 << 20);
    let (plugin, _) = cluster((404, refused(404)), (200, endless));
    let error = plugin.load("tiny-moe", 0).await.unwrap_err();
    assert!(matches!(error, PluginError::TooLarge { .. }), "{error}");
    for body in [json!({"error": {"message": "\u{1b}[2Jno".repeat(10_000)}}).to_string(), "\u{1b}[2Jno ".repeat(10_000)]
    {
        let (plugin, _) = cluster((404, refused(404)), (500, body));
        let error = plugin.load("tiny-moe", 0).await.unwrap_err();
        let mut told = plan::words::with_causes(&error);
        told.truncate(2000);
        assert!(told.contains("[2Jno") && !told.contains('\u{1b}') && told.len() < 1500, "{told:?}");
    }
}
