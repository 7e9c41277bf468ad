//! Bytes between the host and the device through pinned memory, beside the steps: weights as they are loaded, and pages as they
//! move. A thread that brings or takes bytes has a lane to itself meanwhile, a stream with two stages: one is filled while the
//! other is copied. Lanes are made when the device is opened, since to pin memory stops what a device does; who finds none free
//! waits for one.
//!
//! Whatever a lane was used for has been done when it is given back: there is no order between lanes, or between them and the
//! queues of steps, but what their callers make of that.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::context::Context;
use super::memory::Mapped;
use super::module::{Kernels, Launch};
use super::parameters::{ChunkFingerprint, DRAW, DrawParameters, FINGERPRINT, FingerprintParameters};
use super::stream::{Events, Mark, Precedence, Stream};
use crate::error::DeviceError;
use crate::fingerprint::chunks_of;

/// Bytes of a stage: enough that a copy is not all latency, little enough that a step's read of the host's memory never waits
/// for long.
const STAGE: usize = 1 << 20;

/// Lanes of a device: more than the threads that receive and send pages at a time, and as many as keep the way to the device
/// busy while all of a machine's cores read weights.
const LANES: usize = 8;

/// Blocks of work beside the steps: little of what the device runs at once.
const MOST_BLOCKS: usize = 16;

/// All lanes of a device.
#[derive(Debug)]
pub(super) struct Transfers {
    context: Arc<Context>,
    events: Arc<Events>,
    /// Those that nobody uses; one on which something failed is made again by who takes it next.
    free: Mutex<Vec<Option<Lane>>>,
    freed: Condvar,
}

#[derive(Debug)]
struct Lane {
    stream: Stream,
    stages: Stages,
}

/// A place in [`Transfers::free`] that is taken.
struct Taken<'a> {
    transfers: &'a Transfers,
    lane: Option<Lane>,
}

/// Pinned memory in two parts, through which bytes go on one stream.
#[derive(Debug)]
pub(super) struct Stages {
    events: Arc<Events>,
    stages: [Stage; 2],
}

#[derive(Debug)]
struct Stage {
    memory: Mapped,
    /// The copy that reads it or writes to it.
    busy: Option<Mark>,
}

impl Stage {
    fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        Ok(Self { memory: Mapped::new(context, STAGE)?, busy: None })
    }

    /// Waits until it can be used.
    fn wait(&mut self) -> Result<(), DeviceError> {
        Ok(self.busy.take().map_or(Ok(()), |mark| mark.wait())?)
    }
}

impl Stages {
    pub fn new(context: &Arc<Context>, events: &Arc<Events>) -> Result<Self, DeviceError> {
        Ok(Self { events: Arc::clone(events), stages: [Stage::new(context)?, Stage::new(context)?] })
    }

    /// Writes `bytes` bytes of the device from `address` on, once all is done that is on the stream, as `fill` gives them: it is
    /// called for one part after the other with where that begins.
    ///
    /// The memory belongs to the caller, and nothing on the device uses it before the stream has done this.
    pub fn write(
        &mut self,
        stream: &Stream,
        (address, bytes): (u64, usize),
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), DeviceError> {
        let mut part = vec![0; bytes.min(STAGE)];
        for (index, start) in (0..bytes).step_by(STAGE).enumerate() {
            let stage = &mut self.stages[index % 2];
            let part = &mut part[..STAGE.min(bytes - start)];
            fill(start, part);
            stage.wait()?;
            stage.memory.write(0, part);
            let (from, to) = (stage.memory.host(), address + start as u64);
            // SAFETY: the stage is not written again before the mark has passed, which is recorded below; when it is dropped, all
            // work of the device has ended. The caller owns the device's memory.
            unsafe { stream.copy_to_device(to, from, part.len()) }?;
            stage.busy = Some(self.events.record(stream)?);
        }
        Ok(())
    }

    /// Waits until all that was written is there.
    fn wait(&mut self) -> Result<(), DeviceError> {
        self.stages.iter_mut().try_for_each(Stage::wait)
    }

    /// Reads bytes of the device from `address` on, once all is done that is on the stream. Nothing on the device changes them
    /// until this returns.
    pub fn read(&mut self, stream: &Stream, address: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let parts = into.len().div_ceil(STAGE);
        let part = |index: usize| index * STAGE..into.len().min((index + 1) * STAGE);
        let ranges: Vec<_> = (0..parts).map(part).collect();
        // One part is on its way while the one before is taken out.
        for index in 0..=parts {
            if let Some(range) = ranges.get(index) {
                let stage = &mut self.stages[index % 2];
                let from = address + range.start as u64;
                // SAFETY: what was read into the stage was taken out of it, and what may still be copied from it is before this on the
                // stream; it is read once the mark has passed.
                unsafe { stream.copy_to_host(stage.memory.host(), from, range.len()) }?;
                stage.busy = Some(self.events.record(stream)?);
            }
            if let Some(before) = index.checked_sub(1) {
                let stage = &mut self.stages[before % 2];
                stage.wait()?;
                stage.memory.read(0, &mut into[ranges[before].clone()]);
            }
        }
        Ok(())
    }
}

impl Lane {
    fn new(context: &Arc<Context>, events: &Arc<Events>) -> Result<Self, DeviceError> {
        Ok(Self { stream: Stream::new(context, Precedence::Last)?, stages: Stages::new(context, events)? })
    }

