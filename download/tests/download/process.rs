//! The program, as its kubelet starts it, ends it and reads its last word.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use download::hub::Hub;
use plan::wire::process::{DownloadCommand, DownloadSource, LastWord, exit, variable};
use plan::wire::{DownloadDocument, DownloadPhase, path};

use super::fake_hub::{Behaviour, COMMIT, FakeHub, TOKEN, checkpoint};
use super::server::{Answer, Server};

fn source(endpoint: &str) -> DownloadSource {
    DownloadSource::HuggingFace {
        repository: "Org/Model".to_owned(),
        revision: "main".to_owned(),
        commit: None,
        endpoint: Some(endpoint.to_owned()),
    }
}

/// The program with the command line that a pod has, but for the port.
fn program(source: DownloadSource, folder: &Path, port: u16) -> Command {
    let command = DownloadCommand { source, folder: folder.to_str().unwrap().to_owned(), log_format: None };
    let mut arguments = command.arguments();
    let listen = arguments.iter().position(|argument| argument == "--listen").unwrap();
    arguments[listen + 1] = format!("127.0.0.1:{port}");
    let mut program = Command::new(env!("CARGO_BIN_EXE_swiftbalancer-download"));
    program.args(arguments).stderr(Stdio::null()).env(variable::TERMINATION_FILE, folder.with_extension("word"));
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", variable::HUB_TOKEN] {
        program.env_remove(name);
    }
    program
}

fn word(folder: &Path) -> String {
    fs::read_to_string(folder.with_extension("word")).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "not within a minute: {what}");
        std::thread::yield_now();
    }
}

fn progress(port: u16) -> Option<DownloadDocument> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", path::DOWNLOAD).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    DownloadDocument::from_json(answer.split("\r\n\r\n").nth(1)?.as_bytes()).ok()
}

fn stall(hub: &FakeHub, after: usize) {
    hub.behaviour.fault("model-1-of-2", move |mut answer| {
        answer.stall = Some(after);
        answer
    });
}

/// Starts it and waits until so much of the first shard is on the disk.
fn started(hub: &FakeHub, folder: &Path, port: u16, bytes: u64) -> Child {
    let child = program(source(&hub.api.url()), folder, port).spawn().unwrap();
    let file = folder.with_extension("partial").join("model-1-of-2.safetensors.part");
    until("so much of the file", || fs::metadata(&file).ok().filter(|found| found.len() == bytes));
    child
}

#[test]
fn killed_three_times_it_goes_on_and_no_byte_is_sent_twice() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    let mut there = 0;
    for more in [90_000, 80_000, 70_000] {
        stall(&hub, more);
        there += more as u64;
        let mut child = started(&hub, &folder, free_port(), there);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!folder.exists(), "half a model has the name of a whole one");
    }
    assert!(program(source(&hub.api.url()), &folder, free_port()).status().unwrap().success());
    assert_eq!(fs::read(folder.join("model-1-of-2.safetensors")).unwrap(), checkpoint()["model-1-of-2.safetensors"]);
    assert_eq!(hub.cdn.sent("model-1-of-2"), 300_000);
    let said = DownloadDocument::from_json(word(&folder).as_bytes()).unwrap();
    assert_eq!((said.phase, said.commit.as_deref()), (DownloadPhase::Complete.into(), Some(COMMIT)));
    assert_eq!(Some(said.bytes), said.total_bytes);
}

#[test]
fn it_tells_how_far_it_is_and_that_another_downloads() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    stall(&hub, 123_456);
    let (port, other) = (free_port(), free_port());
    let mut first = started(&hub, &folder, port, 123_456);
    let total = until("a document", || progress(port)?.total_bytes);
    let told = until("the rest of the files", || progress(port).filter(|told| told.bytes == total - 300_000 + 123_456));
    assert_eq!((told.phase, told.commit.as_deref()), (DownloadPhase::Downloading.into(), Some(COMMIT)));
    let mut second = program(source(&hub.api.url()), &folder, other).spawn().unwrap();
    until("a pod that waits", || progress(other).filter(|told| told.phase == DownloadPhase::Waiting));
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(second.wait().unwrap().success(), "the lock of a process that ended keeps nobody waiting");
    assert_eq!(hub.cdn.sent("model-1-of-2"), 300_000);
}

