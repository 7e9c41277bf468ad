//! A coordinator and its ranks, started by the program and ended with the test.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use plan::moves::random_transaction;
use plan::wire::{MapDocument, Phase, State, path};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For anything that takes a moment on a machine that has time.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The small model that the repository ships.
pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tiny-moe");

/// The program.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_swiftbalancer-runtime"))
}

/// The program in a process that has a limit of the shell's `ulimit`.
pub fn limited_program(limit: &str) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_swiftbalancer-runtime")]);
    shell
}

/// A running group.
pub struct Group {
    process: Child,
    /// `http://host:port` of the OpenAI API.
    pub url: String,
    /// `http://host:port` of the admin API.
    pub admin: String,
    /// `host:port` where ranks register.
    pub control: String,
    /// What it has logged.
    log: Arc<Mutex<Vec<String>>>,
}

impl Group {
    /// Starts `local` with these options and waits until it serves.
    pub async fn start(ranks: usize, options: &[&str]) -> Self {
        Self::of(Path::new(MODEL), ranks, options).await
    }

    /// The same with another model.
    pub async fn of(model: &Path, ranks: usize, options: &[&str]) -> Self {
        Self::run(program(), model, ranks, options).await
    }

    /// The small model, by a process that may have so many descriptors.
    pub async fn start_within(descriptors: usize, ranks: usize) -> Self {
        Self::run(limited_program(&format!("-n {descriptors}")), Path::new(MODEL), ranks, &[]).await
    }

    /// The small model, by the leader of a group of processes, as a shell starts it on a terminal.
    pub async fn start_as_leader(ranks: usize) -> Self {
        let mut leader = program();
        leader.process_group(0);
        Self::run(leader, Path::new(MODEL), ranks, &[]).await
    }

    async fn run(mut program: Command, model: &Path, ranks: usize, options: &[&str]) -> Self {
        let mut process = program
            .args(["--log-format", "json", "local", "--served-model-name", "tiny", "--model"])
            .arg(model)
            .args(["--ranks", &ranks.to_string(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap());
        let (found, addresses) = mpsc::channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let fields = serde_json::from_str::<Value>(&line).unwrap_or_default()["fields"].clone();
                if fields["message"] == "listening" {
                    let address = |name: &str| fields[name].as_str().unwrap().to_owned();
                    // Only the first start is waited for.
                    let _ = found.send([address("requests"), address("admin"), address("ranks")]);
                }
                kept.lock().unwrap().push(line);
            }
        });
        let [url, admin, control] = addresses.recv_timeout(PATIENCE).expect("the program says where it listens");
        let [url, admin] = [url, admin].map(|address| format!("http://{address}"));
        let group = Self { process, url, admin, control, log };
        group.until("it serves", async || group.is_healthy().await).await;
        group
    }

    pub async fn is_healthy(&self) -> bool {
        reqwest::get(format!("{}/health", self.url)).await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Whether a line with all of these words was logged.
    pub fn has_logged(&self, words: &[&str]) -> bool {
        self.log.lock().unwrap().iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Waits for something to become true.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !holds().await {
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            tokio::task::yield_now().await;
        }
    }

    /// Asks for one map after the other, each a random transaction in every layer away from the one in force, for as long as it
    /// is waited for.
    pub async fn keep_moving(&self, seed: u64) -> Infallible {
        let client = reqwest::Client::new();
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        for round in 0.. {
            let document = client.get(format!("{}{}", self.admin, path::MAP)).send().await.unwrap();
            let document = MapDocument::from_json(&document.bytes().await.unwrap()).unwrap();
            let map = document.to_map(&document.model).unwrap();
            let moved = map.layers().fold(map.clone(), |moved, layer| {
                let work = random_transaction(&moved, layer, seed.wrapping_add(round));
                work.map_or(moved.clone(), |work| moved.apply(&work).unwrap())
            });
            let wanted = MapDocument::new(document.model, &moved);
            let asked = client.post(format!("{}{}", self.admin, path::MAP)).json(&wanted).send().await.unwrap();
            assert_eq!(asked.status(), 202, "{:?}", asked.text().await);
            let state = async || -> State {
                let state = client.get(format!("{}{}", self.admin, path::STATE)).send().await.unwrap();
                serde_json::from_slice(&state.bytes().await.unwrap()).unwrap()
            };
            let is_done = |state: &State| state.pending_transactions == 0 && state.phase != Phase::Planning;
            // A group that is lost meanwhile moves to it when it is formed again.
            while !is_done(&state().await) {
                looks.tick().await;
            }
        }
        unreachable!("there are more numbers than steps")
    }

    /// Process id of the coordinator.
    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Memory of the coordinator, bytes.
    pub fn memory(&self) -> usize {
        self.memory_of("VmRSS:")
    }

    /// The most that it has had since [`Self::forget_peak`], bytes.
    pub fn peak_memory(&self) -> usize {
        self.memory_of("VmHWM:")
    }

    /// Begins to look for the most memory anew.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    fn memory_of(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
    }

    /// Process ids of the ranks.
    pub fn ranks(&self) -> Vec<i32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let children = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap());
        let mut ranks: Vec<i32> = children
            .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        ranks.sort_unstable();
        ranks
    }

    /// A metric's value.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = reqwest::get(format!("{}/metrics", self.url)).await.unwrap().text().await.unwrap();
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Asks the program to stop, and gives how it ended.
    pub fn stop(mut self) -> std::process::ExitStatus {
        kill(self.pid(), Signal::TERM);
        self.process.wait().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It has ended already if the test stopped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a signal to a process.
pub fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}
