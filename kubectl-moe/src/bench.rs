//! `kubectl moe bench`: synthetic traffic at a deployment, and what its users would feel. Here is the shell: requests and clocks; what is
//! sent is decided in `workload`, and what it means in `figures`.

mod answer;
mod figures;
mod report;
mod server;
mod workload;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::pin::pin;

use clap::Args;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until};

use self::answer::Sample;
use self::figures::Seen;
use self::report::Report;
use self::server::{Asked, PAUSE, Server};
use self::workload::{Pace, Stretch, Topic, Workload};
use crate::connection::Connection;
use crate::offline::write;
use crate::output::Output;
use crate::{PluginError, Terminal};

/// Arguments of `kubectl moe bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArguments {
    /// Name of the MoEDeployment, or the URL of a server of the OpenAI API
    target: String,
    /// Another one that gets the same traffic in turn, such as the same model with EPLB off
    #[arg(long, value_name = "TARGET")]
    against: Option<String>,
    /// Model to ask; the first that each serves if left out
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// File with the API key; for targets that are URLs
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Seconds of traffic at each target
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Requests under way at a time
    #[arg(long, value_name = "REQUESTS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: u32,
    /// Requests that begin each second, whatever was answered, in place of --concurrency
    #[arg(long, value_name = "REQUESTS", conflicts_with = "concurrency", allow_hyphen_values = true, value_parser = |text: &str| above_zero(text, 100_000.0))]
    rate: Option<f64>,
    /// Seconds after which the topic changes, and with it the experts that have most load
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    shift_seconds: u64,
    /// Topics, one after the other and over again; 1 never shifts
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    topics: u64,
    /// How uneven tokens of a topic are: the exponent of Zipf's law, 0 for all alike
    #[arg(long, value_name = "EXPONENT", default_value_t = 1.2, allow_hyphen_values = true, value_parser = |text: &str| not_negative(text, 100.0))]
    skew: f64,
    /// How many times as much traffic there is after every second change of topic
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, allow_hyphen_values = true, value_parser = |text: &str| above_zero(text, 100.0))]
    burst: f64,
    /// Tokens of a prompt
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prompt_tokens: u32,
    /// Tokens of an answer
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_tokens: u32,
    /// Prompts have token ids below this
    #[arg(long, value_name = "TOKENS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    vocabulary: u32,
    /// The same seed sends the same requests
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draw what was seen over time into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// How the result is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

fn above_zero(text: &str, most: f64) -> Result<f64, String> {
    let number = not_negative(text, most)?;
    if number > 0.0 { Ok(number) } else { Err("it must be above 0".to_owned()) }
}

fn not_negative(text: &str, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if (0.0..=most).contains(&number) { Ok(number) } else { Err(format!("it must be from 0 to {most}")) }
}

impl BenchArguments {
    fn workload(&self) -> Workload {
        Workload {
            seed: self.seed,
            seconds: self.seconds,
            shift_seconds: self.shift_seconds.min(self.seconds),
            topics: self.topics,
            skew: self.skew,
            vocabulary: self.vocabulary,
            prompt_tokens: self.prompt_tokens as usize,
            pace: self.rate.map_or(Pace::Concurrency(self.concurrency as usize), Pace::Rate),
            burst: self.burst,
        }
    }
}

pub(crate) async fn bench(
    arguments: &BenchArguments,
    outer: Connection,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    let connection = arguments.connection.clone().or(outer);
    let workload = arguments.workload();
    terminal.progress.doing("asking for the model");
    let mut servers = Vec::new();
    for target in std::iter::once(&arguments.target).chain(&arguments.against) {
        let (model, key) = (arguments.model.as_deref(), arguments.api_key_file.as_deref());
        servers.push(Server::find(target, model, key, &connection).await?);
    }
    let stretches = workload.stretches();
    let parts = Parts { workload: &workload, max_tokens: arguments.max_tokens };
    for server in &servers {
        parts.of(server, &stretches[0], &workload.topic(0)).works().await?;
    }
    let mut seen: Vec<Vec<Seen>> = vec![Vec::new(); servers.len()];
    for stretch in &stretches {
        let topic = workload.topic(stretch.topic);
        for (server, seen) in servers.iter().zip(&mut seen) {
            let done = stretch.number * 100 / stretches.len() as u64;
            terminal.progress.doing(&format!("{done} % done, now topic {} at {}", stretch.topic, server.target));
            seen.push(parts.of(server, stretch, &topic).run().await);
        }
    }
    let targets = servers.iter().map(|server| (server.target.clone(), server.model.clone()));
    let report = Report::new(&workload, arguments.max_tokens, targets.zip(&seen));
    // What was measured is shown even where it cannot be drawn.
    let plot = arguments.plot.as_ref();
    let drawn = plot.map(|path| write(path, report::chart(&servers_of(&servers), &seen).svg())).transpose();
    match &drawn {
        Ok(Some(Some(printed))) => terminal.print(printed)?,
        _ => terminal.print(&report.print(arguments.output))?,
    }
    drawn?;
    servers.iter().zip(&seen).try_for_each(|(server, seen)| judged(server, seen, terminal))
}

