//! `kubectl moe monitor`: what a coordinator does now. On a terminal a picture that stays, elsewhere lines. Here is the shell: who
//! is asked, when, and where it is shown; what is shown is made in the modules.

mod frame;
mod lines;
mod screen;
mod view;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use plan::wire::MonitorDocument;
use plan::words::with_causes;
use tokio::time::{MissedTickBehavior, interval};

use self::frame::Look;
use self::lines::Lines;
use self::screen::{Key, Screen};
pub(crate) use self::view::{Load, Rates, View};
use crate::cluster::{Cluster, resource_name};
use crate::connection::Connection;
use crate::coordinator::Coordinator;
use crate::output::{Output, yaml};
use crate::{PluginError, Terminal};

/// Arguments of `kubectl moe monitor`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::doc_markdown, reason = "the help text is no Markdown")]
pub(crate) struct MonitorArguments {
    /// Name of the MoEDeployment
    #[arg(required_unless_present = "url")]
    name: Option<String>,
    /// Replica that is shown
    #[arg(long, default_value_t = 0, conflicts_with = "url")]
    replica: usize,
    /// Admin port of a coordinator to ask instead, such as http://127.0.0.1:8001; needs no cluster
    #[arg(long, value_name = "URL", conflicts_with = "name")]
    url: Option<String>,
    /// File with the admin token, for --url
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// Times a second that the coordinator is asked, from 1 to 10
    #[arg(long, value_name = "TIMES", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    updates_per_second: u32,
    /// How it is shown; json and yaml are all that the coordinator says, a document for each update
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

/// Who is asked.
struct Source {
    coordinator: Coordinator,
    timeout: Option<Duration>,
}

impl Source {
    async fn find(arguments: &MonitorArguments, connection: &Connection) -> Result<Self, PluginError> {
        let timeout = connection.request_timeout();
        let coordinator = match (&arguments.url, &arguments.name) {
            (Some(url), _) => Coordinator::at(url, arguments.token_file.as_deref())?,
            (None, name) => {
                let cluster = Cluster::reach(connection).await?;
                cluster.coordinator(name.as_deref().unwrap_or_default(), arguments.replica).await?
            }
        };
        Ok(Self { coordinator, timeout })
    }

    async fn ask(&self, after: u64) -> Result<MonitorDocument, PluginError> {
        crate::cluster::within(self.timeout, self.coordinator.monitor(after)).await
    }
}

pub(crate) async fn monitor(
    arguments: &MonitorArguments,
    outer: Connection,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    terminal.progress.doing("asking the coordinator");
    let source = Source::find(arguments, &arguments.connection.clone().or(outer)).await?;
    let first = source.ask(0).await?;
    let period = Duration::from_secs(1) / arguments.updates_per_second;
    match arguments.output {
        Output::Name => {
            let name = arguments.name.as_deref().map_or_else(|| first.model.name.clone(), resource_name);
            terminal.print(&(name + "\n"))
        }
        Output::Json | Output::Yaml => documents(&source, first, period, arguments.output, terminal).await,
        Output::Table | Output::Wide if terminal.is_a_screen => {
            terminal.progress.done();
            let is_wide = arguments.output.is_wide();
            let title = arguments.name.as_ref().or(arguments.url.as_ref()).cloned().unwrap_or_default();
            picture(&source, first, period, (title, is_wide)).await
        }
        Output::Table | Output::Wide => lines(&source, first, period, terminal).await,
    }
}

/// Every document, as it comes.
async fn documents(
    source: &Source,
    first: MonitorDocument,
    period: Duration,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    let form = |document: &MonitorDocument| match output {
        Output::Yaml => format!("---\n{}", yaml(document)),
        _ => serde_json::to_string(document).expect("a document is plain data") + "\n",
    };
    let mut known = 0;
    each(source, first, period, terminal, |document, terminal| {
        known = document.events.last().map_or(known, |event| event.number);
        terminal.print(&form(&document))?;
        Ok(known)
    })
    .await
}

/// A line for what happens, and one every other second for how it is.
async fn lines(
    source: &Source,
    first: MonitorDocument,
    period: Duration,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    let (mut view, mut lines) = (View::default(), Lines::default());
    each(source, first, period, terminal, |document, terminal| {
        view.take(document);
        let text = lines.of(&view);
        if !text.is_empty() {
            terminal.print(&text)?;
        }
        Ok(view.known())
    })
    .await
}

/// Shows each document until it cannot be shown, or until the coordinator is one that never answers again. `show` gives the number of
/// the last event that it knows.
async fn each(
    source: &Source,
    first: MonitorDocument,
    period: Duration,
    terminal: &mut Terminal<'_>,
    mut show: impl FnMut(MonitorDocument, &mut Terminal<'_>) -> Result<u64, PluginError>,
) -> Result<(), PluginError> {
    let mut known = show(first, terminal)?;
    let mut ticks = ticks(period);
    let mut is_cut = false;
    loop {
        ticks.tick().await;
        match source.ask(known).await {
            Ok(document) => {
                is_cut = false;
                known = show(document, terminal)?;
            }
            Err(error) if error.may_pass() => {
                if !std::mem::replace(&mut is_cut, true) {
                    terminal.warn(&format!("{}; trying again", with_causes(&error)));
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    // Who is late asks once, not for every time that was missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

/// A picture that stays, until somebody has seen enough.
async fn picture(
    source: &Source,
    first: MonitorDocument,
    period: Duration,
    (title, is_wide): (String, bool),
) -> Result<(), PluginError> {
    let mut view = View::default();
    view.take(first);
    let look = Look { title, is_wide, colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
    let mut screen = Screen::open().map_err(PluginError::Output)?;
    let mut ticks = ticks(period);
    let mut is_held = false;
    loop {
        screen.draw(|frame| frame::draw(frame, &view, &look, is_held)).map_err(PluginError::Output)?;
        let known = view.known();
        let answer = async {
            ticks.tick().await;
            source.ask(known).await
        };
        tokio::pin!(answer);
        // What is pressed is done at once, whatever the coordinator does meanwhile.
        loop {
            tokio::select! {
                answer = &mut answer => match answer {
                    Ok(document) if is_held => drop(document),
                    Ok(document) => view.take(document),
                    Err(error) if error.may_pass() => view.fail(with_causes(&error)),
                    Err(error) => return Err(error),
                },
                key = screen.key() => match key {
                    Key::Quit => return Ok(()),
                    Key::Hold => {
                        is_held = !is_held;
                        screen.draw(|frame| frame::draw(frame, &view, &look, is_held)).map_err(PluginError::Output)?;
                        continue;
                    }
                    Key::Redraw => {
                        screen.draw(|frame| frame::draw(frame, &view, &look, is_held)).map_err(PluginError::Output)?;
                        continue;
                    }
                },
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests;
