//! What a GPU can do at most, to tell other figures against, and work beside steps, to see what that costs them. Measurements alone use it.
//!
//! Times are of the host's clock, around many repetitions that the device has done when the clock is read.

mod dense;
mod traffic;

use std::sync::Arc;
use std::time::Instant;

use super::memory::{Allocation, Mapped};
use super::module::Launch;
use super::parameters::{COPY, CopyParameters, READ_ALL, ReadParameters};
use super::queue::PagesOf;
use super::stream::{Precedence, Stream};
use super::{Buffer, Cuda, CudaQueue, Pages, Routing, Shared};
use crate::arena::PageId;
use crate::drawn::Drawn;
use crate::error::DeviceError;
use crate::tensor::{MatrixView, Values, WeightKind};

pub use self::dense::Dense;
pub use self::traffic::{Carried, Load, Route, Traffic};

/// Blocks of a kernel that has the device alone, for each multiprocessor.
const BLOCKS_EACH: u32 = 8;

/// Values of a row of what memory is filled with.
const COLUMNS: usize = 4096;

/// A stream of its own on a GPU, to measure with.
#[derive(Debug)]
pub struct Gauge {
    device: Arc<Shared>,
    stream: Stream,
}

/// Memory of the GPU with random bfloat16 in it, since what a chip takes for a product or a copy depends on the bits.
#[derive(Debug)]
pub struct Region {
    memory: Allocation,
    bytes: usize,
}

/// Memory of the host that the device copies from and to at full speed.
#[derive(Debug)]
pub struct Pinned {
    memory: Mapped,
    bytes: usize,
}

/// Where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the host to the device.
    ToDevice,
    /// From the device to the host.
    ToHost,
}

/// What brings a few bytes from the host to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bringer {
    /// A copy engine.
    Engine,
    /// A kernel that reads memory of the host in place, as steps do.
    Kernel,
}

impl Gauge {
    /// One on this GPU.
    ///
    /// # Errors
    /// If it has no stream.
    pub fn new(gpu: &Cuda) -> Result<Self, DeviceError> {
        let device = Arc::clone(&gpu.shared);
        Ok(Self { stream: Stream::new(&device.context, Precedence::First)?, device })
    }

    /// The GPU's multiprocessors.
    #[must_use]
    pub fn multiprocessors(&self) -> u32 {
        self.device.context.multiprocessors
    }

    /// The driver's version.
    #[must_use]
    pub fn driver(&self) -> String {
        self.device.context.driver.to_string()
    }

    /// Memory of so many bytes at least.
    ///
    /// # Errors
    /// If there is none.
    pub fn region(&self, bytes: usize) -> Result<Region, DeviceError> {
        let rows = bytes.div_ceil(2 * COLUMNS);
        let bytes = rows * 2 * COLUMNS;
        let memory = Allocation::new(&self.device.context, bytes)?;
        let drawn = [Drawn::new(1, "", rows * COLUMNS, (0.0, 1.0))];
        let values = Values::Drawn { kind: WeightKind::Bf16, parts: &drawn };
        super::weights::draw(&self.device, MatrixView::new(rows, COLUMNS, values), memory.address())?;
        Ok(Region { memory, bytes })
    }

