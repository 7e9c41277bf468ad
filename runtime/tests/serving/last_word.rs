//! The last word of a process, as whoever supervises it finds it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use plan::wire::process::{LastWord, exit, variable};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::failure::{Process, with_weights};
use crate::group::{MODEL, PATIENCE, program};

/// Runs a command to its end; its status, and what it left in its file.
fn ended(command: &mut Command) -> (Option<i32>, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("termination-log");
    fs::write(&file, "what an earlier process has said").unwrap();
    let command = command.env(variable::TERMINATION_FILE, &file).stdout(Stdio::null()).stderr(Stdio::null());
    (command.status().unwrap().code(), fs::read_to_string(file).unwrap())
}

fn words(left: &str) -> String {
    LastWord::from_json(left.as_bytes()).unwrap_or_else(|error| panic!("{left:?}: {error}")).words
}

fn local(model: &Path) -> Command {
    let mut command = program();
    command.args(["local", "--ranks", "2", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--model"]);
    command.arg(model);
    command
}

#[test]
fn a_process_that_cannot_start_leaves_its_reason() {
    let (code, left) = ended(&mut local(Path::new("/nowhere")));
    assert_eq!(code, Some(i32::from(exit::FAILED)));
    assert!(words(&left).contains("/nowhere"), "{left}");
}

#[test]
fn a_process_that_does_not_take_its_command_line_says_which_part_and_ends_with_a_status_of_its_own() {
    let (code, left) = ended(program().args(["coordinator", "--later", "1"]));
    assert_eq!((code, words(&left).as_str()), (Some(i32::from(exit::USAGE)), "unexpected argument '--later' found"));
    let (code, left) = ended(local(Path::new(MODEL)).args(["--staging-pages", "0"]));
    let said = "invalid value '0' for '--staging-pages <PAGES>': must be a whole number from 1 to 65536";
    assert_eq!((code, words(&left).as_str()), (Some(i32::from(exit::USAGE)), said));
}

#[test]
fn a_process_that_does_what_it_was_asked_leaves_nothing() {
    assert_eq!(ended(program().arg("--version")), (Some(0), String::new()));
    assert_eq!(ended(program().args(["inspect", "--model", MODEL])), (Some(0), String::new()));
}

#[test]
fn a_group_leaves_its_own_last_word_and_not_that_of_a_rank() {
    let model = with_weights("model.layers.1.mlp.experts.31.down_proj.weight", half::bf16::NAN, 1);
    let (code, left) = ended(&mut local(model.path()));
    assert_eq!(code, Some(i32::from(exit::FAILED)));
    assert!(words(&left).starts_with("rank 1 cannot serve: the experts cannot be loaded"), "{left}");
}

#[test]
fn a_rank_that_is_refused_says_so_and_a_coordinator_that_is_told_to_end_says_nothing() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("secret"), "s".repeat(32)).unwrap();
    let control = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut coordinator = program();
    coordinator.args(["coordinator", "--model", MODEL, "--ranks", "1", "--listen", "127.0.0.1:0", "--admin-listen"]);
    coordinator.args(["127.0.0.1:0", "--control-listen", &control, "--secret-file"]).arg(file("secret"));
    let mut coordinator = Process(coordinator.env(variable::TERMINATION_FILE, file("coordinator")).spawn().unwrap());

    let mut rank = program();
    rank.args([
        "worker",
        "--model",
        MODEL,
        "--rank",
        "5",
        "--coordinator",
        &control,
        "--advertise-address",
        "127.0.0.1",
    ]);
    rank.args(["--listen", "127.0.0.1:0", "--move-listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"]);
    let (code, left) = ended(rank.arg("--secret-file").arg(file("secret")));
    assert_eq!(code, Some(i32::from(exit::FAILED)));
    assert!(words(&left).starts_with("the coordinator refused this rank: "), "{left}");

    kill_process(Pid::from_child(&coordinator.0), Signal::TERM).unwrap();
    let started = Instant::now();
    let status = loop {
        match coordinator.0.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(started.elapsed() < PATIENCE, "it does not end"),
        }
        std::thread::yield_now();
    };
    assert_eq!((status.code(), fs::read_to_string(file("coordinator")).unwrap().as_str()), (Some(0), ""));
}
