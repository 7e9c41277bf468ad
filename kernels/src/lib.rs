//! What a device can do for a model. The CPU is the specification that every other device is compared with.
//!
//! An engine works in three moves. It *prepares* a step on the host, in one [`StepArea`] that goes to the device in one
//! upload; it *enqueues* the operations of the model on a [`Queue`], where nothing is read, allocated or decided by what a device
//! holds; and it *collects* what the step left for the host, in one download, which is the only wait.
//!
//! Every result is a fixed sequence of roundings that depends on the inputs of its own row alone: not on the other rows,
//! on how work is split over threads, or on the instruction set. So a token's activations are the same bits in any
//! batch, on any rank and under any expert placement.
#![cfg_attr(not(feature = "cuda"), forbid(unsafe_code))]

pub mod arena;
pub mod backend;
pub mod batch;
pub mod cpu;
#[cfg(feature = "cuda")]
#[allow(unsafe_code, reason = "the one place for it: a driver is called there, and memory is shared with a device")]
pub mod cuda;
pub mod device;
pub mod drawn;
pub mod error;
pub mod fingerprint;
mod host;
pub mod link;
pub mod queue;
pub mod routing;
pub mod tensor;
pub mod times;

pub use arena::{Arena, Page, PageId};
pub use backend::Backend;
pub use batch::StepArea;
pub use device::{DeviceIdentity, DeviceMemory};
pub use error::DeviceError;
pub use queue::Queue;
