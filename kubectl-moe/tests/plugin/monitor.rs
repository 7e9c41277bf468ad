//! `kubectl moe monitor` as a program: where there is no terminal, and on one, which it gives back however it ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::api_server::ApiServer;
use super::{command, printed, run, text};

/// Lines of a command that goes on, which is ended when they are there.
fn lines_of(words: &[&str], count: usize) -> Vec<String> {
    let mut child = command(words).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).take(count).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    lines
}

#[test]
fn where_there_is_no_terminal_what_happens_is_told_in_lines_and_documents() {
    let server = ApiServer::start(&["tiny-moe"]);
    let base = ["monitor", "tiny-moe", "--server", &server.url, "--updates-per-second", "10"];
    let lines = lines_of(&base, 13);
    assert_eq!(lines[0], "0:00:01.5 group 2 serves");
    assert!(lines[10].contains("serving, epoch 6, collecting; TTFT 125 ms"), "{lines:?}");
    assert_eq!(lines[11], "0:12:34.2 window 1 of 400 steps: ratio 0.500");
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
    let server = ApiServer::start(&["tiny-moe"]);
    let base = ["monitor", "tiny-moe", "--server", &server.url, "--updates-per-second", "10", "-o", "json"];
    let documents: Vec<Value> = lines_of(&base, 3).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (documents[0]["events"].as_array().unwrap().len(), &documents[2]["events"][0]["number"]),
        (10, &18.into())
    );
    let asked: Vec<String> =
        server.asked().into_iter().map(|asked| asked.line).filter(|line| line.contains("monitor")).collect();
    assert!(asked[0].contains("/admin/v1/monitor?after=0 ") && asked[1].contains("?after=16 "), "{asked:?}");
    let yaml = lines_of(&["monitor", "tiny-moe", "--server", &server.url, "-o", "yaml"], 2);
    assert_eq!(yaml, ["---", "version: swiftbalancer.io/v1"]);
    let name = run(&["monitor", "tiny-moe", "--server", &server.url, "-o", "name"]);
    assert_eq!(text(&name.stdout), "moedeployment.swiftbalancer.io/tiny-moe\n");
}

#[test]
fn a_coordinator_is_asked_at_its_address_with_the_token_of_a_file() {
    let server = ApiServer::start(&["tiny-moe"]);
    let path = std::env::temp_dir().join(format!("kubectl-moe-token-{}", std::process::id()));
    fs::write(&path, "# of today\n0123456789abcdef0123456789abcdef\n").unwrap();
    let path_text = path.to_str().unwrap();
    let base = ["monitor", "--url", &server.url, "--token-file", path_text, "-o", "name"];
    let name = run(&base);
    assert_eq!((text(&name.stdout), text(&name.stderr)), ("tiny-moe\n".to_owned(), String::new()));
    let asked = server.asked().remove(0);
    assert!(asked.line.starts_with("GET /admin/v1/monitor?after=0 "), "{asked:?}");
    assert_eq!(asked.header("x-swiftbalancer-admin-token"), ["0123456789abcdef0123456789abcdef"]);
    fs::write(&path, "short\n").unwrap();
    let refused = |words: &[&str]| text(&run(words).stderr);
    let short = refused(&base);
    assert!(
        short.starts_with("kubectl-moe: the token cannot be read from ") && short.contains("32 visible"),
        "{short}"
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(
        refused(&["monitor", "--url", "127.0.0.1"]),
        "kubectl-moe: \"127.0.0.1\" is no URL of an admin port; one is written http://HOST:PORT\n"
    );
    let nobody = refused(&["monitor", "--url", "http://127.0.0.1:1"]);
    assert!(
        nobody.starts_with("kubectl-moe: http://127.0.0.1:1 cannot be asked for /admin/v1/monitor: this needs"),
        "{nobody}"
    );
}

/// The program on a terminal of its own.
fn on_a_terminal(server: &ApiServer, variable: &str) -> Child {
    let program = env!("CARGO_BIN_EXE_kubectl-moe");
    let line = format!("stty rows 24 cols 80; exec env {variable} {program} monitor tiny-moe --server {}", server.url);
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR");
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_terminal_is_given_back_however_it_ends() {
    // Where the program that makes a terminal is missing, as outside of Linux, this cannot be shown.
    if Command::new("script").arg("--version").output().is_err() {
        return;
    }
    let server = ApiServer::start(&["tiny-moe"]);
    for (key, variable) in [(&b"q"[..], "A=b"), (b"\x03", "NO_COLOR=1")] {
        let mut child = on_a_terminal(&server, variable);
        let (mut output, mut shown) = (child.stdout.take().unwrap(), Vec::new());
        // The picture is there when its last word is; what is blank anyway is not written.
        while !String::from_utf8_lossy(&shown).contains("ends") {
            let mut part = [0; 4096];
            let count = output.read(&mut part).unwrap();
            assert!(count > 0 && shown.len() < 1 << 20, "{}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&part[..count]);
        }
        child.stdin.as_mut().unwrap().write_all(key).unwrap();
        output.read_to_end(&mut shown).unwrap();
        assert!(child.wait().unwrap().success());
        let shown = String::from_utf8_lossy(&shown);
        let (taken, given) = (shown.find("\u{1b}[?1049h").unwrap(), shown.rfind("\u{1b}[?1049l").unwrap());
        assert!(taken < given, "{shown:?}");
        assert!(shown.contains("window") && shown.contains("TTFT"), "{shown}");
        // Colours begin with 38;5 or 3x; bold and the end of it are none.
        assert_eq!(shown.contains("\u{1b}[38;"), variable == "A=b", "{variable}: {shown:?}");
    }
}

#[test]
fn every_replica_is_asked_twice_and_has_a_row() {
    let server = ApiServer::start(&["tiny-moe", "other"]);
    let rows = printed(&["top", "--server", &server.url, "--seconds", "1", "--sort-by", "tokens"]);
    let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!((rows[0][..4].to_vec(), rows.len()), (vec!["NAME", "REPLICA", "READY", "TOKENS/S"], 3), "{rows:?}");
    assert!(rows[1..].iter().all(|row| row[1..3] == ["0", "True"]), "{rows:?}");
    let asked = server.asked().into_iter().filter(|asked| asked.line.contains("/proxy/admin/v1/monitor")).count();
    assert_eq!(asked, 4);
    let json: Value =
        serde_json::from_str(&printed(&["top", "other", "--server", &server.url, "--seconds", "1", "-o", "json"]))
            .unwrap();
    assert_eq!((&json["items"][0]["name"], &json["items"][0]["ready"]), (&"other".into(), &true.into()));
    let nobody = run(&["top", "--server", &server.url, "--namespace", "empty"]);
    assert!(text(&nobody.stderr).contains("no replica of an MoEDeployment in namespace empty"), "{nobody:?}");
}
