//! `--watch` of what coordinators say: it is shown again when it changes, until whoever looks has seen enough.

use std::time::Duration;

use clap::Args;

use crate::output::Output;
use crate::{PluginError, Terminal};

/// Coordinators cannot be watched: they are asked this often.
const PERIOD: Duration = Duration::from_secs(2);

/// The option, for whatever shows what changes.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct WatchOption {
    /// Go on and show what changes
    #[arg(long, short)]
    pub watch: bool,
}

/// Shows what is read, and again what differs from what was shown last. It ends with an error if nothing can be read at first,
/// or if the deployment is gone; a coordinator that does not answer for a while is waited for.
pub(crate) async fn watch(
    output: Output,
    terminal: &mut Terminal<'_>,
    read: impl AsyncFnMut() -> Result<String, PluginError>,
) -> Result<(), PluginError> {
    every(PERIOD, output, terminal, read).await
}

async fn every(
    period: Duration,
    output: Output,
    terminal: &mut Terminal<'_>,
    mut read: impl AsyncFnMut() -> Result<String, PluginError>,
) -> Result<(), PluginError> {
    let (mut shown, mut is_cut) = (None, false);
    loop {
        match read().await {
            Ok(text) => {
                is_cut = false;
                if shown.as_ref() != Some(&text) {
                    let between = between(output, shown.is_none());
                    terminal.print(&format!("{between}{text}"))?;
                    shown = Some(text);
                }
            }
            Err(error) if shown.is_some() && error.may_pass() => {
                // Told once, until it answers again.
                if !std::mem::replace(&mut is_cut, true) {
                    terminal.warn(&format!("{}; trying again", plan::words::with_causes(&error)));
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(period).await;
    }
}

/// What keeps a text apart from the one before.
const fn between(output: Output, is_first: bool) -> &'static str {
    match output {
        Output::Yaml => "---\n",
        Output::Table | Output::Wide if !is_first => "\n",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed and warned of until an error ends it.
    async fn watched(output: Output, answers: &[Result<&str, bool>]) -> (String, String) {
        let (mut printed, mut warned) = (Vec::new(), Vec::new());
        let mut terminal = Terminal {
            input: &mut std::io::empty(),
            output: &mut printed,
            errors: &mut warned,
            now: &Duration::default,
            progress: &(),
            is_a_screen: false,
            input_is_read: false,
        };
        let mut answers = answers.iter();
        let late = || PluginError::Late { after: Duration::from_secs(1) };
        let read = async || match answers.next() {
            Some(Ok(text)) => Ok((*text).to_owned()),
            Some(Err(true)) => Err(late()),
            Some(Err(false)) | None => Err(PluginError::Output(std::io::Error::other("end"))),
        };
        every(Duration::ZERO, output, &mut terminal, read).await.unwrap_err();
        (String::from_utf8(printed).unwrap(), String::from_utf8(warned).unwrap())
    }

    #[tokio::test]
    async fn what_changes_is_shown_and_what_does_not_is_not() {
        let answers = [Ok("a\n"), Ok("a\n"), Ok("b\n"), Ok("a\n")];
        assert_eq!(watched(Output::Json, &answers).await.0, "a\nb\na\n");
        assert_eq!(watched(Output::Table, &answers).await.0, "a\n\nb\n\na\n");
        assert_eq!(watched(Output::Yaml, &answers).await.0, "---\na\n---\nb\n---\na\n");
    }

    #[tokio::test]
    async fn what_does_not_answer_for_a_while_is_told_once_and_waited_for() {
        let answers = [Ok("a\n"), Err(true), Err(true), Ok("b\n"), Err(true), Ok("b\n"), Err(false), Ok("c\n")];
        let (printed, warned) = watched(Output::Json, &answers).await;
        assert_eq!(printed, "a\nb\n");
        let told = "kubectl-moe: no answer within 1 s, the --request-timeout; trying again\n";
        assert_eq!(warned, told.repeat(2));
        assert_eq!(watched(Output::Json, &[Err(true), Ok("a\n")]).await, (String::new(), String::new()));
    }
}
