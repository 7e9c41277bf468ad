//! The page on the plugin is what the plugin does: `UPDATE_DOCS=1 cargo test -p kubectl-moe --test plugin` writes what the
//! commands of its examples print.

use std::fs;

use clap::CommandFactory as _;
use kubectl_moe::Arguments;

use super::{printed, workspace};

const PAGE: &str = "docs/kubectl-moe.md";

/// The page with what its commands print now; a command begins with `$ kubectl moe ` and may go on after a backslash.
fn as_run(page: &str) -> String {
    let mut written = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        written.extend([line, "\n"]);
        if line != "```console" {
            continue;
        }
        let mut block = lines.by_ref().take_while(|line| *line != "```");
        while let Some(line) = block.next() {
            let Some(start) = line.strip_prefix("$ kubectl moe ") else { continue };
            let mut command = start.to_owned();
            written.extend([line, "\n"]);
            while let Some(open) = command.strip_suffix('\\') {
                let more = block.next().unwrap();
                written.extend([more, "\n"]);
                command = format!("{open}{more}");
            }
            written += &printed(&command.split_whitespace().collect::<Vec<_>>());
        }
        written += "```\n";
    }
    written
}

#[test]
fn the_examples_of_the_page_print_what_it_shows() {
    let path = workspace().join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.matches("$ kubectl moe ").count() >= 5);
    let run = as_run(&page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return fs::write(&path, run).unwrap();
    }
    let differs = page.lines().zip(run.lines()).find(|(written, printed)| written != printed);
    assert!(page == run, "{PAGE} is stale: UPDATE_DOCS=1 cargo test -p kubectl-moe --test plugin; first: {differs:#?}");
}

/// Options of the commands that need no cluster are in the page, and no others.
#[test]
fn every_option_is_listed() {
    let page = fs::read_to_string(workspace().join(PAGE)).unwrap();
    let arguments = Arguments::command();
    let map = arguments.find_subcommand("map").unwrap();
    let commands = ["plan", "simulate", "size"].map(|name| arguments.find_subcommand(name).unwrap());
    let of_maps = ["convert", "check"].map(|name| map.find_subcommand(name).unwrap());
    let mut options: Vec<String> = commands
        .into_iter()
        .chain(of_maps)
        .flat_map(clap::Command::get_opts)
        .filter_map(|option| Some(format!("--{}", option.get_long()?)))
        .collect();
    options.sort();
    options.dedup();
    let mut listed: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `--"))
        .map(|rest| format!("--{}", rest.split([' ', '`']).next().unwrap()))
        .collect();
    listed.sort();
    assert_eq!(listed, options);
}
