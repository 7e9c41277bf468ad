//! Pages over TCP: a request, fingerprints, chunks.

use std::ops::Range;
use std::time::Duration;

use kernels::Backend;
use kernels::fingerprint::{CHUNK_BYTES, chunks_of};

use super::{NotReceived, PageLink};
use crate::experts::pages::Reserved;
use crate::fabric::framing::{Connection, ConnectionError};
use crate::protocol::{PageHead, PageRequest};

/// See the module's documentation.
pub(super) struct TcpLink {
    connection: Connection,
    /// Bytes of the longest head.
    most: usize,
    /// Where a chunk lies while its fingerprint is taken and it is put in its place: in the processor's cache.
    chunk: Vec<u8>,
}

impl TcpLink {
    /// Over a connection on which each page has so many bytes.
    pub fn new(connection: Connection, page_bytes: usize) -> Self {
        Self { connection, most: PageHead::most_bytes(chunks_of(page_bytes)), chunk: vec![0; CHUNK_BYTES] }
    }
}

impl<B: Backend> PageLink<B> for TcpLink {
    fn ask(&mut self, request: &PageRequest, patience: Duration) -> Result<Vec<u128>, ConnectionError> {
        self.connection.set_timeout(Some(patience))?;
        self.connection.send(request)?;
        let PageHead { chunks } = self.connection.receive_up_to(self.most)?;
        Ok(chunks)
    }

    fn most_chunks(&self) -> usize {
        1
    }

    fn receive(
        &mut self,
        into: &mut Reserved<B>,
        place: Range<usize>,
        patience: Duration,
    ) -> Result<Vec<u128>, NotReceived> {
        self.connection.set_timeout(Some(patience))?;
        let chunk = &mut self.chunk[..place.len()];
        self.connection.receive_bytes(chunk)?;
        // What the device has taken is there: its fingerprint is that of what it was given.
        into.fill(place.start, chunk)?;
        Ok(vec![into.fingerprinter().chunk(chunk)])
    }
}
