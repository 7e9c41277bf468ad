//! Ranks that die, clients that go away, more requests than there is room for.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Instant;

use runtime::scheduler::{LOSSES_IN_A_ROW, LOSSES_IN_ALL};
use rustix::process::Signal;
use serde_json::json;

use crate::client::{Streaming, complete, text};
use crate::greedy;
use crate::group::{Group, PATIENCE, kill};

#[tokio::test]
async fn a_stream_goes_on_with_the_same_tokens_when_a_rank_is_killed() {
    let group = Group::start(2, &[]).await;
    let body = greedy("It is a truth universally acknowledged", 800);
    let undisturbed = text(&group, &body).await;
    let mut stream = Streaming::start(&group, body).await;
    stream.read(|text| text.len() > 50).await;
    let ranks = group.ranks();
    assert_eq!(ranks.len(), 2);
    kill(ranks[1], Signal::KILL);
    stream.read(|_| false).await;
    assert_eq!(stream.text, undisturbed);
    group.until("it serves again", async || group.is_healthy().await).await;
    assert!(group.metric("swiftbalancer_groups_lost_total").await >= 1.0, "the rank was lost while it was needed");
    assert_eq!(group.ranks().len(), 2);
}

#[tokio::test]
async fn a_request_whose_rank_dies_whenever_it_runs_fails_after_some_groups_and_all_others_are_served() {
    // Its prompt takes hundreds of steps, in which it gives nothing.
    let group = Group::start(1, &["--max-running-sequences", "2", "--max-step-tokens", "2"]).await;
    let bodies = ["Once", "It is", "Two"].map(|prompt| greedy(prompt, 8));
    let mut expected = Vec::new();
    for body in &bodies {
        expected.push(text(&group, body).await);
    }
    let mut deadly = greedy("", 100);
    deadly["prompt"] = (0..900).map(|number| 40 + number % 50).collect();
    let running = async || group.metric("swiftbalancer_sequences_running").await > 0.0;
    let killed = Cell::new(0);
    let kills = async {
        loop {
            group.until("something runs", running).await;
            kill(group.ranks()[0], Signal::KILL);
            killed.set(killed.get() + 1);
            group.until("its group is lost", async || !running().await).await;
        }
    };
    let dies = async {
        tokio::select! {
            answer = complete(&group, &deadly) => answer,
            () = kills => unreachable!("it is asked for as long as it runs"),
        }
    };
    let others = async {
        // They come later, so that the one that is tried alone first is the one before them.
        group.until("it has lost its first group", async || killed.get() > 0).await;
        futures::future::join_all(bodies.iter().map(|body| text(&group, body))).await
    };
    let ((status, answer), others) = futures::join!(dies, others);
    assert_eq!((status, answer["error"]["type"].as_str()), (500, Some("server_error")), "{answer}");
    assert!((LOSSES_IN_A_ROW..=LOSSES_IN_ALL).contains(&killed.get()), "{} groups", killed.get());
    assert_eq!(others, expected);
    group.until("it serves again", async || group.is_healthy().await).await;
    assert_eq!(text(&group, &bodies[0]).await, expected[0]);
    let lost = group.metric("swiftbalancer_sequences_failed_total{reason=\"lost_groups\"}").await;
    assert!((lost - 1.0).abs() < 0.5, "{lost} failed");
}

