//! Arrays of fixed capacity.

use std::ops::{Deref, DerefMut};

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_slice_box;

use crate::error::DeviceError;

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

/// Bytes of so many items.
pub(crate) const fn bytes_of<T>(items: usize) -> u64 {
    (items as u64).saturating_mul(size_of::<T>() as u64)
}

/// An empty list with room for this many items.
pub(crate) fn list<T>(capacity: usize) -> Result<Vec<T>, DeviceError> {
    let mut list = Vec::new();
    list.try_reserve_exact(capacity).map_err(|_| DeviceError::Memory { bytes: bytes_of::<T>(capacity) })?;
    Ok(list)
}

/// A list of these items.
pub(crate) fn listed<T>(items: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>, DeviceError> {
    let mut list = list(items.len())?;
    list.extend(items);
    Ok(list)
}
