//! Steps that are put on a queue whole: what operations put there once is captured, and launched as one graph whenever the same is
//! asked for again. A graph holds addresses, sizes of launches and no values of a step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUstreamCaptureMode};

use super::context::Context;
use super::failure::{Failure, check};
use super::stream::Stream;
use crate::times::Activity;

/// What was captured, by the queue that it is for and the caller's key. Gone with the batch whose steps it is.
#[derive(Debug, Default)]
pub(super) struct Graphs(BTreeMap<(u64, usize), Kept>);

/// What there is of a step.
#[derive(Debug)]
pub(super) enum Kept {
    /// It was put on the queue once, operation by operation: whatever the driver does at first use has been done.
    Seen,
    /// It was captured.
    Graph(Graph),
    /// The driver does not capture it.
    Refused,
}

impl Graphs {
    /// What there is for a queue and a key, and room for something else.
    pub fn of(&self, queue: u64, key: usize) -> Option<&Kept> {
        self.0.get(&(queue, key))
    }

    /// Keeps something instead of what there was.
    pub fn keep(&mut self, queue: u64, key: usize, kept: Kept) {
        self.0.insert((queue, key), kept);
    }
}

/// Of what is not in the parameters of a captured launch's memory a graph holds the number of pages, which are added to as a model is
/// loaded.
pub(super) type PageCount = (Arc<AtomicU32>, u32);

/// A step that was captured.
#[derive(Debug)]
pub(super) struct Graph {
    context: Arc<Context>,
    executable: CUgraphExec,
    /// How often memory had been freed. Nothing was since, so everything is still where it was.
    frees: u64,
    pages: Vec<PageCount>,
    /// What begins at each timed mark that it puts on the queue.
    activities: Vec<Activity>,
}

// SAFETY: the handle may be used by any thread, one at a time.
unsafe impl Send for Graph {}

impl Graph {
    /// Whether it is what would be captured now.
    pub fn holds(&self) -> bool {
        self.frees == self.context.frees()
            && self.pages.iter().all(|(count, then)| count.load(Ordering::Relaxed) == *then)
    }

    /// What begins at each timed mark.
    pub fn activities(&self) -> &[Activity] {
        &self.activities
    }

    /// Puts it on a stream.
    ///
    /// # Safety
    /// It holds, and what its launches promise is so now: nothing else uses what they write until the stream has done it.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), Failure> {
        self.context.bind()?;
        // SAFETY: graph and stream live; the caller vouches for the rest.
        check("launch a step", unsafe { sys::cuGraphLaunch(self.executable, stream.handle()) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: it was made by the driver and is given back once; the driver frees what still runs when it has ended.
        let _ = unsafe { sys::cuGraphExecDestroy(self.executable) };
    }
}

/// A capture that goes on: what is put on the stream is kept and not done. It ends with this.
pub(super) struct Capture<'a> {
    context: Arc<Context>,
    stream: &'a Stream,
    frees: u64,
    has_ended: bool,
}

impl<'a> Capture<'a> {
    /// Begins on a stream. Other threads go on with whatever they do to the device.
    pub fn begin(context: &Arc<Context>, stream: &'a Stream) -> Result<Self, Failure> {
        let frees = context.frees();
        context.bind()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives, and this thread alone uses it.
        check("capture a step", unsafe { sys::cuStreamBeginCapture_v2(stream.handle(), mode) })?;
        Ok(Self { context: Arc::clone(context), stream, frees, has_ended: false })
    }

    /// Ends it; gives what was captured, which has these timed marks and uses pages of arenas with so many.
    pub fn end(mut self, activities: Vec<Activity>, pages: Vec<PageCount>) -> Result<Graph, Failure> {
        let graph = self.stop()?;
        let mut executable = std::ptr::null_mut();
        // SAFETY: the pointer is to a local variable; the graph was captured above.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut executable, graph, 0) };
        // SAFETY: it was captured above, is given back once, and what was made of it does not need it.
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        check("make a captured step ready", made)?;
        let (context, frees) = (Arc::clone(&self.context), self.frees);
        Ok(Graph { context, executable, frees, pages, activities })
    }

    fn stop(&mut self) -> Result<CUgraph, Failure> {
        self.has_ended = true;
        self.context.bind()?;
        let mut graph = std::ptr::null_mut();
        // SAFETY: the pointer is to a local variable; the stream captures since `begin`.
        check("end the capture of a step", unsafe { sys::cuStreamEndCapture(self.stream.handle(), &raw mut graph) })?;
        Ok(graph)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if !self.has_ended
            && let Ok(graph) = self.stop()
        {
            // SAFETY: it was captured, is given back once, and nothing was made of it.
            let _ = unsafe { sys::cuGraphDestroy(graph) };
        }
    }
}
