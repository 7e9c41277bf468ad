//! Deployments through the chart: they serve, recover, roll, rest and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::cluster::{NODES, Request, node_number};
use tests::namespace::{Namespace, in_namespace, node_condition};
use tests::traffic::{Domain, Target, Traffic};
use tests::{chart, wait};

use crate::deployment::{Deployment, nothing_is_left, target};
use crate::suite::{Suite, block_on, seconds};

const EXAMPLE: &str = "tiny-moe.yaml";

pub fn first_token_and_nothing_left(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "first_token", async |namespace| {
        let deployment = Deployment::apply(namespace, EXAMPLE, |_| {})?;
        deployment.ready().await?;
        suite.figure("kubectl apply until ready", seconds(deployment.applied))?;
        let mut first_token = None;
        let answer = deployment.answer(1, || first_token = first_token.or(Some(deployment.applied.elapsed()))).await?;
        let first_token = first_token.context("an answer without a token")?;
        suite.figure("kubectl apply until the first token", format_args!("{:.1} s", first_token.as_secs_f64()))?;
        ensure!(answer.finish_reason == "length", "{answer:?}");
        let pods = deployment.pods().await?;
        let expected: Vec<_> =
            std::iter::once(deployment.coordinator()).chain((0..4).map(|rank| deployment.rank(rank))).collect();
        ensure!(pods.keys().eq(&expected), "{:?}", pods.keys());

        let began = Instant::now();
        deployment.delete().await?;
        nothing_is_left(namespace).await?;
        suite.figure("deleting a deployment until no object is left", seconds(began))
    }))
}

pub fn deleted_rank(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "deleted_rank", async |namespace| {
        let deployment = Deployment::apply(namespace, EXAMPLE, |_| {})?;
        deployment.ready().await?;
        let answer = deployment.answer(1, || {}).await?;
        let generation = deployment.state().await?.generation;
        let began = Instant::now();
        namespace.kill_pod(&deployment.rank(1)).await?;
        recovered(&deployment, generation).await?;
        suite.figure("a deleted rank pod until ready again", seconds(began))?;
        ensure!(deployment.answer(1, || {}).await? == answer, "another answer than before the loss");
        Ok(())
    }))
}

pub fn node_cut_off(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "node_cut_off", async |namespace| {
        let deployment = Deployment::apply(namespace, EXAMPLE, |_| {})?;
        deployment.ready().await?;
        let answer = deployment.answer(1, || {}).await?;
        let generation = deployment.state().await?.generation;
        let lost = node_with_ranks_only(namespace, &deployment).await?;
        let began = Instant::now();
        cluster.cut_link(lost)?;
        let outcome = recovered(&deployment, generation).await;
        let time = seconds(began);
        let other = if lost == 1 { 2 } else { 1 };
        let again = deployment.answer(other, || {}).await;
        cluster.restore_link(lost)?; // before anything that may fail: the next test wants the node
        outcome?;
        suite.figure("a node cut off until ready again, 10 s of it until Kubernetes notices", time)?;
        ensure!(again? == answer, "another answer than before the loss");
        node_condition(&namespace.client, lost, "True", Duration::from_secs(40)).await
    }))
}

pub fn changed_spec_rolls(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "changed_spec_rolls", async |namespace| {
        let before = Deployment::apply(namespace, EXAMPLE, |_| {})?;
        before.ready().await?;
        let answer = before.answer(1, || {}).await?;
        let uids = uids(&before).await?;
        let after = Deployment::apply(namespace, EXAMPLE, |object| {
            object["spec"]["parallelism"]["data"] = json!(2);
            object["spec"]["eplb"]["initRedundancyExpert"] = json!(2);
        })?;
        after.ready().await?;
        suite.figure("a spec change until ready", seconds(after.applied))?;
        let pods = after.pods().await?;
        let expected: Vec<_> =
            std::iter::once(after.coordinator()).chain((0..2).map(|rank| after.rank(rank))).collect();
        ensure!(pods.keys().eq(&expected), "{:?}", pods.keys());
        ensure!(
            crate::serving::uids(&after).await?.iter().all(|uid| !uids.contains(uid)),
            "a pod of the old spec stayed"
        );
        ensure!(after.state().await?.ranks.len() == 2);
        ensure!(after.answer(1, || {}).await? == answer, "2 ranks give another answer than 4");
        Ok(())
    }))
}

