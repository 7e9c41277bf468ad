//! Arrays on the device. How many rows one has is known to kernels by an address, so that nothing they do depends on the host.

use std::marker::PhantomData;
use std::sync::Arc;

use super::context::Context;
use super::memory::Allocation;
use super::parameters::{Address, Rows};
use crate::error::DeviceError;

/// An array of fixed capacity on the device.
#[derive(Debug)]
pub struct Buffer<T> {
    memory: Allocation,
    capacity: usize,
    /// Elements, as the host has foreseen them.
    len: usize,
    /// Where the device has the number of rows.
    rows: Rows,
    elements: PhantomData<T>,
}

// SAFETY: the elements are not in this process's memory; all access goes through queues, in their order.
unsafe impl<T> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Buffer<T> {}

impl<T> Buffer<T> {
    pub(super) fn new(context: &Arc<Context>, capacity: usize) -> Result<Self, DeviceError> {
        let bytes = capacity.checked_mul(size_of::<T>()).ok_or(DeviceError::Memory { bytes: u64::MAX })?;
        let memory = Allocation::new(context, bytes)?;
        Ok(Self { memory, capacity, len: 0, rows: Rows { count: 0, first: 0, most: 0 }, elements: PhantomData })
    }

    /// Where it is.
    pub(super) const fn address(&self) -> Address {
        self.memory.address()
    }

    /// Elements that it has.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Where the number of its rows is; their most is how many the host has foreseen.
    pub(super) const fn rows(&self) -> Rows {
        self.rows
    }

    /// All of them, of this width, where the device counts them: those that came behind are not among those.
    pub(super) const fn all_rows(&self, width: usize) -> Rows {
        let most = (self.len / width) as u32;
        if most == self.rows.most { self.rows } else { Rows { count: 0, first: 0, most } }
    }

    /// Says that an operation writes it: as many rows of `width`.
    ///
    /// # Panics
    /// If they are more than its capacity.
    pub(super) fn set(&mut self, rows: Rows, width: usize) {
        let len = rows.most as usize * width;
        assert!(len <= self.capacity, "{len} elements in a buffer of {}", self.capacity);
        (self.rows, self.len) = (rows, len);
    }

    /// Says that elements come behind those that are there; gives where they begin.
    ///
    /// # Panics
    /// If they are more than its capacity.
    pub(super) fn append(&mut self, elements: usize) -> usize {
        let start = self.len;
        assert!(start + elements <= self.capacity, "{} elements in a buffer of {}", start + elements, self.capacity);
        self.len = start + elements;
        start
    }
}
