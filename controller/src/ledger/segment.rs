//! One file of frames: its name, and reading it with suspicion.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::LedgerError;
use super::frame::{self, Frame, HEADER, Link, Problem};

const SUFFIX: &str = "ledger";
const BUFFER: usize = 128 * 1024;

/// A segment as it lies in the folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Sequence of its first frame; its name says so.
    pub first: u64,
    /// Its path.
    pub path: PathBuf,
}

impl Segment {
    /// Names the segment of `dir` that begins with sequence `first`.
    pub fn new(dir: &Path, first: u64) -> Self {
        Self { first, path: dir.join(format!("{first:020}.{SUFFIX}")) }
    }

    /// Lists the segments of `dir` in order. Other files are left alone.
    pub fn list(dir: &Path) -> Result<Vec<Self>, LedgerError> {
        let failed = || LedgerError::io("list the ledger folder", dir);
        let mut segments = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            if let Some(first) = first_of(&path) {
                segments.push(Self { first, path });
            }
        }
        segments.sort();
        Ok(segments)
    }
}

fn first_of(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let digits = stem.len() == 20 && stem.bytes().all(|b| b.is_ascii_digit());
    if digits && path.extension()? == SUFFIX { stem.parse().ok() } else { None }
}

/// What stopped a [`Reader`].
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file could not be read.
    Io(LedgerError),
    /// The bytes at the reader's offset are no frame that belongs there.
    Bytes(Problem),
}

/// Reads the frames of one segment, checking each.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) path: PathBuf,
    file: BufReader<File>,
    /// Where the next frame begins.
    pub(crate) offset: u64,
    /// Where the next frame must attach; unknown at the start of a later segment read by itself.
    link: Result<Link, u64>,
    bytes: Vec<u8>,
}

impl Reader {
    /// Opens a segment that must attach at `link`.
    pub(crate) fn attached(segment: &Segment, link: Link) -> Result<Self, LedgerError> {
        Self::open(segment, Ok(link))
    }

    /// Opens a segment by itself: its first frame is believed about what came before.
    pub(crate) fn alone(segment: &Segment) -> Result<Self, LedgerError> {
        Self::open(segment, if segment.first == 0 { Ok(Link::START) } else { Err(segment.first) })
    }

    fn open(segment: &Segment, link: Result<Link, u64>) -> Result<Self, LedgerError> {
        let path = segment.path.clone();
        let file = File::open(&path).map_err(LedgerError::io("open the ledger file", &path))?;
        Ok(Self { path, file: BufReader::with_capacity(BUFFER, file), offset: 0, link, bytes: Vec::new() })
    }

    /// Returns the next frame, or none at the end of the file.
    pub(crate) fn read(&mut self) -> Result<Option<Frame>, Fault> {
        let mut header = [0; HEADER];
        match self.fill(&mut header)? {
            0 => return Ok(None),
            HEADER => {}
            _ => return Err(Fault::Bytes(Problem::Short)),
        }
        let length = frame::payload_length(&header).map_err(Fault::Bytes)?;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.extend_from_slice(&header);
        bytes.resize(HEADER + length, 0);
        if self.fill(&mut bytes[HEADER..])? < length {
            return Err(Fault::Bytes(Problem::Short));
        }
        let (frame, before) = frame::decode(&bytes).map_err(Fault::Bytes)?;
        let link = self.link.unwrap_or_else(|sequence| Link { sequence, hash: before, ..Link::START });
        self.link = Ok(frame::follow(link, &frame, before).map_err(Fault::Bytes)?);
        self.offset += bytes.len() as u64;
        self.bytes = bytes;
        Ok(Some(frame))
    }

    /// Fills `out` and returns how many bytes there were before the file ended.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < out.len() {
            match self.file.read(&mut out[filled..]) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Fault::Io(LedgerError::io("read the ledger file", &self.path)(error)));
                }
            }
        }
        Ok(filled)
    }
}

/// Tells whether a whole frame lies after `offset` that says that sequence `lost` was synced.
pub(crate) fn synced_past(path: &Path, offset: u64, lost: u64) -> Result<bool, LedgerError> {
    use std::io::{Seek, SeekFrom};
    let failed = || LedgerError::io("read the ledger file", path);
    let mut file = File::open(path).map_err(failed())?;
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(offset)).map_err(failed())?;
    file.read_to_end(&mut rest).map_err(failed())?;
    // Any number of frames that the file has room for may lie between; other numbers are no sequence.
    let last = lost + (rest.len() / HEADER) as u64;
    for at in 1..rest.len().saturating_sub(HEADER) {
        let Some(header) = rest[at..].first_chunk::<HEADER>() else { break };
        let Some((_, tail)) = header.split_first_chunk::<8>() else { break };
        let Some((sequence, _)) = tail.split_first_chunk::<8>() else { break };
        if !(lost..=last).contains(&u64::from_le_bytes(*sequence)) {
            continue;
        }
        let Ok(length) = frame::payload_length(header) else { continue };
        let Some(whole) = rest.get(at..at + HEADER + length) else { continue };
        if frame::decode(whole).is_ok_and(|(frame, _)| frame.synced > lost) {
            return Ok(true);
        }
    }
    Ok(false)
}
