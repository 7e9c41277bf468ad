//! What coordinators said last, and which of it a status shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use plan::wire::{Phase, RecordedMap, State};

use crate::observed::{RuntimeView, Unreadable};
use crate::{ratio, words};

/// Memory that maps may take which coordinators say they have recorded, over all deployments: each is at most 1 MB as text and
/// several times that as a map. One that does not fit is recorded once others have gone.
const HELD_MAPS: usize = 64 << 20;

/// Namespace, deployment and replica.
pub(super) type Key = (String, String, usize);

/// Readable answers in a row after which one that was not is forgotten: a coordinator of which some can be read and some not
/// does not turn a condition back and forth.
const READABLE_AGAIN: u32 = 5;

/// What coordinators said last, by namespace, deployment and replica.
#[derive(Clone, Debug, Default)]
pub struct RuntimeViews(Arc<Mutex<Views>>);

#[derive(Debug, Default)]
struct Views {
    entries: BTreeMap<Key, Entry>,
    unread: BTreeMap<Key, Unread>,
}

/// What could not be read of a pod, in the words of the first time: what is found differs from answer to answer.
#[derive(Debug)]
struct Unread {
    pod_uid: String,
    shown: Unreadable,
    /// Content hash of the recorded map that it is, as the pod says: it is not asked for again.
    map_hash: Option<String>,
    /// Readable answers since.
    readable: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    view: RuntimeView,
    shown: Shown,
    /// The words of the last answer, which are shown when they are said again.
    said: Words,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Words {
    degraded: Option<String>,
    failure: Option<String>,
}

impl Words {
    fn of(state: &State) -> Self {
        Self { degraded: state.degraded.clone(), failure: state.failure.clone() }
    }

    /// What is shown after `shown` of a coordinator that said `before` and says this now.
    fn settle(&self, shown: Option<&Self>, before: Option<&Self>) -> Self {
        let settle = |field: fn(&Self) -> Option<&str>| {
            words::settle(shown.and_then(field), before.and_then(field), field(self))
        };
        Self { degraded: settle(|words| words.degraded.as_deref()), failure: settle(|words| words.failure.as_deref()) }
    }
}

/// The part of a state that a status shows.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    ready: bool,
    epoch: u64,
    ratio: Option<String>,
    recorded: Option<String>,
    recorded_too_large: bool,
    words: Words,
}

impl Shown {
    fn after(previous: Option<&Entry>, view: &RuntimeView) -> Self {
        let state = view.state.as_ref();
        let shown = previous.map(|entry| &entry.shown);
        let measured = state.last_window.as_ref().map(|window| window.ratio);
        Self {
            ready: state.ready,
            epoch: match shown {
                Some(shown) if state.phase == Phase::Moving => shown.epoch,
                _ => state.epoch,
            },
            ratio: measured
                .and_then(|ratio| ratio::settle(shown.and_then(|shown| shown.ratio.as_deref()), Some(ratio))),
            recorded: view.recorded.as_ref().map(|recorded| recorded.map.content_hash()),
            recorded_too_large: view.recorded_too_large,
            words: Words::of(state).settle(shown.map(|shown| &shown.words), previous.map(|entry| &entry.said)),
        }
    }
}

/// What is known of a map that a coordinator says it has recorded.
pub(super) enum Known {
    /// It has been read.
    Map(Arc<RecordedMap>),
    /// It is larger than is read.
    TooLarge,
    /// It cannot be read.
    Unreadable,
    /// It has not been read yet.
    Not,
}

impl RuntimeViews {
    fn lock(&self) -> std::sync::MutexGuard<'_, Views> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the coordinators of a deployment said last.
    #[must_use]
    pub fn of(&self, namespace: &str, deployment: &str) -> BTreeMap<usize, RuntimeView> {
        of(&self.lock().entries, namespace, deployment, |entry| entry.view.clone())
    }

    /// What the coordinators of a deployment said that cannot be read.
    #[must_use]
    pub fn unreadable_of(&self, namespace: &str, deployment: &str) -> BTreeMap<usize, Unreadable> {
        of(&self.lock().unread, namespace, deployment, |unread| unread.shown.clone())
    }

    /// When the coordinator of a replica in this pod answered last.
    pub(super) fn heard(&self, pod_uid: &str, key: &Key) -> Option<Timestamp> {
        let views = self.lock();
        views.entries.get(key).filter(|entry| entry.view.pod_uid == pod_uid).map(|entry| entry.view.heard)
    }

