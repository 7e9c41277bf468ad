//! Streams, on which work runs in order, and the places in that order that others may ask for.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUevent, CUevent_flags, CUresult, CUstream, CUstream_flags};

use super::context::Context;
use super::failure::{Failure, check};

/// What of the device's time a stream gets where several have work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precedence {
    /// What steps get, since somebody waits for their tokens.
    First,
    /// What page copies get, which nobody waits for.
    Last,
}

/// Work in order. Never the default stream, which waits for all others. Gone, it leaves its work to the device.
#[derive(Debug)]
pub(super) struct Stream {
    context: Arc<Context>,
    stream: CUstream,
}

// SAFETY: the driver's functions on a stream may be called by any thread.
unsafe impl Send for Stream {}

impl Stream {
    pub fn new(context: &Arc<Context>, precedence: Precedence) -> Result<Self, Failure> {
        context.bind()?;
        let (mut last, mut first) = (0, 0);
        // SAFETY: both pointers are to local variables, and the context is current.
        let asked = unsafe { sys::cuCtxGetStreamPriorityRange(&raw mut last, &raw mut first) };
        check("ask for priorities", asked)?;
        let priority = if precedence == Precedence::First { first } else { last };
        let (flags, mut stream) = (CUstream_flags::CU_STREAM_NON_BLOCKING as u32, std::ptr::null_mut());
        // SAFETY: the pointer is to a local variable, and the context is current.
        let made = unsafe { sys::cuStreamCreateWithPriority(&raw mut stream, flags, priority) };
        check("make a stream", made)?;
        Ok(Self { context: Arc::clone(context), stream })
    }

    /// Its handle.
    pub const fn handle(&self) -> CUstream {
        self.stream
    }

    /// Waits for all that is on it.
    pub fn finish(&self) -> Result<(), Failure> {
        self.context.bind()?;
        // SAFETY: the stream lives as long as this does.
        check("finish what was put on a stream", unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    /// Copies bytes to the device once all is done that is on the stream by now.
    ///
    /// # Safety
    /// The bytes stay as they are, and the device's memory is used by nothing else, until the stream has done it.
    pub unsafe fn copy_to_device(&self, to: u64, from: *const std::ffi::c_void, bytes: usize) -> Result<(), Failure> {
        self.context.bind()?;
        // SAFETY: the caller vouches for both ends; the stream lives as long as this does.
        let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from, bytes, self.stream) };
        check("copy to the device", copied)
    }

    /// Copies bytes from the device once all is done that is on the stream by now.
    ///
    /// # Safety
    /// The memory of the host is used by nothing else, and the device's stays as it is, until the stream has done it.
    pub unsafe fn copy_to_host(&self, to: *mut std::ffi::c_void, from: u64, bytes: usize) -> Result<(), Failure> {
        self.context.bind()?;
        // SAFETY: as above.
        let copied = unsafe { sys::cuMemcpyDtoHAsync_v2(to, from, bytes, self.stream) };
        check("copy to the host", copied)
    }

    /// Copies bytes of the device, or of one whose memory it may use, to others of it once all is done that is on the stream by now.
    ///
    /// # Safety
    /// The memory that is written is used by nothing else, and what is read stays as it is, until the stream has done it.
    pub unsafe fn copy_on_device(&self, to: u64, from: u64, bytes: usize) -> Result<(), Failure> {
        self.context.bind()?;
        // SAFETY: as above.
        check("copy on the device", unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.stream) })
    }

    /// Makes bytes of the device zero once all is done that is on the stream by now.
    ///
    /// # Safety
    /// The memory is the device's, and nothing else uses it until the stream has done it.
    pub unsafe fn zero(&self, address: u64, bytes: usize) -> Result<(), Failure> {
        self.context.bind()?;
        // SAFETY: the caller vouches for the memory; the stream lives as long as this does.
        check("set memory to zero", unsafe { sys::cuMemsetD8Async(address, 0, bytes, self.stream) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: nobody else has its handle. What is on it goes on: who frees what that uses waits for the device.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.stream) };
    }
}

/// Events that were made and are not in use: a step takes one and makes none.
#[derive(Debug)]
pub(super) struct Events {
    context: Arc<Context>,
    free: Mutex<Vec<Event>>,
}

/// A place in the order of a stream.
#[derive(Debug)]
pub(super) struct Event(CUevent);

// SAFETY: the driver's functions on an event may be called by any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

/// A place in the order of a queue. Free for another use when all that know of it have forgotten it.
#[derive(Clone, Debug)]
pub struct Mark(Option<Arc<Recorded>>);

#[derive(Debug)]
struct Recorded {
    events: Arc<Events>,
    /// There until it is dropped.
    event: Option<Event>,
}

impl Events {
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        Arc::new(Self { context: Arc::clone(context), free: Mutex::default() })
    }

    /// Marks what is on a stream by now.
    pub fn record(self: &Arc<Self>, stream: &Stream) -> Result<Mark, Failure> {
        self.context.bind()?;
        let taken = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let event = taken.map_or_else(Event::new, Ok)?;
        let mark = Recorded { events: Arc::clone(self), event: Some(event) };
        // SAFETY: both live, and nobody else has the event.
        check("mark a place on a stream", unsafe { sys::cuEventRecord(mark.handle(), stream.handle()) })?;
        Ok(Mark(Some(Arc::new(mark))))
    }
}

impl Event {
    /// One that says nothing of when it was; the context is current.
    fn new() -> Result<Self, Failure> {
        Self::with(CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    /// One that keeps when it was.
    pub fn timed() -> Result<Self, Failure> {
        Self::with(CUevent_flags::CU_EVENT_DEFAULT)
    }

    fn with(flags: CUevent_flags) -> Result<Self, Failure> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is to a local variable, and the context is current.
        check("make an event", unsafe { sys::cuEventCreate(&raw mut event, flags as u32) })?;
        Ok(Self(event))
    }

    /// Its handle.
    pub const fn handle(&self) -> CUevent {
        self.0
    }

    /// Gives it back, which nobody else has; the context is current.
    pub fn destroy(self) {
        // SAFETY: it was made by the driver, and this is the only one that has it.
        let _ = unsafe { sys::cuEventDestroy_v2(self.0) };
    }
}

impl Recorded {
    fn handle(&self) -> CUevent {
        self.event.as_ref().map_or(std::ptr::null_mut(), Event::handle)
    }
}

impl Mark {
    /// One that never passes: of a device that fails.
    pub(super) const fn never() -> Self {
        Self(None)
    }

    /// Whether all has been done that it marks. A device that fails has passed no mark.
    pub(super) fn has_passed(&self) -> bool {
        self.0.as_ref().is_some_and(|recorded| {
            // SAFETY: the event lives as long as this does.
            let ask = || unsafe { sys::cuEventQuery(recorded.handle()) };
            recorded.events.context.bind().map(|()| ask()) == Ok(CUresult::CUDA_SUCCESS)
        })
    }

    /// Waits until all has been done that it marks.
    pub(super) fn wait(&self) -> Result<(), Failure> {
        let Some(recorded) = &self.0 else { return Ok(()) };
        recorded.events.context.bind()?;
        // SAFETY: the event lives as long as this does.
        check("wait for the device", unsafe { sys::cuEventSynchronize(recorded.handle()) })
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.events.free.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // Nobody else has one: every mark holds this.
        self.free.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(Event::destroy);
    }
}
