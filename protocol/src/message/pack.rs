//! Packs: what travels from a chunk server to a device.
//!
//! ```text
//! format: u8 = 1   kind: u8   of: 8 bytes   level: u8   index: u32   payload
//! ```
//! `of` is the start of the object's Merkle root; enough to match a request, for the payload proves itself.
//! kind 1: payload is chunk `index` as it is. kind 2: payload is piece (`level`, `index`) of the tree, 32 bytes a
//! digest. kind 3: `of` is the start of the wanted image's root, payload is the root of the image that a delta leads
//! from, 32 bytes, and the signed manifest of that delta, or nothing if there is none. A delta's packs travel as the
//! chunks of the object that its manifest names.

use crate::chunk::PieceId;
use crate::digest::Digest;
use crate::limits::PACK_FRAME_MAX;

const FORMAT: u8 = 1;
const HEADER: usize = 15;

/// A pack frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// First eight bytes of the object's root, big endian.
    pub of: u64,
    /// What the payload is.
    pub kind: PackKind,
    /// The payload.
    pub payload: Vec<u8>,
}

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackKind {
    /// The chunk with this number, uncoded.
    Chunk(u32),
    /// A piece of the tree.
    Piece(PieceId),
    /// The signed manifest of a delta, or that there is none.
    Delta,
}

/// Says why bytes are not a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Above [`PACK_FRAME_MAX`] or below the header's length.
    #[error("a pack of {0} B is outside {HEADER}..={PACK_FRAME_MAX} B")]
    Length(usize),
    /// Of a format or kind that this program does not know.
    #[error("unknown format or kind of pack")]
    Unknown,
}

impl Pack {
    /// Writes the frame.
    pub fn write(&self) -> Vec<u8> {
        let (kind, level, index) = match self.kind {
            PackKind::Chunk(index) => (1, 0, index),
            PackKind::Piece(piece) => (2, piece.level, piece.index),
            PackKind::Delta => (3, 0, 0),
        };
        let mut out = Vec::with_capacity(HEADER + self.payload.len());
        out.extend_from_slice(&[FORMAT, kind]);
        out.extend_from_slice(&self.of.to_be_bytes());
        out.push(level);
        out.extend_from_slice(&index.to_be_bytes());
        out.extend_from_slice(&self.payload);
        out
    }

    /// Reads a frame.
    pub fn read(bytes: &[u8]) -> Result<Self, PackError> {
        if bytes.len() < HEADER || bytes.len() > PACK_FRAME_MAX {
            return Err(PackError::Length(bytes.len()));
        }
        let mut of = [0; 8];
        of.copy_from_slice(&bytes[2..10]);
        let mut index = [0; 4];
        index.copy_from_slice(&bytes[11..15]);
        let index = u32::from_be_bytes(index);
        let kind = match (bytes[0], bytes[1], bytes[10]) {
            (FORMAT, 1, 0) => PackKind::Chunk(index),
            (FORMAT, 2, level) => PackKind::Piece(PieceId { level, index }),
            (FORMAT, 3, 0) if index == 0 => PackKind::Delta,
            _ => return Err(PackError::Unknown),
        };
        Ok(Self { of: u64::from_be_bytes(of), kind, payload: bytes[HEADER..].to_vec() })
    }

    /// Makes the pack of chunk `index`.
    pub fn chunk(of: &Digest, index: u32, payload: Vec<u8>) -> Self {
        Self { of: of.short(), kind: PackKind::Chunk(index), payload }
    }

    /// Makes the pack of a piece.
    pub fn piece(of: &Digest, piece: PieceId, digests: &[Digest]) -> Self {
        let payload = digests.iter().flat_map(|d| d.0).collect();
        Self { of: of.short(), kind: PackKind::Piece(piece), payload }
    }

    /// Makes the answer to who asked for a delta from `from` to `to`: its signed manifest, empty if there is none.
    pub fn delta(from: &Digest, to: &Digest, signed: &[u8]) -> Self {
        Self { of: to.short(), kind: PackKind::Delta, payload: [&from.0, signed].concat() }
    }

    /// Returns, of an answer about a delta, where it leads from and its signed manifest, which is empty if there is none.
    pub fn as_delta(&self) -> Option<(Digest, &[u8])> {
        let (from, signed) = self.payload.split_first_chunk::<32>()?;
        (self.kind == PackKind::Delta).then_some((Digest(*from), signed))
    }

    /// Returns the payload of a piece as digests, or `None` if it is not a whole number of them.
    pub fn digests(&self) -> Option<Vec<Digest>> {
        let whole = self.payload.len().is_multiple_of(32);
        whole.then(|| {
            self.payload
                .chunks_exact(32)
                .map(|d| {
                    let mut out = [0; 32];
                    out.copy_from_slice(d);
                    Digest(out)
                })
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_survive_the_round_trip() {
        let of = Digest::of(b"x");
        let piece = PieceId { level: 1, index: 0 };
        let delta = Pack::delta(&Digest::of(b"from"), &of, b"signed");
        assert_eq!(delta.as_delta(), Some((Digest::of(b"from"), &b"signed"[..])));
        for pack in [Pack::chunk(&of, 7, vec![1, 2, 3]), Pack::piece(&of, piece, &[of, of]), delta] {
            assert_eq!(Pack::read(&pack.write()), Ok(pack));
        }
    }

    #[test]
    fn short_long_and_unknown_frames_are_refused() {
        let good = Pack::chunk(&Digest::of(b"x"), 7, vec![]).write();
        assert_eq!(Pack::read(&good[..HEADER - 1]), Err(PackError::Length(HEADER - 1)));
        assert!(matches!(Pack::read(&vec![1; PACK_FRAME_MAX + 1]), Err(PackError::Length(_))));
        let mut unknown = good;
        unknown[1] = 99;
        assert_eq!(Pack::read(&unknown), Err(PackError::Unknown));
    }
}
