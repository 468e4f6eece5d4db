//! The ledger's files as they grow, and what a power cut leaves of them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use tern_controller::core::fact::Entry;
use tern_controller::ledger::frame::HEADER;

/// Reads what was appended since the last time. What was read once must stay.
#[derive(Debug, Default)]
pub struct Tail {
    /// The file that is read, and how far.
    place: Option<(PathBuf, u64)>,
}

impl Tail {
    /// Reads the whole frames that came since. A torn end is left for the service to cut.
    ///
    /// # Panics
    /// When a frame is no fact.
    pub fn read(&mut self, ledger: &Path) -> Vec<Entry> {
        let mut entries = Vec::new();
        for file in segments(ledger) {
            let from = match &self.place {
                Some((read, _)) if file < *read => continue,
                Some((read, offset)) if file == *read => *offset,
                _ => 0,
            };
            let mut bytes = Vec::new();
            let mut open = File::open(&file).expect("a file of the ledger");
            open.seek(SeekFrom::Start(from)).and_then(|_| open.read_to_end(&mut bytes)).expect("it reads");
            let ends = ends(&bytes);
            let mut begin = 0;
            for end in &ends {
                let payload = &bytes[begin + HEADER..*end];
                entries.push(serde_json::from_slice(payload).expect("a frame is a fact"));
                begin = *end;
            }
            self.place = Some((file, from + begin as u64));
        }
        entries
    }
}

/// What a power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Everything: the process died, the machine did not.
    All,
    /// So many whole frames, and of the next one a half if `torn`.
    Frames {
        /// Whole frames.
        whole: usize,
        /// A half follows.
        torn: bool,
    },
}

/// Cuts what lies behind the synced bytes of the newest file; returns how many unsynced frames there were.
pub fn cut(ledger: &Path, synced: Option<(&str, u64)>, left: Left) -> usize {
    let Some(newest) = segments(ledger).pop() else { return 0 };
    // A file is synced before the next one is begun, so only the newest has anything that is not.
    let named = newest.file_name().map(|name| name.to_string_lossy().into_owned());
    let kept = synced.filter(|(name, _)| Some(*name) == named.as_deref()).map_or(0, |(_, length)| length);
    let bytes = fs::read(&newest).expect("a file of the ledger");
    let begin = usize::try_from(kept).expect("a file fits into memory");
    let ends = ends(&bytes[begin..]);
    let Left::Frames { whole, torn } = left else { return ends.len() };
    let end = if whole == 0 { 0 } else { ends[whole - 1] };
    let half = match ends.get(whole) {
        Some(next) if torn => (next - end) / 2,
        _ => 0,
    };
    let file = OpenOptions::new().write(true).open(&newest).expect("a file of the ledger");
    file.set_len((begin + end + half) as u64).expect("a file can be cut");
    ends.len()
}

/// Returns how many frames of a file lie between two of its lengths.
pub fn frames_between(file: &Path, from: u64, until: u64) -> usize {
    let bytes = fs::read(file).unwrap_or_default();
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    bytes.get(place(from)..place(until)).map_or(0, |part| ends(part).len())
}

/// Returns the length of the newest file, with its name.
pub fn newest(ledger: &Path) -> Option<(String, u64)> {
    let file = segments(ledger).pop()?;
    Some((file.file_name()?.to_string_lossy().into_owned(), fs::metadata(&file).ok()?.len()))
}

fn segments(ledger: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(ledger).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "ledger")).collect();
    files.sort();
    files
}

/// Returns where each whole frame ends.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()) {
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        let end = at + HEADER + length;
        if end > bytes.len() {
            break;
        }
        ends.push(end);
        at = end;
    }
    ends
}
