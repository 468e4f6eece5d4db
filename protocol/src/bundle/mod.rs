//! The container in which signed files travel: a bag of files, not a sequence.
//!
//! ```text
//! "TRNB"  format: u8 = 1  root version: u32  dictionary version: u32  raw deflate (RFC 1951) of:
//!     role: u8   length: u32   bytes        … repeated
//! ```
//! Numbers are big endian. Dictionary version 0 means none; a receiver that lacks the dictionary asks with
//! `get` and is answered with dictionary 0. The inflated bytes are exactly the TUF files.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

use crate::limits::{BUNDLE_FILES_MAX, BUNDLE_INFLATED_MAX, BUNDLE_MAX};
use crate::tuf::Role;

const MAGIC: &[u8; 4] = b"TRNB";
const FORMAT: u8 = 1;
const HEADER: usize = 13;
/// Best ratio: a bundle is packed once and received by a fleet.
const LEVEL: u8 = 10;

/// One signed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The role that it speaks for.
    pub role: Role,
    /// The file as it was signed.
    pub bytes: Vec<u8>,
}

/// A bundle, unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle {
    /// Version of the root whose key ids the dictionary uses; informative with dictionary 0.
    pub root: u32,
    /// The files.
    pub files: Vec<File>,
}

/// Says why bytes are not a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Longer than [`BUNDLE_MAX`].
    #[error("a bundle of {0} B is above the ceiling of {BUNDLE_MAX} B")]
    TooLarge(usize),
    /// Not a bundle, or of a format that this program does not know.
    #[error("not a bundle of format {FORMAT}")]
    Format,
    /// Packed against a dictionary that is not here: ask with `get`.
    #[error("the bundle needs dictionary {0}, which is not here")]
    UnknownDictionary(u32),
    /// The deflate stream is broken, or inflates beyond [`BUNDLE_INFLATED_MAX`].
    #[error("the bundle does not inflate within {BUNDLE_INFLATED_MAX} B")]
    Inflate,
    /// Bytes follow the deflate stream.
    #[error("bytes follow the bundle")]
    Trailing,
    /// A file is cut short, or its role is unknown, or there are too many.
    #[error("the bundle's table of files is malformed")]
    Files,
}

impl Bundle {
    /// Tells whether `bytes` start like a bundle, as opposed to a sealed message.
    pub fn looks_like(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Packs the files with dictionary 0.
    pub fn pack(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        for file in &self.files {
            plain.push(file.role.code());
            let length = u32::try_from(file.bytes.len()).expect("a signed file is far below 4 GiB");
            plain.extend_from_slice(&length.to_be_bytes());
            plain.extend_from_slice(&file.bytes);
        }
        let mut out = Vec::with_capacity(plain.len() / 2);
        out.extend_from_slice(MAGIC);
        out.push(FORMAT);
        out.extend_from_slice(&self.root.to_be_bytes());
        out.extend_from_slice(&0u32.to_be_bytes());
        out.extend_from_slice(&compress_to_vec(&plain, LEVEL));
        out
    }

    /// Unpacks what [`Bundle::pack`] made; every length is checked before a byte is kept.
    pub fn unpack(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > BUNDLE_MAX {
            return Err(BundleError::TooLarge(bytes.len()));
        }
        let (header, body) = bytes.split_at_checked(HEADER).ok_or(BundleError::Format)?;
        if !header.starts_with(MAGIC) || header[4] != FORMAT {
            return Err(BundleError::Format);
        }
        let root = number(&header[5..9]);
        let dictionary = number(&header[9..13]);
        if dictionary != 0 {
            return Err(BundleError::UnknownDictionary(dictionary));
        }
        let plain = inflate(body)?;
        let mut files = Vec::new();
        let mut rest = plain.as_slice();
        while !rest.is_empty() {
            let (head, after) = rest.split_at_checked(5).ok_or(BundleError::Files)?;
            let role = Role::from_code(head[0]).ok_or(BundleError::Files)?;
            let (file, after) =
                after.split_at_checked(number(&head[1..5]) as usize).ok_or(BundleError::Files)?;
            if files.len() == BUNDLE_FILES_MAX || file.len() > role.ceiling() {
                return Err(BundleError::Files);
            }
            files.push(File { role, bytes: file.to_vec() });
            rest = after;
        }
        Ok(Self { root, files })
    }
}

fn number(four: &[u8]) -> u32 {
    four.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

/// Inflates one raw deflate stream that must end where the bytes end.
fn inflate(body: &[u8]) -> Result<Vec<u8>, BundleError> {
    use miniz_oxide::inflate::TINFLStatus;
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

    // The convenient call tolerates trailing bytes, so it only sizes the buffer; the exact call then judges.
    let sized = decompress_to_vec_with_limit(body, BUNDLE_INFLATED_MAX).map_err(|_| BundleError::Inflate)?;
    let mut out = vec![0; sized.len() + 1];
    let mut state = DecompressorOxide::new();
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, read, written) = decompress(&mut state, body, &mut out, 0, flags);
    if status != TINFLStatus::Done {
        return Err(BundleError::Inflate);
    }
    if read != body.len() {
        return Err(BundleError::Trailing);
    }
    out.truncate(written);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Bundle {
        let file = |role, text: &str| File { role, bytes: text.as_bytes().to_vec() };
        Bundle { root: 3, files: vec![file(Role::Timestamp, "{\"a\":1}"), file(Role::Halt, "{}")] }
    }

    #[test]
    fn files_come_out_byte_for_byte() {
        assert_eq!(Bundle::unpack(&sample().pack()), Ok(sample()));
        assert_eq!(Bundle::unpack(&Bundle::default().pack()), Ok(Bundle::default()));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let packed = sample().pack();
        for end in 0..packed.len() {
            assert!(Bundle::unpack(&packed[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn trailing_bytes_and_bombs_are_refused() {
        let mut longer = sample().pack();
        longer.push(0);
        assert_eq!(Bundle::unpack(&longer), Err(BundleError::Trailing));
        let bomb = [&sample().pack()[..HEADER], &compress_to_vec(&vec![0; BUNDLE_INFLATED_MAX + 1], 9)];
        assert_eq!(Bundle::unpack(&bomb.concat()), Err(BundleError::Inflate));
    }

    #[test]
    fn an_unknown_dictionary_is_named() {
        let mut packed = sample().pack();
        packed[12] = 9;
        assert_eq!(Bundle::unpack(&packed), Err(BundleError::UnknownDictionary(9)));
    }
}
