//! A pack: its header, and the walk over its chunks that decoder and encoder share.
//!
//! ```text
//! version: u8 = 1   profile: u8   log2 of chunk length: u8   first chunk: u32   chunks: u32   arithmetic code
//! ```
//! Numbers are little endian. Everything after the header is one arithmetic code.

use super::arith::Bits;
use super::copy::{AROUND, Copy};
use super::error::DecodeError;
use super::model::{MARGIN, Model};
use super::profile::Profile;
use super::window::{Source, Window};

/// Format of packs and manifests.
pub(super) const VERSION: u8 = 1;
/// Bytes of a pack's header.
pub(super) const HEADER: usize = 11;

/// What a pack says before its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) profile: Profile,
    pub(super) chunk_log2: u32,
    pub(super) first: u32,
    pub(super) chunks: u32,
}

impl Header {
    /// Writes the header.
    #[cfg(feature = "delta-encode")]
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.profile.id(), self.chunk_log2 as u8];
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.chunks.to_le_bytes());
        out
    }

    /// Reads the header; the code follows.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let (head, code) = bytes.split_first_chunk::<HEADER>().ok_or(DecodeError::Unknown)?;
        let [version, profile, chunk_log2, a, b, c, d, e, f, g, h] = *head;
        let profile = Profile::from_id(profile).filter(|_| version == VERSION).ok_or(DecodeError::Unknown)?;
        if !(12..=16).contains(&chunk_log2) {
            return Err(DecodeError::Unknown);
        }
        let (first, chunks) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        Ok((Self { profile, chunk_log2: u32::from(chunk_log2), first, chunks }, code))
    }
}

/// A run of literals and the copy behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) literals: usize,
    pub(super) copy: usize,
    /// Position of the copy in the source.
    pub(super) from: u64,
    /// Whether nothing in the copy differs.
    pub(super) exact: bool,
}

/// How a chunk is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Segments, with a digest.
    Coded,
    /// This chunk and those behind it, as one exact copy; no digest.
    Moved { chunks: u32, from: u64 },
    /// Exact copies that cover the chunk; no digest.
    Listed,
    /// The bytes themselves.
    Raw,
}

/// What the encoder knows of a chunk; the decoder learns it from the pack.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) kind: Kind,
    pub(super) segments: &'a [Segment],
    pub(super) digest: u64,
}

/// What the decoder passes in place of a plan.
pub(super) const NO_PLAN: Plan<'static> = Plan { kind: Kind::Coded, segments: &[], digest: 0 };

/// Everything that is needed to code chunks, made once.
pub(super) struct Session {
    pub(super) model: Model,
    /// [`MARGIN`] bytes of what came before, then the chunk.
    pub(super) out: Vec<u8>,
    pub(super) window: Window,
    kind: usize,
}

const OUTSIDE: &str = "a copy from outside the images";
const LENGTH: &str = "a run past the chunk's end";

impl Session {
    /// Makes all buffers and tables.
    pub(super) fn new(profile: Profile, chunk_log2: u32) -> Self {
        Self {
            model: Model::new(profile.sizes()),
            out: vec![0; MARGIN + (1 << chunk_log2)],
            window: Window::new((1 << chunk_log2) + 2 * AROUND),
            kind: 0,
        }
    }

    /// Begins a pack.
    pub(super) fn reset(&mut self) {
        self.model.reset();
        self.out.fill(0);
        self.window.forget();
        self.kind = 0;
    }

