#![forbid(unsafe_code)]
//! What the demo shows where Kubernetes cannot run: what it does on a cluster is tested there.

use anyhow::Result;

#[test]
fn without_kubernetes_experts_follow_the_traffic_and_a_second_start_is_balanced_at_once() -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(tests::demo::run_without_kubernetes())
}
