//! How far a rank is with loading weights: shown by its metrics all the time, and told in its log every few seconds, so
//! that who waits for a large model sees that it comes, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::metrics::WorkerMetrics;
use crate::model::checkpoint::Checkpoint;
use crate::model::sizes::gigabytes;

/// How often the metrics follow.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often the log is told; what is loaded sooner needs no word.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What was told of weights that are loaded.
struct Progress {
    /// What was read before, of which no time is known.
    before: u64,
    next: Duration,
}

impl Progress {
    const fn new(before: u64) -> Self {
        Self { before, next: TELL_EVERY }
    }

    /// What to tell when `done` of `bytes` bytes were read after `elapsed`, if it is time for a word.
    fn tell(&mut self, (done, bytes): (u64, u64), elapsed: Duration) -> Option<String> {
        if elapsed < self.next {
            return None;
        }
        self.next = elapsed + TELL_EVERY;
        let seconds = elapsed.as_secs();
        let said = format!("loading: {} of {} GB in {seconds} s", gigabytes(done), gigabytes(bytes));
        let rate = done.saturating_sub(self.before) as f64 / elapsed.as_secs_f64();
        let left = bytes.saturating_sub(done) as f64 / rate;
        Some(if left.is_finite() { format!("{said}, some {left:.0} s left") } else { said })
    }
}

/// Shows how far loading is until it is dropped, which is when that has ended.
pub(super) struct LoadingWatch {
    metrics: WorkerMetrics,
    checkpoint: Arc<Checkpoint>,
    /// Bytes that had been read before.
    before: u64,
    /// Bytes that are to be read.
    bytes: Arc<AtomicU64>,
    ending: Option<(Sender<()>, JoinHandle<()>)>,
}

impl LoadingWatch {
    /// Watches the reading of `bytes` bytes of weights, which began when the checkpoint had given `before` bytes. Where the system
    /// gives no thread, only the end is shown: loading needs none of this.
    pub fn start(before: u64, bytes: u64, checkpoint: &Arc<Checkpoint>, metrics: &WorkerMetrics) -> Arc<Self> {
        let done = checkpoint.bytes_read() - before;
        metrics.loading(done, bytes);
        let (sender, ended) = bounded(0);
        let (metrics, checkpoint) = (metrics.clone(), Arc::clone(checkpoint));
        let (shown, read) = (metrics.clone(), Arc::clone(&checkpoint));
        let bytes = Arc::new(AtomicU64::new(bytes));
        let (progress, expected) = (Progress::new(done), Arc::clone(&bytes));
        let now = move || (read.bytes_read() - before, expected.load(Ordering::Relaxed));
        let watch = move || show(progress, &now, &shown, &ended);
        let thread = Builder::new().name("loading".to_owned()).spawn(watch);
        let ending = thread.ok().map(|thread| (sender, thread));
        Arc::new(Self { metrics, checkpoint, before, bytes, ending })
    }

    /// More is to be read, `bytes` bytes in all.
    pub fn expect(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.metrics.loading(self.checkpoint.bytes_read() - self.before, bytes);
    }
}

impl Drop for LoadingWatch {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.ending.take() {
            drop(sender);
            // It shows and does nothing else: if it has panicked, nothing is lost.
            let _ = thread.join();
        }
        self.metrics.loaded(self.checkpoint.bytes_read() - self.before);
        self.metrics.not_loading();
    }
}

