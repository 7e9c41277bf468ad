//! What a connection is doing, since when, and which is closed first when there are too many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::ConnectionBounds;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its client has connected, or begun a request.
    Head,
    /// Its last request is answered and no other has begun.
    Idle,
    /// The headers of a request are there and its body is not.
    Body,
    /// The whole request is there.
    Answer,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client has taken nothing of what is to be sent.
    blocked: Option<Instant>,
    /// The client was given up for that.
    given_up: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Watch {
    state: Mutex<State>,
    close: Notify,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It has sent no request in time.
    Silent,
    /// It does not read.
    Unread,
}

impl Watch {
    fn new(now: Instant) -> Self {
        let state = State { phase: Phase::Head, since: now, blocked: None, given_up: false };
        Self { state: Mutex::new(state), close: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (phase, now);
    }

    /// The client has sent something.
    pub fn heard(&self, now: Instant) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, now);
        }
    }

    /// The client has taken something.
    pub fn sent(&self, now: Instant) {
        let mut state = self.state();
        state.blocked = None;
        // The end of the last answer.
        if state.phase == Phase::Idle {
            state.since = now;
        }
    }

    /// There is something to be sent, and the client takes nothing.
    pub fn blocked(&self, now: Instant) {
        self.state().blocked.get_or_insert(now);
    }

    /// The headers of a request are there.
    pub fn asked(&self, now: Instant) {
        self.enter(Phase::Body, now);
    }

    /// The whole request is there, or what is left of it is not waited for.
    pub fn answering(&self) {
        self.state().phase = Phase::Answer;
    }

    /// The answer is made; what is left of it goes out.
    pub fn answered(&self, now: Instant) {
        self.enter(Phase::Idle, now);
    }

    /// Whether the connection is to be closed.
    pub fn overdue(&self, now: Instant, bounds: &ConnectionBounds) -> Option<Overdue> {
        let State { phase, since, blocked, .. } = *self.state();
        if blocked.is_some_and(|since| now.saturating_duration_since(since) > bounds.unread) {
            return Some(Overdue::Unread);
        }
        let most = match phase {
            Phase::Head => bounds.head,
            Phase::Idle => bounds.idle,
            Phase::Body => bounds.body?,
            Phase::Answer => return None,
        };
        (now.saturating_duration_since(since) > most).then_some(Overdue::Silent)
    }

    /// The client is given up because it does not read.
    pub fn give_up(&self) {
        self.state().given_up = true;
    }

    /// Since when the server waits for bytes of a request, if it does.
    fn waiting(&self) -> Option<Instant> {
        let State { phase, since, .. } = *self.state();
        (phase != Phase::Answer).then_some(since)
    }
}

/// Who reads an answer.
#[derive(Clone, Debug)]
pub struct Reader(Option<Arc<Watch>>);

impl Reader {
    pub(super) const fn new(watch: Arc<Watch>) -> Self {
        Self(Some(watch))
    }

    /// One that never pauses: of requests that come over no connection.
    #[must_use]
    pub const fn patient() -> Self {
        Self(None)
    }

    /// Closes its connection, whatever is being sent over it.
    pub fn close(&self) {
        if let Some(watch) = &self.0 {
            watch.close.notify_one();
        }
    }

    /// Whether it was given up because it has not read for too long.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.0.as_ref().is_some_and(|watch| watch.state().given_up)
    }
}

/// The connections that are open, within a bound.
#[derive(Debug)]
pub struct Open {
    most: usize,
    watches: Arc<Mutex<Watches>>,
}

#[derive(Debug, Default)]
struct Watches {
    next: u64,
    open: BTreeMap<u64, Arc<Watch>>,
}

impl Watches {
    /// Closes the connection that has kept the server waiting longest; false if none does.
    fn close_one(&mut self) -> bool {
        let waiting = self.open.iter().filter_map(|(&number, watch)| Some((watch.waiting()?, number)));
        let Some((_, longest)) = waiting.min() else { return false };
        let closed = self.open.remove(&longest).expect("it was found there");
        closed.close.notify_one();
        true
    }
}

