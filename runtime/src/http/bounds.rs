//! How many connections there may be, and how long each may keep the server waiting.

use std::time::Duration;

/// Bounds of the connections to one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// Connections at the same time.
    pub connections: usize,
    /// Beyond these: connections that are told at the same time that there is no place for them.
    pub refused: usize,
    /// From a connection's first byte, or from its beginning, to the end of a request's headers.
    pub head: Duration,
    /// From there to the end of its body; without one, whoever reads the body bounds its time.
    pub body: Option<Duration>,
    /// Without a request, after an answer.
    pub idle: Duration,
    /// In which a client takes nothing of what is sent to it.
    pub unread: Duration,
}

impl ConnectionBounds {
    /// For as many connections, and as many more that are refused.
    #[must_use]
    pub const fn of(connections: usize, refused: usize) -> Self {
        Self {
            connections,
            refused,
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
