//! What waits to be read of answers: each request's share of the room that all have for it. A reader that keeps up has next to
//! nothing there; where the room is full, the request of which most waits ends.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;

use super::handle::Update;
use crate::http::Reader;
use crate::room::{Lost, Share};

/// What waits of one request, over all of its sequences.
#[derive(Debug)]
pub struct Unread(Mutex<Share>);

impl Unread {
    /// Counted in this share.
    #[must_use]
    pub const fn of(share: Share) -> Self {
        Self(Mutex::new(share))
    }

    fn share(&self) -> MutexGuard<'_, Share> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the answer is sent: if it loses its share, its reader's connection is closed, however it reads.
    pub fn is_sent_to(&self, reader: Reader) {
        self.share().is_sent_to(reader);
    }

    /// Whether it had most when the room was full.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.share().is_lost()
    }
}

/// Why an update was not taken: its reader is gone, or too much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTaken;

/// A way for the updates of one sequence, of which so many may wait.
#[must_use]
pub fn updates(most: usize, unread: &Arc<Unread>) -> (UpdateSender, Updates) {
    let (sender, receiver) = mpsc::channel(most);
    (UpdateSender(sender, Arc::clone(unread)), Updates(receiver, Arc::clone(unread)))
}

/// Where the updates of a sequence go.
#[derive(Debug)]
pub struct UpdateSender(mpsc::Sender<Update>, Arc<Unread>);

impl UpdateSender {
    /// An update for which there is room, to be posted before the sequence's next.
    ///
    /// # Errors
    /// If it is not taken.
    pub fn address(&self, update: Update) -> Result<Addressed, NotTaken> {
        let Self(sender, unread) = self;
        let bytes = update.bytes();
        unread.share().take(bytes).map_err(|Lost| NotTaken)?;
        let place = sender.clone().try_reserve_owned().map_err(|_| {
            unread.share().give(bytes);
            NotTaken
        })?;
        Ok(Addressed { place, update })
    }

    /// Whether nobody reads them any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// An update and the place that is kept for it.
#[derive(Debug)]
pub struct Addressed {
    place: mpsc::OwnedPermit<Update>,
    update: Update,
}

/// A way for the updates of all sequences. To wake a task from another thread costs as much as computing the rest of what a token
/// costs here, so a whole step is posted at once, and the one task that hands it on wakes the others where they run.
#[must_use]
pub fn post() -> (Post, Postman) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Post(sender), Postman(Arc::new(Mutex::new(Some(receiver)))))
}

/// Where updates are posted. What waits there has its room already.
#[derive(Debug)]
pub struct Post(mpsc::UnboundedSender<Vec<Addressed>>);

impl Post {
    /// Posts updates, those of a sequence in their order.
    pub fn send(&self, updates: Vec<Addressed>) {
        if !updates.is_empty() {
            // Without a postman there is no runtime left, and nobody who reads.
            let _ = self.0.send(updates);
        }
    }
}

/// Hands on what is posted.
#[derive(Clone, Debug)]
pub struct Postman(Arc<Mutex<Option<mpsc::UnboundedReceiver<Vec<Addressed>>>>>);

impl Postman {
    /// Begins to, on the runtime that this is called on, if it has not begun.
    pub fn begin(&self) {
        if let Some(mut posted) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tokio::spawn(async move {
                while let Some(updates) = posted.recv().await {
                    for Addressed { place, update } in updates {
                        place.send(update);
                    }
                }
            });
        }
    }
}

/// The updates of a sequence. Dropped, it cancels the sequence.
#[derive(Debug)]
pub struct Updates(mpsc::Receiver<Update>, Arc<Unread>);

impl Updates {
    /// What waits of the request.
    #[must_use]
    pub const fn unread(&self) -> &Arc<Unread> {
        &self.1
    }

    /// Whether none will come beside those that wait.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl Stream for Updates {
    type Item = Update;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Update>> {
        let next = self.0.poll_recv(context);
        if let Poll::Ready(Some(update)) = &next {
            self.1.share().give(update.bytes());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::protocol::TokenScore;
    use crate::room::Room;

    const ROOM: usize = 256 << 10;

    /// Sends an update at once.
    fn send(sender: &UpdateSender, update: Update) -> Result<(), NotTaken> {
        let Addressed { place, update } = sender.address(update)?;
        place.send(update);
        Ok(())
    }

    fn update(token: u32) -> Update {
        let token = Some(TokenScore { token, logprob: 0.0, top: vec![(token, 0.0); 20] });
        Update::Output { prompt_scores: Vec::new(), token, finish: None }
    }

    /// All that waits of those that have not ended, in bytes.
    fn waiting(readers: &[(UpdateSender, Updates)]) -> usize {
        let waits = readers.iter().filter(|(_, updates)| !updates.unread().is_lost());
        waits.map(|(_, updates)| updates.0.len() * update(0).bytes()).sum()
    }

    #[test]
    fn many_readers_that_read_nothing_stay_within_the_room_and_those_beside_them_get_everything() {
        let room = Room::of(ROOM);
        let open = || updates(100_000, &Arc::new(Unread::of(room.empty_share())));
        let mut slow: VecDeque<_> = (0..50).map(|_| open()).collect();
        let mut fast: Vec<_> = (0..10).map(|_| open()).collect();
        let mut ended = 0;
        for token in 0..2000 {
            // Who has ended comes again, as somebody would who means harm.
            for _ in 0..slow.len() {
                let (sender, receiver) = slow.pop_front().unwrap();
                let goes_on = send(&sender, update(token)).is_ok();
                assert_eq!(goes_on, !receiver.unread().is_lost());
                ended += usize::from(!goes_on);
                slow.push_back(if goes_on { (sender, receiver) } else { open() });
            }
            for (sender, receiver) in &mut fast {
                send(sender, update(token)).unwrap();
                assert_eq!(receiver.next().now_or_never(), Some(Some(update(token))));
            }
            // Each may have a part of the room that it has not taken yet.
            assert!(waiting(slow.make_contiguous()) <= ROOM + slow.len() * (4 << 10), "after token {token}");
        }
        assert!(ended > 50, "{ended}");
        drop((slow, fast));
        assert!(room.share(ROOM).is_some(), "all of it is given back");
    }

    #[test]
    fn an_update_that_is_not_taken_or_is_never_read_leaves_nothing_in_the_room() {
        let room = Room::of(ROOM);
        let (sender, receiver) = updates(1, &Arc::new(Unread::of(room.empty_share())));
        let prompt_scores = vec![TokenScore { token: 1, logprob: 0.0, top: Vec::new() }; 1000];
        let large = Update::Output { prompt_scores, token: None, finish: None };
        assert_eq!(send(&sender, large.clone()), Ok(()));
        assert!(room.share(ROOM).is_none(), "scores of prompts count");
        assert_eq!(send(&sender, large.clone()), Err(NotTaken), "one may wait");
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(send(&sender, large), Err(NotTaken));
        drop(sender);
        assert!(room.share(ROOM).is_some());
    }
}
