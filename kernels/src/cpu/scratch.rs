//! Memory between the parts of an operation. Each thread of a rank has its own, large enough for all caches, pages and batches that
//! were made on the device: it grows with them, never in a step.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::allocation::try_zeroed_slice_box;

use crate::batch::Scored;
use crate::error::DeviceError;
use crate::host::{bytes_of, list};

/// That of all threads of a rank.
#[derive(Debug)]
pub(crate) struct Scratch {
    threads: Box<[Place]>,
}

/// Apart from those of other threads, so that taking one does not take the cache line of another.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place(Mutex<Lent>);

/// What a thread has; it holds whatever was left in it.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    /// Of networks and of attention. The system gives its memory when it is first written.
    pub numbers: Box<[f32]>,
    /// Of a row of logits.
    pub tokens: Vec<Scored>,
}

impl Scratch {
    /// That of so many threads, for nothing yet.
    pub fn new(threads: usize) -> Self {
        Self { threads: (0..threads).map(|_| Place::default()).collect() }
    }

    /// Makes room for so many numbers.
    pub fn fit_numbers(&self, count: usize) -> Result<(), DeviceError> {
        self.fit(|lent| {
            if lent.numbers.len() < count {
                let error = |()| DeviceError::Memory { bytes: bytes_of::<f32>(count) };
                lent.numbers = try_zeroed_slice_box(count).map_err(error)?;
            }
            Ok(())
        })
    }

    /// Makes room for so many tokens.
    pub fn fit_tokens(&self, count: usize) -> Result<(), DeviceError> {
        self.fit(|lent| {
            if lent.tokens.capacity() < count {
                lent.tokens = list(count)?;
            }
            Ok(())
        })
    }

    /// Bytes of a thread's with room for so many numbers and tokens.
    pub fn bytes(numbers: usize, tokens: usize) -> u64 {
        bytes_of::<f32>(numbers).saturating_add(bytes_of::<Scored>(tokens))
    }

    fn fit(&self, make: impl Fn(&mut Lent) -> Result<(), DeviceError>) -> Result<(), DeviceError> {
        (0..self.threads.len()).try_for_each(|thread| make(&mut self.of(thread)))
    }

    /// That of a thread. Nobody else asks for it while it works, so that it never waits in a step.
    pub fn of(&self, thread: usize) -> MutexGuard<'_, Lent> {
        self.threads[thread].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
