//! Packets out of a stream of bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::frame::{self, FrameError, Packet};

const STEP: usize = 16 * 1024;

/// Says why no further packet comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The peer closed the connection between two packets.
    #[error("the connection was closed")]
    Closed,
    /// The connection broke.
    #[error("could not read from the connection")]
    Io(#[source] io::Error),
    /// What came is not a packet.
    #[error("the peer does not speak MQTT 3.1.1 as it should")]
    Frame(#[from] FrameError),
}

/// Reads packets; a dropped [`FrameReader::next`] loses nothing.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that belong to packets already handed out.
    done: usize,
    ceiling: usize,
    /// Bytes of the packet handed out last.
    last: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R, ceiling: usize) -> Self {
        Self { stream, buffer: Vec::new(), done: 0, ceiling, last: 0 }
    }

    /// Returns the next packet.
    pub(crate) async fn next(&mut self) -> Result<Packet, ReadError> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(packet);
            }
            self.buffer.reserve(STEP);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(ReadError::Closed),
                Ok(_) => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
    }

    /// Returns the next packet if it has been read already.
    pub(crate) fn buffered(&mut self) -> Result<Option<Packet>, ReadError> {
        if let Some((packet, length)) = frame::read(&self.buffer[self.done..], self.ceiling)? {
            self.done += length;
            self.last = length;
            return Ok(Some(packet));
        }
        self.buffer.drain(..self.done);
        self.done = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > STEP {
            // An idle connection keeps no buffer of the size of its largest packet.
            self.buffer = Vec::new();
        }
        Ok(None)
    }

    /// Returns the length of the packet that was returned last.
    pub(crate) fn last_length(&self) -> usize {
        self.last
    }
}
