//! Keeps trying to write the last map that was moved to, on a thread of its own, and tells while it cannot.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use plan::wire::RecordedMap;
use prometheus::{IntCounterVec, Opts, Registry};

use super::record::record;
use crate::threads::{VitalThreads, survive};

/// The wait before a map that was not written is tried again; it doubles with each failure after the first.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);

/// The longest: a volume that has room again is found within it.
const LONGEST_BACK_OFF: Duration = Duration::from_mins(1);

/// How long the end of the process may wait for the last map.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// What becomes of the maps that are to be recorded.
#[derive(Debug)]
pub struct Recorder {
    maps: Sender<RecordedMap>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Recorder {
    /// Starts the thread that writes to `path`.
    ///
    /// # Errors
    /// If the system gives no thread, or the metric is registered already.
    pub fn start(path: PathBuf, registry: &Registry, threads: &VitalThreads) -> Result<Self, RecorderError> {
        let records =
            Opts::new("swiftbalancer_map_records_total", "Attempts to write a map that was moved to, by outcome.");
        let records = IntCounterVec::new(records, &["outcome"])?;
        registry.register(Box::new(records.clone()))?;
        let (written, failed) = (records.with_label_values(&["written"]), records.with_label_values(&["failed"]));
        let (maps, incoming) = unbounded();
        let (alive, ended) = bounded::<()>(0);
        let trouble = Arc::new(Mutex::new(None));
        let shown = Arc::clone(&trouble);
        threads.spawn("recorder", move || {
            let _alive = alive;
            let write = |map: &RecordedMap| {
                let outcome = survive(|| record(&path, map).map_err(|error| error.to_string()));
                let outcome = outcome.unwrap_or_else(Err);
                let counted = if outcome.is_ok() { &written } else { &failed };
                counted.inc();
                outcome
            };
            keep(&incoming, FIRST_BACK_OFF, write, |trouble| {
                *shown.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
            });
        })?;
        Ok(Self { maps, trouble, ended })
    }

    /// Writes a map, now or as soon as it can be written; one that comes later takes its place.
    pub fn record(&self, map: RecordedMap) {
        // A recorder that has ended ends the process.
        let _ = self.maps.send(map);
    }

    /// Why maps cannot be written now.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    /// Waits a moment for the last map.
    fn drop(&mut self) {
        self.maps = unbounded().0;
        // Nothing is ever sent: it is closed, or the time is over.
        let _ = self.ended.recv_timeout(LAST_WRITE);
    }
}

/// Why no recorder was started.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The system gives no thread.
    #[error("the system gives no thread")]
    System(#[from] io::Error),
    /// A metric is there twice.
    #[error("a metric cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// Writes the latest of the maps that come, until no more can come; one that is not written is tried again. Each time that
/// there is trouble, another trouble or none any more, it is told.
fn keep(
    maps: &Receiver<RecordedMap>,
    first_back_off: Duration,
    mut write: impl FnMut(&RecordedMap) -> Result<(), String>,
    mut tell: impl FnMut(Option<String>),
) {
    let (mut waiting, mut trouble): (Option<RecordedMap>, Option<String>) = (None, None);
    let (mut back_off, mut closed) = (first_back_off, false);
    while !closed {
        let wait = if waiting.is_some() { back_off } else { Duration::MAX };
        match maps.recv_timeout(wait) {
            Ok(map) => waiting = Some(maps.try_iter().last().unwrap_or(map)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => closed = true,
        }
        let Some(map) = &waiting else { continue };
        let epoch = map.provenance.epoch;
        match write(map) {
            Ok(()) => {
                if trouble.take().is_some() {
                    tracing::info!(epoch, "maps are recorded again");
                    tell(None);
                } else {
                    tracing::info!(epoch, "map recorded");
                }
                (waiting, back_off) = (None, first_back_off);
            }
            Err(reason) => {
                if trouble.is_some() {
                    back_off = (back_off * 2).min(LONGEST_BACK_OFF);
                }
                if trouble.as_ref() != Some(&reason) {
                    tracing::error!(epoch, reason, "maps are not recorded; the latest is tried again until it is");
                    tell(Some(format!("maps cannot be recorded: {reason}")));
                    trouble = Some(reason);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::recorded;
    use super::*;
    use crate::waiting::wait_until;

    const NO_WAIT: Duration = Duration::from_millis(1);

    #[test]
    fn the_latest_map_is_tried_until_it_is_written_and_trouble_is_told_once() {
        let (sender, maps) = unbounded();
        let (outcome, outcomes) = unbounded();
        let send = |epochs: std::ops::Range<u64>| epochs.for_each(|epoch| sender.send(recorded(epoch)).unwrap());
        let taken = || wait_until("an outcome is taken", || outcome.is_empty());
        let keeper = std::thread::spawn(move || {
            let (mut attempts, mut told) = (Vec::new(), Vec::new());
            let write = |map: &RecordedMap| {
                attempts.push(map.provenance.epoch);
                outcomes.recv().unwrap()
            };
            keep(&maps, NO_WAIT, write, |trouble| told.push(trouble));
            (attempts, told)
        });
        let failure = |reason: &str| Err(reason.to_owned());
        send(1..2);
        outcome.send(Ok(())).unwrap();
        taken();
        send(2..3);
        (0..3).for_each(|_| outcome.send(failure("no space")).unwrap());
        taken();
        // An attempt of the second may have begun; the one after it is of the latest.
        send(3..6);
        outcome.send(failure("read-only")).unwrap();
        taken();
        outcome.send(Ok(())).unwrap();
        taken();
        // Where the last attempt was still of the second, there is one more.
        outcome.send(Ok(())).unwrap();
        drop(sender);
        let (attempts, told) = keeper.join().unwrap();
        assert_eq!((&attempts[..4], attempts.last()), (&[1, 2, 2, 2][..], Some(&5)), "{attempts:?}");
        let trouble = |reason: &str| Some(format!("maps cannot be recorded: {reason}"));
        assert_eq!(told, [trouble("no space"), trouble("read-only"), None]);
    }

    #[test]
    fn a_map_that_waits_is_tried_once_more_at_the_end() {
        let (sender, maps) = unbounded();
        sender.send(recorded(1)).unwrap();
        drop(sender);
        let mut attempts = 0;
        let write = |_: &RecordedMap| {
            attempts += 1;
            Err("no space".to_owned())
        };
        keep(&maps, Duration::from_hours(1), write, drop);
        assert_eq!(attempts, 2);
    }

    #[test]
    fn a_folder_that_goes_and_comes_is_told_and_counted_and_the_map_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (file, registry) = (folder.path().join("maps").join("map.json"), Registry::new());
        let recorder = Recorder::start(file.clone(), &registry, &VitalThreads::new(drop)).unwrap();
        assert_eq!(recorder.trouble(), None);
        recorder.record(recorded(1));
        wait_until("trouble is told", || recorder.trouble().is_some());
        let trouble = recorder.trouble().unwrap();
        assert!(trouble.contains("maps/map.json: No such file or directory"), "{trouble}");
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        wait_until("the map is written", || recorder.trouble().is_none());
        assert!(file.exists());
        recorder.record(recorded(2));
        drop(recorder);
        let last = RecordedMap::from_json(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(last, recorded(2), "the end waits for the last map");
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("swiftbalancer_map_records_total{outcome=\"written\"} 2"), "{text}");
        assert!(!text.contains("swiftbalancer_map_records_total{outcome=\"failed\"} 0"), "{text}");
    }
}
