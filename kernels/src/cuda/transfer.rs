//! Bytes between the host and the device through pinned memory, beside the steps: weights as they are loaded, and pages as they
//! move. Each thread that brings or takes bytes has a lane of its own meanwhile, a stream with two stages: one is filled while
//! the other is copied.

use std::sync::{Arc, Mutex, PoisonError};

use super::context::Context;
use super::memory::Mapped;
use super::module::{Kernels, Launch};
use super::parameters::{ChunkFingerprint, FINGERPRINT, FingerprintParameters};
use super::stream::{Events, Mark, Precedence, Stream};
use crate::error::DeviceError;
use crate::fingerprint::chunks_of;

/// Bytes of a stage: enough that a copy is not all latency, little enough that a step's read of the host's memory never waits
/// for long.
const STAGE: usize = 1 << 20;

/// Blocks of work beside the steps: little of what the device runs at once.
const MOST_BLOCKS: usize = 16;

/// Lanes that are made as they are needed and used again.
#[derive(Debug)]
pub(super) struct Transfers {
    context: Arc<Context>,
    events: Arc<Events>,
    free: Mutex<Vec<Lane>>,
}

#[derive(Debug)]
struct Lane {
    stream: Stream,
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

impl Transfers {
    pub fn new(context: &Arc<Context>, events: &Arc<Events>) -> Self {
        Self { context: Arc::clone(context), events: Arc::clone(events), free: Mutex::default() }
    }

    /// Does something with a lane. One on which something failed is not used again.
    fn with<T>(&self, work: impl FnOnce(&mut Lane) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = free().pop();
        let mut lane = match taken {
            Some(lane) => lane,
            None => Lane {
                stream: Stream::new(&self.context, Precedence::Last)?,
                stages: [Stage::new(&self.context)?, Stage::new(&self.context)?],
            },
        };
        let done = work(&mut lane)?;
        free().push(lane);
        Ok(done)
    }

    /// Writes `bytes` bytes of the device from `address` on, as `fill` gives them: it is called for one part after the other with
    /// where that begins. All of it is there when this returns.
    ///
    /// The memory belongs to the caller, and nothing on the device uses it yet.
    pub fn write(&self, address: u64, bytes: usize, mut fill: impl FnMut(usize, &mut [u8])) -> Result<(), DeviceError> {
        let mut part = vec![0; bytes.min(STAGE)];
        self.with(|Lane { stream, stages }| {
            for (index, start) in (0..bytes).step_by(STAGE).enumerate() {
                let stage = &mut stages[index % 2];
                let part = &mut part[..STAGE.min(bytes - start)];
                fill(start, part);
                stage.wait()?;
                stage.memory.write(0, part);
                let (from, to) = (stage.memory.host(), address + start as u64);
                // SAFETY: the stage is not written again before the mark has passed, which is recorded below; it lives on in the
                // lane, whose stream is waited for before it is dropped. The caller owns the device's memory.
                unsafe { stream.copy_to_device(to, from, part.len()) }?;
                stage.busy = Some(self.events.record(stream)?);
            }
            stages.iter_mut().try_for_each(Stage::wait)
        })
    }

    /// Writes these bytes to the device from `address` on, as [`Self::write`].
    pub fn put(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.write(address, bytes.len(), |start, part| part.copy_from_slice(&bytes[start..start + part.len()]))
    }

    /// Reads bytes of the device from `address` on, which nothing on the device changes meanwhile.
    pub fn get(&self, address: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.with(|Lane { stream, stages }| {
            let parts = into.len().div_ceil(STAGE);
            let part = |index: usize| index * STAGE..into.len().min((index + 1) * STAGE);
            let ranges: Vec<_> = (0..parts).map(part).collect();
            // One part is on its way while the one before is taken out.
            for index in 0..=parts {
                if let Some(range) = ranges.get(index) {
                    let stage = &mut stages[index % 2];
                    let from = address + range.start as u64;
                    // SAFETY: the stage was read to its end two parts ago, and is read again once the mark has passed.
                    unsafe { stream.copy_to_host(stage.memory.host(), from, range.len()) }?;
                    stage.busy = Some(self.events.record(stream)?);
                }
                if let Some(before) = index.checked_sub(1) {
                    let stage = &mut stages[before % 2];
                    stage.wait()?;
                    stage.memory.read(0, &mut into[ranges[before].clone()]);
                }
            }
            Ok(())
        })
    }

    /// The fingerprints of the chunks of bytes of the device, of which nothing on the device changes any meanwhile.
    ///
    /// # Panics
    /// If there are more than a stage has room for.
    pub fn fingerprints(
        &self,
        kernels: &Kernels,
        (address, length): (u64, usize),
        seed: u64,
    ) -> Result<Vec<u128>, DeviceError> {
        let mut found = vec![ChunkFingerprint { low: 0, high: 0 }; chunks_of(length)];
        assert!(size_of_val(&*found) <= STAGE, "{} chunks of a page", found.len());
        self.with(|Lane { stream, stages: [stage, _] }| {
            let parameters = FingerprintParameters {
                bytes: address,
                chunks: stage.memory.address(),
                length: length as u64,
                seed,
                secret: FingerprintParameters::secret(seed),
            };
            let launch = Launch { kernel: &FINGERPRINT, blocks: found.len().min(MOST_BLOCKS) as u32, shared: 0 };
            // SAFETY: the caller vouches for the bytes; the stage has room for the fingerprints (asserted above), belongs to this
            // lane, and is read when the stream has done it.
            unsafe { kernels.launch(stream, launch, &parameters) }?;
            stream.finish()?;
            stage.memory.read(0, &mut found);
            Ok(())
        })?;
        Ok(found.iter().map(|half| u128::from(half.high) << 64 | u128::from(half.low)).collect())
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
