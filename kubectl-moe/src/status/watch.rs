//! `--watch`: what is shown is shown again when it changes, until whoever looks has seen enough.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};

use super::list::Changes;
use super::one;
use crate::cluster::Cluster;
use crate::output::Output;
use crate::{PluginError, Terminal};

/// Coordinators cannot be watched: they are asked this often.
const PERIOD: Duration = Duration::from_secs(2);

/// One deployment and its coordinators; it ends with an error when the deployment is gone.
pub(super) async fn one(
    cluster: &Cluster,
    name: &str,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    let mut shown: Option<String> = None;
    loop {
        let text = one::read(cluster, name, output).await?;
        if shown.as_ref() != Some(&text) {
            let between = match output {
                Output::Table | Output::Wide if shown.is_some() => "\n",
                Output::Yaml => "---\n",
                _ => "",
            };
            terminal.print(&format!("{between}{text}"))?;
            shown = Some(text);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// All deployments of a namespace, or of all.
pub(super) async fn all(
    cluster: &Cluster,
    all_namespaces: bool,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    let mut events = pin!(watcher(cluster.api(all_namespaces), watcher::Config::default()).default_backoff());
    let mut changes = Changes::new(all_namespaces, output);
    let mut listed = Vec::new();
    let (mut has_begun, mut is_cut) = (false, false);
    while let Some(event) = events.next().await {
        let text = match event {
            Ok(event) => {
                is_cut = false;
                match event {
                    Event::Init => {
                        listed.clear();
                        String::new()
                    }
                    Event::InitApply(deployment) => {
                        listed.push(deployment);
                        String::new()
                    }
                    Event::InitDone => {
                        if listed.is_empty() && !has_begun {
                            terminal.warn(&format!("no MoEDeployment in {} yet", cluster.place(all_namespaces)));
                        }
                        has_begun = true;
                        changes.of(&std::mem::take(&mut listed))
                    }
                    Event::Apply(deployment) => changes.of(&[deployment]),
                    Event::Delete(deployment) => {
                        changes.forget(&deployment);
                        String::new()
                    }
                }
            }
            Err(error) => {
                let error = PluginError::Watch { place: cluster.place(all_namespaces), source: Box::new(error) };
                if !has_begun {
                    return Err(error);
                }
                // It is tried again, with pauses that grow; told once, until it works again.
                if !std::mem::replace(&mut is_cut, true) {
                    terminal.warn(&format!("{}; trying again", plan::words::with_causes(&error)));
                }
                String::new()
            }
        };
        if !text.is_empty() {
            terminal.print(&text)?;
        }
    }
    Ok(())
}
