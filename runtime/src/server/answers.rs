//! The room that answers share: for what is kept of each until it is sent, and of its prompts. An answer takes what it needs as
//! it grows. Where the room is full, the largest answer ends, so that nobody keeps others from short answers by asking for long ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use thiserror::Error;
use tokio::sync::Notify;

use super::error::{ApiError, Code};
use super::scores::TOKEN_BYTES;
use crate::http::Reader;

/// Answers that find room at the same time, if each is as large as it may be.
pub const LARGEST_AT_ONCE: usize = 4;

/// Room there is at least: a thousand answers of some thousand tokens, with some best tokens beside each.
pub const LEAST_ROOM: usize = 256 << 20;

/// Bytes that an answer takes at a time.
const PART: usize = 4 << 10;

/// The room. Clones are the same room.
#[derive(Clone, Debug)]
pub struct Answers(Arc<Mutex<Shares>>);

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
#[error("the answer is the largest of all, and smaller ones need its room; lower n, logprobs or max_tokens")]
pub struct Lost;

impl Answers {
    /// Room for the answers to requests that may have so many log-probabilities each.
    #[must_use]
    pub fn of_scores(most: usize) -> Self {
        Self::of(most.saturating_mul(TOKEN_BYTES).saturating_mul(LARGEST_AT_ONCE).max(LEAST_ROOM))
    }

    /// Room for so many bytes.
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Shares { free: bytes, next: 0, held: BTreeMap::new() })))
    }

    /// A share with room for so many bytes, of an answer of which is known that it needs these.
    ///
    /// # Errors
    /// If there is no such room: nobody loses a share for an answer that has not begun.
    pub fn share(&self, bytes: usize) -> Result<Share, ApiError> {
        let mut shares = lock(&self.0);
        let Some(left) = shares.free.checked_sub(bytes) else {
            let message = "the answers to other requests take all the room there is; try again in a moment".to_owned();
            let refusal = ApiError::other(StatusCode::TOO_MANY_REQUESTS, Code::RateLimitExceeded, message);
            return Err(ApiError { retry_after: Some(1), ..refusal });
        };
        let (number, end) = (shares.next, Arc::<End>::default());
        shares.free = left;
        shares.next += 1;
        shares.held.insert(number, Held { bytes, reader: None, end: Arc::clone(&end) });
        Ok(Share { shares: Arc::clone(&self.0), number, taken: bytes, due: 0, end })
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

impl From<Lost> for ApiError {
    fn from(lost: Lost) -> Self {
        Self::full(&lost.to_string())
    }
}

fn lock(shares: &Mutex<Shares>) -> MutexGuard<'_, Shares> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn free(answers: &Answers) -> usize {
        lock(&answers.0).free
    }

    #[test]
    fn the_largest_answer_makes_room_for_smaller_ones_and_none_ends_for_one_that_has_not_begun() {
        let answers = Answers::of(10 * PART);
        let mut shares = [6, 3].map(|parts| answers.share(parts * PART).unwrap());
        let refused = answers.share(2 * PART).unwrap_err();
        assert_eq!(
            (refused.status.as_u16(), refused.code, refused.retry_after),
            (429, Code::RateLimitExceeded, Some(1))
        );
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
        let answers = Answers::of(10 * PART);
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
    fn more_than_the_whole_room_is_nobodys() {
        let answers = Answers::of(2 * PART);
        let mut share = answers.share(PART).unwrap();
        assert_eq!(share.take(usize::MAX / 2), Err(Lost));
        assert_eq!(free(&answers), 2 * PART);
    }
}
