//! What a device says of itself: what it is, and what memory it has.

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// Devices of one kind give the same bits for the same step; those of a group are of one kind. In words for people.
    pub kind: String,
    /// The product, for people.
    pub name: String,
    /// Which of its machine's devices it is: processes that name the same share its memory.
    pub unit: String,
}

/// Memory that a device has to itself, beside the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Bytes of it.
    pub total: u64,
    /// Bytes that nobody has taken.
    pub free: u64,
}
