//! How the descriptors that the system gives the process are shared out among its ports and ranks. One budget: what one port may
//! take is what the others leave, so that strangers on one cannot take the descriptors with which a rank comes back.

use rustix::process::{Resource, getrlimit};

/// Callers that one port of the fabric greets at a time, where the process may have so many descriptors.
const MOST_CALLERS: usize = 256;
/// The most connections that one port has, whatever the system would give.
const MOST: usize = 4096;
/// The most of the admin port: probes, a scraper, an operator.
const ADMIN_MOST: usize = 256;
/// The part of all that callers of one port of the fabric, and the admin port, have.
const SHARE: usize = 8;
/// Connections beyond the bound that one HTTP port tells so at the same time, where there are descriptors for so many, and where
/// there are few.
const MOST_REFUSED: usize = 32;
const LEAST_REFUSED: usize = 2;
/// The part of all that those of one port have.
const REFUSED_SHARE: usize = 32;
/// What a process needs beside those of connections and ranks.
const RESERVE: usize = 32;
/// Descriptors of a rank: its connections, twice while a group forms anew, and its process.
const OF_A_RANK: usize = 8;
/// Fewest of any port.
const LEAST: usize = 4;

/// Descriptors that this process may have.
#[must_use]
pub fn of_this_process() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Callers that one port of the fabric greets at a time, of so many descriptors.
#[must_use]
pub fn callers(descriptors: usize) -> usize {
    (descriptors / SHARE).clamp(LEAST, MOST_CALLERS)
}

/// Connections to each HTTP port of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// To the public port.
    pub public: usize,
    /// To the admin port: its own, which the public port never takes.
    pub admin: usize,
    /// To either port, beyond these: connections that are told at the same time that there is no place for them.
    pub refused: usize,
}

impl Places {
    /// The places of a coordinator that may have so many descriptors: the public port has what all else leaves.
    #[must_use]
    pub fn within(descriptors: usize, ranks: usize) -> Self {
        let admin = (descriptors / SHARE).clamp(LEAST, ADMIN_MOST);
        let refused = (descriptors / REFUSED_SHARE).clamp(LEAST_REFUSED, MOST_REFUSED);
        let taken = admin + callers(descriptors) + 2 * refused + RESERVE;
        let left = descriptors.saturating_sub(taken).saturating_sub(ranks.saturating_mul(OF_A_RANK));
        Self { public: left.clamp(LEAST, MOST), admin, refused }
    }

    /// The places of this process.
    #[must_use]
    pub fn of_this_process(ranks: usize) -> Self {
        Self::within(of_this_process(), ranks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ports_callers_and_ranks_take_together_is_there() {
        for (descriptors, ranks) in
            [(64, 1), (80, 2), (128, 4), (256, 8), (1024, 4), (1024, 64), (4096, 256), (65536, 256)]
        {
            let Places { public, admin, refused } = Places::within(descriptors, ranks);
            assert!(public >= LEAST && admin >= LEAST);
            let all = public + admin + callers(descriptors) + 2 * refused + RESERVE + ranks * OF_A_RANK;
            assert!(all <= descriptors, "{descriptors} {ranks}: {all}");
        }
        assert_eq!(Places::within(usize::MAX, 4), Places { public: 4096, admin: 256, refused: 32 });
        assert_eq!(Places::within(64, 2), Places { public: 4, admin: 8, refused: 2 });
        assert_eq!((callers(64), callers(1024), callers(usize::MAX)), (8, 128, 256));
    }

    #[test]
    fn callers_of_both_ports_of_a_rank_and_its_health_leave_more_than_half() {
        for descriptors in [64, 256, 1024, 65536] {
            assert!(2 * callers(descriptors) + Places::within(descriptors, 1).admin <= descriptors / 2);
        }
    }
}
