//! Exchanges of rows among the devices of a group with no host in between, for devices that can. What goes where is the same as in an
//! exchange through the hosts, to the bit.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Backend, PageShape};
use crate::error::DeviceError;
use crate::routing::GroupShape;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkShape {
    /// The group, as the rank sees it.
    pub group: GroupShape,
    /// What its experts' pages hold.
    pub page: PageShape,
}

/// Memory of a rank that the devices of others write. Those hold it too, so that it is there for as long as any of them may write it.
pub type Window = Arc<dyn Any + Send + Sync>;

/// What ranks of any processes find each other by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkName(pub [u8; 128]);

/// How a device is linked with those of other ranks of its kind.
pub trait Linking<B: Backend> {
    /// Lets operations on this device write the memory of another one, which may be the same.
    ///
    /// # Errors
    /// If the machine has no way between them; which, in words.
    fn reach(&self, other: &B) -> Result<(), DeviceError>;

    /// This rank's window of a link.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn window(&self, shape: LinkShape) -> Result<Window, DeviceError>;

    /// Links this rank with others of its process, by the windows of all ranks in order, its own among them. Whoever does not come to
    /// an exchange within `patience` is given up.
    ///
    /// # Errors
    /// If the device gives no memory.
    ///
    /// # Panics
    /// If a window is of another link, or of a device of another kind.
    fn link(&self, windows: &[Window], shape: LinkShape, patience: Duration) -> Result<Box<dyn Link<B>>, DeviceError>;

    /// Whether there is what links ranks of any processes.
    ///
    /// # Errors
    /// If not; what is missing, in words.
    fn collective(&self) -> Result<(), DeviceError>;

    /// A name for a new link.
    ///
    /// # Errors
    /// As [`Self::collective`].
    fn name(&self) -> Result<LinkName, DeviceError>;

    /// Links this rank with the others that join by the same name. Whoever does not come to it, or to an exchange of it, within `patience` is
    /// given up.
    ///
    /// # Errors
    /// If the others do not come, or the device gives no memory.
    fn join(&self, name: LinkName, shape: LinkShape, patience: Duration) -> Result<Box<dyn Link<B>>, DeviceError>;
}

/// Why a link is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A rank did not come in time, and was given up.
    Late {
        /// Which, if that is known.
        rank: Option<usize>,
    },
    /// What carries rows goes on no more.
    Ended {
        /// What it says.
        reason: &'static str,
    },
}

/// A rank's end of a link: what it puts on the rank's queue waits for the other ranks' devices there, and is the same in every step of
/// as many tokens, so that it can be repeated. What a queue kept of it is gone before this is.
pub trait Link<B: Backend>: Send {
    /// Whether what it puts on a queue is as much on every rank, so that all of them prepare a step for as many tokens, and repeat it
    /// or do not, alike.
    fn is_uniform(&self) -> bool {
        false
    }

    /// A step begins, in which no rank has more tokens than these.
    fn begin(&self, tokens: usize);

    /// Gives every rank the rows that its slots are to compute. What [`sort`](crate::Queue::sort) and
    /// [`experts`](crate::Queue::experts) do next they do with what all ranks gave this one.
    fn dispatch(&self, queue: &B::Queue, routing: &mut B::Routing, x: &B::Buffer<f32>);

    /// Gives the other ranks the results of their pairs. [`combine`](crate::Queue::combine) finds those of this rank's tokens.
    fn combine(&self, queue: &B::Queue, routing: &mut B::Routing, results: &B::Buffer<f32>);

    /// A step was collected.
    ///
    /// # Errors
    /// If a rank is lost. Nothing of that step can be used, and the link no more.
    fn end(&self) -> Result<(), Lost>;

    /// What ends all waits of it from another thread: who has not come by then is given up.
    fn closer(&self) -> LinkCloser;
}

/// See [`Link::closer`].
pub type LinkCloser = Box<dyn Fn() + Send>;
