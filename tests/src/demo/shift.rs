//! Traffic that changes its domain, and a table of what the rebalancer does about it and what users feel of that.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use plan::wire::{State, WindowReport};

use super::stages::Stages;
use crate::traffic::{Domain, Latencies, Seen, Target, Traffic};
use crate::{admin, wait};

/// Domains in their order: text, chat, text, each with other experts than the one before.
const PHASES: [&str; 3] = ["python", "chat", "scripture"];
/// The domain at the end, which the recorded map is for.
pub const LAST: &str = PHASES[PHASES.len() - 1];
/// Ratio at which a phase counts as balanced.
pub const BALANCED: f64 = 0.94;
/// A phase ends after this many windows, balanced or not.
const MOST_WINDOWS: u64 = 12;
const WINDOW_LIMIT: Duration = Duration::from_mins(2);

/// Where a deployment is reached.
pub struct Endpoints {
    /// OpenAI API.
    pub openai: String,
    /// Admin API of its coordinator.
    pub admin: admin::Endpoint,
}

/// The traffic of the demo.
pub fn target(openai: &str) -> Target {
    Target { url: openai.to_owned(), model: "tiny-moe".into(), concurrency: 16, max_tokens: 24 }
}

/// Sends each domain until it is balanced. Fails if a request fails or the last domain does not become balanced.
pub async fn shift(endpoints: &Endpoints, stages: &Stages) -> Result<()> {
    let mut table = Table::new();
    let traffic = Traffic::start(target(&endpoints.openai), Domain::load(PHASES[0])?);
    let mut number = window_number(&admin::state(&endpoints.admin).await?);
    let mut all = Latencies::default();
    let mut last_ratio = 0.0;
    for phase in PHASES {
        traffic.shift(Domain::load(phase)?);
        for _ in 0..MOST_WINDOWS {
            let (state, window) = next_window(endpoints, number, &mut table).await?;
            number = window.number;
            let seen = traffic.take_seen();
            if let Some(failure) = seen.failures.first() {
                bail!("{} requests failed, the first: {failure}", seen.failures.len());
            }
            all.merge(&seen.between_tokens);
            table.row(phase, &state, &window, &seen);
            last_ratio = window.ratio;
            if last_ratio >= BALANCED {
                break;
            }
        }
    }
    let seen = traffic.stop().await;
    ensure!(seen.failures.is_empty(), "{} requests failed: {:?}", seen.failures.len(), seen.failures.first());
    ensure!(last_ratio >= BALANCED, "the last window of {LAST} has a ratio of {last_ratio:.3}, below {BALANCED}");
    let (half, most) = (milliseconds(&all, 0.5), milliseconds(&all, 0.99));
    stages.say(&format!("from token to token over all of it: p50 {half} ms, p99 {most} ms; no request failed"));
    Ok(())
}

/// Sends one domain until the first window has closed and returns that.
pub async fn first_window(endpoints: &Endpoints, domain: &str) -> Result<WindowReport> {
    let traffic = Traffic::start(target(&endpoints.openai), Domain::load(domain)?);
    let window = wait::until("the first window has closed", WINDOW_LIMIT, async || {
        match admin::state(&endpoints.admin).await?.first_window {
            Some(window) => Ok(window),
            None => bail!("no window has closed"),
        }
    });
    let window = window.await?;
    let seen = traffic.stop().await;
    ensure!(seen.failures.is_empty(), "{} requests failed: {:?}", seen.failures.len(), seen.failures.first());
    Ok(window)
}

fn window_number(state: &State) -> u64 {
    state.last_window.as_ref().map_or(0, |window| window.number)
}

async fn next_window(endpoints: &Endpoints, after: u64, table: &mut Table) -> Result<(State, WindowReport)> {
    wait::until("the next window has closed", WINDOW_LIMIT, async || {
        let state = admin::state(&endpoints.admin).await?;
        match state.last_window.clone() {
            Some(window) if window.number > after => Ok((state, window)),
            _ => {
                table.progress(&state);
                bail!("{} steps of it", state.window_steps)
            }
        }
    })
    .await
}

/// One row a window; on a terminal, the step of the open window below.
struct Table {
    began: Instant,
    last_row: Instant,
    terminal: bool,
}

impl Table {
    fn new() -> Self {
        println!("     time  traffic    window   ratio  epoch  moves  moved KiB  tokens/s  p50 ms  p99 ms");
        let now = Instant::now();
        Self { began: now, last_row: now, terminal: std::io::stdout().is_terminal() }
    }

    fn row(&mut self, domain: &str, state: &State, window: &WindowReport, seen: &Seen) {
        let now = Instant::now();
        let rate = seen.tokens as f64 / (now - self.last_row).as_secs_f64();
        self.last_row = now;
        self.clear();
        println!(
            " {:6.1} s  {domain:<9} {:>7}   {:.3} {:>6} {:>6} {:>10} {rate:>9.0} {:>7} {:>7}",
            self.began.elapsed().as_secs_f64(),
            window.number,
            window.ratio,
            state.epoch,
            state.moves.experts_moved,
            state.moves.bytes_moved / 1024,
            milliseconds(&seen.between_tokens, 0.5),
            milliseconds(&seen.between_tokens, 0.99),
        );
    }

    fn progress(&mut self, state: &State) {
        if self.terminal {
            let seconds = self.began.elapsed().as_secs_f64();
            print!("\r {seconds:6.1} s  step {} of the open window, {}   ", state.window_steps, state.phase);
            let _ = std::io::stdout().flush();
        }
    }

    fn clear(&self) {
        if self.terminal {
            print!("\r{:70}\r", "");
        }
    }
}

fn milliseconds(latencies: &Latencies, share: f64) -> String {
    latencies.quantile(share).map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e3))
}
