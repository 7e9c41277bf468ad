//! What ends a connection between members.

use std::io;

use thiserror::Error;

use crate::protocol::FIRST_THAT_PROVES;

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// Nobody answers.
    #[error("cannot connect to {peer}: {source}")]
    Connect {
        /// Who was to answer.
        peer: String,
        /// What the system says.
        source: io::Error,
    },
    /// The peer is gone.
    #[error("{peer} closed the connection")]
    Closed {
        /// Address of the other end.
        peer: String,
    },
    /// The link failed.
    #[error("connection to {peer} failed: {source}")]
    Io {
        /// Who is at its other end.
        peer: String,
        /// What the system says.
        source: io::Error,
    },
    /// A message is longer than any that exists.
    #[error("{peer} announces a message of {bytes} bytes, more than {limit}; it speaks something else")]
    TooLong {
        /// Address of the other end.
        peer: String,
        /// The length announced.
        bytes: usize,
        /// The longest there may be.
        limit: usize,
    },
    /// A message that makes no sense.
    #[error("{peer} sent a message that cannot be read: {source}")]
    Malformed {
        /// Address of the other end.
        peer: String,
        /// What the decoder says.
        source: postcard::Error,
    },
    /// The peer has another secret.
    #[error("{peer} cannot be trusted: the secret differs; both must read the same --secret-file")]
    SecretDiffers {
        /// Address of the other end.
        peer: String,
    },
    /// The peer speaks another version.
    #[error("{peer} speaks protocol {found}, this process {expected}; run the same version everywhere")]
    OtherVersion {
        /// Address of the other end.
        peer: String,
        /// Its version.
        found: u16,
        /// The version here.
        expected: u16,
    },
    /// The peer does not serve what it was called for, or not now.
    #[error("{peer} does not expect this call now")]
    NotExpected {
        /// Address of the other end.
        peer: String,
    },
    /// The peer is something else.
    #[error("{peer} speaks something else, or a version before {FIRST_THAT_PROVES}")]
    NotOurs {
        /// Address of the other end.
        peer: String,
    },
}

impl ConnectionError {
    /// What the system says of a connection.
    pub(in crate::fabric) fn of(peer: &str, source: io::Error) -> Self {
        let peer = peer.to_owned();
        match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::Closed { peer }
            }
            _ => Self::Io { peer, source },
        }
    }
}
