//! What a rank has read of its checkpoint: all but the experts, which its engine has, and the experts that it holds. It is kept
//! whatever groups the rank becomes part of, and loading that was cut off goes on where it was.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, bounded, never};
use kernels::{Arena, Backend, DeviceError, Page};
use plan::ids::{ExpertId, LayerId};
use plan::words::with_causes;

use super::WorkerError;
use super::loading::LoadingWatch;
use super::metrics::WorkerMetrics;
use super::session::{LOOK_INTERVAL, SessionError};
use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::experts::load::{BeforeRead, LoadError, load_experts};
use crate::experts::mover::{LoadPage, NotRead};
use crate::experts::pages::HeldPages;
use crate::model::checkpoint::Checkpoint;
use crate::model::forward::{LoadPageError, expert_shape, load_expert};
use crate::model::sizes::gigabytes;
use crate::threads::ThreadEnded;

/// Reads all but the experts.
pub(super) type StartEngine<B> = Box<dyn FnOnce() -> Result<Engine<B>, WorkerError> + Send>;

/// What comes of that.
pub(super) type Started<B> = Result<Engine<B>, WorkerError>;

/// See the module's documentation.
pub(super) struct Weights<B: Backend> {
    checkpoint: Arc<Checkpoint>,
    metrics: WorkerMetrics,
    before_read: BeforeRead,
    shared: Shared<B>,
    arena: Option<Arc<Arena<B>>>,
    /// Experts that it holds while it is part of no group.
    pub held: HeldPages<B>,
    /// The loading that is under way, while it is shown.
    watch: Weak<LoadingWatch>,
    /// Bytes that the checkpoint had given when the loading began that is under way, or was cut off.
    before: Option<u64>,
}

/// All but the experts.
enum Shared<B: Backend> {
    /// On a thread of its own, whatever becomes of any session.
    Reading(Receiver<Started<B>>),
    Read(Box<Engine<B>>),
    /// It could not be read; the process ends.
    Failed,
}

impl<B: Backend> Weights<B> {
    /// Begins to read what every rank has whole, whoever else is there.
    ///
    /// # Errors
    /// If the system gives no thread for it.
    pub fn begin(
        checkpoint: Arc<Checkpoint>,
        start: StartEngine<B>,
        metrics: WorkerMetrics,
        before_read: BeforeRead,
    ) -> io::Result<Self> {
        let before = checkpoint.bytes_read();
        let watch = LoadingWatch::start(before, checkpoint.shared_bytes(), &checkpoint, &metrics);
        let (tell, told) = bounded(1);
        let (shown, memory) = (Arc::clone(&watch), Arc::clone(&checkpoint));
        let read = move || {
            let started = start();
            memory.forget_memory();
            drop(shown);
            // Nobody waits for it any more when the process ends.
            drop(tell.send(started));
        };
        std::thread::Builder::new().name("load".to_owned()).spawn(read)?;
        let (shared, held, watch) = (Shared::Reading(told), HeldPages::<B>::new(), Arc::downgrade(&watch));
        Ok(Self { checkpoint, metrics, before_read, shared, arena: None, held, watch, before: Some(before) })
    }

    /// Reads what is not there: all but the experts, and the experts of `slots`, whose pages it gives in their order. Keeps all of it
    /// and no other experts.
    ///
    /// # Errors
    /// If it cannot be read, or `cancel` ends it; what was read is kept.
    pub fn load(&mut self, slots: &[(LayerId, ExpertId)], cancel: &Cancel) -> Result<Vec<Arc<Page<B>>>, SessionError> {
        let (read, started) = (self.checkpoint.bytes_read(), Instant::now());
        let before = *self.before.get_or_insert(read);
        let bytes = read - before + self.missing(slots, read - before);
        let watch = self.watch(before, bytes);
        self.wait_for_shared(cancel)?;
        let load_page = self.load_page();
        let arena = self.arena()?;
        let loaded = load_experts::<B>(slots, &mut self.held, (&arena, &load_page), cancel);
        self.checkpoint.forget_memory();
        let loaded = loaded?;
        drop(watch);
        self.before = None;
        tracing::info!("loaded: {} GB; it took {:.1} s", gigabytes(bytes), started.elapsed().as_secs_f64());
        Ok(loaded)
    }

