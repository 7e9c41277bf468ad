//! Weights that cannot be served: the reason is told where somebody looks for it, and nothing tries again and again.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use plan::ids::RankId;
use plan::wire::{State, path};
use runtime::fabric::framing::ConnectionError;
use runtime::fabric::handshake::{ANSWER_BYTES, call};
use runtime::fabric::purpose::{Hello, Purpose};
use runtime::fabric::secret::Secret;
use runtime::protocol::{FromRank, ProcessId};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use crate::client::complete;
use crate::group::{Group, MODEL, PATIENCE, limited_program, program};

/// A copy of the model in which the first weight of a tensor is no number.
fn spoilt(tensor: &str) -> TempDir {
    with_weights(tensor, half::bf16::NAN, 1)
}

/// A copy of the model in which the first weights of a tensor are this one.
pub fn with_weights(tensor: &str, weight: half::bf16, count: usize) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(MODEL).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let file = copy.path().join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let start = 8 + size + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    for place in bytes[start..start + 2 * count].chunks_exact_mut(2) {
        place.copy_from_slice(&weight.to_le_bytes());
    }
    std::fs::write(file, bytes).unwrap();
    copy
}

/// Ends with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_group_on_this_machine_ends_with_what_its_rank_says_of_the_weights() {
    for (tensor, what) in [
        ("model.layers.1.mlp.experts.31.down_proj.weight", "rank 1 cannot serve: the experts cannot be loaded"),
        ("model.layers.2.self_attn.k_proj.weight", "rank 0 cannot serve: the checkpoint cannot be served"),
    ] {
        let model = spoilt(tensor);
        let started = Instant::now();
        let mut command = program();
        command.args(["--log-format", "json", "local", "--ranks", "2", "--listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", "127.0.0.1:0", "--model"]).arg(model.path());
        let output = command.stdout(Stdio::null()).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(started.elapsed() < PATIENCE);
        // Ranks write their own lines, as text.
        let last = log.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok()).unwrap();
        let message = last["fields"]["message"].as_str().unwrap();
        let weight = format!("tensor {tensor} has a weight that is infinite or not a number, element 0");
        // Both ranks need the attention's weights: whichever says so first is told.
        let message = message.replace("rank 1 cannot serve: the checkpoint", "rank 0 cannot serve: the checkpoint");
        assert!(message.starts_with(what) && message.ends_with(&weight), "{message}");
        assert_eq!(message.matches("infinite").count(), 1, "{message}");
        assert!(!log.contains("it is started again"), "{log}");
    }
}

#[tokio::test]
async fn a_failure_that_a_stranger_tells_ends_no_group_on_this_machine() {
    let group = Group::start(1, &[]).await;
    let (ranks, words) = (group.ranks(), "words of a stranger");
    let failed = FromRank::Failed { process: ProcessId(1), rank: RankId(0), reason: words.to_owned() };
    let message = postcard::to_allocvec(&failed).unwrap();
    let message = [&(message.len() as u32).to_le_bytes()[..], &message].concat();
    let hello = Hello { purpose: Purpose::Control, challenge: [7; 32] }.to_bytes();
    // At once, after a greeting, and after a proof that is none.
    for before in [&[][..], &hello, &[&hello[..], &[1; 32]].concat()] {
        let mut stream = TcpStream::connect(&group.control).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be turned away before it has said all.
        let _ = stream.write_all(&[before, &message].concat());
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(heard.len() <= ANSWER_BYTES, "an answer to a greeting and nothing else: {} bytes", heard.len());
    }
    let purpose = (Purpose::Control, &Secret::draw().unwrap());
    let error = call(&group.control, "it", purpose, PATIENCE).unwrap_err();
    assert!(matches!(error, ConnectionError::SecretDiffers { .. }), "{error}");
    group.until("it is told", async || group.has_logged(&["a caller was turned away", "the secret differs"])).await;
    assert_eq!(complete(&group, &json!({"prompt": "Once", "max_tokens": 3})).await.0, 200);
    let state = reqwest::get(format!("{}{}", group.admin, path::STATE)).await.unwrap().bytes().await.unwrap();
    let State { ready, failure, generation, .. } = State::from_json(&state).unwrap();
    assert_eq!((ready, failure, generation), (true, None, 1));
    assert_eq!(group.ranks(), ranks, "nobody was lost");
    assert!(!group.has_logged(&[words]));
}

/// A coordinator and one rank as processes that know each other by address only.
struct Apart {
    coordinator: Process,
    url: String,
    admin: String,
    control: String,
    secret: NamedTempFile,
}

