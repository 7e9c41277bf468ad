//! The secret that coordinator and ranks share, as processes are given it.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::group::{MODEL, PATIENCE, program};

/// Ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn coordinator(control: &str, secret: &Path) -> Command {
    let mut command = program();
    command.args(["coordinator", "--model", MODEL, "--ranks", "1", "--listen", "127.0.0.1:0"]);
    command.args(["--admin-listen", "127.0.0.1:0", "--control-listen", control, "--secret-file"]).arg(secret);
    command
}

fn worker(control: &str, secret: &Path) -> Command {
    let mut command = program();
    command.args(["worker", "--model", MODEL, "--rank", "0", "--coordinator", control]);
    command.args(["--advertise-address", "127.0.0.1", "--listen", "127.0.0.1:0", "--move-listen", "127.0.0.1:0"]);
    command.args(["--health-listen", "127.0.0.1:0", "--secret-file"]).arg(secret);
    command
}

fn logged(command: &mut Command, log: &Path) -> Process {
    Process(command.stdout(Stdio::null()).stderr(File::create(log).unwrap()).spawn().unwrap())
}

fn until_it_says(log: &Path, words: &str) {
    let started = Instant::now();
    while !std::fs::read_to_string(log).unwrap().contains(words) {
        assert!(started.elapsed() < PATIENCE, "not said: {words}: {}", std::fs::read_to_string(log).unwrap());
        std::thread::yield_now();
    }
}

#[test]
fn a_rank_with_another_secret_does_not_join_and_both_ends_say_why() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("one"), "1".repeat(32)).unwrap();
    std::fs::write(file("other"), "2".repeat(32)).unwrap();
    let control = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let _coordinator = logged(&mut coordinator(&control, &file("one")), &file("coordinator.log"));
    let other = logged(&mut worker(&control, &file("other")), &file("other.log"));
    until_it_says(&file("coordinator.log"), "the secret differs: both must read the same --secret-file");
    until_it_says(&file("other.log"), "the secret differs; both must read the same --secret-file");
    drop(other);
    let _right = logged(&mut worker(&control, &file("one")), &file("right.log"));
    until_it_says(&file("coordinator.log"), "group formed");
    for log in ["coordinator.log", "other.log", "right.log"] {
        let log = std::fs::read_to_string(file(log)).unwrap();
        assert!(!log.contains(&"1".repeat(32)) && !log.contains(&"2".repeat(32)), "a secret is logged: {log}");
    }
}

#[test]
fn a_secret_that_is_none_is_refused_at_the_start_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let short = folder.path().join("short");
    std::fs::write(&short, "too short\n").unwrap();
    for (path, expected) in [
        (&short, "has 9 bytes, less than 32; make one with `openssl rand -hex 32`"),
        (&folder.path().join("absent"), "cannot be read"),
    ] {
        for mut command in [coordinator("127.0.0.1:0", path), worker("127.0.0.1:1", path)] {
            let output = command.stdout(Stdio::null()).output().unwrap();
            let log = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && log.contains(expected) && log.contains("--secret-file"), "{log}");
        }
    }
}
