//! A room that answers share. An answer takes what it needs as it grows. Where the room is full, the answer that has most ends,
//! so that nobody keeps others from short answers by asking for long ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::Notify;

use crate::http::Reader;

/// Bytes that an answer takes at a time.
const PART: usize = 4 << 10;

/// The room. Clones are the same room.
#[derive(Clone, Debug)]
pub struct Room(Arc<Mutex<Shares>>);

#[derive(Debug)]
struct Shares {
    free: usize,
    next: u64,
    held: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    /// Who is being sent the answer.
    reader: Option<Reader>,
    end: Arc<End>,
}

/// Says that an answer has lost its share.
#[derive(Debug, Default)]
struct End {
    lost: AtomicBool,
    told: Notify,
}

/// What one answer has of the room, until it is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Mutex<Shares>>,
    number: u64,
    /// Bytes that it has taken, if it has not lost them.
    taken: usize,
    /// Bytes that it needs and has not taken yet: less than a [`PART`].
    due: usize,
    end: Arc<End>,
}

/// The room is needed for smaller answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it has most of the room that answers share, and others need it")]
pub struct Lost;

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Shares { free: bytes, next: 0, held: BTreeMap::new() })))
    }

    /// A share with room for so many bytes; `None` if there is no such room: nobody loses a share for an answer that has not
    /// begun.
    #[must_use]
    pub fn share(&self, bytes: usize) -> Option<Share> {
        let mut shares = lock(&self.0);
        shares.free = shares.free.checked_sub(bytes)?;
        Some(self.enter(shares, bytes))
    }

    /// A share that has nothing yet.
    #[must_use]
    pub fn empty_share(&self) -> Share {
        self.enter(lock(&self.0), 0)
    }

    /// A share of bytes that are no longer free.
    fn enter(&self, mut shares: MutexGuard<'_, Shares>, bytes: usize) -> Share {
        let (number, end) = (shares.next, Arc::<End>::default());
        shares.next += 1;
        shares.held.insert(number, Held { bytes, reader: None, end: Arc::clone(&end) });
        Share { shares: Arc::clone(&self.0), number, taken: bytes, due: 0, end }
    }
}

impl Share {
    /// Takes room for so many bytes, from larger answers if need be.
    ///
    /// # Errors
    /// If there is none and no other answer is larger, or the share is lost already.
    pub fn take(&mut self, bytes: usize) -> Result<(), Lost> {
        self.due += bytes;
        if self.due < PART {
            return if self.is_lost() { Err(Lost) } else { Ok(()) };
        }
        let bytes = std::mem::take(&mut self.due);
        lock(&self.shares).take(self.number, bytes)?;
        self.taken += bytes;
        Ok(())
    }

    /// Gives so many bytes back that it took.
    pub fn give(&mut self, bytes: usize) {
        let of_due = bytes.min(self.due);
        self.due -= of_due;
        let taken = (bytes - of_due).min(self.taken);
        if taken > 0 {
            self.taken -= taken;
            let mut shares = lock(&self.shares);
            if let Some(held) = shares.held.get_mut(&self.number) {
                held.bytes -= taken;
                shares.free += taken;
            }
        }
    }

    /// Gives all of it back: nothing is kept any more.
    pub fn give_back(&mut self) {
        self.due = 0;
        if std::mem::take(&mut self.taken) == 0 {
            return;
        }
        let mut shares = lock(&self.shares);
        let kept = shares.held.get_mut(&self.number).map_or(0, |held| std::mem::take(&mut held.bytes));
        shares.free += kept;
    }

    /// From now on the answer is sent: if it loses its share, its reader's connection is closed, however it reads.
    pub fn is_sent_to(&self, reader: Reader) {
        if let Some(held) = lock(&self.shares).held.get_mut(&self.number) {
            held.reader = Some(reader);
        }
    }

    /// Whether the share is lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.end.lost.load(Ordering::Acquire)
    }

    /// Done when the share is lost.
    pub async fn lost(&self) {
        self.end.told.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = lock(&self.shares);
        if let Some(held) = shares.held.remove(&self.number) {
            shares.free += held.bytes;
        }
    }
}

