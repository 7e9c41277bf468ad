//! An operator that cannot do its work says so, and stops when it is told to.

use std::time::Duration;

use super::{TINY, World};
use crate::fake_api::{FakeApi, Refusal};

#[tokio::test(start_paused = true)]
async fn an_operator_whose_caches_are_not_filled_stops_at_once() {
    for resource in ["moedeployments", "nodes", "pods"] {
        let api = FakeApi::new();
        api.refuse(&[Refusal {
            verb: "list",
            resource,
            code: 404,
            message: "the server could not find the requested resource",
        }]);
        let world = World::start_at(api, true);
        world.apply(TINY);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(world.metrics.unfilled(), resource, "what it waits for is told to whoever asks whether it is ready");
        let start = tokio::time::Instant::now();
        world.stop().await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_in_the_middle_of_a_pass_that_does_not_end_stops_soon() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    world.api.hang("create", "pods");
    world.api.delete("pods", "tiny-moe-0-rank-1");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let start = tokio::time::Instant::now();
    world.stop().await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
