//! One record: how it looks in a file, and what makes it whole.
//!
//! ```text
//! byte  0  length of the payload, u32    all numbers little endian
//!       4  CRC-32C of everything else
//!       8  sequence, u64                 0, 1, 2 … without a gap
//!      16  term, u64                     never falls
//!      24  synced, u64                   every frame below this sequence was on the disk already
//!      32  hash of the frame before      32 zero bytes for the first
//!      64  payload
//! ```
//!
//! `synced` tells a torn batch from a damaged disk: after a power cut the pages of an unsynced batch may be
//! there or not in any order, and nobody was promised them. A frame that is missing although a later one says
//! that it was synced is a promise broken, and must not be cut away in silence.
//!
//! A frame's hash is SHA-256 over the whole frame, so the newest hash speaks for all that came before.

use sha2::{Digest as _, Sha256};
use tern_protocol::digest::Digest;

/// Bytes before the payload.
pub const HEADER: usize = 64;
/// Largest payload. A length above this is damage, never a reason to make a buffer.
pub const PAYLOAD_MAX: usize = 1024 * 1024;
/// Hash that the very first frame names as its predecessor's.
pub const GENESIS: Digest = Digest([0; 32]);

/// Where the next frame must attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Sequence of the next frame.
    pub sequence: u64,
    /// Lowest term that it may have.
    pub term: u64,
    /// Lowest `synced` that it may have.
    pub synced: u64,
    /// Hash of the frame before.
    pub hash: Digest,
}

impl Link {
    /// The beginning of a ledger.
    pub const START: Self = Self { sequence: 0, term: 0, synced: 0, hash: GENESIS };
}

/// A record as it was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its place in the ledger.
    pub sequence: u64,
    /// Fencing number under which it was written.
    pub term: u64,
    /// Every frame below this sequence was on the disk when this one was written.
    pub synced: u64,
    /// Hash of the whole frame; the next one names it.
    pub hash: Digest,
    /// What the caller wrote.
    pub payload: Vec<u8>,
}

/// What is wrong with bytes that should be a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file ends inside the frame.
    #[error("the frame is cut short")]
    Short,
    /// The length field is zero or above the ceiling.
    #[error("the frame claims {0} bytes of payload, allowed are 1 to {PAYLOAD_MAX}")]
    Length(u32),
    /// The checksum does not match.
    #[error("the frame's checksum does not match")]
    Checksum,
    /// The frame is whole, but is not the one that belongs here.
    #[error("the frame has sequence {found}, expected {expected}")]
    Sequence {
        /// Sequence in the frame.
        found: u64,
        /// Sequence that belongs here.
        expected: u64,
    },
    /// The frame is whole, but follows another history.
    #[error("the frame does not continue the hash chain")]
    Chain,
    /// The frame's term is below an earlier one's.
    #[error("the frame's term {0} is below an earlier one")]
    Term(u64),
}

/// Appends a frame to `out` and returns where the next one attaches. The payload's size was checked.
pub(crate) fn encode(out: &mut Vec<u8>, link: Link, payload: &[u8]) -> Link {
    let start = out.len();
    let length = u32::try_from(payload.len()).expect("payloads are checked against PAYLOAD_MAX");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&link.sequence.to_le_bytes());
    out.extend_from_slice(&link.term.to_le_bytes());
    out.extend_from_slice(&link.synced.to_le_bytes());
    out.extend_from_slice(&link.hash.0);
    out.extend_from_slice(payload);
    let checksum = checksum(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    let hash = Digest(Sha256::digest(&out[start..]).into());
    Link { sequence: link.sequence + 1, hash, ..link }
}

/// Reads the payload's length out of a header.
pub(crate) fn payload_length(header: &[u8; HEADER]) -> Result<usize, Problem> {
    let length = u32::from_le_bytes(four(header, 0));
    match usize::try_from(length) {
        Ok(found) if (1..=PAYLOAD_MAX).contains(&found) => Ok(found),
        _ => Err(Problem::Length(length)),
    }
}

/// Checks `bytes`, which hold one frame exactly, by themselves. Says nothing about their place in the chain.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Frame, Digest), Problem> {
    let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Problem::Short)?;
    if bytes.len() != HEADER + payload_length(header)? {
        return Err(Problem::Short);
    }
    if checksum(bytes) != u32::from_le_bytes(four(header, 4)) {
        return Err(Problem::Checksum);
    }
    let mut before = [0; 32];
    before.copy_from_slice(&header[32..64]);
    let frame = Frame {
        sequence: u64::from_le_bytes(eight(header, 8)),
        term: u64::from_le_bytes(eight(header, 16)),
        synced: u64::from_le_bytes(eight(header, 24)),
        hash: Digest(Sha256::digest(bytes).into()),
        payload: bytes[HEADER..].to_vec(),
    };
    Ok((frame, Digest(before)))
}

/// Checks that a frame attaches at `link`, and returns where the next one does.
pub(crate) fn follow(link: Link, frame: &Frame, before: Digest) -> Result<Link, Problem> {
    if frame.sequence != link.sequence {
        return Err(Problem::Sequence { found: frame.sequence, expected: link.sequence });
    }
    if before != link.hash {
        return Err(Problem::Chain);
    }
    if frame.term < link.term {
        return Err(Problem::Term(frame.term));
    }
    Ok(Link { sequence: frame.sequence + 1, term: frame.term, synced: frame.synced, hash: frame.hash })
}

/// The checksum covers the length too, so that a bit turned over there is noticed as what it is.
fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[8..])
}

fn four(header: &[u8; HEADER], at: usize) -> [u8; 4] {
    std::array::from_fn(|i| header[at + i])
}

fn eight(header: &[u8; HEADER], at: usize) -> [u8; 8] {
    std::array::from_fn(|i| header[at + i])
}
