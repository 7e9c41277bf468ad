//! A map that was found under load, and a group that starts from it.

use plan::wire::{LoadDocument, RecordedMap, State, path};

use crate::client::text;
use crate::greedy;
use crate::group::Group;

async fn state(group: &Group) -> State {
    let answer = reqwest::get(format!("{}{}", group.admin, path::STATE)).await.unwrap();
    State::from_json(&answer.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_group_starts_from_the_map_that_another_recorded_and_gives_the_same_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("map.json");
    let path = file.to_str().unwrap();
    let eplb = ["--init-redundancy-expert", "4", "--num-iterations-eplb-update", "60", "--dynamic-eplb"];
    let group = Group::start(4, &[&eplb[..], &["--expert-map-record-path", path]].concat()).await;
    let body = greedy("What is 7 times 8?", 100);
    let before = text(&group, &body).await;
    // Requests go on until the plan has been carried out: what is committed is committed by their steps.
    while state(&group).await.moves.rebalances == 0 {
        assert_eq!(text(&group, &body).await, before, "a move changes no token");
    }
    group.until("the map is written", async || file.exists()).await;
    let first = state(&group).await.first_window.unwrap();
    // Another window may have changed shares since then, and records the map again.
    assert!(group.stop().success());
    let recorded = RecordedMap::from_json(&std::fs::read(&file).unwrap()).unwrap();
    assert!(recorded.provenance.ratio > first.ratio, "{:?}", recorded.provenance);

    let started = Group::start(4, &["--init-redundancy-expert", "4", "--expert-map-path", path]).await;
    let now = state(&started).await;
    assert!(now.static_map);
    assert_eq!((now.epoch, now.map_hash), (0, recorded.map.content_hash()));
    assert_eq!(text(&started, &body).await, before);
}

#[tokio::test]
async fn a_window_is_closed_and_its_load_read_over_http() {
    let group = Group::start(2, &["--init-redundancy-expert", "2", "--dynamic-eplb"]).await;
    let client = reqwest::Client::new();
    let load = async || reqwest::get(format!("{}{}", group.admin, path::LOAD)).await.unwrap();
    assert_eq!(load().await.status(), 404, "no window has closed yet");
    let body = greedy("What is 7 times 8?", 20);
    text(&group, &body).await;
    let asked = client.post(format!("{}{}", group.admin, path::REBALANCE)).send().await.unwrap();
    assert_eq!(asked.status(), 202);
    // The window closes with a step.
    while load().await.status() == 404 {
        text(&group, &body).await;
    }
    let recorded: LoadDocument = load().await.json().await.unwrap();
    assert!(recorded.window >= 1 && recorded.counts.iter().flatten().sum::<u64>() > 0, "{recorded:?}");
}
