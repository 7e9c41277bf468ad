//! How a process of ranks is ended from elsewhere, by whoever started it or by the end of a thread that it cannot do without.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use plan::ids::RankId;

use crate::cancel::Cancel;
use crate::fabric::framing::Closer;
use crate::threads::{ThreadEnded, VitalThreads};

/// Ends the ranks of a process from elsewhere.
#[derive(Debug, Default)]
pub struct Stop {
    pub(super) cancel: Cancel,
    /// The connection of each rank to the coordinator.
    controls: Mutex<BTreeMap<RankId, Closer>>,
    /// The thread whose end ends it, with whose it is.
    ended: OnceLock<(Option<RankId>, ThreadEnded)>,
}

impl Stop {
    /// Ends them: the coordinator is left, and [`run`](super::run) returns.
    ///
    /// # Panics
    /// Never: no thread panics while it holds the connections.
    pub fn stop(&self) {
        self.cancel.cancel();
        for control in self.controls.lock().expect("no thread panics while it holds the connections").values() {
            control.close();
        }
    }

    /// Threads of a rank, or of the process, whose end stops it.
    pub(super) fn threads(self: &Arc<Self>, rank: Option<RankId>) -> VitalThreads {
        let stop = Arc::clone(self);
        VitalThreads::new(move |thread| {
            // The first is the cause.
            let _ = stop.ended.set((rank, thread));
            stop.stop();
        })
    }

    /// Has a rank's `control` closed by [`Self::stop`], at once if that was before.
    pub(super) fn guard(&self, rank: RankId, control: Closer) {
        let mut guarded = self.controls.lock().expect("no thread panics while it holds the connections");
        if self.cancel.is_cancelled() {
            control.close();
        }
        guarded.insert(rank, control);
    }

    /// The thread whose end has stopped it, and the rank whose it is.
    pub(super) fn ended(&self) -> Option<&(Option<RankId>, ThreadEnded)> {
        self.ended.get()
    }
}
