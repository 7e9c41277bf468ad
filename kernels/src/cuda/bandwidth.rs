//! How fast a GPU's memory is, measured where it is used.

use std::time::Instant;

use super::Shared;
use super::memory::Allocation;
use super::stream::{Precedence, Stream};
use crate::error::DeviceError;

/// Bytes that are copied at once: more than a chip keeps nearer to it than its memory.
const MOST: usize = 128 << 20;

/// Copies, of which the fastest counts: whatever disturbs one only makes it slower.
const COPIES: usize = 5;

/// Bytes that the device's memory reads and writes in a second, by copies within it. Takes twice as many as are copied of its free
/// memory for as long as it measures, and at most a 32nd.
///
/// # Errors
/// If it has none, or fails.
pub(super) fn bytes_per_second(device: &Shared) -> Result<f64, DeviceError> {
    let bytes = (device.context.free_memory()? / 64).min(MOST as u64) as usize;
    let [from, to] = [Allocation::new(&device.context, bytes)?, Allocation::new(&device.context, bytes)?];
    let stream = Stream::new(&device.context, Precedence::Last)?;
    // SAFETY: both have so many bytes, and outlive the waits below as nothing else knows of them.
    unsafe { stream.zero(from.address(), bytes) }?;
    stream.finish()?;
    let mut least = f64::INFINITY;
    for _ in 0..COPIES {
        let started = Instant::now();
        // SAFETY: as above.
        unsafe { stream.copy_on_device(to.address(), from.address(), bytes) }?;
        stream.finish()?;
        least = least.min(started.elapsed().as_secs_f64());
    }
    Ok(2.0 * bytes as f64 / least)
}
