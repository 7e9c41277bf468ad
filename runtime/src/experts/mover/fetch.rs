//! Gets one page: from the rank that the plan names, from any other that holds it, or from the checkpoint.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kernels::Backend;
use plan::ids::RankId;
use plan::moves::SlotChange;

use super::serve::IDLE_LIMIT;
use super::{CHUNK_BYTES, Order, Shared};
use crate::experts::pages::{Reserved, StagedPage};
use crate::fabric::framing::{CONNECT_TIMEOUT, CUT_AFTER, Connection};
use crate::fabric::handshake::call;
use crate::fabric::purpose::Purpose;
use crate::protocol::{MoveFailure, NotStaged, PageHead, PageRequest};

/// A page's head is a number.
const MOST_HEAD_BYTES: usize = 64;

/// One thread's connections to other ranks' move paths.
pub(super) struct Fetcher<'a, B: Backend> {
    shared: &'a Shared<B>,
    /// Each with when it was last used.
    connections: BTreeMap<RankId, (Connection, Instant)>,
    chunk: Vec<u8>,
}

/// What became of asking one rank.
enum Attempt<B: Backend> {
    Received(StagedPage<B>, u64),
    /// Not from there, but another source may have it.
    Failed(Reserved<B>, NotStaged),
}

impl<'a, B: Backend> Fetcher<'a, B> {
    pub fn new(shared: &'a Shared<B>) -> Self {
        Self { shared, connections: BTreeMap::new(), chunk: vec![0; CHUNK_BYTES] }
    }

    /// The page of `change.to` and the bytes that came over the network for it.
    pub fn fetch(
        &mut self,
        order: &Order,
        (change, expected): (&SlotChange, u128),
        mut into: Reserved<B>,
    ) -> Result<(StagedPage<B>, u64), NotStaged> {
        let setup = &self.shared.setup;
        let (layer, expert) = (order.work.layer, change.to);
        let others = setup.pages.holders(layer, expert);
        let others = others.into_iter().filter(|&rank| rank != change.source && rank != setup.rank);
        let mut worst: Option<NotStaged> = None;
        for source in std::iter::once(change.source).chain(others) {
            match self.ask(source, order, (change, expected), into) {
                Attempt::Received(page, bytes) => return Ok((page, bytes)),
                Attempt::Failed(reserved, failure) => {
                    into = reserved;
                    tracing::warn!(%layer, %expert, %source, reason = failure.message, "a page did not arrive");
                    let given_up = matches!(failure.reason, MoveFailure::Deadline | MoveFailure::Aborted);
                    worst = Some(failure);
                    if given_up {
                        break;
                    }
                }
            }
        }
        match worst {
            Some(failure) if matches!(failure.reason, MoveFailure::Deadline | MoveFailure::Aborted) => Err(failure),
            worst => {
                let failure = worst.unwrap_or_else(|| unreachable(String::new()));
                match (setup.load_page)(layer, expert) {
                    Ok(page) if setup.pages.backend().fingerprint(&page) == expected => Ok((into.replace(page), 0)),
                    Ok(_) => Err(NotStaged {
                        reason: MoveFailure::Corrupt,
                        message: format!("{}; the checkpoint holds other weights than the group", failure.message),
                    }),
                    Err(reason) => {
                        let message = format!("{}; nor from the checkpoint: {reason}", failure.message);
                        Err(NotStaged { message, ..failure })
                    }
                }
            }
        }
    }

    fn ask(
        &mut self,
        source: RankId,
        order: &Order,
        (change, expected): (&SlotChange, u128),
        mut into: Reserved<B>,
    ) -> Attempt<B> {
        match self.receive(source, order, change, &mut into) {
            Err(failure) => {
                // What is still on its way would be taken for the answer to the next request.
                self.connections.remove(&source);
                Attempt::Failed(into, failure)
            }
            // What it must be is what every holder has said, not what this one says now.
            Ok(head) => match into.seal(expected) {
                Ok(page) => Attempt::Received(page, head.bytes),
                Err(into) => {
                    let message = format!("the page from {source} is corrupt");
                    Attempt::Failed(into, NotStaged { reason: MoveFailure::Corrupt, message })
                }
            },
        }
    }

    fn receive(
        &mut self,
        source: RankId,
        order: &Order,
        change: &SlotChange,
        into: &mut Reserved<B>,
    ) -> Result<PageHead, NotStaged> {
        let shared = self.shared;
        let patience = patience(order)?;
        let connection = match self.connections.remove(&source) {
            // Its other end closes it when it has been idle for twice as long.
            Some((connection, used)) if used.elapsed() < IDLE_LIMIT / 2 => connection,
            _ => connect(shared, source, patience)?,
        };
        let (connection, used) = self.connections.entry(source).or_insert((connection, Instant::now()));
        let request =
            PageRequest { generation: shared.setup.group.generation, layer: order.work.layer, expert: change.to };
        let lost = |error: &dyn std::fmt::Display| unreachable(format!("{source} did not send the page: {error}"));
        connection.set_timeout(Some(patience)).map_err(|error| lost(&error))?;
        connection.send(&request).map_err(|error| lost(&error))?;
        let head: PageHead = connection.receive_up_to(MOST_HEAD_BYTES).map_err(|error| late(order, lost(&error)))?;
        let expected = shared.setup.pages.page_bytes() as u64;
        if head.bytes != expected {
            let what = if head.bytes == 0 {
                "it does not hold it".to_owned()
            } else {
                format!("its length is {}", head.bytes)
            };
            return Err(lost(&what));
        }
        let mut start = 0;
        while start < head.bytes as usize {
            let length = CHUNK_BYTES.min(head.bytes as usize - start);
            let wait =
                self.shared.budget.lock().expect("no thread panics with it").take(length, shared.started.elapsed());
            if order.cancel.wait(wait) {
                return Err(NotStaged { reason: MoveFailure::Aborted, message: "aborted".to_owned() });
            }
            connection.set_timeout(Some(self::patience(order)?)).map_err(|error| lost(&error))?;
            let chunk = &mut self.chunk[..length];
            connection.receive_bytes(chunk).map_err(|error| late(order, lost(&error)))?;
            into.fill(start, chunk);
            start += length;
        }
        *used = Instant::now();
        Ok(head)
    }
}

/// How long the next read may take: until the deadline, and never longer than a link may stay silent.
fn patience(order: &Order) -> Result<Duration, NotStaged> {
    let left = order.deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(NotStaged { reason: MoveFailure::Deadline, message: "the deadline has passed".to_owned() });
    }
    Ok(left.min(CUT_AFTER).max(Duration::from_millis(1)))
}

/// A failure that comes with the deadline is the deadline's.
fn late(order: &Order, failure: NotStaged) -> NotStaged {
    if Instant::now() < order.deadline {
        return failure;
    }
    NotStaged { reason: MoveFailure::Deadline, message: format!("the deadline has passed; {}", failure.message) }
}

fn connect<B: Backend>(shared: &Shared<B>, source: RankId, patience: Duration) -> Result<Connection, NotStaged> {
    let (group, from) = (shared.setup.group, shared.setup.rank);
    let Some(address) = shared.setup.ranks.get(source.index()) else {
        return Err(unreachable(format!("{source} is not part of the group")));
    };
    let purpose = (Purpose::Moves { group, from, to: source }, &shared.setup.secret);
    let connected = call(&address.moves, source.to_string(), purpose, patience.min(CONNECT_TIMEOUT));
    connected.map_err(|error| unreachable(error.to_string()))
}

fn unreachable(message: String) -> NotStaged {
    NotStaged { reason: MoveFailure::SourceUnreachable, message }
}
