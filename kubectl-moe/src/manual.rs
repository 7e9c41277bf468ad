//! `kubectl moe man`: pages for `man`, made from the help of the commands.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_mangen::{Man, generate_to};

use crate::{Arguments, PluginError, Terminal};

/// Arguments of `kubectl moe man`.
#[derive(Args, Debug)]
pub(crate) struct ManualArguments {
    /// Write a page for each command into this folder, such as ~/.local/share/man/man1, instead of printing the first
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(crate) fn manual(arguments: &ManualArguments, terminal: &mut Terminal<'_>) -> Result<(), PluginError> {
    let Some(folder) = &arguments.out else {
        let mut page = Vec::new();
        Man::new(Arguments::command()).render(&mut page).expect("a page in memory can be written");
        return terminal.print(&String::from_utf8_lossy(&page));
    };
    let failed = |source| PluginError::Manual { path: folder.clone(), source };
    std::fs::create_dir_all(folder).and_then(|()| generate_to(Arguments::command(), folder)).map_err(failed)?;
    terminal.print(&format!("the pages are in {}: man -l {0}/kubectl-moe.1\n", folder.display()))
}
