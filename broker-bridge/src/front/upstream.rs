//! The way from a session to the broker. Acknowledgements never wait for room; messages do.
//!
//! Were both to wait, the broker could stand writing to us while we stand writing to it.

use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::frame::Packet;

/// Bytes after which messages wait.
const FULL: usize = 256 * 1024;

/// Bytes on their way to the broker.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    bytes: Mutex<Vec<u8>>,
    filled: Notify,
    drained: Notify,
}

impl Upstream {
    /// Adds a packet at once: acknowledgements and pings, which the broker's own window bounds.
    pub(crate) fn push(&self, packet: &Packet) {
        packet.write(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        self.filled.notify_one();
    }

    /// Adds a packet when there is room.
    pub(crate) async fn send(&self, packet: &Packet) {
        while self.bytes.lock().unwrap_or_else(PoisonError::into_inner).len() >= FULL {
            self.drained.notified().await;
        }
        self.push(packet);
    }

    fn take(&self) -> Vec<u8> {
        let bytes = std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        if !bytes.is_empty() {
            self.drained.notify_one();
        }
        bytes
    }
}

/// Writes to a broker; a dropped write can be taken up again, so no packet is ever torn.
#[derive(Debug)]
pub(crate) struct UpstreamWriter<W> {
    stream: W,
    bytes: Vec<u8>,
    done: usize,
}

impl<W: AsyncWrite + Unpin> UpstreamWriter<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self { stream, bytes: Vec::new(), done: 0 }
    }

    /// Writes whatever comes, until the connection breaks.
    pub(crate) async fn run(&mut self, upstream: &Upstream) -> io::Error {
        loop {
            if let Err(error) = self.flush(upstream).await {
                return error;
            }
            upstream.filled.notified().await;
        }
    }

    /// Writes all that is there.
    pub(crate) async fn flush(&mut self, upstream: &Upstream) -> io::Result<()> {
        loop {
            while self.done < self.bytes.len() {
                let count = self.stream.write(&self.bytes[self.done..]).await?;
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.done += count;
            }
            (self.bytes, self.done) = (upstream.take(), 0);
            if self.bytes.is_empty() {
                return self.stream.flush().await;
            }
        }
    }

    /// Says that nothing more will come.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}