    /// Shows the loading of `bytes` bytes, which began when the checkpoint had given `before` bytes.
    fn watch(&mut self, before: u64, bytes: u64) -> Arc<LoadingWatch> {
        if let Some(watch) = self.watch.upgrade() {
            watch.expect(bytes);
            return watch;
        }
        let watch = LoadingWatch::start(before, bytes, &self.checkpoint, &self.metrics);
        self.watch = Arc::downgrade(&watch);
        watch
    }

    /// What is in memory by now of all but the experts, which takes `all` bytes, and of experts and the pages that they move through.
    pub fn taken(&self, all: u64) -> u64 {
        let shared = match self.shared {
            Shared::Reading(_) => self.checkpoint.bytes_read().min(all),
            Shared::Read(_) => all,
            Shared::Failed => 0,
        };
        shared.saturating_add(self.arena.as_ref().map_or(0, |arena| arena.bytes()))
    }

    /// The same at most: what is being read has its memory before it is read.
    pub fn taken_at_most(&self, all: u64) -> u64 {
        match self.shared {
            Shared::Reading(_) => all,
            Shared::Read(_) | Shared::Failed => self.taken(all),
        }
    }

    /// Bytes that are still to be read, when this loading has read `read` bytes.
    fn missing(&self, slots: &[(LayerId, ExpertId)], read: u64) -> u64 {
        let shared = match self.shared {
            // No expert is read before all of it is.
            Shared::Reading(_) => self.checkpoint.shared_bytes().saturating_sub(read),
            Shared::Read(_) | Shared::Failed => 0,
        };
        let experts = slots.iter().filter(|slot| !self.held.contains_key(slot)).count() as u64;
        shared + experts * self.checkpoint.expert_bytes()
    }

    /// Where it is told what came of reading all but the experts, until that is [heard](Self::heard).
    pub fn told(&self) -> Receiver<Started<B>> {
        match &self.shared {
            Shared::Reading(told) => told.clone(),
            Shared::Read(_) | Shared::Failed => never(),
        }
    }

    /// Takes what was told.
    ///
    /// # Errors
    /// If all but the experts could not be read, or the thread that reads it has ended.
    pub fn heard(&mut self, started: Result<Started<B>, RecvError>) -> Result<(), WorkerError> {
        self.shared = Shared::Failed;
        let ended = |RecvError| ThreadEnded { name: "load".to_owned(), reason: "it panicked".to_owned() };
        self.shared = Shared::Read(Box::new(started.map_err(ended)??));
        Ok(())
    }

