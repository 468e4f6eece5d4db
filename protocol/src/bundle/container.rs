//! A bundle: packing and unpacking.

use super::deflate::{deflate, inflate, stored};
use super::dictionary::{Dictionary, DictionaryId};
use super::values::{END, ValueError, put_back, take_out};
use crate::limits::{BUNDLE_FILES_MAX, BUNDLE_INFLATED_MAX, BUNDLE_MAX};
use crate::tuf::Role;

const MAGIC: &[u8; 4] = b"TRNB";
const FORMAT: u8 = 2;
const HEADER: usize = 13;

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
    #[error("the bundle needs the dictionary of root {} and targets {}, which is not here", .0.root, .0.targets)]
    UnknownDictionary(DictionaryId),
    /// The deflate stream is broken, or inflates beyond [`BUNDLE_INFLATED_MAX`].
    #[error("the bundle does not inflate within {BUNDLE_INFLATED_MAX} B")]
    Inflate,
    /// Bytes follow the last value.
    #[error("bytes follow the bundle")]
    Trailing,
    /// A file has no end, is too long, or its role is unknown, or there are too many.
    #[error("the bundle's files are malformed")]
    Files,
    /// A value is missing, or is not what its mark says.
    #[error("a value of the bundle is missing or malformed")]
    Values,
}

impl Bundle {
    /// Tells whether `bytes` start like a bundle, as opposed to a sealed message.
    pub fn looks_like(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Returns the name of the dictionary that a bundle is packed against.
    pub fn dictionary_of(bytes: &[u8]) -> Option<DictionaryId> {
        let header = bytes.first_chunk::<HEADER>()?;
        let known = header.starts_with(MAGIC) && header[4] == FORMAT;
        known.then(|| DictionaryId { root: number(&header[5..9]), targets: number(&header[9..13]) })
    }

    /// Packs the files in the general dictionary, for whoever may hold nothing yet.
    pub fn pack(&self) -> Vec<u8> {
        let id = DictionaryId { root: self.root, targets: 0 };
        self.write(id, Dictionary::general().bytes())
    }

    /// Packs the files for holders of the root and targets that `dictionary` is built from.
    pub fn pack_with(&self, dictionary: &Dictionary) -> Vec<u8> {
        self.write(dictionary.id(), dictionary.bytes())
    }

    /// Packs the files in stored blocks: for a device, which does so once in a long while and need not carry a
    /// compressor for it.
    pub fn pack_stored(&self) -> Vec<u8> {
        let (mut text, mut values) = (Vec::new(), Vec::new());
        for file in &self.files {
            write(file, |_| false, &mut text, &mut values);
        }
        let mut out = [MAGIC.as_slice(), &[FORMAT], &self.root.to_be_bytes(), &[0; 4]].concat();
        out.extend_from_slice(&stored(&text));
        out.extend_from_slice(&values);
        out
    }

    fn write(&self, id: DictionaryId, dictionary: &[u8]) -> Vec<u8> {
        // A string that is known already, or comes more than once, is cheaper as a match.
        let twice = |word: &[u8]| {
            let found: usize = self.files.iter().map(|file| occurrences(&file.bytes, word)).sum();
            found > 1 || occurrences(dictionary, word) > 0
        };
        let (mut text, mut values) = (Vec::new(), Vec::new());
        for file in &self.files {
            write(file, twice, &mut text, &mut values);
        }
        let mut out = Vec::with_capacity(text.len() / 2 + values.len());
        out.extend_from_slice(MAGIC);
        out.push(FORMAT);
        out.extend_from_slice(&id.root.to_be_bytes());
        out.extend_from_slice(&id.targets.to_be_bytes());
        out.extend_from_slice(&deflate(dictionary, &text));
        out.extend_from_slice(&values);
        out
    }

    /// Unpacks a bundle; every length is checked before a byte is kept. `held` is the dictionary that is at hand.
    pub fn unpack(bytes: &[u8], held: Option<&Dictionary>) -> Result<Self, BundleError> {
        if bytes.len() > BUNDLE_MAX {
            return Err(BundleError::TooLarge(bytes.len()));
        }
        let id = Self::dictionary_of(bytes).ok_or(BundleError::Format)?;
        let body = &bytes[HEADER..];
        let dictionary = match held {
            _ if id.targets == 0 => Dictionary::general().bytes(),
            Some(held) if held.id() == id => held.bytes(),
            _ => return Err(BundleError::UnknownDictionary(id)),
        };
        let (text, read) =
            inflate(dictionary, body, BUNDLE_INFLATED_MAX).map_err(|_| BundleError::Inflate)?;
        Ok(Self { root: id.root, files: files(&text, &body[read..])? })
    }
}

/// Writes a file as it stands in the stream: its role, its text, its end.
pub(super) fn write(file: &File, stays: impl Fn(&[u8]) -> bool, text: &mut Vec<u8>, values: &mut Vec<u8>) {
    text.push(file.role.code());
    take_out(&file.bytes, stays, text, values);
    text.push(END);
}

fn occurrences(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len().max(1)).filter(|window| *window == word).count()
}

