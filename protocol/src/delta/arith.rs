//! The binary arithmetic coder: carry-less, 32 bits, probabilities of 16 bits.
//!
//! Both directions implement [`Bits`], so that a model is written once: it hands in the bit it would like to code and
//! goes on with the bit it gets back. An encoder returns what it was given, a decoder what the pack says.

/// One direction of the coder.
pub(super) trait Bits {
    /// Whether bits come out of a pack.
    const DECODES: bool;
    /// Codes `bit`, whose probability of being set is `p` / 65536 (1..=65535).
    fn bit(&mut self, bit: bool, p: u32) -> bool;
    /// Codes the `count` low bits of `value`, highest first, each with probability one half.
    fn direct(&mut self, value: u64, count: u32) -> u64 {
        (0..count).rev().fold(0, |got, at| got << 1 | u64::from(self.bit(value >> at & 1 != 0, 1 << 15)))
    }
}

/// Where the range from `low` to `high` is cut for probability `p` of a set bit.
fn cut(low: u32, high: u32, p: u32) -> u32 {
    let range = high - low;
    low + (range >> 16) * p + (((range & 0xffff) * p) >> 16)
}

/// Reads bits out of a pack. Past the pack's end it reads zeros, and [`Reader::overrun`] tells.
pub(super) struct Reader<'a> {
    low: u32,
    high: u32,
    code: u32,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut reader = Self { low: 0, high: u32::MAX, code: 0, bytes, at: 0 };
        for _ in 0..4 {
            reader.code = reader.code << 8 | reader.next();
        }
        reader
    }

    fn next(&mut self) -> u32 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        u32::from(byte)
    }

    /// Tells whether more was read than a whole pack can ask for.
    ///
    /// The encoder leaves out zeros at the end; four bytes are always in flight.
    pub(super) fn overrun(&self) -> bool {
        self.at > self.bytes.len() + 4
    }

    /// Tells whether every byte of the pack was read.
    pub(super) fn exhausted(&self) -> bool {
        self.at >= self.bytes.len()
    }
}

impl Bits for Reader<'_> {
    const DECODES: bool = true;

    #[inline]
    fn bit(&mut self, _bit: bool, p: u32) -> bool {
        let middle = cut(self.low, self.high, p);
        let bit = self.code <= middle;
        // Without a branch: which way it goes is what nobody could foresee.
        let set = u32::from(bit).wrapping_neg();
        self.high = (middle & set) | (self.high & !set);
        self.low = (self.low & set) | (middle.wrapping_add(1) & !set);
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
            self.code = self.code << 8 | self.next();
        }
        bit
    }
}

/// Writes bits of a pack.
#[cfg(feature = "delta-encode")]
#[derive(Clone, Default)]
pub(super) struct Writer {
    low: u32,
    /// Upside down, so that a new writer is all zeros.
    high_inverted: u32,
    bytes: Vec<u8>,
}

/// How far a [`Writer`] had come: enough to end the pack there after all.
#[cfg(feature = "delta-encode")]
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    low: u32,
    high_inverted: u32,
    length: usize,
}

#[cfg(feature = "delta-encode")]
impl Writer {
    /// Returns the length so far, all but the last bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + 4
    }

    /// Remembers this place.
    pub(super) fn mark(&self) -> Mark {
        Mark { low: self.low, high_inverted: self.high_inverted, length: self.bytes.len() }
    }

    /// Ends the pack at `mark`, forgetting everything after it.
    pub(super) fn finish_at(mut self, mark: Mark) -> Vec<u8> {
        self.bytes.truncate(mark.length);
        let (low, high) = (mark.low, !mark.high_inverted);
        // The shortest bytes that, with zeros behind them, lie in the range.
        for keep in 0..=4u32 {
            let mask = if keep == 4 { 0 } else { u32::MAX >> (8 * keep) };
            if let Some(value) = low.checked_add(mask).map(|v| v & !mask).filter(|v| *v <= high) {
                self.bytes.extend_from_slice(&value.to_be_bytes()[..keep as usize]);
                break;
            }
        }
        // No further: a reader is four bytes ahead of what was written, and no more.
        while self.bytes.len() > mark.length && self.bytes.last() == Some(&0) {
            self.bytes.pop();
        }
        self.bytes
    }
}

#[cfg(feature = "delta-encode")]
impl Bits for Writer {
    const DECODES: bool = false;

    #[inline]
    fn bit(&mut self, bit: bool, p: u32) -> bool {
        let (mut low, mut high) = (self.low, !self.high_inverted);
        let middle = cut(low, high, p);
        if bit {
            high = middle;
        } else {
            low = middle + 1;
        }
        while (low ^ high) >> 24 == 0 {
            self.bytes.push((high >> 24) as u8);
            low <<= 8;
            high = high << 8 | 0xff;
        }
        (self.low, self.high_inverted) = (low, !high);
        bit
    }
}

#[cfg(all(test, feature = "delta-encode"))]
mod tests {
    use super::*;

    #[test]
    fn a_pack_that_ends_in_zeros_is_whole() {
        let mut writer = Writer::default();
        writer.direct(0xff00_0000_0000_0000, 64);
        writer.direct(u64::MAX, 64);
        let mark = writer.mark();
        let bytes = writer.finish_at(mark);

        let mut reader = Reader::new(&bytes);
        assert_eq!([reader.direct(0, 64), reader.direct(0, 64)], [0xff00_0000_0000_0000, u64::MAX]);
        assert!(!reader.overrun() && reader.exhausted(), "{bytes:?}");
    }

    #[test]
    fn what_was_written_is_read_up_to_any_mark() {
        let bits: Vec<(bool, u32)> = (0..5000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 9 & 7 == 0, 1 + i * 13 % 65_535))
            .collect();
        let mut writer = Writer::default();
        let mut marks = vec![writer.mark()];
        for (bit, p) in &bits {
            writer.bit(*bit, *p);
            marks.push(writer.mark());
        }

        for many in (0..=bits.len()).step_by(37) {
            let bytes = writer.clone().finish_at(marks[many]);
            let mut reader = Reader::new(&bytes);
            assert!(bits[..many].iter().all(|(bit, p)| reader.bit(false, *p) == *bit), "{many} bits");
            assert!(!reader.overrun() && reader.exhausted(), "{many} bits");
        }
    }
}
