//! How a rank is ended from elsewhere, by whoever started it or by the end of a thread that it cannot do without.

use std::sync::{Arc, Mutex, OnceLock};

use crate::cancel::Cancel;
use crate::fabric::framing::Closer;
use crate::threads::{ThreadEnded, VitalThreads};

/// Ends a worker from elsewhere.
#[derive(Debug, Default)]
pub struct Stop {
    pub(super) cancel: Cancel,
    control: Mutex<Option<Closer>>,
    /// The thread whose end ends it.
    ended: OnceLock<ThreadEnded>,
}

impl Stop {
    /// Ends it: the coordinator is left, and [`run`](super::run) returns.
    ///
    /// # Panics
    /// Never: no thread panics while it holds the connection.
    pub fn stop(&self) {
        self.cancel.cancel();
        if let Some(control) = &*self.control.lock().expect("no thread panics while it holds the connection") {
            control.close();
        }
    }

    /// Threads whose end stops it.
    pub(super) fn threads(self: &Arc<Self>) -> VitalThreads {
        let stop = Arc::clone(self);
        VitalThreads::new(move |thread| {
            // The first is the cause.
            let _ = stop.ended.set(thread);
            stop.stop();
        })
    }

    /// Has `control` closed by [`Self::stop`], at once if that was before.
    pub(super) fn guard(&self, control: Closer) {
        let mut guarded = self.control.lock().expect("no thread panics while it holds the connection");
        if self.cancel.is_cancelled() {
            control.close();
        }
        *guarded = Some(control);
    }

    /// The thread whose end has stopped it.
    pub(super) fn ended(&self) -> Option<&ThreadEnded> {
        self.ended.get()
    }
}
