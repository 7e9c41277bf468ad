//! Where a page comes from next: the rank that the plan names, any other that holds it, the checkpoint; and when it is given up.
//! Decides alone: time is told, and what comes of asking.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use plan::ids::RankId;

use super::unreachable;
use crate::fabric::framing::CUT_AFTER;
use crate::protocol::{MoveFailure, NotStaged};

/// What to do for a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask this rank for what is missing.
    Ask(RankId),
    /// Read it from the checkpoint, since nobody has given it for this reason.
    Checkpoint(NotStaged),
    /// Nothing more, for this reason.
    GiveUp(NotStaged),
}

/// The sources of one page.
#[derive(Debug)]
pub(super) struct Sources {
    left: VecDeque<RankId>,
    deadline: Instant,
    last: Option<NotStaged>,
}

impl Sources {
    /// The one that the plan names, then others that hold the page; never `own`, which wants it.
    pub fn new(named: RankId, holders: impl IntoIterator<Item = RankId>, own: RankId, deadline: Instant) -> Self {
        let others = holders.into_iter().filter(|&rank| rank != named && rank != own);
        Self { left: std::iter::once(named).chain(others).collect(), deadline, last: None }
    }

    /// What comes next.
    pub fn next(&mut self, now: Instant) -> Next {
        // No other source mends what is this rank's own.
        let given_up = |last: &NotStaged| match last.reason {
            MoveFailure::Deadline | MoveFailure::Aborted | MoveFailure::Device | MoveFailure::DeviceLost => true,
            MoveFailure::NoStagingPage
            | MoveFailure::SourceUnreachable
            | MoveFailure::Corrupt
            | MoveFailure::Internal => false,
        };
        if let Some(last) = self.last.take_if(|last| given_up(last)) {
            return Next::GiveUp(last);
        }
        if now >= self.deadline {
            return Next::GiveUp(late(self.last.as_ref()));
        }
        match self.left.pop_front() {
            Some(rank) => Next::Ask(rank),
            None => Next::Checkpoint(self.last.take().unwrap_or_else(|| unreachable("nobody holds it"))),
        }
    }

    /// Takes note of why a rank has not given the page, and gives what is to be told of it: a rank that was not reached when the
    /// deadline passed is the deadline's fault.
    pub fn failed(&mut self, failure: NotStaged, now: Instant) -> &NotStaged {
        let is_late = now >= self.deadline && failure.reason == MoveFailure::SourceUnreachable;
        let failure = if is_late { late(Some(&failure)) } else { failure };
        self.last.insert(failure)
    }

    /// How long the next word of a rank may take: until the deadline, and never longer than a link may stay silent.
    ///
    /// # Errors
    /// If the deadline has passed.
    pub fn patience(&self, now: Instant) -> Result<Duration, NotStaged> {
        let left = self.deadline.saturating_duration_since(now);
        if left.is_zero() { Err(late(None)) } else { Ok(left.min(CUT_AFTER).max(Duration::from_millis(1))) }
    }
}

fn late(last: Option<&NotStaged>) -> NotStaged {
    let message = match last {
        Some(last) => format!("the deadline has passed; {}", last.message),
        None => "the deadline has passed".to_owned(),
    };
    NotStaged { reason: MoveFailure::Deadline, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failure(reason: MoveFailure) -> NotStaged {
        NotStaged { reason, message: "why".to_owned() }
    }

    fn sources(start: Instant) -> Sources {
        let holders = [0, 1, 2, 3].map(RankId);
        Sources::new(RankId(2), holders, RankId(1), start + SECOND)
    }

    #[test]
    fn the_named_rank_comes_first_then_the_other_holders_and_then_the_checkpoint_with_the_last_reason() {
        let start = Instant::now();
        let mut sources = sources(start);
        for (rank, reason) in
            [(2, MoveFailure::Corrupt), (0, MoveFailure::SourceUnreachable), (3, MoveFailure::Corrupt)]
        {
            assert_eq!(sources.next(start), Next::Ask(RankId(rank)));
            assert_eq!(sources.failed(failure(reason), start), &failure(reason));
        }
        assert_eq!(sources.next(start), Next::Checkpoint(failure(MoveFailure::Corrupt)));
    }

    #[test]
    fn nobody_is_asked_after_the_deadline_an_abort_or_a_failure_of_the_own_device() {
        let start = Instant::now();
        for (reason, after, told, message) in [
            (MoveFailure::Aborted, Duration::ZERO, MoveFailure::Aborted, "why"),
            (MoveFailure::Device, Duration::ZERO, MoveFailure::Device, "why"),
            (MoveFailure::DeviceLost, Duration::ZERO, MoveFailure::DeviceLost, "why"),
            (MoveFailure::SourceUnreachable, SECOND, MoveFailure::Deadline, "the deadline has passed; why"),
            (MoveFailure::Corrupt, SECOND, MoveFailure::Corrupt, "the deadline has passed; why"),
        ] {
            let (mut sources, now) = (sources(start), start + after);
            assert_eq!(sources.next(start), Next::Ask(RankId(2)));
            assert_eq!(sources.failed(failure(reason), now).reason, told);
            let Next::GiveUp(given_up) = sources.next(now) else { panic!("{reason:?}") };
            assert_eq!(given_up.message, message);
        }
        let Next::GiveUp(given_up) = sources(start).next(start + SECOND) else { panic!() };
        assert_eq!(given_up.reason, MoveFailure::Deadline);
    }

    #[test]
    fn a_word_is_waited_for_until_the_deadline_and_no_longer_than_a_link_may_be_silent() {
        let start = Instant::now();
        let left = |deadline: Duration| Sources::new(RankId(0), [], RankId(1), start + deadline).patience(start);
        assert_eq!(left(Duration::ZERO), Err(late(None)));
        assert_eq!(left(Duration::from_micros(3)), Ok(Duration::from_millis(1)));
        assert_eq!(left(SECOND), Ok(SECOND.min(CUT_AFTER)));
        assert_eq!(left(Duration::from_hours(1)), Ok(CUT_AFTER));
    }
}