    /// Waits until all but the experts is read.
    fn wait_for_shared(&mut self, cancel: &Cancel) -> Result<(), SessionError> {
        while let Shared::Reading(told) = &self.shared {
            match told.recv_timeout(LOOK_INTERVAL) {
                Ok(started) => self.heard(Ok(started)).map_err(SessionError::Start)?,
                Err(RecvTimeoutError::Disconnected) => self.heard(Err(RecvError)).map_err(SessionError::Start)?,
                Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() => return Err(LoadError::Cancelled.into()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        Ok(())
    }

    /// The engine.
    ///
    /// # Panics
    /// If nothing was loaded yet.
    pub fn engine(&self) -> &Engine<B> {
        let Shared::Read(engine) = &self.shared else { unreachable!("who asks has loaded before") };
        engine
    }

    /// The memory of its experts; the same whatever groups it becomes part of.
    ///
    /// # Errors
    /// If the device has no room for it.
    ///
    /// # Panics
    /// As [`Self::engine`].
    pub fn arena(&mut self) -> Result<Arc<Arena<B>>, DeviceError> {
        if let Some(arena) = &self.arena {
            return Ok(Arc::clone(arena));
        }
        let arena = Arena::new(Arc::clone(self.engine().backend()), expert_shape(&self.checkpoint))?;
        Ok(Arc::clone(self.arena.insert(arena)))
    }

    /// Reads experts that nobody else gives.
    pub fn load_page(&self) -> LoadPage<B> {
        let (reading, before_read) = (Arc::clone(&self.checkpoint), self.before_read.clone());
        Arc::new(move |layer, expert, page| {
            before_read.happen(layer, expert);
            load_expert(&reading, layer, expert, page).map_err(|error| match error {
                LoadPageError::Device(error) => NotRead::Device(error),
                LoadPageError::Checkpoint(error) => {
                    NotRead::Unreadable { is_permanent: error.is_permanent(), reason: with_causes(&error) }
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kernels::cpu::Cpu;
    use plan::ids::RankId;

    use super::super::metrics::ProcessMetrics;
    use super::*;
    use crate::engine::StepObserver;
    use crate::model::forward::Model;
    use crate::protocol::StepTiming;
    use crate::threads::VitalThreads;

    fn metrics() -> ProcessMetrics {
        ProcessMetrics::new([RankId(0)])
    }

    struct Unobserved;

    impl StepObserver for Unobserved {
        fn step(&self, _: &StepTiming, _: usize) {}
    }

    fn begin(
        metrics: &ProcessMetrics,
        start: impl FnOnce(Arc<Checkpoint>) -> Started<Cpu> + Send + 'static,
    ) -> Weights<Cpu> {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-moe");
        let checkpoint = Arc::new(Checkpoint::open(&model).unwrap());
        let read = Arc::clone(&checkpoint);
        let start = Box::new(move || start(read));
        Weights::begin(checkpoint, start, metrics.of(0), BeforeRead::default()).unwrap()
    }

    #[test]
    fn what_all_share_is_read_without_being_asked_for_and_experts_are_read_when_they_are_and_once() {
        let metrics = metrics();
        let mut weights = begin(&metrics, |checkpoint| {
            let make = move || Ok::<_, WorkerError>(Model::load(Arc::new(Cpu::new(1)), &checkpoint)?);
            Engine::start(Box::new(make), Unobserved, &VitalThreads::new(drop))
        });
        let started = weights.told().recv();
        weights.heard(started).unwrap();
        assert_eq!((weights.taken(77), weights.taken_at_most(77)), (77, 77));
        let shared = weights.checkpoint.shared_bytes();
        assert_eq!(weights.checkpoint.bytes_read(), shared);
        let slots: Vec<_> = (0..4).map(|expert| (LayerId(1), ExpertId(expert))).collect();
        let expert = weights.checkpoint.expert_bytes();
        weights.load(&slots, &Cancel::default()).unwrap();
        assert_eq!(weights.checkpoint.bytes_read(), shared + 4 * expert);
        let page = Cpu::page_bytes(expert_shape(&weights.checkpoint)) as u64;
        assert_eq!(weights.taken(77), 77 + 4 * page);
        let text = metrics.text();
        let line = format!("swiftbalancer_rank_load_bytes{{rank=\"0\"}} {}\n", shared + 4 * expert);
        assert!(text.contains(&line), "{text}");
        // Of a group that needs another, that one is read.
        let slots: Vec<_> = (1..5).map(|expert| (LayerId(1), ExpertId(expert))).collect();
        weights.load(&slots, &Cancel::default()).unwrap();
        assert_eq!(weights.checkpoint.bytes_read(), shared + 5 * expert);
    }

    #[test]
    fn what_goes_wrong_with_it_is_heard_whoever_waits() {
        let broken = || begin(&metrics(), |_| Err(WorkerError::Refused { reason: "a hole".to_owned() }));
        let mut weights = broken();
        let started = weights.told().recv();
        assert!(weights.heard(started).unwrap_err().to_string().contains("a hole"));
        let error = broken().load(&[], &Cancel::default()).unwrap_err();
        assert!(error.to_string().contains("a hole"), "{error}");
        let mut weights = begin(&metrics(), |_| panic!("a hole"));
        let started = weights.told().recv();
        let error = weights.heard(started).unwrap_err().to_string();
        assert_eq!(error, "the thread 'load' ended, which this process cannot do without: it panicked");
    }
}
