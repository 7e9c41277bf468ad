//! One other rank: what has been sent to it and received from it of the exchange that is under way.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;

use plan::ids::RankId;

use crate::fabric::{FabricError, Frame};

/// Ahead of each frame: the number of the exchange (8 bytes), how many indices and how many values follow (4 each).
/// Numbers are little endian, as is every machine that this runs on.
const HEAD_BYTES: usize = 16;

/// The most indices or values of a frame: 16,384 tokens of 8 experts and 8,192 values are 2^30; more is a broken peer.
const MAX_ITEMS: usize = 1 << 30;

/// A connected rank.
#[derive(Debug)]
pub(super) struct Peer {
    pub rank: RankId,
    pub stream: TcpStream,
    /// False from a read (or write) that found nothing until the system says otherwise.
    pub readable: bool,
    pub writable: bool,
    head_out: [u8; HEAD_BYTES],
    sent: usize,
    head_in: [u8; HEAD_BYTES],
    received: usize,
}

impl Peer {
    /// A rank that is connected by a stream that does not block.
    pub const fn new(rank: RankId, stream: TcpStream) -> Self {
        Self {
            rank,
            stream,
            readable: true,
            writable: true,
            head_out: [0; HEAD_BYTES],
            sent: 0,
            head_in: [0; HEAD_BYTES],
            received: 0,
        }
    }

    /// Begins an exchange in which this frame is sent.
    pub fn start(&mut self, exchange: u64, frame: &Frame) -> Result<(), FabricError> {
        let (indices, values) = (frame.indices.len(), frame.values.len());
        if indices.max(values) > MAX_ITEMS {
            return Err(self.protocol(format!("a frame of {indices} indices and {values} values is too long for it")));
        }
        self.head_out[..8].copy_from_slice(&exchange.to_le_bytes());
        self.head_out[8..12].copy_from_slice(&(indices as u32).to_le_bytes());
        self.head_out[12..].copy_from_slice(&(values as u32).to_le_bytes());
        (self.sent, self.received) = (0, 0);
        Ok(())
    }

    /// Sends what the system takes; true when all of the frame is sent.
    pub fn write_some(&mut self, frame: &Frame) -> Result<bool, FabricError> {
        let parts: [&[u8]; 3] =
            [&self.head_out, bytemuck::cast_slice(&frame.indices), bytemuck::cast_slice(&frame.values)];
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while self.sent < total && self.writable {
            let mut start = self.sent;
            let rest = parts.map(|part| {
                let skipped = start.min(part.len());
                start -= skipped;
                IoSlice::new(&part[skipped..])
            });
            match self.stream.write_vectored(&rest) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FabricError::Lost { rank: self.rank, source }),
            }
        }
        Ok(self.sent == total)
    }

    /// Receives what has arrived of this exchange and no byte of the next; true when all of it has.
    pub fn read_some(&mut self, exchange: u64, frame: &mut Frame) -> Result<bool, FabricError> {
        loop {
            let heading = self.received < HEAD_BYTES;
            let read = if heading {
                if !self.readable {
                    return Ok(false);
                }
                self.stream.read(&mut self.head_in[self.received..])
            } else {
                let indices: &mut [u8] = bytemuck::cast_slice_mut(&mut frame.indices);
                let values: &mut [u8] = bytemuck::cast_slice_mut(&mut frame.values);
                let body = self.received - HEAD_BYTES;
                if body == indices.len() + values.len() {
                    return Ok(true);
                }
                if !self.readable {
                    return Ok(false);
                }
                let (in_indices, in_values) = (body.min(indices.len()), body.saturating_sub(indices.len()));
                self.stream.read_vectored(&mut [
                    IoSliceMut::new(&mut indices[in_indices..]),
                    IoSliceMut::new(&mut values[in_values..]),
                ])
            };
            match read {
                Ok(0) => {
                    let source = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
                    return Err(FabricError::Lost { rank: self.rank, source });
                }
                Ok(bytes) => self.received += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FabricError::Lost { rank: self.rank, source }),
            }
            if heading && self.received == HEAD_BYTES {
                self.make_room(exchange, frame)?;
            }
        }
    }

    /// Gives a frame the lengths that its head announces.
    fn make_room(&self, expected: u64, frame: &mut Frame) -> Result<(), FabricError> {
        let (number, counts) = self.head_in.split_at(8);
        let found = u64::from_le_bytes(number.try_into().expect("8 bytes"));
        if found != expected {
            return Err(self.protocol(format!("it is in exchange {found}, this rank in {expected}")));
        }
        let (indices, values) = counts.split_at(4);
        let count = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes")) as usize;
        let (indices, values) = (count(indices), count(values));
        if indices.max(values) > MAX_ITEMS {
            return Err(self.protocol(format!("it announces {indices} indices and {values} values")));
        }
        frame.indices.resize(indices, 0);
        frame.values.resize(values, 0.0);
        Ok(())
    }

    fn protocol(&self, reason: String) -> FabricError {
        FabricError::Protocol { rank: self.rank, reason }
    }
}
