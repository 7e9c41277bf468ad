//! What a rank has read of its checkpoint: all but the experts, which its engine has, and the experts that it holds. It is kept
//! whatever groups the rank becomes part of, and loading that was cut off goes on where it was.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
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
use crate::experts::mover::{LoadPage, Unreadable};
use crate::experts::pages::HeldPages;
use crate::model::checkpoint::Checkpoint;
use crate::model::forward::{CacheSize, expert_shape, load_expert};
use crate::model::sizes::gigabytes;

/// Reads all but the experts.
pub(super) type StartEngine<B> = Box<dyn FnOnce(CacheSize) -> Result<Engine<B>, WorkerError> + Send>;

/// See the module's documentation.
pub(super) struct Weights<B: Backend> {
    checkpoint: Arc<Checkpoint>,
    metrics: WorkerMetrics,
    before_read: BeforeRead,
    shared: Shared<B>,
    arena: Option<Arc<Arena<B>>>,
    /// Experts that it holds while it is part of no group.
    pub held: HeldPages<B>,
    /// Bytes that the checkpoint had given when the loading began that is under way, or was cut off.
    before: Option<u64>,
}

/// All but the experts.
enum Shared<B: Backend> {
    Unread(StartEngine<B>),
    /// On a thread of its own, whatever becomes of the session that began it.
    Reading(Receiver<Result<Engine<B>, WorkerError>>),
    Read(Box<Engine<B>>),
    /// It could not be read; the process ends.
    Failed,
}

impl<B: Backend> Weights<B> {
    /// Nothing is read yet.
    pub fn new(
        checkpoint: Arc<Checkpoint>,
        start: StartEngine<B>,
        metrics: WorkerMetrics,
        before_read: BeforeRead,
    ) -> Self {
        let (shared, held) = (Shared::Unread(start), HeldPages::<B>::new());
        Self { checkpoint, metrics, before_read, shared, arena: None, held, before: None }
    }

    /// Reads what is not there: all but the experts, with a cache of this size, and the experts of `slots`, whose pages it gives
    /// in their order. Keeps all of it and no other experts.
    ///
    /// # Errors
    /// If it cannot be read, or `cancel` ends it; what was read is kept.
    pub fn load(
        &mut self,
        slots: &[(LayerId, ExpertId)],
        cache: CacheSize,
        cancel: &Cancel,
    ) -> Result<Vec<Arc<Page<B>>>, SessionError> {
        let (read, started) = (self.checkpoint.bytes_read(), Instant::now());
        let before = *self.before.get_or_insert(read);
        let bytes = read - before + self.missing(slots, read - before);
        let watch = LoadingWatch::start(before, bytes, &self.checkpoint, &self.metrics);
        self.read_shared(cache, cancel)?;
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

    /// Bytes that are still to be read, when this loading has read `read` bytes.
    fn missing(&self, slots: &[(LayerId, ExpertId)], read: u64) -> u64 {
        let shared = match self.shared {
            Shared::Unread(_) => self.checkpoint.shared_bytes(),
            // No expert is read before all of it is.
            Shared::Reading(_) => self.checkpoint.shared_bytes().saturating_sub(read),
            Shared::Read(_) | Shared::Failed => 0,
        };
        let experts = slots.iter().filter(|slot| !self.held.contains_key(slot)).count() as u64;
        shared + experts * self.checkpoint.expert_bytes()
    }

    /// Waits until all but the experts is read.
    fn read_shared(&mut self, cache: CacheSize, cancel: &Cancel) -> Result<(), SessionError> {
        loop {
            self.shared = match std::mem::replace(&mut self.shared, Shared::Failed) {
                Shared::Unread(start) => Shared::Reading(spawn(start, cache)?),
                Shared::Reading(told) => match told.recv_timeout(LOOK_INTERVAL) {
                    Ok(engine) => Shared::Read(Box::new(engine.map_err(SessionError::Start)?)),
                    Err(RecvTimeoutError::Timeout) => Shared::Reading(told),
                    Err(RecvTimeoutError::Disconnected) => Shared::Failed,
                },
                Shared::Read(engine) => {
                    self.shared = Shared::Read(engine);
                    return Ok(());
                }
                Shared::Failed => {
                    let ended = std::io::Error::other("the thread that loads the model has ended");
                    return Err(SessionError::Start(WorkerError::System(ended)));
                }
            };
            if cancel.is_cancelled() {
                return Err(LoadError::Cancelled.into());
            }
        }
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
            load_expert(&reading, layer, expert, page)
                .map_err(|error| Unreadable { is_permanent: error.is_permanent(), reason: with_causes(&error) })
        })
    }
}

/// Reads on a thread of its own; what comes of it arrives.
fn spawn<B: Backend>(
    start: StartEngine<B>,
    cache: CacheSize,
) -> std::io::Result<Receiver<Result<Engine<B>, WorkerError>>> {
    let (tell, told) = bounded(1);
    // Nobody waits for it any more when the process ends.
    let read = move || drop(tell.send(start(cache)));
    std::thread::Builder::new().name("load".to_owned()).spawn(read)?;
    Ok(told)
}