#[tokio::test]
async fn two_hundred_requests_at_once_give_what_each_gives_alone_while_experts_move() {
    let still = Group::start(2, &["--init-redundancy-expert", "4"]).await;
    let moving = Group::start(4, &["--init-redundancy-expert", "4", "--staging-pages", "8"]).await;
    let bodies: Vec<_> =
        (0..200).map(|number| greedy(&format!("{number} times {number} is"), 20 + number % 20)).collect();
    let all = async |group| futures::future::join_all(bodies.iter().map(|body| text(group, body))).await;
    let committed = async || moving.metric("swiftbalancer_transactions_committed_total").await;
    let asked = async {
        moving.until("experts move", async || committed().await > 0.0).await;
        all(&moving).await
    };
    let moved = tokio::select! { moved = asked => moved, never = moving.keep_moving(7) => match never {} };
    let expected = all(&still).await;
    for ((body, moved), expected) in bodies.iter().zip(moved).zip(expected) {
        assert_eq!(moved, expected, "{body}");
    }
    let committed = committed().await;
    let steps = moving.metric("swiftbalancer_step_seconds_count").await;
    assert!(committed >= steps / 25.0, "{committed} in {steps} steps");
    for (outcome, count) in [("completed", 200.0), ("failed", 0.0), ("cancelled", 0.0)] {
        let name = format!("swiftbalancer_requests_total{{outcome=\"{outcome}\",route=\"completions\"}}");
        let found = moving.metric(&name).await;
        assert!((found - count).abs() < 0.5, "{name} {found}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_block_behind() {
    let group = Group::start(1, &[]).await;
    let mut stream = Streaming::start(&group, greedy("Once", 1000)).await;
    stream.read(|text| !text.is_empty()).await;
    drop(stream);
    let blocks = "swiftbalancer_kv_blocks_used{rank=\"0\"}";
    let cancelled = "swiftbalancer_requests_total{outcome=\"cancelled\",route=\"completions\"}";
    group.until("it is counted", async || group.metric(cancelled).await > 0.0).await;
    group.until("its blocks are free", async || group.metric(blocks).await < 1.0).await;

    // One that does not stream is cancelled as well, long before the end of so many tokens.
    let mut body = greedy("Once", 1000);
    body["n"] = 32.into();
    let running = async || group.metric("swiftbalancer_sequences_running").await > 0.0;
    tokio::select! {
        answer = complete(&group, &body) => panic!("it ended: {answer:?}"),
        () = group.until("it runs", running) => {}
    }
    group.until("it is counted", async || group.metric(cancelled).await > 1.0).await;
    group.until("its blocks are free", async || group.metric(blocks).await < 1.0).await;
}

#[tokio::test]
async fn overload_is_answered_with_429_and_every_request_that_was_taken_is_served() {
    let options = ["--max-queued-requests", "4", "--max-running-sequences", "2", "--max-step-tokens", "16"];
    let group = Group::start(1, &options).await;
    let body = json!({"prompt": "a", "max_tokens": 20, "ignore_eos": true});
    let answers = futures::future::join_all((0..100).map(|_| complete(&group, &body))).await;
    let mut count = BTreeMap::new();
    for (status, json) in &answers {
        *count.entry(*status).or_insert(0) += 1;
        match status {
            200 => assert_eq!(json["usage"]["completion_tokens"], 20),
            _ => assert_eq!(json["error"]["code"], "rate_limit_exceeded"),
        }
    }
    assert_eq!(count.keys().collect::<Vec<_>>(), [&200, &429], "{count:?}");
    assert_eq!(complete(&group, &body).await.0, 200, "it serves as before");
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_leaves_no_process_behind() {
    let group = Group::start(2, &[]).await;
    let ranks = group.ranks();
    let mut stream = Streaming::start(&group, greedy("Once", 500)).await;
    stream.read(|text| !text.is_empty()).await;
    let stopping = tokio::task::spawn_blocking(move || group.stop());
    stream.read(|_| false).await;
    assert!(stream.done, "the stream came to its end");
    drop(stream);
    assert!(stopping.await.unwrap().success());
    let deadline = Instant::now() + PATIENCE;
    for rank in ranks {
        while std::path::Path::new(&format!("/proc/{rank}")).exists() {
            assert!(Instant::now() < deadline, "process {rank} is left");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_client_that_keeps_its_connection_loses_no_request_to_a_stop_that_is_announced() {
    let group = Group::start(1, &["--shutdown-delay-seconds", "2"]).await;
    let (client, url) = (reqwest::Client::new(), format!("{}/v1/completions", group.url));
    // The answer's status, and whether the connection may be used again.
    let ask = async || {
        let answer = client.post(&url).body(greedy("Once", 3).to_string()).send().await.unwrap();
        let kept = answer.headers().get("connection").is_none_or(|value| value != "close");
        let status = answer.status().as_u16();
        answer.bytes().await.unwrap();
        (status, kept)
    };
    assert_eq!(ask().await, (200, true));
    let stopping = tokio::task::spawn_blocking(move || group.stop());
    while ask().await == (200, true) {}
    assert_eq!(ask().await, (200, false), "it takes new connections for as long as it says");
    assert!(stopping.await.unwrap().success());
}