impl Shares {
    fn take(&mut self, taker: u64, bytes: usize) -> Result<(), Lost> {
        while self.held.contains_key(&taker) && self.free < bytes {
            let would_have =
                |(&number, held): (&u64, &Held)| (held.bytes + if number == taker { bytes } else { 0 }, number);
            let largest = self.held.iter().map(would_have).max();
            if let Some((_, largest)) = largest {
                self.end(largest);
            }
        }
        self.held.get_mut(&taker).ok_or(Lost)?.bytes += bytes;
        self.free -= bytes;
        Ok(())
    }

    /// What it kept is gone when its task has run next, which nothing holds up.
    fn end(&mut self, number: u64) {
        let Some(Held { bytes, reader, end }) = self.held.remove(&number) else { return };
        self.free += bytes;
        end.lost.store(true, Ordering::Release);
        end.told.notify_one();
        if let Some(reader) = reader {
            reader.close();
        }
    }
}

fn lock(shares: &Mutex<Shares>) -> MutexGuard<'_, Shares> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn free(room: &Room) -> usize {
        lock(&room.0).free
    }

    #[test]
    fn the_largest_answer_makes_room_for_smaller_ones_and_none_ends_for_one_that_has_not_begun() {
        let answers = Room::of(10 * PART);
        let mut shares = [6, 3].map(|parts| answers.share(parts * PART).unwrap());
        assert!(answers.share(2 * PART).is_none());
        let [large, small] = &mut shares;
        assert_eq!(small.take(PART), Ok(()));
        assert!(!large.is_lost() && large.lost().now_or_never().is_none());
        assert_eq!(small.take(PART), Ok(()), "there was no room but the larger one's");
        assert!(large.is_lost() && large.lost().now_or_never().is_some() && !small.is_lost());
        assert_eq!(large.take(1), Err(Lost));
        assert_eq!(free(&answers), 5 * PART);
        drop(shares);
        assert_eq!(free(&answers), 10 * PART, "what was lost is not given back again");
    }

    #[test]
    fn an_answer_that_would_become_the_largest_ends_itself() {
        let answers = Room::of(10 * PART);
        let mut shares = [5, 4].map(|parts| answers.share(parts * PART).unwrap());
        assert_eq!(shares[1].take(2 * PART), Err(Lost));
        assert!(shares[1].is_lost() && !shares[0].is_lost());
        assert_eq!(free(&answers), 5 * PART);
        shares[0].give_back();
        assert_eq!(free(&answers), 10 * PART);
        assert_eq!(shares[0].take(PART - 1), Ok(()));
        assert_eq!(free(&answers), 10 * PART, "small amounts are taken together");
        assert_eq!(shares[0].take(1), Ok(()));
        assert_eq!(free(&answers), 9 * PART);
    }

    #[test]
    fn what_is_given_back_is_free_again_whether_it_was_due_or_taken() {
        let answers = Room::of(10 * PART);
        let mut share = answers.empty_share();
        for _ in 0..100 {
            assert_eq!(share.take(PART - 1), Ok(()));
            share.give(PART - 1);
        }
        assert_eq!(free(&answers), 10 * PART);
        assert_eq!(share.take(3 * PART + 5), Ok(()));
        assert_eq!(share.take(5), Ok(()));
        share.give(PART);
        assert_eq!(free(&answers), 10 * PART - (2 * PART + 10));
        share.give(2 * PART + 10);
        assert_eq!(free(&answers), 10 * PART);
        share.give(1);
        assert_eq!(free(&answers), 10 * PART, "no more is given back than was taken");
    }

    #[test]
    fn more_than_the_whole_room_is_nobodys() {
        let answers = Room::of(2 * PART);
        let mut share = answers.share(PART).unwrap();
        assert_eq!(share.take(usize::MAX / 2), Err(Lost));
        assert_eq!(free(&answers), 2 * PART);
    }
}
