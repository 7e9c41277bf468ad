//! What shells and kubectl are told when a word is to be completed. `kubectl-moe` has the scripts that shells take; for
//! `kubectl moe`, kubectl runs `kubectl_complete-moe` with the words so far and shows what that prints.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};
use kube::ResourceExt;

use crate::Arguments;
use crate::cluster::Cluster;
use crate::connection::Connection;

/// Arguments of `kubectl moe completion`.
#[derive(Args, Debug)]
pub(crate) struct CompletionArguments {
    /// The shell
    shell: Shell,
}

/// The script for a shell.
pub(crate) fn script(arguments: &CompletionArguments) -> String {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "kubectl-moe", &mut script);
    String::from_utf8(script).expect("a script is text")
}

/// What kubectl does with what it is told: it lets the shell add nothing of its own, such as names of files.
const NO_FILES: u8 = 4;
/// The same, and no space after the word: it goes on.
const NO_FILES_NO_SPACE: u8 = 6;

/// What `kubectl_complete-moe` prints for the words after `kubectl moe`, of which the last is to be completed; `folder` is
/// where files are looked for. The names of deployments are asked of the cluster.
#[must_use]
pub fn complete_for_kubectl(words: Vec<OsString>, folder: &Path) -> String {
    let line = words.clone();
    completed(words, folder, move || deployments(&line))
}

fn completed(
    words: Vec<OsString>,
    folder: &Path,
    deployments: impl Fn() -> Vec<String> + Clone + Send + Sync + 'static,
) -> String {
    let names = ArgValueCompleter::new(move |start: &OsStr| {
        let start = start.to_string_lossy();
        let names = deployments().into_iter().filter(|name| name.starts_with(&*start));
        names.map(CompletionCandidate::new).collect::<Vec<_>>()
    });
    let mut command = Arguments::command();
    let of_a_deployment = ["status", "top", "map", "load", "monitor", "rebalance"].map(|asking| (asking, "name"));
    for (asking, argument) in of_a_deployment.into_iter().chain([("bench", "target")]) {
        command = command.mut_subcommand(asking, |one| one.mut_arg(argument, |name| name.add(names.clone())));
    }
    let mut line = vec![OsString::from("kubectl-moe")];
    line.extend(words);
    let last = line.len() - 1;
    // kubectl shows nothing where nothing can be said.
    let candidates = complete(&mut command, line, last, Some(folder)).unwrap_or_default();
    let mut told = String::new();
    let shown: Vec<_> = candidates.iter().filter(|candidate| !candidate.is_hide_set()).collect();
    for candidate in &shown {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let line = help.lines().next().unwrap_or_default();
        let separator = if line.is_empty() { "" } else { "\t" };
        writeln!(told, "{value}{separator}{line}").expect("writing to a string does not fail");
    }
    let goes_on = shown.iter().any(|candidate| candidate.get_value().to_string_lossy().ends_with(['/', '=']));
    told + &format!(":{}\n", if goes_on { NO_FILES_NO_SPACE } else { NO_FILES })
}

/// The names of the deployments that the words so far are about; none where the cluster does not say.
fn deployments(words: &[OsString]) -> Vec<String> {
    let Some(connection) = connection_in(words) else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let found = runtime.block_on(async {
        let cluster = Cluster::reach(&connection).await?.hurried();
        cluster.deployments(false).await
    });
    found.unwrap_or_default().iter().map(ResourceExt::name_any).collect()
}

/// The options of the cluster among words that are no whole command line.
fn connection_in(words: &[OsString]) -> Option<Connection> {
    let words_of_others = clap::Arg::new("words").num_args(0..).allow_hyphen_values(false);
    let command = Connection::augment_args(Command::new("kubectl-moe").ignore_errors(true)).arg(words_of_others);
    let line = std::iter::once(OsString::from("kubectl-moe")).chain(words.iter().cloned());
    Connection::from_arg_matches(&command.try_get_matches_from(line).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &[&str]) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let names = || vec!["tiny-moe".to_owned(), "other".to_owned()];
        let told = completed(words.iter().map(OsString::from).collect(), &folder, names);
        told.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn commands_options_values_files_and_deployments_are_completed() {
        let commands = told(&[""]);
        assert!(
            ["status", "map", "plan", "version", ":4"].iter().all(|one| commands.contains(&(*one).to_owned())),
            "{commands:?}"
        );
        assert_eq!(told(&["reb"]), ["rebalance", ":4"]);
        assert_eq!(told(&["status", "t"]), ["tiny-moe", ":4"]);
        assert_eq!(told(&["status", "-n", "models", "ti"]), ["tiny-moe", ":4"]);
        assert_eq!(told(&["plan", "--poli"]), ["--policy", ":4"]);
        assert_eq!(told(&["plan", "--policy", "s"]), ["swift", ":4"]);
        assert_eq!(told(&["status", "-o", "js"]), ["json", ":4"]);
        assert_eq!(told(&["plan", "--load", "tiny-moe-l"]), ["tiny-moe-load.json", ":4"]);
        assert_eq!(told(&["plan", "--model", "mode"]), ["models/", ":6"]);
        assert_eq!(told(&["nonsense", "x"]).last().unwrap(), ":4");
    }

    #[test]
    fn the_cluster_is_that_of_the_words_so_far() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let plain = connection_in(&words("status ")).unwrap();
        let named = connection_in(&words("status -n models --context two ti")).unwrap();
        assert_ne!(named, plain);
        assert_eq!(named, connection_in(&words("map --context two -n models --recorded ti")).unwrap());
    }

    #[test]
    fn every_shell_has_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let script = script(&CompletionArguments { shell });
            assert!(script.contains("kubectl-moe") && script.contains("simulate"), "{shell}: {script}");
        }
    }
}
