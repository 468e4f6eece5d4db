//! From packs to chunks.

use super::arith::Reader;
use super::error::DecodeError;
use super::manifest::DeltaManifest;
use super::model::MARGIN;
use super::pack::{Header, Kind, NO_PLAN, Session};
use super::port::{ReadAt, Slot};
use super::profile::Profile;
use super::window::Source;
use crate::chunk::leaf;

/// Returns which bytes of the new image a pack makes, by its header; nothing if it is no pack of this delta.
pub fn span(manifest: &DeltaManifest, pack: &[u8]) -> Option<std::ops::Range<u64>> {
    let (header, _) = Header::read(pack).ok()?;
    let total = manifest.new.length.div_ceil(1 << manifest.chunk_log2);
    let end = u64::from(header.first) + u64::from(header.chunks);
    let fits = header.profile == manifest.profile && header.chunk_log2 == manifest.chunk_log2;
    let at = |chunk: u64| (chunk << manifest.chunk_log2).min(manifest.new.length);
    (fits && header.chunks > 0 && end <= total).then(|| at(u64::from(header.first))..at(end))
}

/// Decodes the packs of a delta, in any order that its copies from the new image allow; the order of the manifest does.
pub struct Decoder {
    session: Session,
    profile: Profile,
    chunk_log2: u32,
    old_length: u64,
    new_length: u64,
}

impl Decoder {
    /// Makes the tables that the manifest's profile asks for; nothing allocates after that.
    pub fn new(manifest: &DeltaManifest) -> Self {
        Self {
            session: Session::new(manifest.profile, manifest.chunk_log2),
            profile: manifest.profile,
            chunk_log2: manifest.chunk_log2,
            old_length: manifest.old.length,
            new_length: manifest.new.length,
        }
    }

    /// Decodes one pack, whose leaf was verified, and hands its chunks to `slot` in their order; returns them.
    ///
    /// Chunks that carry a digest are verified before they are handed over.
    pub fn decode(
        &mut self,
        pack: &[u8],
        old: &dyn ReadAt,
        slot: &mut dyn Slot,
    ) -> Result<std::ops::Range<u32>, DecodeError> {
        let (header, code) = Header::read(pack)?;
        let total = self.new_length.div_ceil(1 << self.chunk_log2);
        let chunks = header.first..header.first.checked_add(header.chunks).ok_or(DecodeError::Unknown)?;
        if header.profile != self.profile
            || header.chunk_log2 != self.chunk_log2
            || u64::from(chunks.end) > total
            || chunks.is_empty()
        {
            return Err(DecodeError::Unknown);
        }
        self.session.reset();
        let mut io = Reader::new(code);
        let mut chunk = chunks.start;
        while chunk < chunks.end {
            let malformed = |what| DecodeError::Malformed { chunk, what };
            let (at, length) = self.place(chunk);
            let source = Source { old, old_length: self.old_length, new: slot, written: at };
            let (kind, digest) = self.session.chunk(&mut io, &source, (chunk, at, length), &NO_PLAN)?;
            if io.overrun() {
                return Err(malformed("the pack ends before its chunks do"));
            }
            match kind {
                Kind::Moved { chunks: count, from } => {
                    if count > chunks.end - chunk {
                        return Err(malformed("a move past the pack's end"));
                    }
                    let end = chunk + count;
                    self.moved(chunk..end, from, old, slot)?;
                    chunk = end;
                }
                _ => {
                    let bytes = &self.session.out[MARGIN..MARGIN + length];
                    if kind != Kind::Listed && leaf(bytes).short() != digest {
                        return Err(DecodeError::WrongChunk { chunk });
                    }
                    slot.write_chunk(chunk, at, bytes)
                        .map_err(|source| DecodeError::Write { chunk, source })?;
                    chunk += 1;
                }
            }
        }
        if io.exhausted() {
            return Ok(chunks);
        }
        Err(DecodeError::Malformed { chunk: chunk - 1, what: "bytes behind the last chunk" })
    }

    fn place(&self, chunk: u32) -> (u64, usize) {
        let at = u64::from(chunk) << self.chunk_log2;
        (at, (self.new_length - at).min(1 << self.chunk_log2) as usize)
    }

    fn moved(
        &mut self,
        chunks: std::ops::Range<u32>,
        from: u64,
        old: &dyn ReadAt,
        slot: &mut dyn Slot,
    ) -> Result<(), DecodeError> {
        let start = u64::from(chunks.start) << self.chunk_log2;
        for chunk in chunks {
            let (at, length) = self.place(chunk);
            let origin = from.wrapping_add(at - start);
            if origin.checked_add(length as u64).is_none_or(|end| end > self.old_length) {
                return Err(DecodeError::Malformed { chunk, what: "a move from outside the old image" });
            }
            let bytes = &mut self.session.out[MARGIN..MARGIN + length];
            old.read_at(origin, bytes).map_err(|source| DecodeError::Read { chunk, source })?;
            slot.write_chunk(chunk, at, bytes).map_err(|source| DecodeError::Write { chunk, source })?;
            self.session.after_moved(origin, length);
        }
        Ok(())
    }
}