fn show(mut progress: Progress, now: &impl Fn() -> (u64, u64), metrics: &WorkerMetrics, ended: &Receiver<()>) {
    let started = Instant::now();
    while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = now();
        metrics.loaded(now.0);
        if let Some(word) = progress.tell(now, started.elapsed()) {
            tracing::info!("{word}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kernels::Arena;
    use kernels::cpu::Cpu;
    use plan::ids::{ExpertId, LayerId, RankId};

    use super::super::metrics::ProcessMetrics;
    use super::*;
    use crate::model::forward::{Model, expert_shape, load_expert};

    #[test]
    fn a_word_is_said_every_few_seconds_and_says_how_long_it_will_take() {
        const ALL: u64 = 60_000_000_000;
        let mut progress = Progress::new(0);
        let mut tell = |gigabytes: u64, seconds: f64| {
            progress.tell((gigabytes * 1_000_000_000, ALL), Duration::from_secs_f64(seconds))
        };
        assert_eq!(tell(1, 9.9), None);
        assert_eq!(tell(0, 10.0).as_deref(), Some("loading: 0.00 of 60.00 GB in 10 s"));
        assert_eq!(tell(15, 19.9), None);
        assert_eq!(tell(15, 24.0).as_deref(), Some("loading: 15.00 of 60.00 GB in 24 s, some 72 s left"));
        assert_eq!(tell(16, 33.9), None);
        assert!(tell(16, 34.0).is_some());
        let said = tell(61, 60.0).unwrap();
        assert!(said.ends_with("some 0 s left"), "{said}");
        let mut nothing = Progress::new(0);
        assert_eq!(nothing.tell((0, 0), TELL_EVERY).as_deref(), Some("loading: 0.00 of 0.00 GB in 10 s"));
        // What an earlier session has read says nothing of how fast this one is.
        let mut rest = Progress::new(30_000_000_000);
        let said = rest.tell((40_000_000_000, ALL), TELL_EVERY);
        assert_eq!(said.as_deref(), Some("loading: 40.00 of 60.00 GB in 10 s, some 20 s left"));
    }

    #[test]
    fn the_metrics_show_what_was_loaded_of_what() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-moe");
        let checkpoint = Arc::new(Checkpoint::open(&model).unwrap());
        let process = ProcessMetrics::new([RankId(0)]);
        let metrics = process.of(0);
        let shows = |loaded: u64, bytes: u64| {
            let text = process.text();
            let has = |line: String| text.lines().any(|found| found == line);
            has(format!("swiftbalancer_rank_loaded_bytes{{rank=\"0\"}} {loaded}"))
                && has(format!("swiftbalancer_rank_load_bytes{{rank=\"0\"}} {bytes}"))
        };
        let bytes = checkpoint.bytes();
        assert!(shows(0, 0));
        for _ in 0..2 {
            let watch = LoadingWatch::start(checkpoint.bytes_read(), bytes, &checkpoint, &metrics);
            assert!(shows(0, bytes));
            assert_eq!(metrics.load_progress(), Some((0, bytes)));
            checkpoint.check_weights().unwrap();
            // Whoever else shows it is still at it.
            drop(Arc::clone(&watch));
            assert!(metrics.load_progress().is_some());
            drop(watch);
            assert!(shows(bytes, bytes));
            assert_eq!(metrics.load_progress(), None);
        }
        // One that goes on begins with what was read, and may be told of more.
        let watch = LoadingWatch::start(bytes, 2 * bytes, &checkpoint, &metrics);
        assert!(shows(bytes, 2 * bytes));
        watch.expect(3 * bytes);
        assert!(shows(bytes, 3 * bytes));
    }

    #[test]
    fn a_rank_reads_all_but_the_experts_and_then_its_own() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-moe");
        let checkpoint = Checkpoint::open(&model).unwrap();
        let config = checkpoint.config();
        let experts = checkpoint.expert_bytes() * (config.sparse_layers() * config.experts.count) as u64;
        assert_eq!(checkpoint.shared_bytes() + experts, checkpoint.bytes());
        let device = Arc::new(Cpu::new(1));
        drop(Model::load(Arc::clone(&device), &checkpoint).unwrap());
        assert_eq!(checkpoint.bytes_read(), checkpoint.shared_bytes());
        let mut page = Arena::new(device, expert_shape(&checkpoint)).unwrap().take().unwrap();
        load_expert(&checkpoint, LayerId(3), ExpertId(31), &mut page).unwrap();
        assert_eq!(checkpoint.bytes_read(), checkpoint.shared_bytes() + checkpoint.expert_bytes());
    }
}