#[test]
fn told_to_stop_it_does_not_end_as_if_it_were_done() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    stall(&hub, 1000);
    let mut child = started(&hub, &folder, free_port(), 1000);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn its_last_word_says_what_to_do() {
    let hub = FakeHub::start(checkpoint(), Behaviour { is_private: true, ..Behaviour::default() });
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    let ended = program(source(&hub.api.url()), &folder, free_port()).status().unwrap();
    assert_eq!(ended.code(), Some(i32::from(exit::FAILED)));
    let said = LastWord::from_json(word(&folder).as_bytes()).unwrap();
    assert!(said.words.contains("401") && said.words.contains("tokenSecretRef"), "{}", said.words);
    let with_token = program(source(&hub.api.url()), &folder, free_port()).env(variable::HUB_TOKEN, TOKEN).status();
    assert!(with_token.unwrap().success());
    let ended = program(source("hub.example.com"), &folder, free_port()).status().unwrap();
    assert_eq!(ended.code(), Some(i32::from(exit::FAILED)));
    assert!(word(&folder).contains("endpoint"), "{}", word(&folder));
    let mut wrong = Command::new(env!("CARGO_BIN_EXE_swiftbalancer-download"));
    wrong.arg("--more").stderr(Stdio::null()).env(variable::TERMINATION_FILE, folder.with_extension("word"));
    assert_eq!(wrong.status().unwrap().code(), Some(i32::from(exit::USAGE)));
    assert!(word(&folder).contains("--more"), "{}", word(&folder));
}

#[test]
fn a_proxy_of_the_environment_is_used() {
    let hub = FakeHub::start(checkpoint(), Behaviour::default());
    // Passes on what is asked of one host that exists nowhere, and of the one that large files lie on.
    let (api, cdn) = (hub.api.address, hub.cdn.address);
    let proxy = Server::start(move |asked| {
        let rest = asked.target.strip_prefix("http://").unwrap_or_else(|| panic!("{}", asked.target));
        let (host, path) = rest.split_once('/').unwrap();
        let mut stream = TcpStream::connect(if host == "hub.invalid" { api } else { cdn }).unwrap();
        write!(stream, "{} /{path} HTTP/1.1\r\nhost: x\r\n\r\n", asked.method).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let location = head.lines().find_map(|line| line.strip_prefix("location: "));
        let passed = Answer::new(status, &answer[end + 4..]);
        location.map_or(passed.clone(), |location| passed.with("location", location))
    });
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("m");
    let mut program = program(source("http://hub.invalid"), &folder, free_port());
    assert!(program.env("http_proxy", proxy.url()).status().unwrap().success());
    assert_eq!((proxy.count("hub.invalid/api/"), proxy.count("/cdn/")), (1, 2));
}

#[test]
fn a_name_that_is_none_of_a_repository_is_refused() {
    for name in ["", "a/b/c", "../x", "a--b/c", "a b/c", "a/b?x", "-a/b", "a/.b"] {
        assert!(Hub::new(None, name, "main", None).is_err(), "{name}");
    }
    Hub::new(None, "Qwen/Qwen3-235B-A22B-Instruct-2507", "refs/pr/1", None).unwrap();
    Hub::new(None, "gpt2", "main", None).unwrap();
    assert!(Hub::new(None, "a/b", "a/../b", None).is_err());
    for endpoint in ["hub.example.com", "ftp://hub", "https://user:x@hub", "https://hub?x"] {
        assert!(Hub::new(Some(endpoint), "a/b", "main", None).is_err(), "{endpoint}");
    }
}
