//! Images in files: read by offset, written chunk by chunk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tern_protocol::delta::{ReadAt, Slot};

/// A file as an image or a slot.
#[derive(Debug)]
pub(crate) struct InFile(pub(crate) File);

impl ReadAt for InFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
}

impl Slot for InFile {
    fn write_chunk(&mut self, _chunk: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}
