//! The ranks that are threads of one process, and what they share in it. Knows nothing of devices: what is shared is found by who
//! shares it and the type that both expect.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use plan::ids::RankId;

use super::purpose::GroupId;

/// What is shared, for as long as whoever shares it holds it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(Arc<Mutex<Shared>>);

type Shared = BTreeMap<Key, Weak<dyn Any + Send + Sync>>;

/// Who shares what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The device of the rank that others reach at this address.
    Device(String),
    /// The memory of a rank of a group that others write.
    Window(GroupId, RankId),
    /// The pages of a rank of a group, which others copy.
    Pages(GroupId, RankId),
}

impl Neighbours {
    /// Shares something until its last owner has dropped it.
    pub fn share(&self, key: Key, what: &Arc<dyn Any + Send + Sync>) {
        let mut shared = self.lock();
        shared.retain(|_, shared| shared.strong_count() > 0);
        shared.insert(key, Arc::downgrade(what));
    }

    /// What a rank of this process shares.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<Arc<dyn Any + Send + Sync>> {
        self.lock().get(key).and_then(Weak::upgrade)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_found_by_all_clones_for_as_long_as_it_is_held() {
        let (neighbours, key) = (Neighbours::default(), Key::Device("h:1".to_owned()));
        let held: Arc<dyn Any + Send + Sync> = Arc::new(7_u32);
        neighbours.share(key.clone(), &held);
        let found = neighbours.clone().find(&key).unwrap();
        assert_eq!(found.downcast::<u32>().ok().as_deref(), Some(&7));
        assert!(neighbours.find(&Key::Device("h:2".to_owned())).is_none());
        assert!(Neighbours::default().find(&key).is_none(), "another process");
        drop(held);
        assert!(neighbours.find(&key).is_none());
    }
}
