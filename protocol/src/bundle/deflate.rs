//! Raw deflate (RFC 1951) with a preset dictionary: bytes that precede the text in the window.

use miniz_oxide::deflate::core::{
    CompressionStrategy, CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output,
    create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// Greedy with few probes, lazy with all: the first looks worse and sometimes is not.
const LEVELS: [i32; 2] = [3, 10];
/// Room that is made at first; doubled while the stream goes on.
const ROOM: usize = 4096;

/// The stream is broken, cut short, or longer than the ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// Compresses `text`; `dictionary` precedes it in the window.
///
/// A bundle is packed once and received by a fleet, so every way of the library is tried. Its own choice between
/// fixed and new codes is poor below a few hundred bytes, and longer matches are not always the cheaper ones.
pub(super) fn deflate(dictionary: &[u8], text: &[u8]) -> Vec<u8> {
    let strategies =
        [CompressionStrategy::Default, CompressionStrategy::Filtered, CompressionStrategy::Fixed];
    let ways = strategies.into_iter().flat_map(|strategy| LEVELS.map(|level| (level, strategy)));
    let packed = ways.map(|(level, strategy)| deflate_as(dictionary, text, level, strategy));
    // What was dropped of the library's output is its business, so nothing leaves that does not come back.
    let comes_back = |packed: &Vec<u8>| {
        inflate(dictionary, packed, text.len()).is_ok_and(|(back, read)| back == text && read == packed.len())
    };
    packed.filter(comes_back).min_by_key(Vec::len).unwrap_or_else(|| stored(text))
}

/// Writes stored blocks (RFC 1951 section 3.2.4).
pub(super) fn stored(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 5);
    let mut rest = text;
    loop {
        let (block, after) = rest.split_at(rest.len().min(0xffff));
        let length = u16::try_from(block.len()).expect("a block was cut to 16 bits");
        out.push(u8::from(after.is_empty()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
        if after.is_empty() {
            return out;
        }
        rest = after;
    }
}

/// The library offers no preset dictionary. It keeps its window over a sync flush, which ends on a whole byte, so
/// what it wrote up to there is dropped and the rest is the stream that refers back to the dictionary.
fn deflate_as(dictionary: &[u8], text: &[u8], level: i32, strategy: CompressionStrategy) -> Vec<u8> {
    let mut state = CompressorOxide::new(create_comp_flags_from_zip_params(level, 0, strategy.into()));
    if !dictionary.is_empty() {
        let (status, read) = compress_to_output(&mut state, dictionary, TDEFLFlush::Sync, |_| true);
        assert!(
            status == TDEFLStatus::Okay && read == dictionary.len(),
            "a flush takes all that it is given"
        );
    }
    let mut out = Vec::with_capacity(text.len() / 2);
    let keep = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        true
    };
    let (status, read) = compress_to_output(&mut state, text, TDEFLFlush::Finish, keep);
    assert!(status == TDEFLStatus::Done && read == text.len(), "a vector takes all that it is given");
    out
}

/// Inflates one stream to at most `ceiling` bytes; returns them and how long the stream was.
pub(super) fn inflate(dictionary: &[u8], body: &[u8], ceiling: usize) -> Result<(Vec<u8>, usize), Broken> {
    // One byte above the ceiling tells a stream that ends there from one that goes on.
    let most = dictionary.len() + ceiling + 1;
    let mut out = dictionary.to_vec();
    out.resize((out.len() + ROOM).min(most), 0);
    let (mut read, mut written) = (0, dictionary.len());
    let mut state = DecompressorOxide::new();
    loop {
        let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, took, made) = decompress(&mut state, &body[read..], &mut out, written, flags);
        read += took;
        written += made;
        match status {
            TINFLStatus::Done if written < most => break,
            TINFLStatus::HasMoreOutput if out.len() < most => out.resize((out.len() * 2).min(most), 0),
            _ => return Err(Broken),
        }
    }
    out.truncate(written);
    out.drain(..dictionary.len());
    Ok((out, read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_against_a_dictionary_comes_back_with_it_alone() {
        let (dictionary, text) =
            (b"{\"signatures\":[{\"keyid\":\"".repeat(9), b"{\"signatures\":[{\"keyid\":\"b\"}]}");

        let packed = deflate(&dictionary, text);

        assert!(packed.len() < deflate(&[], text).len());
        assert_eq!(inflate(&dictionary, &packed, 1000), Ok((text.to_vec(), packed.len())));
        assert_ne!(inflate(&[], &packed, 1000), Ok((text.to_vec(), packed.len())));
    }

    #[test]
    fn the_ceiling_is_reached_and_not_passed() {
        for length in [0, 1, ROOM - 1, ROOM, ROOM + 1, 9 * ROOM] {
            for dictionary in [&[][..], &[7; 100], &[7; 40_000]] {
                let packed = deflate(dictionary, &vec![7; length]);
                assert_eq!(inflate(dictionary, &packed, length), Ok((vec![7; length], packed.len())));
                if length > 0 {
                    assert_eq!(inflate(dictionary, &packed, length - 1), Err(Broken));
                }
            }
        }
    }

    #[test]
    fn stored_blocks_are_a_stream() {
        for length in [0, 1, 0xffff, 0x1_0000, 0x2_1234] {
            let text: Vec<u8> = (0..length).map(|i: u32| i.to_le_bytes()[0]).collect();
            let packed = stored(&text);
            assert_eq!(inflate(&[], &packed, text.len()), Ok((text, packed.len())));
        }
    }
}