/// Tells of requests that failed; where all did, the benchmark has.
fn judged(server: &Server, seen: &[Seen], terminal: &mut Terminal<'_>) -> Result<(), PluginError> {
    let Some(reason) = seen.iter().find_map(|stretch| stretch.first_failure.clone()) else { return Ok(()) };
    if seen.iter().all(|stretch| stretch.samples.is_empty()) {
        return Err(PluginError::Benchmark { target: server.target.clone(), reason });
    }
    terminal.warn(&format!("requests at {} failed, the first with: {reason}", server.target));
    Ok(())
}

fn servers_of(servers: &[Server]) -> Vec<&str> {
    servers.iter().map(|server| server.target.as_str()).collect()
}

/// What all parts of a benchmark have in common.
struct Parts<'a> {
    workload: &'a Workload,
    max_tokens: u32,
}

impl<'a> Parts<'a> {
    const fn of(&self, server: &'a Server, stretch: &'a Stretch, topic: &'a Topic) -> Part<'a> {
        Part { workload: self.workload, max_tokens: self.max_tokens, server, stretch, topic }
    }
}

/// A stretch of traffic at one server.
struct Part<'a> {
    workload: &'a Workload,
    max_tokens: u32,
    server: &'a Server,
    stretch: &'a Stretch,
    topic: &'a Topic,
}

impl Part<'_> {
    /// One request, which is not counted: what cannot work is told before minutes are spent.
    async fn works(&self) -> Result<(), PluginError> {
        let failed = |reason| PluginError::Benchmark { target: self.server.target.clone(), reason };
        self.ask(u64::MAX, Instant::now()).await.map(drop).map_err(failed)
    }

    async fn run(&self) -> Seen {
        let began = Instant::now();
        let seen = RefCell::new(Seen::default());
        match self.stretch.pace {
            Pace::Concurrency(requests) => {
                let next = Cell::new(0);
                let client = async || {
                    while began.elapsed() < self.stretch.length {
                        let outcome = self.ask(next.replace(next.get() + 1), began).await;
                        let has_failed = outcome.is_err();
                        seen.borrow_mut().keep(outcome);
                        if has_failed {
                            sleep(PAUSE).await;
                        }
                    }
                };
                join_all((0..requests).map(|_| client())).await;
            }
            Pace::Rate(rate) => {
                let mut under_way = FuturesUnordered::new();
                for (number, at) in (0..).zip(self.workload.begins(self.stretch, rate)) {
                    let mut due = pin!(sleep_until(began + at));
                    loop {
                        tokio::select! {
                            () = &mut due => break,
                            Some(outcome) = under_way.next() => seen.borrow_mut().keep(outcome),
                        }
                    }
                    under_way.push(self.ask(number, began));
                }
                while let Some(outcome) = under_way.next().await {
                    seen.borrow_mut().keep(outcome);
                }
                // A stretch in which little comes is as long as any other.
                sleep_until(began + self.stretch.length).await;
            }
        }
        Seen { took: began.elapsed(), ..seen.into_inner() }
    }

    async fn ask(&self, number: u64, began: Instant) -> Result<Sample, String> {
        let prompt = self.workload.prompt(self.topic, self.stretch, number);
        self.server.ask(&Asked { prompt, max_tokens: self.max_tokens }, began).await
    }
}
