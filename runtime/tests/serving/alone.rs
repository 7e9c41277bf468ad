//! A rank that no coordinator is there for yet: it reads what every rank has whole, and says what is wrong with that.

use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use runtime::model::checkpoint::Checkpoint;
use tempfile::NamedTempFile;

use crate::failure::{Process, with_weights};
use crate::group::{MODEL, PATIENCE, program};

/// Such a rank, and where it tells of itself.
struct Rank {
    _process: Process,
    _secret: NamedTempFile,
    health: String,
}

impl Rank {
    fn start(model: &Path) -> Self {
        Self::start_with(model, &[])
    }

    fn start_with(model: &Path, more: &[&str]) -> Self {
        let [health, nobody] =
            [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string());
        let secret = NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "s".repeat(32)).unwrap();
        let mut command = program();
        command.args(["worker", "--rank", "0", "--coordinator", &nobody, "--advertise-address", "127.0.0.1"]);
        command.args(["--listen", "127.0.0.1:0", "--move-listen", "127.0.0.1:0", "--health-listen", &health]);
        command.args(more).arg("--model").arg(model).arg("--secret-file").arg(secret.path());
        Self { _process: Process(command.spawn().unwrap()), _secret: secret, health: format!("http://{health}") }
    }

    /// Waits until it says something of itself.
    async fn until(&self, path: &str, says: impl Fn(&str) -> bool) {
        let started = Instant::now();
        loop {
            let answer = reqwest::get(format!("{}{path}", self.health)).await;
            let said = match answer {
                Ok(answer) => answer.text().await.unwrap(),
                Err(error) => error.to_string(),
            };
            if says(&said) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {said}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_every_rank_has_whole_is_read_at_once() {
    let shared = Checkpoint::open(Path::new(MODEL)).unwrap().shared_bytes();
    // Each rank of a process reads it for itself, and tells so on the one port of all.
    let rank = Rank::start_with(Path::new(MODEL), &["--ranks-here", "2"]);
    let of = |name: &str, rank: usize| format!("swiftbalancer_rank_{name}_bytes{{rank=\"{rank}\"}} {shared}");
    let lines = [of("loaded", 0), of("load", 0), of("loaded", 1), of("load", 1)];
    rank.until("/metrics", |said| lines.iter().all(|line| said.lines().any(|found| found == line))).await;
    rank.until("/readyz", |said| said == "not part of a group\n").await;
}

#[tokio::test]
async fn weights_that_cannot_be_served_are_told_at_once() {
    let tensor = "model.layers.2.self_attn.k_proj.weight";
    let model = with_weights(tensor, half::bf16::NAN, 1);
    let rank = Rank::start(model.path());
    rank.until("/readyz", |said| said.starts_with("failed: the checkpoint cannot be served") && said.contains(tensor))
        .await;
    let several = Rank::start_with(model.path(), &["--ranks-here", "2"]);
    let told = |said: &str| said.starts_with("failed: rank ") && said.contains(tensor);
    several.until("/readyz", told).await;
}
