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
/// Bytes of the host's memory that parts go through in turn, as a mover's staging has them, unless a part is longer.
const OF_THE_HOST: usize = 32 << 20;
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

/// What is carried beside other work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// How.
    pub route: Route,
    /// Bytes of each copy.
    pub part: usize,
    /// Bytes of the device's memory that are written in turn: more than its caches hold, or nothing of it reaches memory.
    pub span: usize,
    /// Bytes a second at most, if there is such a limit.
    pub rate: Option<f64>,
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
    /// As many parts as are read in turn within the device, and behind them as many that are written.
    memory: Allocation,
    load: Load,
    /// Parts of the host's memory, and of each half of the device's.
    places: [usize; 2],
}

impl Traffic {
    /// Begins to carry a load.
    ///
    /// # Errors
    /// If the device has no memory or stream for it.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start(gpu: &Cuda, load: Load) -> Result<Self, DeviceError> {
        let device = Arc::clone(&gpu.shared);
        let part = load.part.next_multiple_of(16);
        let places = [OF_THE_HOST.min(UNDER_WAY * part) / part, load.span.div_ceil(part)].map(|places| places.max(1));
        let copier = Copier {
            stream: Stream::new(&device.context, Precedence::Last)?,
            host: Mapped::new(&device.context, places[0] * part)?,
            memory: Allocation::new(&device.context, 2 * places[1] * part)?,
            device,
            load: Load { part, ..load },
            places,
        };
        copier.device.transfers.zero(copier.memory.address(), 2 * places[1] * part)?;
        let carried = Arc::new(AtomicU64::new(0));
        let ((ending, ended), counted) = (channel(), Arc::clone(&carried));
        let work = move || copier.run(&counted, &ended);
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
    fn run(&self, carried: &AtomicU64, ended: &Receiver<()>) -> Result<(), DeviceError> {
        let (started, Load { part, rate, .. }) = (Instant::now(), self.load);
        let (mut pause, mut count) = (Duration::ZERO, 0);
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let due = rate.map_or(u64::MAX, |rate| (rate * started.elapsed().as_secs_f64()) as u64);
            pause = if carried.load(Ordering::Relaxed) < due { Duration::ZERO } else { PAUSE };
            if !pause.is_zero() {
                continue;
            }
            for _ in 0..UNDER_WAY {
                self.carry(count)?;
                count += 1;
                let all = carried.fetch_add(part as u64, Ordering::Relaxed) + part as u64;
                if all >= due {
                    break;
                }
            }
            self.stream.finish()?;
        }
        Ok(())
    }

    /// Carries the part of this number.
    fn carry(&self, number: usize) -> Result<(), DeviceError> {
        let (Load { route, part: bytes, .. }, [of_host, of_half]) = (self.load, self.places);
        let host = self.host.host_at(number % of_host * bytes);
        let source = self.memory.address() + (number % of_half * bytes) as u64;
        let target = source + (of_half * bytes) as u64;
        match route {
            // SAFETY: all places are within this copier's memories (by their numbers), and nobody looks at what is in them; copies
            // on one stream come one after the other.
            Route::FromHost => Ok(unsafe { self.stream.copy_to_device(target, host, bytes) }?),
            // SAFETY: as above.
            Route::ToHost => Ok(unsafe { self.stream.copy_to_host(host, source, bytes) }?),
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
