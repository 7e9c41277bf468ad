//! A flag that ends waits.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Ends waits, once and for all.
#[derive(Debug, Default)]
pub struct Cancel {
    cancelled: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    /// Ends every wait, now and later.
    ///
    /// # Panics
    /// Never, as [`Self::wait`].
    pub fn cancel(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// Whether it was cancelled.
    ///
    /// # Panics
    /// Never, as [`Self::wait`].
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.lock()
    }

    /// Waits; true if it was cancelled before or meanwhile.
    ///
    /// # Panics
    /// Never: no thread panics while it holds the flag.
    pub fn wait(&self, duration: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(self.lock(), duration, |cancelled| !*cancelled);
        *wait.expect("no thread panics while it holds the flag").0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.cancelled.lock().expect("no thread panics while it holds the flag")
    }
}
