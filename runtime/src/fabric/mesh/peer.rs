//! One other rank: what has been sent to it and received from it of the exchange that is under way.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;

use plan::ids::RankId;

use super::Largest;
use crate::fabric::{FabricError, Frame};

/// Ahead of each frame: the number of the exchange (8 bytes), how many indices and how many values follow (4 each).
/// Numbers are little endian, as is every machine that this runs on.
const HEAD_BYTES: usize = 16;

/// Items that a frame has room for before it is received in parts.
const LEAST_ROOM: usize = 16 << 10;

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
    largest: Largest,
    /// What the frame that is received will have.
    announced: Largest,
}

impl Peer {
    /// A rank that is connected by a stream that does not block.
    pub const fn new(rank: RankId, stream: TcpStream, largest: Largest) -> Self {
        Self {
            rank,
            stream,
            readable: true,
            writable: true,
            head_out: [0; HEAD_BYTES],
            sent: 0,
            head_in: [0; HEAD_BYTES],
            received: 0,
            largest,
            announced: Largest { indices: 0, values: 0 },
        }
    }

    /// Begins an exchange in which this frame is sent.
    pub fn start(&mut self, exchange: u64, frame: &Frame) -> Result<(), FabricError> {
        let (indices, values) = (frame.indices.len(), frame.values.len());
        let longest = u32::MAX as usize;
        if indices.max(values) > longest {
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
                let body = self.received - HEAD_BYTES;
                if body == self.announced.bytes() {
                    return Ok(true);
                }
                if !self.readable {
                    return Ok(false);
                }
                if body == frame.bytes() {
                    self.make_room(frame);
                }
                let indices: &mut [u8] = bytemuck::cast_slice_mut(&mut frame.indices);
                let values: &mut [u8] = bytemuck::cast_slice_mut(&mut frame.values);
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
                self.take_head(exchange)?;
                // What it has room for from before stays as it is: no byte is written twice.
                frame.indices.truncate(self.announced.indices);
                frame.values.truncate(self.announced.values);
                self.make_room(frame);
            }
        }
    }

    /// Checks what a frame's head announces.
    fn take_head(&mut self, expected: u64) -> Result<(), FabricError> {
        let (number, counts) = self.head_in.split_at(8);
        let found = u64::from_le_bytes(number.try_into().expect("8 bytes"));
        if found != expected {
            return Err(self.protocol(format!("it is in exchange {found}, this rank in {expected}")));
        }
        let (indices, values) = counts.split_at(4);
        let count = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes")) as usize;
        let (indices, values) = (count(indices), count(values));
        if indices > self.largest.indices || values > self.largest.values {
            let Largest { indices: most_indices, values: most_values } = self.largest;
            return Err(self.protocol(format!(
                "it announces {indices} indices and {values} values; a step has at most {most_indices} and {most_values}"
            )));
        }
        self.announced = Largest { indices, values };
        Ok(())
    }

    /// Gives a frame room for more of what its head announces: all of it where it has had as much before, else as much again
    /// as has arrived. What was only announced costs no memory. Values have room once all indices have.
    fn make_room(&self, frame: &mut Frame) {
        let Frame { indices, values } = frame;
        let room = |len: usize, capacity: usize| capacity.max(len * 2).max(LEAST_ROOM);
        let reach = self.announced.indices.min(room(indices.len(), indices.capacity()));
        indices.resize(reach, 0);
        if reach == self.announced.indices {
            values.resize(self.announced.values.min(room(values.len(), values.capacity())), 0.0);
        } else {
            values.clear();
        }
    }

    fn protocol(&self, reason: String) -> FabricError {
        FabricError::Protocol { rank: self.rank, reason }
    }
}

impl Largest {
    /// Bytes of so many indices and values.
    const fn bytes(self) -> usize {
        self.indices * size_of::<u32>() + self.values * size_of::<f32>()
    }
}

impl Frame {
    /// Bytes of its indices and values.
    const fn bytes(&self) -> usize {
        Largest { indices: self.indices.len(), values: self.values.len() }.bytes()
    }
}