impl Apart {
    fn start(options: &[&str]) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (listen, admin, control) = (free(), free(), free());
        let mut command = program();
        command.args(["coordinator", "--model", MODEL, "--served-model-name", "tiny", "--ranks", "1"]);
        command.args(["--listen", &listen, "--admin-listen", &admin, "--control-listen", &control]);
        command.args(options);
        let secret = NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "what coordinator and ranks share\n").unwrap();
        command.arg("--secret-file").arg(secret.path());
        let coordinator = Process(command.spawn().unwrap());
        Self { coordinator, secret, url: format!("http://{listen}"), admin: format!("http://{admin}"), control }
    }

    fn rank(&self, model: &Path) -> (Process, String) {
        self.rank_by(program(), model)
    }

    fn rank_by(&self, mut command: Command, model: &Path) -> (Process, String) {
        let health = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        command.args(["worker", "--rank", "0", "--coordinator", &self.control, "--advertise-address", "127.0.0.1"]);
        command.args(["--listen", "127.0.0.1:0", "--move-listen", "127.0.0.1:0", "--health-listen", &health]);
        command.args(["--node", "node-7", "--model"]).arg(model);
        command.arg("--secret-file").arg(self.secret.path());
        (Process(command.spawn().unwrap()), format!("http://{health}"))
    }

    async fn health(&self) -> Option<Value> {
        reqwest::get(format!("{}/health", self.url)).await.ok()?.json().await.ok()
    }

    async fn until(&mut self, status: &str) -> Value {
        let started = Instant::now();
        loop {
            assert!(self.coordinator.0.try_wait().unwrap().is_none(), "the coordinator goes on");
            match self.health().await {
                Some(health) if health["status"] == status => return health,
                health => assert!(started.elapsed() < PATIENCE, "not {status} within {PATIENCE:?}: {health:?}"),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn state(&self) -> State {
        let answer = reqwest::get(format!("{}{}", self.admin, path::STATE)).await.unwrap();
        State::from_json(&answer.bytes().await.unwrap()).unwrap()
    }

    async fn complete(&self) -> (u16, Value) {
        let body = json!({"prompt": "Once", "max_tokens": 3}).to_string();
        let answer =
            reqwest::Client::new().post(format!("{}/v1/completions", self.url)).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test]
async fn a_rank_that_cannot_serve_stays_and_says_so_until_one_that_can_takes_its_place() {
    let tensor = "model.layers.0.mlp.experts.7.up_proj.weight";
    let model = spoilt(tensor);
    let mut group = Apart::start(&[]);
    let (mut rank, rank_health) = group.rank(model.path());
    let reason = group.until("failed").await["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("rank 0 cannot serve: ") && reason.contains(tensor), "{reason}");
    let (status, body) = group.complete().await;
    assert_eq!(status, 503);
    assert_eq!((&body["error"]["message"], &body["error"]["type"]), (&json!(reason), &json!("server_error")));
    assert_eq!(body["error"]["code"], "service_unavailable");
    let state = group.state().await;
    assert_eq!((state.failure.as_ref(), state.ready), (Some(&reason), false));
    let ready = reqwest::get(format!("{rank_health}/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains(tensor));
    assert!(rank.0.try_wait().unwrap().is_none(), "a rank that ended would be started again, for ever");

    drop(rank);
    assert_eq!(group.state().await.failure, Some(reason), "the reason outlives its process");
    let (_rank, _) = group.rank(&PathBuf::from(MODEL));
    group.until("serving").await;
    assert_eq!(group.complete().await.0, 200);
    let state = group.state().await;
    assert_eq!((state.failure, state.ranks[0].node.as_str()), (None, "node-7"));
}

#[tokio::test]
async fn a_rank_that_has_not_the_memory_for_its_part_of_a_group_says_what_to_lower() {
    // Of 48 KiB each, these take all that its process may have.
    let mut group = Apart::start(&["--staging-pages", "65536"]);
    let (mut rank, _) = group.rank_by(limited_program("-v 3145728"), Path::new(MODEL));
    let reason = group.until("failed").await["reason"].as_str().unwrap().to_owned();
    let start = "rank 0 cannot serve: staging-pages 65536 takes 3.0 GiB on 1 rank(s), beside ";
    let end = " MiB of weights and activations, and a process (ulimit -v) has 3.0 GiB; lower it";
    assert!(reason.starts_with(start) && reason.ends_with(end), "{reason}");
    assert!(rank.0.try_wait().unwrap().is_none(), "a rank that ended would be started again, for ever");
}

/// An interrupt on a terminal reaches every process that was started there.
#[tokio::test]
async fn an_interrupted_group_of_processes_answers_what_runs_before_its_ranks_end() {
    let group = Group::start_as_leader(2).await;
    let body = json!({"prompt": "Once", "max_tokens": 800, "ignore_eos": true, "stream": true}).to_string();
    let asked = reqwest::Client::new().post(format!("{}/v1/completions", group.url)).body(body).send();
    let mut answer = asked.await.unwrap();
    let mut text = answer.chunk().await.unwrap().unwrap().to_vec();
    kill_process_group(Pid::from_raw(group.pid()).unwrap(), Signal::INT).unwrap();
    while let Some(more) = answer.chunk().await.unwrap() {
        text.extend_from_slice(&more);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.trim_end().ends_with("data: [DONE]") && !text.contains("\"error\""), "{text}");
    assert!(!group.has_logged(&["rank lost"]), "a rank ended before the requests");
}
