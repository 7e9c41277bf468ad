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
type Calls = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A cluster with the example, whose Secret and coordinator answer with this status and body.
fn cluster_with(secret: (u16, Value), coordinator: (u16, String)) -> (Cluster, Calls) {
    let asked = Calls::default();
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
    let client = kube::Client::new(service, "default");
    (Cluster { client, namespace: "default".to_owned(), timeout: None }, asked)
}

/// What a command prints about a cluster.
async fn printed(cluster: &Cluster, line: &str) -> Result<String, PluginError> {
    let words = std::iter::once("kubectl-moe").chain(line.split(' '));
    let asking = match Arguments::try_parse_from(words).unwrap().command {
        Command::Status(arguments) => Asking::Status(arguments),
        Command::Load(arguments) => Asking::Load(arguments),
        Command::Rebalance(arguments) => Asking::Rebalance(arguments),
        other => panic!("{other:?}"),
    };
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let mut terminal = Terminal {
        input: &mut std::io::empty(),
        output: &mut output,
        errors: &mut errors,
        now: &std::time::Duration::default,
        progress: &(),
        is_a_screen: false,
        input_is_read: false,
    };
    ask(&asking, cluster, &mut terminal).await?;
    assert_eq!(errors, b"", "nothing is amiss");
    Ok(String::from_utf8(output).unwrap())
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
fn sent(asked: &Calls) -> Vec<Option<String>> {
    let asked = asked.lock().unwrap();
    asked.iter().filter(|(path, _)| path.contains("/proxy/")).map(|(_, token)| token.clone()).collect()
}

#[tokio::test]
async fn a_coordinator_is_asked_with_the_token_that_the_user_may_read() {
    let (cluster, asked) = cluster_with((200, secret("uid-1")), (202, "{}".to_owned()));
    printed(&cluster, "rebalance tiny-moe").await.unwrap();
    assert_eq!(sent(&asked), [Some(TOKEN.to_owned())]);
    let elsewhere =
        asked.lock().unwrap().iter().filter(|(path, token)| token.is_some() && !path.contains("/proxy/")).count();
    assert_eq!(elsewhere, 0, "the token goes to the coordinator alone");
}

#[tokio::test]
async fn a_deployment_without_keys_of_its_own_is_asked_without_a_token() {
    for answer in [(404, refused(404)), (200, secret("uid-of-another")), (200, json!({"metadata": {"name": "k"}}))] {
        let (cluster, asked) = cluster_with(answer, (202, "{}".to_owned()));
        printed(&cluster, "rebalance tiny-moe").await.unwrap();
        assert_eq!(sent(&asked), [None]);
    }
}

#[tokio::test]
async fn who_may_not_read_the_token_is_told_which_right_is_missing() {
    let (cluster, asked) = cluster_with((403, refused(403)), (202, "{}".to_owned()));
    let error = printed(&cluster, "rebalance tiny-moe").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the coordinators of tiny-moe ask for a token, and the Secret tiny-moe-keys that holds it cannot be read: this needs \
         the right to get secrets tiny-moe-keys in namespace default"
    );
    assert_eq!(sent(&asked), []);
    // What the status alone tells is told all the same.
    let status = printed(&cluster, "status tiny-moe").await.unwrap();
    assert!(
        status.starts_with("MoEDeployment tiny-moe\n")
            && status.ends_with(&format!("From the status alone: {error}\n"))
    );
}

#[tokio::test]
async fn what_a_pod_answers_is_bounded_and_controls_no_terminal() {
    let endless = "[".repeat(65 << 20);
    let (cluster, _) = cluster_with((404, refused(404)), (200, endless));
    let error = printed(&cluster, "load tiny-moe").await.unwrap_err();
    assert!(matches!(error, PluginError::TooLarge { .. }), "{error}");
    for body in [json!({"error": {"message": "\u{1b}[2Jno".repeat(10_000)}}).to_string(), "\u{1b}[2Jno ".repeat(10_000)]
    {
        let (cluster, _) = cluster_with((404, refused(404)), (500, body));
        let error = printed(&cluster, "load tiny-moe").await.unwrap_err();
        let mut told = plan::words::with_causes(&error);
        told.truncate(2000);
        assert!(told.contains("[2Jno") && !told.contains('\u{1b}') && told.len() < 1500, "{told:?}");
    }
}