    /// Pinned memory of so many bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn pinned(&self, bytes: usize) -> Result<Pinned, DeviceError> {
        Ok(Pinned { memory: Mapped::new(&self.device.context, bytes)?, bytes })
    }

    /// Seconds that each of so many repetitions takes of what `enqueue` puts on the stream.
    fn seconds(&self, times: u32, enqueue: impl Fn() -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
        enqueue()?;
        self.stream.finish()?;
        let started = Instant::now();
        for _ in 0..times {
            enqueue()?;
        }
        self.stream.finish()?;
        Ok(started.elapsed().as_secs_f64() / f64::from(times))
    }

    /// Seconds that a kernel takes to read a region.
    ///
    /// # Errors
    /// If the device fails, as of all that follow.
    pub fn read(&self, region: &Region, times: u32) -> Result<f64, DeviceError> {
        let sum = Allocation::new(&self.device.context, size_of::<u32>())?;
        self.device.transfers.zero(sum.address(), size_of::<u32>())?;
        let parameters =
            ReadParameters { source: region.memory.address(), sum: sum.address(), bytes: region.bytes as u64 };
        let launch = Launch { kernel: &READ_ALL, blocks: BLOCKS_EACH * self.multiprocessors(), shared: 0 };
        self.seconds(times, || {
            // SAFETY: the region has so many bytes and the sum is one word; both outlive the wait, and nothing else writes them.
            Ok(unsafe { self.device.kernels.launch(&self.stream, launch, &parameters) }?)
        })
    }

    /// Seconds that a kernel takes to read no memory at all: a launch, among many.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn launch(&self, region: &Region, times: u32) -> Result<f64, DeviceError> {
        let parameters = CopyParameters { source: region.memory.address(), target: region.memory.address(), bytes: 0 };
        let launch = Launch { kernel: &COPY, blocks: 1, shared: 0 };
        self.seconds(times, || {
            // SAFETY: it reads and writes nothing.
            Ok(unsafe { self.device.kernels.launch(&self.stream, launch, &parameters) }?)
        })
    }

    /// Seconds that the device takes to copy the first half of a region to the second, by the driver's choice or by a kernel of so many
    /// blocks.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn copy(&self, region: &mut Region, blocks: Option<u32>, times: u32) -> Result<f64, DeviceError> {
        let bytes = region.bytes / 2 / 16 * 16;
        let (source, target) = (region.memory.address(), region.memory.address() + bytes as u64);
        let parameters = CopyParameters { source, target, bytes: bytes as u64 };
        self.seconds(times, || match blocks {
            Some(blocks) => {
                let launch = Launch { kernel: &COPY, blocks, shared: 0 };
                // SAFETY: both halves are of the region, which is borrowed as mutable until all of it was waited for.
                Ok(unsafe { self.device.kernels.launch(&self.stream, launch, &parameters) }?)
            }
            // SAFETY: as above.
            None => Ok(unsafe { self.stream.copy_on_device(target, source, bytes) }?),
        })
    }

    /// Seconds from asking for the first bytes of a pinned memory until they are at the beginning of a region.
    ///
    /// # Errors
    /// See [`Self::read`].
    ///
    /// # Panics
    /// If either is shorter.
    pub fn bring(
        &self,
        (by, bytes): (Bringer, usize),
        pinned: &mut Pinned,
        region: &mut Region,
    ) -> Result<f64, DeviceError> {
        assert!(bytes <= pinned.bytes && bytes <= region.bytes, "{bytes} bytes");
        let (source, target) = (pinned.memory.address(), region.memory.address());
        let started = Instant::now();
        match by {
            // SAFETY: both are borrowed as mutable until it was waited for, and long enough (asserted above).
            Bringer::Engine => unsafe { self.stream.copy_to_device(target, pinned.memory.host(), bytes) }?,
            Bringer::Kernel => {
                let parameters = CopyParameters { source, target, bytes: bytes as u64 };
                let launch = Launch { kernel: &COPY, blocks: 1, shared: 0 };
                // SAFETY: as above.
                unsafe { self.device.kernels.launch(&self.stream, launch, &parameters) }?;
            }
        }
        self.stream.finish()?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Seconds that it takes to copy as much as a pinned memory holds, in parts of so many bytes.
    ///
    /// # Errors
    /// See [`Self::read`].
    ///
    /// # Panics
    /// If the region is shorter.
    pub fn carry(
        &self,
        (way, part): (Way, usize),
        pinned: &mut Pinned,
        region: &mut Region,
        times: u32,
    ) -> Result<f64, DeviceError> {
        assert!(pinned.bytes <= region.bytes, "{} bytes to a region of {}", pinned.bytes, region.bytes);
        self.seconds(times, || {
            for start in (0..pinned.bytes).step_by(part) {
                let bytes = part.min(pinned.bytes - start);
                let (host, device) = (pinned.memory.host_at(start), region.memory.address() + start as u64);
                match way {
                    // SAFETY: both are borrowed as mutable until all of it was waited for, and long enough (asserted above).
                    Way::ToDevice => unsafe { self.stream.copy_to_device(device, host, bytes) }?,
                    // SAFETY: as above.
                    Way::ToHost => unsafe { self.stream.copy_to_host(host, device, bytes) }?,
                }
            }
            Ok(())
        })
    }
}

impl Region {
    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl CudaQueue {
    /// What [`Queue::experts`](crate::Queue::experts) does, with the pages of slots one after the other from `first` on instead of those
    /// of the table: the same kernels, so that the difference is what the table costs.
    pub fn experts_in_a_row(
        &self,
        (pages, first): (&Pages, PageId),
        routing: &Routing,
        x: &Buffer<f32>,
        results: &mut Buffer<f32>,
    ) {
        self.run_experts_of((pages, PagesOf::Row(first)), routing, x, results);
    }
}
