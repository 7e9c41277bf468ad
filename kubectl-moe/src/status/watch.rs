//! `--watch` of deployments, which the API server tells of.

use std::pin::pin;

use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};

use super::list::Changes;
use crate::cluster::Cluster;
use crate::output::Output;
use crate::{PluginError, Terminal};

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
