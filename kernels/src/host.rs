//! Lists in the host's memory, made with all the room that they ever have.

use crate::error::DeviceError;

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
