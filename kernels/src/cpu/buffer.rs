//! Arrays of fixed capacity.

use std::ops::{Deref, DerefMut};

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_slice_box;

use crate::error::DeviceError;
use crate::host::bytes_of;

/// An array of fixed capacity. The system gives its memory when it is first written, so what a step could need and never does
/// costs nothing.
#[derive(Debug)]
pub struct Buffer<T> {
    values: Box<[T]>,
    len: usize,
}

impl<T: Zeroable> Buffer<T> {
    pub(crate) fn new(capacity: usize) -> Result<Self, DeviceError> {
        let values =
            try_zeroed_slice_box(capacity).map_err(|()| DeviceError::Memory { bytes: bytes_of::<T>(capacity) })?;
        Ok(Self { values, len: 0 })
    }

    /// Says how many elements there are; what they are is still to be written.
    ///
    /// # Panics
    /// If they are more than its capacity.
    pub(crate) fn set_len(&mut self, len: usize) {
        assert!(len <= self.values.len(), "{len} elements in a buffer of {}", self.values.len());
        self.len = len;
    }
}

#[cfg(test)]
impl<T> Buffer<T> {
    /// All that it has room for.
    pub(crate) fn whole(&self) -> &[T] {
        &self.values
    }
}

impl<T: Zeroable + Copy> Buffer<T> {
    /// Puts elements behind those that are there.
    pub(crate) fn append(&mut self, values: &[T]) {
        let start = self.len;
        self.set_len(start + values.len());
        self.values[start..self.len].copy_from_slice(values);
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[..self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[..self.len]
    }
}