    /// Codes the chunk at `at` of `length` bytes; returns its kind, and its digest if it has one.
    ///
    /// A moved run is only announced: the caller copies it and shows the last chunk to [`Session::after_moved`].
    pub(super) fn chunk<B: Bits>(
        &mut self,
        io: &mut B,
        source: &Source<'_>,
        (chunk, at, length): (u32, u64, usize),
        plan: &Plan<'_>,
    ) -> Result<(Kind, u64), DecodeError> {
        let malformed = |what| DecodeError::Malformed { chunk, what };
        let which = self.kind * 4;
        let numbers = &mut self.model.numbers;
        let kind = if !numbers.choice(io, 2, which, !matches!(plan.kind, Kind::Moved { .. })) {
            let (count, origin) = match plan.kind {
                Kind::Moved { chunks, from } => (chunks, from),
                _ => (1, 0),
            };
            let chunks = numbers.number(io, 3, u64::from(count) - 1);
            let chunks =
                u32::try_from(chunks).ok().and_then(|c| c.checked_add(1)).ok_or(malformed(LENGTH))?;
            let from = self.model.source(io, at, origin);
            self.kind = 1;
            return Ok((Kind::Moved { chunks, from }, 0));
        } else if numbers.choice(io, 2, which + 1, plan.kind == Kind::Coded) {
            Kind::Coded
        } else if numbers.choice(io, 2, which + 2, plan.kind == Kind::Listed) {
            Kind::Listed
        } else {
            Kind::Raw
        };
        self.kind = match kind {
            Kind::Coded | Kind::Moved { .. } => 0,
            Kind::Listed => 2,
            Kind::Raw => 3,
        };
        let digest = if kind == Kind::Listed { 0 } else { io.direct(plan.digest, 64) };
        if kind == Kind::Raw {
            for byte in &mut self.out[MARGIN..MARGIN + length] {
                *byte = io.direct(u64::from(*byte), 8) as u8;
            }
        } else {
            self.segments(io, source, (chunk, at, length), kind == Kind::Listed, plan.segments)?;
        }
        self.ends_with(length);
        Ok((kind, digest))
    }

    /// Keeps the end of the chunk as what comes before the next.
    fn ends_with(&mut self, length: usize) {
        self.out.copy_within(length..length + MARGIN, 0);
    }

    /// Goes on behind a moved run, whose last chunk is in `out` and came from `origin`.
    pub(super) fn after_moved(&mut self, origin: u64, length: usize) {
        self.ends_with(length);
        self.model.source_end = (origin + length as u64) as i64;
        // The same for one long run as for many short ones.
        (self.model.recent, self.model.since, self.model.differences) = (0, 1 << 16, [0; 32]);
    }

    fn segments<B: Bits>(
        &mut self,
        io: &mut B,
        source: &Source<'_>,
        (chunk, at, length): (u32, u64, usize),
        listed: bool,
        segments: &[Segment],
    ) -> Result<(), DecodeError> {
        let malformed = |what| DecodeError::Malformed { chunk, what };
        let read = |source| DecodeError::Read { chunk, source };
        let mut planned = segments.iter();
        let mut done = 0usize;
        let mut class = 0;
        while done < length {
            let nothing = Segment { literals: 0, copy: 1, from: 0, exact: false };
            let segment = planned.next().copied().unwrap_or(nothing);
            let (model, left) = (&mut self.model, length - done);
            if !listed {
                let literals = if model.numbers.choice(io, 4, class, segment.literals == left) {
                    left
                } else {
                    model.numbers.number(io, 5 + class, segment.literals as u64) as usize
                };
                if literals > left {
                    return Err(malformed(LENGTH));
                }
                let here = at + done as u64;
                let beside = (here as i64).wrapping_add(model.shifts[0]).wrapping_sub(AROUND as i64);
                let beside = self.window.at(source, beside, literals + 2 * AROUND).map_err(read)?;
                model.literals(io, &mut self.out, MARGIN + done, literals, beside);
                done += literals;
                class = (literals as u64 + 1).ilog2().min(7) as usize;
            }
            let (model, left) = (&mut self.model, length - done);
            if left == 0 {
                break;
            }
            let copy = if model.numbers.choice(io, 4, 16 + class, segment.copy == left) {
                left
            } else {
                model.numbers.number(io, 24 + class, segment.copy as u64) as usize
            };
            if copy == 0 || copy > left {
                return Err(malformed(LENGTH));
            }
            let here = at + done as u64;
            let from = model.source(io, here, segment.from);
            if from.checked_add(copy as u64).is_none_or(|end| end > source.length()) {
                return Err(malformed(OUTSIDE));
            }
            let size = (copy as u64).ilog2().min(15) as usize;
            let exact = listed || model.numbers.choice(io, 42, size, segment.exact);
            let bytes =
                self.window.at(source, from as i64 - AROUND as i64, copy + 2 * AROUND).map_err(read)?;
            if exact {
                self.out[MARGIN + done..MARGIN + done + copy].copy_from_slice(&bytes[AROUND..AROUND + copy]);
                model.same(copy);
                model.differences = [0; 32];
            } else {
                let copy = Copy { source: bytes, from, at: here, length: copy };
                model.copy(io, &copy, &mut self.out, MARGIN + done);
            }
            done += copy;
            model.source_end = (from + copy as u64) as i64;
            class = 8 + size.min(15) / 2;
            class = class.min(15);
        }
        Ok(())
    }
}
