//! Timed marks in a step, and what was done from each to the next. They are made before the first step, put on the queue among its
//! operations, and read when the step is collected: all of them have passed by then, so that nothing waits for them.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys::{self, CUevent, CUevent_record_flags};

use super::context::Context;
use super::error::Version;
use super::failure::{Failure, check};
use super::stream::{Event, Stream};
use crate::error::DeviceError;
use crate::times::{Activity, StepTimes};

/// Marks of a layer with experts at most: rows leave, experts compute, results come home, and all else.
const MARKS_OF_A_LAYER: usize = 4;

/// The driver that has the function which tells the time between marks; with one that has not, no time is told.
const TELLS_TIMES: Version = Version { major: 12, minor: 8 };

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Clock {
    context: Arc<Context>,
    /// None, where the driver does not tell times.
    marks: Vec<Event>,
    /// What begins at each of those that the step has put on the queue.
    begun: Vec<Activity>,
}

impl Clock {
    /// Of the steps of a model with so many layers that have experts.
    pub fn new(context: &Arc<Context>, layers: usize) -> Result<Self, DeviceError> {
        context.bind()?;
        let count = if context.driver < TELLS_TIMES { 0 } else { MARKS_OF_A_LAYER * layers + 1 };
        let mut clock = Self { context: Arc::clone(context), marks: Vec::with_capacity(count), begun: Vec::new() };
        for _ in 0..count {
            clock.marks.push(Event::timed()?);
        }
        clock.begun.reserve_exact(count);
        Ok(clock)
    }

    /// A step begins.
    pub fn restart(&mut self) {
        self.begun.clear();
    }

    /// A step begins that puts these marks on the queue by itself.
    pub fn replay(&mut self, activities: &[Activity]) {
        self.begun.clear();
        self.begun.extend_from_slice(activities);
    }

    /// What begins at each mark that the step has put on the queue.
    pub fn activities(&self) -> &[Activity] {
        &self.begun
    }

    /// Marks where something else begins on a stream, or in what is captured of it.
    ///
    /// # Panics
    /// If a step has more parts than its layers have.
    pub fn mark(&mut self, activity: Activity, stream: &Stream, is_captured: bool) -> Result<(), Failure> {
        if self.marks.is_empty() {
            return Ok(());
        }
        let mark = self.marks.get(self.begun.len()).expect("a layer has no more parts than there are marks for");
        self.context.bind()?;
        // One that is captured would otherwise only say what comes before what.
        let how = if is_captured {
            CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL
        } else {
            CUevent_record_flags::CU_EVENT_RECORD_DEFAULT
        };
        // SAFETY: the event lives as long as this, and is recorded by this alone; what is captured is gone before this.
        let marked = unsafe { sys::cuEventRecordWithFlags(mark.handle(), stream.handle(), how as u32) };
        check("mark a place on a stream", marked)?;
        self.begun.push(activity);
        Ok(())
    }

    /// What a step took whose every mark has passed.
    pub fn times(&self) -> Result<StepTimes, Failure> {
        self.context.bind()?;
        let handles = self.marks.iter().map(Event::handle);
        let ends = handles.clone().skip(1).take(self.begun.len().saturating_sub(1));
        let mut times = StepTimes::default();
        for ((begin, end), &activity) in handles.zip(ends).zip(&self.begun) {
            if activity != Activity::Other {
                times = times.with(activity, between(begin, end)?);
            }
        }
        Ok(times)
    }
}

/// How much later one of two timed events, that have both happened, was.
fn between(begin: CUevent, end: CUevent) -> Result<Duration, Failure> {
    let mut milliseconds = 0.0_f32;
    // SAFETY: the pointer is to a local variable, and the caller's events live.
    check("read its clock", unsafe { sys::cuEventElapsedTime_v2(&raw mut milliseconds, begin, end) })?;
    Ok(Duration::try_from_secs_f32(milliseconds / 1e3).unwrap_or_default())
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = self.context.bind();
        for event in self.marks.drain(..) {
            event.destroy();
        }
    }
}
