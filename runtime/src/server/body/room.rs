//! The room that bodies share. Where it is full, whoever keeps up takes the room of those that do not: of a body that is
//! still coming and comes slowly, the largest first. So nobody holds the room without sending as fast as others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::pace::Pace;

/// The room. Clones are the same room.
#[derive(Clone, Debug)]
pub struct Room(Arc<Mutex<Shares>>);

#[derive(Debug)]
struct Shares {
    free: usize,
    /// A body is slow if it has not gone on for so long.
    slow: Duration,
    next: u64,
    held: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    /// Since when the body has not gone on; `None` once it is whole.
    went_on: Option<Instant>,
    lost: Arc<Notify>,
}

/// What one body has of the room, until it is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Mutex<Shares>>,
    number: u64,
    lost: Arc<Notify>,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Others have it all.
    Full,
    /// The share was given to another body, since this one came slowly.
    Lost,
}

impl Room {
    /// Room for so many bytes, in which a body is slow that has not gone on for `slow`.
    pub fn of(bytes: usize, slow: Duration) -> Self {
        let shares = Shares { free: bytes, slow, next: 0, held: BTreeMap::new() };
        Self(Arc::new(Mutex::new(shares)))
    }

    /// A share without room yet, of a body that begins now.
    pub fn share(&self, now: Instant) -> Share {
        let lost = Arc::new(Notify::new());
        let mut shares = lock(&self.0);
        let number = shares.next;
        shares.next += 1;
        shares.held.insert(number, Held { bytes: 0, went_on: Some(now), lost: Arc::clone(&lost) });
        Share { shares: Arc::clone(&self.0), number, lost }
    }
}

impl Share {
    /// Takes room for so many bytes that have come of its body, from slower ones if need be.
    ///
    /// # Errors
    /// If there is none, or the share is another's.
    pub fn take(&self, bytes: usize, pace: &Pace, now: Instant) -> Result<(), NoRoom> {
        let mut shares = lock(&self.shares);
        shares.held.get_mut(&self.number).ok_or(NoRoom::Lost)?.went_on = Some(pace.went_on());
        if shares.free < bytes {
            shares.make_room(self.number, bytes, now)?;
        }
        shares.free -= bytes;
        shares.held.get_mut(&self.number).ok_or(NoRoom::Lost)?.bytes += bytes;
        Ok(())
    }

    /// The body is whole: its share is its own until it is dropped.
    ///
    /// # Errors
    /// If the share is another's already.
    pub fn is_whole(&self) -> Result<(), NoRoom> {
        lock(&self.shares).held.get_mut(&self.number).ok_or(NoRoom::Lost)?.went_on = None;
        Ok(())
    }

    /// Done when the share is another's.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        lock(&self.shares).give_back(self.number);
    }
}

impl Shares {
    fn is_slow(&self, number: u64, now: Instant) -> bool {
        let since = self.held.get(&number).and_then(|held| held.went_on);
        since.is_some_and(|since| now.saturating_duration_since(since) >= self.slow)
    }

    fn make_room(&mut self, taker: u64, bytes: usize, now: Instant) -> Result<(), NoRoom> {
        // The slow take from nobody: two of them would only cut each other.
        if self.is_slow(taker, now) {
            return Err(NoRoom::Full);
        }
        let mut slow: Vec<(usize, u64)> = self.held.iter().map(|(&number, held)| (held.bytes, number)).collect();
        slow.retain(|&(_, number)| self.is_slow(number, now));
        slow.sort_unstable();
        if slow.iter().map(|&(bytes, _)| bytes).sum::<usize>() + self.free < bytes {
            return Err(NoRoom::Full);
        }
        while self.free < bytes {
            let (_, largest) = slow.pop().ok_or(NoRoom::Full)?;
            if let Some(held) = self.give_back(largest) {
                held.lost.notify_one();
            }
        }
        Ok(())
    }

    fn give_back(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        self.free += held.bytes;
        Some(held)
    }
}

fn lock(shares: &Mutex<Shares>) -> MutexGuard<'_, Shares> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const SLOW: Duration = Duration::from_secs(1);

    fn taken(room: &Room, bytes: usize, now: Instant) -> Share {
        let share = room.share(now);
        share.take(bytes, &Pace::new(now), now).unwrap();
        share
    }

    fn is_lost(share: &Share) -> bool {
        share.lost().now_or_never().is_some()
    }

    #[test]
    fn the_largest_slow_body_loses_its_room_and_no_other() {
        let (room, start) = (Room::of(100, SLOW), Instant::now());
        let [small, whole, large] = [10, 50, 40].map(|bytes| taken(&room, bytes, start));
        whole.is_whole().unwrap();
        let later = start + SLOW;
        let new = taken(&room, 30, later);
        assert_eq!([&small, &whole, &large, &new].map(is_lost), [false, false, true, false]);
        assert_eq!(large.take(1, &Pace::new(later), later), Err(NoRoom::Lost));
        assert_eq!(large.is_whole(), Err(NoRoom::Lost));
        drop(large);
        assert_eq!(new.take(10, &Pace::new(later), later), Ok(()), "what was lost is not given back again");
        assert_eq!(room.share(later).take(11, &Pace::new(later), later), Err(NoRoom::Full));
        assert!(!is_lost(&small), "nobody is cut for room that is not enough");
    }

    #[test]
    fn nobody_takes_from_who_keeps_up_and_the_slow_take_from_nobody() {
        let (room, start) = (Room::of(100, SLOW), Instant::now());
        let slow = taken(&room, 50, start);
        let later = start + SLOW;
        let quick = taken(&room, 50, later);
        assert_eq!(slow.take(1, &Pace::new(start), later), Err(NoRoom::Full));
        drop(slow);
        let other = taken(&room, 50, later);
        assert_eq!(room.share(later).take(1, &Pace::new(later), later), Err(NoRoom::Full));
        assert!(!is_lost(&quick) && !is_lost(&other));
    }
}
