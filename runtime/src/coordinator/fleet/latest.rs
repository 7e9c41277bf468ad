//! What counts only as it is last: however often it changes, one event of it is on its way at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The last that was told of something, for who hears it later.
#[derive(Debug)]
pub struct Latest<T>(Arc<Mutex<Option<T>>>);

impl<T> Latest<T> {
    /// Nothing was told yet.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// Takes it; `None` if it was taken before.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.lock().take()
    }

    /// Has `value` told in the place of what nobody has heard yet. What is to be sent so that somebody does, unless that is on
    /// its way.
    pub(super) fn put(&self, value: T) -> Option<Self> {
        let before = self.lock().replace(value);
        before.is_none().then(|| Self(Arc::clone(&self.0)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        // It is whole, whoever has panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> From<T> for Latest<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_heard_is_replaced_and_sent_once() {
        let latest = Latest::new();
        let sent = latest.put(1).unwrap();
        assert!(latest.put(2).is_none() && latest.put(3).is_none());
        assert_eq!((sent.take(), sent.take()), (Some(3), None));
        assert_eq!(latest.put(4).unwrap().take(), Some(4));
    }
}
