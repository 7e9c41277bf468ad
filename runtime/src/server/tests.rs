//! The routes on scripted ranks.

mod answers;
mod chat;
mod completions;
mod disconnect;
mod documentation;
mod meaning;
mod overload;
mod page;
mod refusals;
mod requests;
mod streams;
mod texts;

use axum::http::StatusCode;
use serde_json::json;

use super::fixture::{Server, send};
use crate::coordinator::fake::Fake;
use axum::body::Body;
use axum::http::Request;

#[tokio::test]
async fn the_served_model_is_listed_and_no_other_is_there() {
    let server = Server::start(Fake::default());
    let list = server.get("/v1/models").await.json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("tiny")));
    assert_eq!(server.get("/v1/models/tiny").await.json()["max_model_len"], 1024);
    let no_text = server.get("/v1/models/%ff").await;
    assert_eq!((no_text.status, &no_text.json()["error"]["code"]), (StatusCode::NOT_FOUND, &json!("model_not_found")));
    let other = server.get("/v1/models/org/other").await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    assert_eq!(other.json()["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn health_tells_that_requests_are_not_served_and_why() {
    let server = Server::start(Fake::default());
    // The driver has been asked once, so it has seen that its ranks are there.
    server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 1})).await;
    assert_eq!(server.get("/health").await.status, StatusCode::OK);
    server.app.driver.announce_stop();
    let health = server.get("/health").await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.json()["reason"], "the server is shutting down");
}

#[tokio::test]
async fn the_metrics_that_users_of_eplb_watch_are_there_by_name() {
    let server = Server::start(Fake::default());
    server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 5, "ignore_eos": true})).await;
    let metrics = server.get("/metrics").await.text();
    for name in [
        "ttft_p99 ",
        "tpot_avg ",
        "swiftbalancer_requests_total{outcome=\"completed\",route=\"completions\"} 1",
        "swiftbalancer_completion_tokens_total 5",
        "swiftbalancer_time_to_first_token_seconds_count 1",
        "swiftbalancer_inter_token_latency_seconds_count 4",
        "swiftbalancer_step_seconds_count 5",
        "swiftbalancer_map_epoch 0",
        "swiftbalancer_map_age_seconds ",
        "swiftbalancer_rebalances_total{outcome=\"completed\"} 0",
        "swiftbalancer_move_aborts_total{reason=\"corrupt\"} 0",
        "swiftbalancer_rebalance_phase_seconds_count{phase=\"moving\"} 0",
        "swiftbalancer_staging_pages_used{rank=\"1\"} 0",
        "swiftbalancer_commit_stall_seconds_total 0",
        "swiftbalancer_experts_moved_total 0",
        "swiftbalancer_bytes_moved_total 0",
        "swiftbalancer_planner_seconds_count 0",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "no {name:?} in {metrics}");
    }
}

#[tokio::test]
async fn the_admin_api_tells_the_state_and_says_what_is_not_there_yet() {
    let server = Server::start(Fake::default());
    server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 1})).await;
    let here = ("host", "localhost:8001");
    let get = |path: &str| {
        let request = Request::get(path).header(here.0, here.1);
        send(server.admin(), request.body(Body::empty()).unwrap())
    };
    let state = get(plan::wire::path::STATE).await;
    let state = plan::wire::State::from_json(&state.body).unwrap();
    assert!(state.ready);
    assert_eq!((state.ranks.len(), state.steps), (2, 1));
    for path in [plan::wire::path::LOAD, plan::wire::path::RECORDED_MAP] {
        assert_eq!(get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let monitor = get(&format!("{}?after=0", plan::wire::path::MONITOR)).await;
    let monitor = plan::wire::MonitorDocument::from_json(&monitor.body).unwrap();
    assert_eq!((monitor.ready, monitor.steps, monitor.completion_tokens), (true, 1, 1));
    assert_eq!(monitor.events.iter().map(|event| event.number).collect::<Vec<_>>(), [1], "the group has formed");
    let after = |number: &str| get(&format!("{}?after={number}", plan::wire::path::MONITOR));
    assert_eq!(after("1").await.json()["events"], json!([]));
    let refused = after("x").await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("after")));
    let map = get(plan::wire::path::MAP).await.body;
    let post = |body: Vec<u8>| {
        let request = Request::post(plan::wire::path::MAP).header(here.0, here.1);
        let request = request.header("content-type", "application/json");
        send(server.admin(), request.body(Body::from(body)).unwrap())
    };
    assert_eq!(post(map).await.status, StatusCode::ACCEPTED);
    let refused = post(b"{\"version\": \"swiftbalancer.io/v2\"}".to_vec()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text().contains("swiftbalancer.io/v2"), "{}", refused.text());
    assert_eq!(get("/livez").await.status, StatusCode::OK);
}
