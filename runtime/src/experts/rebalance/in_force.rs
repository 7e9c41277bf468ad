//! The map in force. Whoever looks at it shares it, and computes its hash if nobody has yet: the thread that runs steps does
//! neither copy nor hash a map that nobody changes.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use plan::map::ExpertMap;
use plan::moves::Transaction;

/// Something and its hash, shared by all clones.
#[derive(Debug)]
pub(super) struct Hashed<T>(Arc<(T, OnceLock<String>)>);

impl<T> Clone for Hashed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Hashed<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new((value, OnceLock::new())))
    }

    /// Its hash, by `hash` if nobody has asked before.
    pub fn hash(&self, hash: impl FnOnce(&T) -> String) -> String {
        self.0.1.get_or_init(|| hash(&self.0.0)).clone()
    }
}

impl<T> Deref for Hashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

/// The map in force and its epoch.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    map: Hashed<ExpertMap>,
    epoch: u64,
}

impl InForce {
    pub fn new(map: ExpertMap, epoch: u64) -> Self {
        Self { map: Hashed::new(map), epoch }
    }

    pub fn map(&self) -> &ExpertMap {
        &self.map
    }

    /// The map as others see it later, whatever is applied meanwhile.
    pub fn shared(&self) -> Hashed<ExpertMap> {
        self.map.clone()
    }

    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Applies a transaction that the step which has just ended has committed.
    ///
    /// # Panics
    /// If it does not fit the map: transactions of a layer are committed in order.
    pub fn apply(&mut self, work: &Transaction) {
        self.epoch += 1;
        if let Some((map, hash)) = Arc::get_mut(&mut self.map.0) {
            map.apply_in_place(work).expect("transactions of a layer are committed in order");
            hash.take();
        } else {
            let mut map = self.map().clone();
            map.apply_in_place(work).expect("transactions of a layer are committed in order");
            self.map = Hashed::new(map);
        }
    }
}
