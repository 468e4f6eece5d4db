//! The part of the source that is at hand: one buffer, filled by few and large reads.
//!
//! The source of copies is the old image, followed by what was written of the new one before the current chunk.

use std::io;

use super::port::ReadAt;

/// Where a pack's bytes come from.
pub(super) struct Source<'a> {
    pub(super) old: &'a dyn ReadAt,
    pub(super) old_length: u64,
    pub(super) new: &'a dyn ReadAt,
    /// How much of the new image may be read.
    pub(super) written: u64,
}

impl Source<'_> {
    /// Returns the number of bytes that can be copied.
    pub(super) fn length(&self) -> u64 {
        self.old_length + self.written
    }

    /// Fills `into` with what stands at `position`; zeros before the source's begin and past its end.
    pub(super) fn read(&self, position: i64, into: &mut [u8]) -> io::Result<()> {
        let mut at = position;
        let mut rest = into;
        while !rest.is_empty() {
            let (part, known) = match u64::try_from(at) {
                Err(_) => (at.unsigned_abs(), false),
                Ok(p) if p < self.old_length => (self.old_length - p, true),
                Ok(p) if p < self.length() => (self.length() - p, true),
                Ok(_) => (u64::MAX, false),
            };
            let take = usize::try_from(part).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(take);
            match u64::try_from(at) {
                Ok(p) if known && p < self.old_length => self.old.read_at(p, now)?,
                Ok(p) if known => self.new.read_at(p - self.old_length, now)?,
                _ => now.fill(0),
            }
            at = at.saturating_add(take as i64);
            rest = later;
        }
        Ok(())
    }
}

/// A window on a [`Source`].
pub(super) struct Window {
    bytes: Vec<u8>,
    start: i64,
    filled: usize,
}

/// How much is read before what is asked for, for whoever steps back a little.
const BEHIND: i64 = 16 * 1024;

impl Window {
    /// Makes a window that serves requests of up to `longest` bytes.
    pub(super) fn new(longest: usize) -> Self {
        Self { bytes: vec![0; longest + 48 * 1024], start: 0, filled: 0 }
    }

    /// Forgets what is at hand: another source, or more was written.
    pub(super) fn forget(&mut self) {
        self.filled = 0;
    }

    /// Returns `length` bytes from `position` on.
    pub(super) fn at(&mut self, source: &Source<'_>, position: i64, length: usize) -> io::Result<&[u8]> {
        let offset = position.wrapping_sub(self.start);
        let here = self.filled > 0
            && usize::try_from(offset)
                .is_ok_and(|o| o.checked_add(length).is_some_and(|end| end <= self.filled));
        if !here {
            self.filled = 0;
            self.start = position.saturating_sub(BEHIND) & !4095;
            source.read(self.start, &mut self.bytes)?;
            self.filled = self.bytes.len();
        }
        let offset = (position - self.start) as usize;
        Ok(&self.bytes[offset..offset + length])
    }
}
