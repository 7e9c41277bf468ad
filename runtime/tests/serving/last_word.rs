//! The last word of a process, as whoever supervises it finds it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plan::ids::RankId;
use plan::wire::process::{LastWord, exit, variable};
use runtime::device::Device;
use runtime::fabric::handshake::call;
use runtime::fabric::purpose::Purpose;
use runtime::fabric::secret::Secret;
use runtime::model::checkpoint::Checkpoint;
use runtime::protocol::{FromRank, ProcessId, RankDevice};
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
    // Whatever a later release has.
    let (code, left) = ended(local(Path::new(MODEL)).args(["--backend", "abacus"]));
    let unknown = "abacus".parse::<Device>().unwrap_err();
    let said = format!("invalid value 'abacus' for '--backend <DEVICE>': {unknown}");
    assert_eq!((code, words(&left)), (Some(i32::from(exit::USAGE)), said));
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

/// A coordinator whose ranks register at `control`, with a secret and other files in `folder`.
fn coordinator(ranks: &str, control: &str, folder: &Path) -> Command {
    fs::write(folder.join("secret"), "s".repeat(32)).unwrap();
    let mut coordinator = program();
    coordinator.args(["coordinator", "--model", MODEL, "--ranks", ranks, "--listen", "127.0.0.1:0", "--admin-listen"]);
    coordinator.args(["127.0.0.1:0", "--control-listen", control, "--secret-file"]).arg(folder.join("secret"));
    coordinator.env(variable::TERMINATION_FILE, folder.join("coordinator"));
    coordinator
}

/// A rank of it.
fn worker(rank: &str, control: &str, folder: &Path) -> Command {
    let mut worker = program();
    worker.args(["worker", "--model", MODEL, "--rank", rank, "--coordinator", control]);
    worker.args(["--listen", "127.0.0.1:0", "--move-listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"]);
    worker.args(["--advertise-address", "127.0.0.1", "--secret-file"]).arg(folder.join("secret"));
    worker
}

/// An address that nobody listens on.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_rank_that_is_refused_says_so_and_a_coordinator_that_is_told_to_end_says_nothing() {
    let (folder, control) = (TempDir::new().unwrap(), free_address());
    let mut coordinator = Process(coordinator("1", &control, folder.path()).spawn().unwrap());

    let (code, left) = ended(&mut worker("5", &control, folder.path()));
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
    let left = fs::read_to_string(folder.path().join("coordinator")).unwrap();
    assert_eq!((status.code(), left.as_str()), (Some(0), ""));
}

/// Registers as rank 0, on a device that no build has, with a coordinator that begins to listen; registered until it is dropped.
struct OtherDevice {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OtherDevice {
    fn register(control: &str, folder: &Path) -> Self {
        let secret = Secret::read(&folder.join("secret")).unwrap();
        let started = Instant::now();
        let mut connection = loop {
            match call(control, "the coordinator", (Purpose::Control, &secret), PATIENCE) {
                Ok(connection) => break connection,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::yield_now();
        };
        let device = RankDevice {
            kind: "abacus".to_owned(),
            name: "of beads".to_owned(),
            unit: "0".to_owned(),
            page_layout: "wires".to_owned(),
            page_bytes: 7,
            memory: 10,
        };
        let registration = FromRank::Register {
            process: ProcessId(1),
            rank: RankId(0),
            model: Checkpoint::open(Path::new(MODEL)).unwrap().identity(""),
            step_address: "127.0.0.1:1".to_owned(),
            move_address: "127.0.0.1:2".to_owned(),
            block_tokens: 16,
            node: "elsewhere".to_owned(),
            device: device.into(),
        };
        connection.send(&registration).unwrap();
        let (stop, stopped) = channel();
        let live = move || {
            while stopped.recv_timeout(Duration::from_millis(500)) == Err(RecvTimeoutError::Timeout) {
                connection.send(&FromRank::Alive).unwrap();
            }
        };
        Self { stop: Some(stop), thread: Some(std::thread::spawn(live)) }
    }
}

impl Drop for OtherDevice {
    fn drop(&mut self) {
        drop(self.stop.take());
        // What it panicked with fails no more than the test has.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

#[test]
fn a_rank_on_another_kind_of_device_than_those_that_are_there_is_refused_before_it_is_told_to_load_anything() {
    let (folder, control) = (TempDir::new().unwrap(), free_address());
    let mut coordinator = coordinator("2", &control, folder.path());
    let mut coordinator = Process(coordinator.stderr(Stdio::piped()).spawn().unwrap());
    let _other = OtherDevice::register(&control, folder.path());
    let mut log = BufReader::new(coordinator.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let registered = log.find(|line| line.contains("rank registered")).unwrap();
    assert!(registered.contains("abacus (of beads)"), "{registered}");

    let (code, left) = ended(&mut worker("1", &control, folder.path()));
    assert_eq!(code, Some(i32::from(exit::FAILED)));
    let said = words(&left);
    let start = "the coordinator refused this rank: rank 1 computes on cpu (";
    let end = ") and rank 0 on abacus (of beads); give all ranks devices of one kind, with the same --backend";
    assert!(said.starts_with(start) && said.ends_with(end), "{said}");
    assert!(log.find(|line| line.contains("registration refused")).unwrap().contains("abacus"));
}
