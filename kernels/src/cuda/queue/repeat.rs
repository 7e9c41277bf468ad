//! Steps that are alike: put on the queue operation by operation the first time, captured the second time, and one launch from then
//! on.

use super::super::Pages;
use super::super::batch::Batch;
use super::super::graph::{Capture, Kept, PageCount};
use super::CudaQueue;
use crate::error::DeviceError;

/// What a capture keeps beside what the driver does.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pages: Vec<PageCount>,
}

/// How a step was put on the queue.
enum Done {
    Launched,
    /// It was not, for this reason; nothing is on the queue.
    NotCaptured(DeviceError),
}

impl CudaQueue {
    /// Whether what is put on the queue now is captured.
    pub(super) fn is_capturing(&self) -> bool {
        self.capturing.borrow().is_some()
    }

    /// Takes note that a launch has the number of these pages in its parameters.
    pub(super) fn note_pages(&self, pages: &Pages) {
        if let Some(Noted { pages: noted }) = &mut *self.capturing.borrow_mut() {
            noted.push(pages.shared_count());
        }
    }

    pub(super) fn repeat_step<S, E>(
        &self,
        key: usize,
        state: &mut S,
        batch: impl Fn(&mut S) -> &mut Batch,
        mut work: impl FnMut(&mut S) -> Result<(), E>,
    ) -> Result<Option<DeviceError>, E> {
        if !self.captures {
            return work(state).map(|()| None);
        }
        let step = batch(state);
        match step.graphs.of(self.number, key) {
            Some(Kept::Graph(graph)) if graph.holds() => {
                step.clock.replay(graph.activities());
                // SAFETY: the graph holds, so it was captured of operations with the memory that it is launched with; they are asked
                // for again by a caller who borrows all of it as mutable, as the first time.
                let launched = unsafe { graph.launch(&self.stream) };
                self.keep(launched);
                Ok(None)
            }
            Some(Kept::Refused) => work(state).map(|()| None),
            None => {
                step.graphs.keep(self.number, key, Kept::Seen);
                work(state).map(|()| None)
            }
            Some(Kept::Seen | Kept::Graph(_)) => match self.capture(key, state, &batch, &mut work)? {
                Done::Launched => Ok(None),
                Done::NotCaptured(error) => {
                    let step = batch(state);
                    step.graphs.keep(self.number, key, Kept::Refused);
                    step.clock.restart();
                    self.split.set(0);
                    work(state)?;
                    Ok(Some(error))
                }
            },
        }
    }

    fn capture<S, E>(
        &self,
        key: usize,
        state: &mut S,
        batch: impl Fn(&mut S) -> &mut Batch,
        mut work: impl FnMut(&mut S) -> Result<(), E>,
    ) -> Result<Done, E> {
        if !self.is_well() {
            // There is no telling a failure of the capture from one before it; the step is lost in any case.
            return work(state).map(|()| Done::Launched);
        }
        let capture = match Capture::begin(&self.device.context, &self.stream) {
            Ok(capture) => capture,
            Err(failure) => return Ok(Done::NotCaptured(failure.into())),
        };
        *self.capturing.borrow_mut() = Some(Noted::default());
        let worked = work(state);
        let noted = self.capturing.take().unwrap_or_default();
        worked?;
        let step = batch(state);
        let graph = capture.end(step.clock.activities().to_vec(), noted.pages);
        // An operation that was refused says more than the capture that it spoilt.
        match (graph, self.failed.take()) {
            (_, Some(error)) => Ok(Done::NotCaptured(error)),
            (Err(failure), None) => Ok(Done::NotCaptured(failure.into())),
            (Ok(graph), None) => {
                // SAFETY: it was captured just now, of operations whose memory is borrowed as mutable by the caller.
                let launched = unsafe { graph.launch(&self.stream) };
                self.keep(launched);
                step.graphs.keep(self.number, key, Kept::Graph(graph));
                Ok(Done::Launched)
            }
        }
    }
}
