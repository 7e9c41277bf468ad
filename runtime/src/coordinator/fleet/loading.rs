//! How far the ranks of a group that comes together are: what people are told of it, and which rank has stopped. However long a
//! rank takes, it is waited for while it goes on. Pure.

use std::time::{Duration, Instant};

use plan::ids::RankId;

use crate::model::sizes::gigabytes;

/// How far one rank is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes that it has read.
    read: u64,
    /// Bytes that it has to read; 0 until it has said so.
    of: u64,
    /// When it last came further.
    moved: Instant,
    /// Whether nothing more is expected of it.
    done: bool,
}

impl Progress {
    /// A rank that is told at `now` what to do.
    pub const fn new(now: Instant) -> Self {
        Self { read: 0, of: 0, moved: now, done: false }
    }

    /// It says how far it is.
    pub fn read(&mut self, read: u64, of: u64, now: Instant) {
        let read = read.min(of);
        if (read, of) != (self.read, self.of) {
            *self = Self { read, of, moved: now, ..*self };
        }
    }

    /// It has done what it was told to.
    pub const fn done(&mut self) {
        self.read = self.of;
        self.done = true;
    }

    /// It is told at `now` what to do next.
    pub const fn next(&mut self, now: Instant) {
        self.moved = now;
        self.done = false;
    }

    fn share(&self) -> f64 {
        if self.of == 0 { 0.0 } else { self.read as f64 / self.of as f64 }
    }
}

/// The first rank that came no further for `limit`, and why it is lost.
pub(super) fn stalled(ranks: &[Progress], now: Instant, limit: Duration) -> Option<(RankId, String)> {
    let has_stopped = |progress: &Progress| !progress.done && now.saturating_duration_since(progress.moved) > limit;
    let rank = ranks.iter().position(has_stopped)?;
    let Progress { read, of, .. } = ranks[rank];
    let (seconds, read, of) = (limit.as_secs_f32(), gigabytes(read), gigabytes(of));
    Some((rank.into(), format!("it lives and came no further for {seconds} s, with {read} of {of} GB loaded")))
}

/// How far all of them are together, and which is last.
pub(super) fn words(ranks: &[Progress]) -> String {
    let sum = |bytes: fn(&Progress) -> u64| ranks.iter().map(bytes).fold(0_u64, u64::saturating_add);
    let (read, of) = (gigabytes(sum(|rank| rank.read)), gigabytes(sum(|rank| rank.of)));
    let under_way = ranks.iter().enumerate().filter(|(_, progress)| !progress.done);
    let Some((last, progress)) = under_way.min_by(|(_, one), (_, other)| one.share().total_cmp(&other.share())) else {
        return format!("the ranks have loaded {of} GB");
    };
    let last = RankId::from(last);
    let said = format!("the ranks are loading: {read} of {of} GB; {last} is last");
    match progress.of {
        0 => format!("{said} and has not begun"),
        of => format!("{said} with {} of {} GB", gigabytes(progress.read), gigabytes(of)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(10);
    const GB: u64 = 1_000_000_000;

    #[test]
    fn a_rank_is_waited_for_while_it_reads_however_long_it_takes() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut ranks = [Progress::new(start), Progress::new(start)];
        ranks[0].read(60 * GB, 60 * GB, at(30));
        ranks[0].done();
        // A whole day, a little every nine minutes.
        for step in 1..160 {
            ranks[1].read(step, 60 * GB, at(step * 540));
            assert_eq!(stalled(&ranks, at(step * 540 + 600), LIMIT), None, "step {step}");
        }
        let end = at(159 * 540 + 601);
        ranks[1].read(159, 60 * GB, end);
        let (rank, reason) = stalled(&ranks, end, LIMIT).unwrap();
        assert_eq!(rank, RankId(1));
        assert_eq!(reason, "it lives and came no further for 600 s, with 0.00 of 60.00 GB loaded");
        ranks[1].done();
        assert_eq!(stalled(&ranks, end, LIMIT), None);
        // What comes after loading has its own time.
        for rank in &mut ranks {
            rank.next(end);
        }
        assert_eq!(stalled(&ranks, end + LIMIT, LIMIT), None);
        assert_eq!(stalled(&ranks, end + LIMIT * 2, LIMIT).unwrap().0, RankId(0));
    }

    #[test]
    fn people_are_told_how_much_of_how_much_and_who_is_last() {
        let start = Instant::now();
        let mut ranks = [Progress::new(start); 3];
        assert_eq!(words(&ranks), "the ranks are loading: 0.00 of 0.00 GB; rank 0 is last and has not begun");
        ranks[0].read(50 * GB, 60 * GB, start);
        ranks[1].read(GB * 5 / 2, 60 * GB, start);
        ranks[2].read(u64::MAX, 60 * GB, start);
        ranks[2].done();
        assert_eq!(words(&ranks), "the ranks are loading: 112.50 of 180.00 GB; rank 1 is last with 2.50 of 60.00 GB");
        ranks[0].done();
        ranks[1].done();
        assert_eq!(words(&ranks), "the ranks have loaded 180.00 GB");
    }
}