    /// The fingerprints of chunks of the device, once all is done that is on the stream: which the caller lets nobody change meanwhile.
    fn fingerprints(
        &mut self,
        kernels: &Kernels,
        (address, length): (u64, usize),
        seed: u64,
    ) -> Result<Vec<u128>, DeviceError> {
        let Self { stream, stages: Stages { stages: [stage, _], .. } } = self;
        let mut found = vec![ChunkFingerprint { low: 0, high: 0 }; chunks_of(length)];
        assert!(size_of_val(&*found) <= STAGE, "{} chunks of a page", found.len());
        let parameters = FingerprintParameters {
            bytes: address,
            chunks: stage.memory.address(),
            length: length as u64,
            seed,
            secret: FingerprintParameters::secret(seed),
        };
        let launch = Launch { kernel: &FINGERPRINT, blocks: found.len().min(MOST_BLOCKS) as u32, shared: 0 };
        // SAFETY: the caller vouches for the bytes; the stage has room for the fingerprints (asserted above), belongs to this lane,
        // and is read when the stream has done it.
        unsafe { kernels.launch(stream, launch, &parameters) }?;
        stream.finish()?;
        stage.memory.read(0, &mut found);
        Ok(found.iter().map(|half| u128::from(half.high) << 64 | u128::from(half.low)).collect())
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut free = self.transfers.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.lane.take());
        drop(free);
        self.transfers.freed.notify_one();
    }
}

impl Transfers {
    /// Makes all lanes.
    ///
    /// # Errors
    /// If the device gives no streams, or the host no memory.
    pub fn new(context: &Arc<Context>, events: &Arc<Events>) -> Result<Self, DeviceError> {
        let lanes = (0..LANES).map(|_| Lane::new(context, events).map(Some)).collect::<Result<_, _>>()?;
        let (context, events) = (Arc::clone(context), Arc::clone(events));
        Ok(Self { context, events, free: Mutex::new(lanes), freed: Condvar::new() })
    }

    /// Waits for a place.
    fn take(&self) -> Taken<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.freed.wait_while(free, |free| free.is_empty());
        let lane = free.unwrap_or_else(PoisonError::into_inner).pop().flatten();
        Taken { transfers: self, lane }
    }

    /// Does something with a lane. One on which something failed is not used again.
    fn with<T>(&self, work: impl FnOnce(&mut Lane) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        let mut taken = self.take();
        let mut lane = match taken.lane.take() {
            Some(lane) => lane,
            None => Lane::new(&self.context, &self.events)?,
        };
        let done = work(&mut lane)?;
        taken.lane = Some(lane);
        Ok(done)
    }

    /// Writes `bytes` bytes of the device from `address` on, as `fill` gives them: it is called for one part after the other with
    /// where that begins. All of it is there when this returns.
    ///
    /// The memory belongs to the caller, and nothing on the device uses it yet.
    pub fn write(&self, address: u64, bytes: usize, fill: impl FnMut(usize, &mut [u8])) -> Result<(), DeviceError> {
        self.with(|Lane { stream, stages }| {
            stages.write(stream, (address, bytes), fill)?;
            stages.wait()
        })
    }

    /// Writes these bytes to the device from `address` on, as [`Self::write`].
    pub fn put(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.write(address, bytes.len(), |start, part| part.copy_from_slice(&bytes[start..start + part.len()]))
    }

    /// Reads bytes of the device from `address` on, which nothing on the device changes meanwhile.
    pub fn get(&self, address: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.with(|Lane { stream, stages }| stages.read(stream, address, into))
    }

    /// Copies bytes of this device, or of one whose memory it may use, to an address of this one, and gives the fingerprints of the
    /// chunks that are there then.
    ///
    /// What is written belongs to the caller, who lets nobody change what is read meanwhile.
    ///
    /// # Panics
    /// As [`Self::fingerprints`].
    pub fn pull(
        &self,
        kernels: &Kernels,
        (to, from): (u64, u64),
        length: usize,
        seed: u64,
    ) -> Result<Vec<u128>, DeviceError> {
        self.with(|lane| {
            // SAFETY: the caller vouches for both; what fails here ends with its lane, which waits for all that is on its stream.
            unsafe { lane.stream.copy_on_device(to, from, length) }?;
            lane.fingerprints(kernels, (to, length), seed)
        })
    }

    /// The fingerprints of the chunks of bytes of the device, of which nothing on the device changes any meanwhile.
    ///
    /// # Panics
    /// If there are more than a stage has room for.
    pub fn fingerprints(&self, kernels: &Kernels, bytes: (u64, usize), seed: u64) -> Result<Vec<u128>, DeviceError> {
        self.with(|lane| lane.fingerprints(kernels, bytes, seed))
    }

    /// Draws weights into memory of the device that nothing uses yet; all of them are there when this returns.
    pub fn draw(&self, kernels: &Kernels, parts: &[DrawParameters]) -> Result<(), DeviceError> {
        self.with(|Lane { stream, .. }| {
            for parameters in parts {
                let launch = Launch { kernel: &DRAW, blocks: MOST_BLOCKS as u32, shared: 0 };
                // SAFETY: the caller owns the memory, and this waits for the end.
                unsafe { kernels.launch(stream, launch, parameters) }?;
            }
            Ok(stream.finish()?)
        })
    }

    /// Makes memory of the device zero that nothing uses yet.
    pub fn zero(&self, address: u64, bytes: usize) -> Result<(), DeviceError> {
        self.with(|Lane { stream, .. }| {
            // SAFETY: the caller owns the memory, and this waits for the end.
            unsafe { stream.zero(address, bytes) }?;
            Ok(stream.finish()?)
        })
    }
}
