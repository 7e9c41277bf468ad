//! How the two ends of a connection prove to each other that they have the same secret, before either does anything for
//! the other:
//!
//! ```text
//! caller                                                      listener
//!   hello: version, purpose, challenge          ---->
//!                                               <----   answer: challenge, proof of the secret over both challenges
//!   proof of the secret over both challenges    ---->
//! ```
//! Both challenges are new for each connection, so what was recorded on one proves nothing on another; the proofs of the
//! two ends are of different texts, so neither can be sent back. The secret is the deployment's for the control connection,
//! and the group's for all others. What follows is neither encrypted nor authenticated: that is for TLS to bring.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::framing::{CONNECT_TIMEOUT, Connection, ConnectionError};
use super::purpose::{Challenge, HELLO_BYTES, Hello, NoHello, Purpose, check_head, head};
use super::secret::{PROOF_BYTES, Secret, random};
use crate::protocol::PROTOCOL;

/// Length of an answer, bytes: head (6), verdict (1), nothing (1), challenge (32), proof (32).
pub const ANSWER_BYTES: usize = 72;

/// How long a listener may take to answer. It answers at once, whatever the process is busy with.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

const OF_LISTENER: &[u8] = b"swiftbalancer listener";
const OF_CALLER: &[u8] = b"swiftbalancer caller";

/// The proof of a caller that has found that the secrets differ: it tells the listener so, and nothing else.
const DIFFERS: [u8; PROOF_BYTES] = [0; PROOF_BYTES];

/// What a listener thinks of a hello.
const PROCEED: u8 = 0;
const OTHER_VERSION: u8 = 1;
const NOT_EXPECTED: u8 = 2;

/// Why a caller gets no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TurnedAway {
    /// It did not introduce itself in time.
    Silent,
    /// It made room for callers that came later.
    Crowded,
    /// It went away.
    Closed,
    /// It speaks something else.
    NotOurs,
    /// It speaks another version of the protocol.
    OtherVersion(u16),
    /// It calls for what is not served here, or not now.
    NotExpected,
    /// Its secret is another.
    SecretDiffers,
}

/// A caller that has said what it wants, and is to prove that it may.
#[derive(Debug)]
pub struct Claim {
    purpose: Purpose,
    hello: [u8; HELLO_BYTES],
    challenge: Challenge,
    secret: Secret,
}

/// An answer, and what the caller has to prove then; or why it gets no further, with what it is answered, if anything.
pub type Answered = Result<([u8; ANSWER_BYTES], Claim), (Option<[u8; ANSWER_BYTES]>, TurnedAway)>;

/// What a listener answers to a hello, and what is to be proved then. `admit` gives the secret of what is expected.
///
/// # Errors
/// If it gets no further than this answer; what is nothing of ours gets none.
pub fn answer(
    hello: &[u8; HELLO_BYTES],
    challenge: Challenge,
    admit: impl FnOnce(&Purpose) -> Option<Secret>,
) -> Answered {
    let Hello { purpose, challenge: _ } = Hello::from_bytes(hello).map_err(|error| match error {
        NoHello::NotOurs => (None, TurnedAway::NotOurs),
        NoHello::OtherVersion(version) => (Some(say(OTHER_VERSION)), TurnedAway::OtherVersion(version)),
    })?;
    let Some(secret) = admit(&purpose) else { return Err((Some(say(NOT_EXPECTED)), TurnedAway::NotExpected)) };
    let mut bytes = say(PROCEED);
    bytes[8..40].copy_from_slice(&challenge);
    bytes[40..].copy_from_slice(&secret.prove(&[OF_LISTENER, hello, &challenge]));
    Ok((bytes, Claim { purpose, hello: *hello, challenge, secret }))
}

fn say(verdict: u8) -> [u8; ANSWER_BYTES] {
    let mut bytes = [0; ANSWER_BYTES];
    bytes[..6].copy_from_slice(&head());
    bytes[6] = verdict;
    bytes
}

impl Claim {
    /// What the caller is there for, now that it has proved that it may.
    ///
    /// # Errors
    /// If its proof is none.
    pub fn check(&self, proof: &[u8; PROOF_BYTES]) -> Result<Purpose, TurnedAway> {
        let Self { purpose, hello, challenge, secret } = self;
        let proved = secret.is_proved(&[OF_CALLER, hello, challenge], proof);
        if proved { Ok(*purpose) } else { Err(TurnedAway::SecretDiffers) }
    }
}

/// What a caller concludes from an answer: its own proof.
fn prove(
    hello: &[u8; HELLO_BYTES],
    answer: &[u8; ANSWER_BYTES],
    secret: &Secret,
) -> Result<[u8; PROOF_BYTES], Refused> {
    check_head(answer).map_err(|error| match error {
        NoHello::NotOurs => Refused::NotOurs,
        NoHello::OtherVersion(version) => Refused::OtherVersion(version),
    })?;
    match answer[6] {
        PROCEED => {}
        NOT_EXPECTED => return Err(Refused::NotExpected),
        _ => return Err(Refused::NotOurs),
    }
    let (challenge, proof) = answer[8..].split_at(32);
    let proof = proof.try_into().expect("an answer ends with a proof");
    if !secret.is_proved(&[OF_LISTENER, hello, challenge], proof) {
        return Err(Refused::SecretDiffers);
    }
    Ok(secret.prove(&[OF_CALLER, hello, challenge]))
}

/// Why a caller goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    NotOurs,
    OtherVersion(u16),
    NotExpected,
    SecretDiffers,
}

/// Connects to `host:port` for a purpose; `peer` is its name in errors. Both ends have proved themselves when this returns.
///
/// # Errors
/// If nobody answers within `timeout`, or who answers has another secret, speaks another version or does not expect this.
pub fn call(
    address: &str,
    peer: impl Into<String>,
    (purpose, secret): (Purpose, &Secret),
    timeout: Duration,
) -> Result<Connection, ConnectionError> {
    let connection = Connection::connect(address, peer, timeout.min(CONNECT_TIMEOUT))?;
    let peer = connection.peer().to_owned();
    let lost = |source: io::Error| ConnectionError::of(&peer, source);
    let challenge = random().map_err(|error| lost(io::Error::other(error)))?;
    let hello = Hello { purpose, challenge }.to_bytes();
    let mut stream = connection.into_stream();
    let deadline = Instant::now() + timeout.min(ANSWER_TIMEOUT);
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).and_then(|()| stream.write_all(&hello)).map_err(lost)?;
    let mut answer = [0; ANSWER_BYTES];
    read_until(&mut stream, &mut answer, deadline).map_err(lost)?;
    let proof = match prove(&hello, &answer, secret) {
        Ok(proof) => proof,
        Err(refused) => {
            if refused == Refused::SecretDiffers {
                // Best effort: who listens logs it too.
                let _ = stream.write_all(&DIFFERS);
            }
            return Err(match refused {
                Refused::NotOurs => ConnectionError::NotOurs { peer },
                Refused::OtherVersion(found) => ConnectionError::OtherVersion { peer, found, expected: PROTOCOL },
                Refused::NotExpected => ConnectionError::NotExpected { peer },
                Refused::SecretDiffers => ConnectionError::SecretDiffers { peer },
            });
        }
    };
    stream.write_all(&proof).map_err(lost)?;
    stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None)).map_err(lost)?;
    Connection::new(stream, peer)
}

/// Fills `bytes` by a deadline, however slowly they arrive.
fn read_until(stream: &mut TcpStream, bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut received = 0;
    while received < bytes.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time"));
        }
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut bytes[received..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => received += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
