#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
//! Every query of every dashboard, and what every alert looks at, on a Prometheus that scrapes the runtime while its load shifts. With
//! `SWIFTBALANCER_DASHBOARDS=draw` it goes on for minutes and draws each dashboard into docs/dashboards.

mod draw;
mod prometheus;
mod queries;
mod scraped;

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::traffic::{Domain, Target, Traffic};
use tests::wait;

use prometheus::Prometheus;
use scraped::Deployment;

/// Domains that follow each other: each has other busy experts than the one before.
const DOMAINS: [&str; 3] = ["python", "chat", "scripture"];
/// How long each lasts: until all queries have data it is short.
const SHIFT: Duration = Duration::from_secs(15);
/// How long the load shifts before the dashboards are drawn.
const DRAWN_AFTER: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_every_dashboard_has_data_of_a_runtime_whose_load_shifts() -> Result<()> {
    let deployment = Deployment::start().await?;
    let prometheus = Prometheus::start(&deployment.targets()).await?;
    let target =
        Target { url: deployment.openai.clone(), model: "tiny-moe".to_owned(), concurrency: 8, max_tokens: 16 };
    let traffic = Traffic::start(target, Domain::load(DOMAINS[0])?);
    let shifting = async {
        for number in 1.. {
            tokio::time::sleep(SHIFT).await;
            traffic.shift(Domain::load(DOMAINS[number % DOMAINS.len()])?);
        }
        anyhow::Ok(())
    };
    let queries = queries::of_dashboards();
    ensure!(queries.len() > 80, "{} queries", queries.len());
    let checked = async {
        let mut missing: Vec<_> = queries.iter().collect();
        wait::until("every query has data", Duration::from_mins(4), async || {
            let mut left = Vec::new();
            for query in missing.drain(..) {
                if prometheus.query(&query.expression).await?.is_empty() {
                    left.push(query);
                }
            }
            missing = left;
            ensure!(missing.is_empty(), "{} have none: {missing:#?}", missing.len());
            Ok(())
        })
        .await?;
        for query in queries.iter().chain(&queries::of_alerts()) {
            let tree = prometheus.parse(&query.expression).await?;
            queries::check(&prometheus, &query.place, &tree).await?;
        }
        if draw::is_asked() {
            tokio::time::sleep(DRAWN_AFTER).await;
            draw::all(&prometheus).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        outcome = checked => outcome?,
        outcome = shifting => outcome?,
    }
    let seen = traffic.stop().await;
    ensure!(seen.failures.is_empty(), "{} requests failed: {:?}", seen.failures.len(), seen.failures.first());
    deployment.stop().await
}