/// Two replicas under traffic roll one after the other.
pub fn roll_under_traffic(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "roll_under_traffic", async |namespace| {
        let before = Deployment::apply(namespace, EXAMPLE, two_replicas)?;
        before.ready().await?;
        before.answer(1, || {}).await?;
        let old = uids(&before).await?;
        let service = before.service(1).await?;
        let traffic = Traffic::start(Target { concurrency: 4, ..target(&service.url()) }, Domain::load("prose")?);
        let after = Deployment::apply(namespace, EXAMPLE, |object| {
            two_replicas(object);
            object["spec"]["eplb"]["numIterationsEplbUpdate"] = json!(300);
        })?;
        after.ready().await?;
        suite.figure("a spec change of 2 replicas under traffic until ready", seconds(after.applied))?;
        let seen = traffic.stop().await;
        suite.figure(
            "requests during that roll: answered, failed",
            format_args!("{}, {}", seen.answered, seen.failures.len()),
        )?;
        ensure!(seen.failures.is_empty(), "{} requests failed: {:?}", seen.failures.len(), seen.failures.first());
        ensure!(uids(&after).await?.iter().all(|uid| !old.contains(uid)), "a pod of the old spec stayed");
        Ok(())
    }))
}

fn two_replicas(object: &mut Value) {
    object["spec"]["replicas"] = json!(2);
}

pub fn idle(suite: &Suite) -> Result<()> {
    const IDLE: Duration = Duration::from_mins(1);
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "idle", async |namespace| {
        let deployment = Deployment::apply(namespace, EXAMPLE, |_| {})?;
        deployment.ready().await?;
        deployment.answer(1, || {}).await?;
        let operator = format!("system:serviceaccount:{}:", chart::NAMESPACE);
        let mut audit = cluster.audit_log();
        let mut ours = async || {
            let ours = audit
                .read()?
                .into_iter()
                .filter(Request::is_write)
                .filter(|write| write.namespace == namespace.name || write.user.starts_with(&operator));
            anyhow::Ok(ours.collect::<Vec<_>>())
        };
        ours().await?;
        // What the last change has set off ends first: ten seconds without a write.
        wait::until("it has come to rest", Duration::from_mins(1), async || {
            ours().await?;
            tokio::time::sleep(Duration::from_secs(10)).await;
            let writes = ours().await?;
            if writes.is_empty() { Ok(()) } else { bail!("{writes:?}") }
        })
        .await?;
        tokio::time::sleep(IDLE).await; // the measurement
        let writes = ours().await?;
        suite.figure("writes to the API server by an idle deployment in 60 s", writes.len())?;
        ensure!(writes.is_empty(), "{writes:#?}");
        Ok(())
    }))
}

/// Ready, under a later generation of the group than before the loss.
async fn recovered(deployment: &Deployment<'_>, generation: u64) -> Result<()> {
    wait::until("the group is formed again", Duration::from_secs(150), async || {
        let state = deployment.state().await?;
        ensure!(state.generation > generation, "generation {} as before", state.generation);
        ensure!(state.ready, "the group is not formed");
        Ok(())
    })
    .await?;
    deployment.ready().await
}

async fn uids(deployment: &Deployment<'_>) -> Result<Vec<String>> {
    Ok(deployment.pods().await?.into_values().filter_map(|pod| pod.metadata.uid).collect())
}

/// A node with ranks, and neither the coordinator nor the operator on it.
async fn node_with_ranks_only(namespace: &Namespace<'_>, deployment: &Deployment<'_>) -> Result<usize> {
    let nodes = ["get", "pods", "--namespace", chart::NAMESPACE, "--output=jsonpath={.items[*].spec.nodeName}"];
    let mut taken: Vec<usize> =
        namespace.cluster.kubectl(nodes)?.stdout.split_whitespace().map(node_number).collect::<Result<_>>()?;
    let pods = deployment.pods().await?;
    let node = |name: &str| {
        let spec = pods.get(name).and_then(|pod| pod.spec.as_ref()).context("a pod without a spec")?;
        node_number(spec.node_name.as_deref().unwrap_or_default())
    };
    taken.push(node(&deployment.coordinator())?);
    let ranks = (0..4).map(|rank| node(&deployment.rank(rank))).collect::<Result<Vec<_>>>()?;
    (1..=NODES)
        .find(|node| ranks.contains(node) && !taken.contains(node))
        .with_context(|| format!("ranks on nodes {ranks:?}, coordinator and operator on {taken:?}"))
}
