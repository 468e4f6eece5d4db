//! Where the codec meets the world: an old image that is read, a new slot that is written and read back.

use std::io;

/// Bytes that can be read at any offset: a slot, a file, memory.
pub trait ReadAt {
    /// Fills `into` with the bytes from `offset` on; anything less than all of them is an error.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// The slot that the new image is written to.
///
/// What was written must be readable at once; the codec reads back only chunks that it has handed over before.
pub trait Slot: ReadAt {
    /// Takes chunk number `chunk`, whose first byte belongs at `offset`.
    fn write_chunk(&mut self, chunk: u32, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let from = start.checked_add(into.len()).and_then(|end| self.get(start..end));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, into)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, into)
    }
}

/// A slot in memory, for tests and for whoever has the room: as long as what was written.
impl Slot for Vec<u8> {
    fn write_chunk(&mut self, _chunk: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = start + bytes.len();
        if self.len() < end {
            self.resize(end, 0);
        }
        self[start..end].copy_from_slice(bytes);
        Ok(())
    }
}