impl Open {
    pub fn new(most: usize) -> Self {
        Self { most, watches: Arc::default() }
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a place that nobody has.
    pub fn has_room(&self) -> bool {
        self.watches().open.len() < self.most
    }

    /// Whether there is a place for another connection, be it that of one that keeps the server waiting.
    pub fn has_place(&self) -> bool {
        let watches = self.watches();
        watches.open.len() < self.most || watches.open.values().any(|watch| watch.waiting().is_some())
    }

    /// A place for another connection, taken from the one that has kept the server waiting longest if need be; `None` if
    /// all are being answered.
    pub fn enter(&self, now: Instant) -> Option<Entered> {
        let mut watches = self.watches();
        if watches.open.len() >= self.most && !watches.close_one() {
            return None;
        }
        let (number, watch) = (watches.next, Arc::new(Watch::new(now)));
        watches.next += 1;
        watches.open.insert(number, Arc::clone(&watch));
        Some(Entered { watches: Arc::clone(&self.watches), number, watch })
    }

    /// Closes the connection that has kept the server waiting longest, if any does.
    pub fn close_one(&self) {
        self.watches().close_one();
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Entered {
    watches: Arc<Mutex<Watches>>,
    number: u64,
    watch: Arc<Watch>,
}

impl Entered {
    pub const fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Done when the place is needed for another.
    pub async fn closed(&self) {
        self.watch.close.notified().await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOUNDS: ConnectionBounds = ConnectionBounds::of(2, 2);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn each_phase_has_its_time_and_an_answer_takes_as_long_as_it_takes() {
        let start = Instant::now();
        let watch = Watch::new(start);
        assert_eq!(watch.overdue(after(start, 10), &BOUNDS), None);
        assert_eq!(watch.overdue(after(start, 11), &BOUNDS), Some(Overdue::Silent), "no head");
        watch.asked(after(start, 5));
        watch.answering();
        assert_eq!(watch.overdue(after(start, 100_000), &BOUNDS), None);
        watch.answered(after(start, 20));
        watch.sent(after(start, 30));
        assert_eq!(watch.overdue(after(start, 100), &BOUNDS), None, "the answer was going out until 30");
        assert_eq!(watch.overdue(after(start, 106), &BOUNDS), Some(Overdue::Silent));
        watch.heard(after(start, 100));
        assert_eq!(watch.overdue(after(start, 106), &BOUNDS), None, "a head has begun");
        assert_eq!(watch.overdue(after(start, 111), &BOUNDS), Some(Overdue::Silent), "and has not ended");
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up_and_one_that_takes_something_is_not() {
        let start = Instant::now();
        let watch = Arc::new(Watch::new(start));
        let reader = Reader::new(Arc::clone(&watch));
        watch.asked(start);
        watch.answering();
        watch.blocked(start);
        watch.blocked(after(start, 50));
        assert_eq!(watch.overdue(after(start, 61), &BOUNDS), Some(Overdue::Unread));
        watch.sent(after(start, 55));
        assert_eq!(watch.overdue(after(start, 61), &BOUNDS), None);
        assert!(!reader.is_given_up());
        watch.give_up();
        assert!(reader.is_given_up());
    }

    #[test]
    fn the_place_of_whoever_keeps_the_server_waiting_longest_goes_to_the_next() {
        let start = Instant::now();
        let open = Open::new(2);
        let (first, second) = (open.enter(start).unwrap(), open.enter(after(start, 1)).unwrap());
        first.watch().asked(after(start, 2));
        // The first waits for a body since 2, the second for a head since 1.
        let third = open.enter(after(start, 3)).unwrap();
        assert!(!open.has_room() && open.has_place(), "the first and the third keep the server waiting");
        drop(second);
        assert!(!open.has_room(), "its place is another's already");
        for answered in [&first, &third] {
            answered.watch().answering();
        }
        assert!(!open.has_place());
        assert!(open.enter(after(start, 4)).is_none(), "nobody is closed in the middle of an answer");
        drop(third);
        assert!(open.has_room());
    }
}
