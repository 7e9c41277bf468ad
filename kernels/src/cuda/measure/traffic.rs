//! Copies beside steps: what a move does to the device, at a rate and in parts of a size, for as long as somebody measures what that
//! costs. On a thread and a stream of its own, of the lowest priority, as moves are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::memory::{Allocation, Mapped};
use super::super::module::Launch;
use super::super::parameters::{COPY, CopyParameters};
use super::super::stream::{Precedence, Stream};
use super::super::{Cuda, Shared};
use crate::error::DeviceError;

/// Parts that are put on the stream before the first is waited for: as many as two stages of a mover, and more where parts are small.
const UNDER_WAY: usize = 8;
/// How long it waits where it is ahead of its rate.
const PAUSE: Duration = Duration::from_micros(50);

/// How bytes are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From pinned memory of the host, by a copy engine.
    FromHost,
    /// To pinned memory of the host, by a copy engine.
    ToHost,
    /// Within the device, as the driver copies.
    Within,
    /// Within the device, by a kernel of so many blocks.
    ByBlocks(u32),
}

/// What was carried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Carried {
    /// How many bytes.
    pub bytes: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Copies until it is ended.
#[derive(Debug)]
pub struct Traffic {
    ending: Sender<()>,
    carried: Arc<AtomicU64>,
    started: Instant,
    thread: JoinHandle<Result<(), DeviceError>>,
}

struct Copier {
    // Ends, with all that is on it, before its memory does.
    stream: Stream,
    device: Arc<Shared>,
    host: Mapped,
    /// Two parts.
    memory: Allocation,
    route: Route,
    part: usize,
}

impl Traffic {
    /// Begins to carry parts of so many bytes, at most so many bytes a second if there is a rate.
    ///
    /// # Errors
    /// If the device has no memory or stream for it.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start(gpu: &Cuda, route: Route, part: usize, rate: Option<f64>) -> Result<Self, DeviceError> {
        let device = Arc::clone(&gpu.shared);
        let part = part.next_multiple_of(16);
        let copier = Copier {
            stream: Stream::new(&device.context, Precedence::Last)?,
            host: Mapped::new(&device.context, part)?,
            memory: Allocation::new(&device.context, 2 * part)?,
            device,
            route,
            part,
        };
        copier.device.transfers.zero(copier.memory.address(), 2 * part)?;
        let carried = Arc::new(AtomicU64::new(0));
        let ((ending, ended), counted) = (channel(), Arc::clone(&carried));
        let work = move || copier.run(rate, &counted, &ended);
        let thread = std::thread::Builder::new().name("traffic".to_owned()).spawn(work);
        Ok(Self { ending, carried, started: Instant::now(), thread: thread.expect("the system gives a thread") })
    }

    /// Ends it. Gives what it has carried.
    ///
    /// # Errors
    /// If the device failed.
    ///
    /// # Panics
    /// If its thread did.
    pub fn end(self) -> Result<Carried, DeviceError> {
        let (bytes, seconds) = (self.carried.load(Ordering::Relaxed), self.started.elapsed().as_secs_f64());
        drop(self.ending);
        self.thread.join().expect("it does not panic")?;
        Ok(Carried { bytes, seconds })
    }
}

impl Copier {
    fn run(&self, rate: Option<f64>, carried: &AtomicU64, ended: &Receiver<()>) -> Result<(), DeviceError> {
        let started = Instant::now();
        let mut pause = Duration::ZERO;
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let due = rate.map_or(u64::MAX, |rate| (rate * started.elapsed().as_secs_f64()) as u64);
            pause = if carried.load(Ordering::Relaxed) < due { Duration::ZERO } else { PAUSE };
            if !pause.is_zero() {
                continue;
            }
            for _ in 0..UNDER_WAY {
                self.carry()?;
                let all = carried.fetch_add(self.part as u64, Ordering::Relaxed) + self.part as u64;
                if all >= due {
                    break;
                }
            }
            self.stream.finish()?;
        }
        Ok(())
    }

    fn carry(&self) -> Result<(), DeviceError> {
        let (source, target, bytes) = (self.memory.address(), self.memory.address() + self.part as u64, self.part);
        match self.route {
            // SAFETY: both memories are this copier's, as long as a part, and nobody looks at what is in them.
            Route::FromHost => Ok(unsafe { self.stream.copy_to_device(target, self.host.host(), bytes) }?),
            // SAFETY: as above.
            Route::ToHost => Ok(unsafe { self.stream.copy_to_host(self.host.host(), source, bytes) }?),
            // SAFETY: as above.
            Route::Within => Ok(unsafe { self.stream.copy_on_device(target, source, bytes) }?),
            Route::ByBlocks(blocks) => {
                let parameters = CopyParameters { source, target, bytes: bytes as u64 };
                let launch = Launch { kernel: &COPY, blocks, shared: 0 };
                // SAFETY: as above.
                Ok(unsafe { self.device.kernels.launch(&self.stream, launch, &parameters) }?)
            }
        }
    }
}
