//! How many connections there may be, and how long each may keep the server waiting.

use std::time::Duration;

/// Bounds of the connections to one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at the same time.
    pub connections: usize,
    /// From a connection's first byte, or from its beginning, to the end of a request's headers.
    pub head: Duration,
    /// From there to the end of its body; without one, whoever reads the body bounds its time.
    pub body: Option<Duration>,
    /// Without a request, after an answer.
    pub idle: Duration,
    /// In which a client takes nothing of what is sent to it.
    pub unread: Duration,
}

impl Bounds {
    /// For as many connections.
    #[must_use]
    pub const fn of(connections: usize) -> Self {
        Self {
            connections,
            head: Duration::from_secs(10),
            body: None,
            // Longer than load balancers keep theirs (60 s), so that it is they who close.
            idle: Duration::from_secs(75),
            unread: Duration::from_mins(1),
        }
    }

    /// While the server stops: who has not sent a whole request is not waited for.
    #[must_use]
    pub const fn when_stopping(self) -> Self {
        let moment = Duration::from_secs(1);
        Self { head: moment, body: Some(moment), idle: moment, ..self }
    }
}

/// Connections to each port, within what the system gives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// To the public port.
    pub public: usize,
    /// To the admin port: its own, which the public port never takes.
    pub admin: usize,
}

impl Places {
    /// The most that one port has, whatever the system would give.
    const MOST: usize = 4096;
    /// The most of the admin port: probes, a scraper, an operator.
    const ADMIN_MOST: usize = 256;
    /// Descriptors that a process needs beside those of connections and ranks.
    const RESERVE: usize = 32;
    /// Descriptors of a rank: its connections, twice while a group forms anew, and its process.
    const OF_A_RANK: usize = 8;
    /// Fewest of either port.
    const LEAST: usize = 4;

    /// The places of a process that may have so many descriptors.
    #[must_use]
    pub fn within(descriptors: usize, ranks: usize) -> Self {
        let admin = (descriptors / 8).clamp(Self::LEAST, Self::ADMIN_MOST);
        let taken = admin + Self::RESERVE + ranks.saturating_mul(Self::OF_A_RANK);
        Self { public: descriptors.saturating_sub(taken).clamp(Self::LEAST, Self::MOST), admin }
    }

    /// The places of this process.
    #[must_use]
    pub fn of_this_process(ranks: usize) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self::within(limit.map_or(usize::MAX, |limit| limit as usize), ranks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_leave_descriptors_for_all_else() {
        for (descriptors, ranks) in [(64, 1), (256, 8), (1024, 4), (1024, 64), (65536, 256)] {
            let Places { public, admin } = Places::within(descriptors, ranks);
            assert!(admin >= 4 && public >= 4);
            assert!(public + admin + ranks * 6 < descriptors, "{descriptors} {ranks}: {public} {admin}");
        }
        assert_eq!(Places::within(usize::MAX, 4), Places { public: 4096, admin: 256 });
        assert_eq!(Places::within(64, 2), Places { public: 8, admin: 8 });
    }
}