    /// Notes an answer of a pod that cannot be read; whether that is news. `map_hash` is that of a recorded map.
    pub(super) fn cannot_read(&self, key: &Key, pod_uid: &str, found: &str, map_hash: Option<&str>) -> bool {
        let unread = &mut self.lock().unread;
        let is_map = map_hash.is_some();
        let new = || Unread {
            pod_uid: pod_uid.to_owned(),
            shown: Unreadable { found: words::shorten(found), is_map },
            map_hash: map_hash.map(str::to_owned),
            readable: 0,
        };
        let Some(known) = unread.get_mut(key).filter(|unread| unread.pod_uid == pod_uid) else {
            unread.insert(key.clone(), new());
            return true;
        };
        if known.shown.is_map == is_map {
            *known = Unread { shown: known.shown.clone(), ..new() };
            return false;
        }
        // Its state can be read again, or for once: then it is the map that cannot.
        known.readable += 1;
        if is_map && known.readable < READABLE_AGAIN {
            known.map_hash = map_hash.map(str::to_owned);
            return false;
        }
        *known = new();
        true
    }

    /// Notes that everything that was asked of a coordinator could be read; whether that is news.
    pub(super) fn could_read(&self, key: &Key, pod_uid: &str) -> bool {
        let mut views = self.lock();
        let Some(unread) = views.unread.get_mut(key) else { return false };
        unread.readable += 1;
        let is_over = unread.readable >= READABLE_AGAIN || unread.pod_uid != pod_uid;
        if is_over {
            views.unread.remove(key);
        }
        is_over
    }

    /// Takes an answer in; whether it changes what is shown.
    pub(super) fn take(&self, key: &Key, mut view: RuntimeView) -> bool {
        let views = &mut self.lock().entries;
        let others: usize = views.iter().filter(|(other, _)| *other != key).map(|(_, entry)| held(&entry.view)).sum();
        if others + held(&view) > HELD_MAPS {
            tracing::warn!(namespace = key.0, deployment = key.1, "too many recorded maps wait to be stored");
            view.recorded = None;
        }
        let previous = views.get(key).filter(|entry| entry.view.pod_uid == view.pod_uid);
        let shown = Shown::after(previous, &view);
        let changed = previous.map(|entry| &entry.shown) != Some(&shown);
        let said = Words::of(&view.state);
        // A status is made from the view, so the view has the words that are shown.
        let Words { degraded, failure } = shown.words.clone();
        view.state = Arc::new(State { degraded, failure, ..view.state.as_ref().clone() });
        views.insert(key.clone(), Entry { view, shown, said });
        changed
    }

    /// Whether no replica before this one serves: the first that does speaks for all.
    pub(super) fn may_speak(&self, (namespace, deployment, group): &Key) -> bool {
        let views = &self.lock().entries;
        let before =
            views.range((namespace.clone(), deployment.clone(), 0)..(namespace.clone(), deployment.clone(), *group));
        !before.into_iter().any(|(_, entry)| entry.view.state.ready)
    }

    /// What is known of the map of that content hash, as the coordinator in a pod says.
    pub(super) fn known_map(&self, key: &Key, pod_uid: &str, hash: &str) -> Known {
        let views = self.lock();
        let unread = views.unread.get(key).filter(|unread| unread.pod_uid == pod_uid);
        if unread.is_some_and(|unread| unread.map_hash.as_deref() == Some(hash)) {
            return Known::Unreadable;
        }
        let said = |entry: &&Entry| {
            entry.view.pod_uid == pod_uid && entry.view.state.recorded_map_hash.as_deref() == Some(hash)
        };
        match views.entries.get(key).filter(said).map(|entry| &entry.view) {
            Some(RuntimeView { recorded: Some(map), .. }) => Known::Map(Arc::clone(map)),
            Some(RuntimeView { recorded_too_large: true, .. }) => Known::TooLarge,
            _ => Known::Not,
        }
    }

    /// Forgets coordinators that are gone; `exists` is asked by replica and pod.
    pub(super) fn keep(&self, exists: impl Fn(&Key, &str) -> bool) {
        let Views { entries, unread } = &mut *self.lock();
        entries.retain(|key, entry| exists(key, &entry.view.pod_uid));
        unread.retain(|key, unread| exists(key, &unread.pod_uid));
    }
}

/// What is known of a deployment, by replica.
fn of<T, U>(all: &BTreeMap<Key, T>, namespace: &str, deployment: &str, get: impl Fn(&T) -> U) -> BTreeMap<usize, U> {
    let from = (namespace.to_owned(), deployment.to_owned(), 0);
    let own = all.range(from..).take_while(|((space, name, _), _)| space == namespace && name == deployment);
    own.map(|((_, _, group), known)| (*group, get(known))).collect()
}

/// Bytes that the map of a view takes, about.
fn held(view: &RuntimeView) -> usize {
    let Some(recorded) = &view.recorded else { return 0 };
    let lists = |layers: &[Vec<Vec<u32>>]| -> usize {
        let list = |numbers: &Vec<u32>| 40 + 4 * numbers.capacity();
        layers.iter().map(|ranks| 24 + ranks.iter().map(list).sum::<usize>()).sum()
    };
    let map = &recorded.map;
    lists(&map.placement)
        + map.shares.as_deref().map_or(0, lists)
        + map.slots_of_ranks.as_ref().map_or(0, |counts| 8 * counts.len())
}