/// Puts the files together again.
fn files(text: &[u8], mut values: &[u8]) -> Result<Vec<File>, BundleError> {
    let mut files = Vec::new();
    let mut room = BUNDLE_INFLATED_MAX;
    let mut rest = text;
    while let Some((code, after)) = rest.split_first() {
        let role = Role::from_code(*code).ok_or(BundleError::Files)?;
        let end = after.iter().position(|byte| *byte == END).ok_or(BundleError::Files)?;
        if files.len() == BUNDLE_FILES_MAX {
            return Err(BundleError::Files);
        }
        let bytes =
            put_back(&after[..end], &mut values, role.ceiling().min(room)).map_err(|error| match error {
                ValueError::Value => BundleError::Values,
                ValueError::TooLong => BundleError::Files,
            })?;
        room -= bytes.len();
        files.push(File { role, bytes });
        rest = &after[end + 1..];
    }
    if !values.is_empty() {
        return Err(BundleError::Trailing);
    }
    Ok(files)
}

fn number(four: &[u8]) -> u32 {
    four.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    /// Made once: signing and packing cost more than all that these stories are about.
    static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| {
        use crate::tuf::client::tests::repository::Repository;
        let repository = Repository::default();
        let file = |role| repository.file(role).bytes;
        Dictionary::unverified(&file(Role::Root), &file(Role::Targets)).unwrap()
    });
    static PACKED: LazyLock<Vec<u8>> = LazyLock::new(|| sample().pack_with(&DICTIONARY));

    fn sample() -> Bundle {
        let file = |role, text: String| File { role, bytes: text.into_bytes() };
        let hash = "0f".repeat(32);
        let timestamp = format!("{{\"expires\":\"2027-11-23T19:21:58Z\",\"sha256\":\"{hash}\"}}");
        Bundle { root: 3, files: vec![file(Role::Timestamp, timestamp), file(Role::Halt, "{}".into())] }
    }

    #[test]
    fn files_come_out_byte_for_byte() {
        assert_eq!(Bundle::unpack(&sample().pack(), None), Ok(sample()));
        assert_eq!(Bundle::unpack(&Bundle::default().pack(), None), Ok(Bundle::default()));
        assert_eq!(Bundle::unpack(&sample().pack_stored(), None), Ok(sample()));
    }

    /// The example of docs/protocol.md; never change it.
    #[test]
    fn a_stored_bundle_is_written_as_it_always_was() {
        let files = vec![File { role: Role::Halt, bytes: b"{}".to_vec() }];
        let packed = hex::encode(Bundle { root: 3, files }.pack_stored());
        assert_eq!(packed, "54524e42020000000300000000010400fbff077b7d00");
    }

    #[test]
    fn what_is_longer_than_its_ceiling_is_refused_for_that_alone() {
        let junk = |length: usize| Bundle::unpack(&vec![0; length], None);

        assert_eq!(junk(BUNDLE_MAX), Err(BundleError::Format));
        assert_eq!(junk(BUNDLE_MAX + 1), Err(BundleError::TooLarge(BUNDLE_MAX + 1)));
        assert_eq!(junk(BUNDLE_MAX + 2), Err(BundleError::TooLarge(BUNDLE_MAX + 2)));
    }

    #[test]
    fn a_bundle_is_told_from_a_message_and_names_its_dictionary() {
        let mut packed = sample().pack();
        packed[5..13].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);

        assert!(Bundle::looks_like(&packed) && !Bundle::looks_like(br#"{"e":1}"#));
        let id = DictionaryId { root: 0x0102_0304, targets: 0x0506_0708 };
        assert_eq!(Bundle::dictionary_of(&packed), Some(id));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let packed = sample().pack();
        for end in 0..packed.len() {
            assert!(Bundle::unpack(&packed[..end], None).is_err(), "cut at {end}");
        }
    }

    /// A bundle that `Bundle::pack` would never make.
    fn forged(text: &[u8], values: &[u8]) -> Vec<u8> {
        let header = &Bundle::default().pack()[..HEADER];
        [header, &deflate(Dictionary::general().bytes(), text), values].concat()
    }

    #[test]
    fn trailing_data_is_refused() {
        let mut longer = sample().pack();
        longer.push(0);
        assert_eq!(Bundle::unpack(&longer, None), Err(BundleError::Trailing));
        let mut longer = PACKED.clone();
        longer.push(0);
        assert_eq!(Bundle::unpack(&longer, Some(&DICTIONARY)), Err(BundleError::Trailing));
    }

    #[test]
    fn a_deflate_bomb_is_refused() {
        let bomb = forged(&vec![b' '; BUNDLE_INFLATED_MAX + 1], &[]);
        assert!(bomb.len() < BUNDLE_MAX);
        assert_eq!(Bundle::unpack(&bomb, None), Err(BundleError::Inflate));
    }

    #[test]
    fn a_bomb_of_values_is_refused() {
        // Four bytes become twenty.
        let count = 15_000;
        let bomb = forged(&[&[2], vec![4; count].as_slice(), &[0]].concat(), &vec![0; 4 * count]);
        assert!(bomb.len() < BUNDLE_MAX);
        assert_eq!(Bundle::unpack(&bomb, None), Err(BundleError::Files));
    }

    #[test]
    fn a_bomb_of_many_files_is_refused() {
        let file = |length| [&[7][..], &vec![4; length], &[0]].concat();
        // Each is below its role's ceiling; together they are above the bundle's.
        let bomb = forged(&file(1600).repeat(6), &vec![0; 4 * 1600 * 6]);
        assert_eq!(Bundle::unpack(&bomb, None), Err(BundleError::Files));
        let bomb = forged(&file(0).repeat(BUNDLE_FILES_MAX + 1), &[]);
        assert_eq!(Bundle::unpack(&bomb, None), Err(BundleError::Files));
        assert!(Bundle::unpack(&forged(&file(1600).repeat(5), &vec![0; 4 * 1600 * 5]), None).is_ok());
    }

    #[test]
    fn a_file_without_an_end_or_of_an_unknown_role_is_refused() {
        for text in [&[2][..], &[2, b'a'], &[9, 0], &[0]] {
            assert_eq!(Bundle::unpack(&forged(text, &[]), None), Err(BundleError::Files), "{text:?}");
        }
        assert_eq!(Bundle::unpack(&forged(&[2, 1, 0], &[0; 31]), None), Err(BundleError::Values));
    }

    #[test]
    fn an_unknown_dictionary_is_named() {
        let packed = PACKED.clone();
        let unknown = |held: Option<&Dictionary>, packed: &[u8]| match Bundle::unpack(packed, held) {
            Err(BundleError::UnknownDictionary(id)) => (id.root, id.targets),
            other => panic!("{other:?}"),
        };
        assert_eq!(Bundle::unpack(&packed, Some(&DICTIONARY)).map(|b| b.files), Ok(sample().files));
        assert_eq!(unknown(None, &packed), (1, 1));
        let mut other_root = packed.clone();
        other_root[8] = 9;
        assert_eq!(unknown(Some(&DICTIONARY), &other_root), (9, 1));
        let mut other_targets = packed;
        other_targets[12] = 9;
        assert_eq!(unknown(Some(&DICTIONARY), &other_targets), (1, 9));
    }

    #[test]
    fn the_former_format_is_refused() {
        let mut packed = sample().pack();
        packed[4] = 1;
        assert_eq!(Bundle::unpack(&packed, None), Err(BundleError::Format));
    }

    proptest::proptest! {
        #[test]
        fn damaged_bundles_never_panic(at in 0usize..400, byte: u8, cut in 0usize..400) {
            let mut packed = PACKED.clone();
            let last = packed.len() - 1;
            packed[at.min(last)] = byte;
            packed.truncate(packed.len() - cut.min(last));
            if let Ok(bundle) = Bundle::unpack(&packed, Some(&DICTIONARY)) {
                proptest::prop_assert!(bundle.files.len() <= BUNDLE_FILES_MAX);
            }
        }
    }
}
