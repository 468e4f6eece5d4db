//! Walking a ledger's folder; `ledger verify`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use tern_protocol::digest::Digest;

use super::boundary::Boundary;
use super::frame::{Frame, Link, Problem};
use super::notary::sizes;
use super::segment::{Fault, Reader, Segment, synced_past};
use super::tree::{CompactRange, leaf};
use super::{Cut, LedgerError};

/// What a whole ledger holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Number of frames, those that were dropped as well.
    pub frames: u64,
    /// Sequence of the first that is here, if any.
    pub first: Option<u64>,
    /// Sequence of the last, if any.
    pub last: Option<u64>,
    /// Hash of the last frame: it speaks for all of them. Compare it with one that was written down elsewhere.
    pub head_hash: Digest,
    /// Bytes after the last whole frame that opening the ledger would cut.
    pub torn: Option<Cut>,
}

/// Checks every frame of the ledger in `dir` and how they are chained, changing nothing and taking no lock. What was
/// signed is not looked at; [`examine`](super::examine::examine) does.
pub fn verify(dir: &Path) -> Result<Report, LedgerError> {
    Ok(report(&walk(dir)?))
}

pub(crate) fn report(walk: &Walk) -> Report {
    let (begin, end) = (walk.boundary.as_ref().map_or(0, Boundary::first), walk.link.sequence);
    Report {
        frames: end,
        first: (end > begin).then_some(begin),
        last: end.checked_sub(1).filter(|last| *last >= begin),
        head_hash: walk.link.hash,
        torn: walk.torn.clone(),
    }
}

/// The end of a ledger, found by reading all of it.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Where it began, unless with its first frame.
    pub(crate) boundary: Option<Boundary>,
    /// Where the next frame attaches.
    pub(crate) link: Link,
    /// The tree over all frames.
    pub(crate) tree: CompactRange,
    /// Its roots at the sizes of which checkpoints speak.
    pub(crate) roots: BTreeMap<u64, Digest>,
    /// The last segment, and how many of its bytes are whole frames.
    pub(crate) tail: Option<(Segment, u64)>,
    /// What lies behind them.
    pub(crate) torn: Option<Cut>,
}

pub(crate) fn walk(dir: &Path) -> Result<Walk, LedgerError> {
    walk_with(dir, &sizes(dir)?, &mut |_, _| {})
}

/// Reads all of a ledger and shows each frame, with where it attached. `wanted`: the sizes of which checkpoints speak.
/// They are read before the frames: in a folder that is written to, only then are all frames there that they name.
pub(crate) fn walk_with(
    dir: &Path,
    wanted: &BTreeSet<u64>,
    see: &mut dyn FnMut(Link, &Frame),
) -> Result<Walk, LedgerError> {
    let boundary = Boundary::find(dir)?;
    let segments = kept(dir, boundary.as_ref())?;
    let mut link = boundary.as_ref().map_or(Link::START, |boundary| boundary.link);
    let mut tree = boundary.as_ref().map(|boundary| boundary.tree.clone()).unwrap_or_default();
    let mut roots = BTreeMap::new();
    let mut note = |tree: &CompactRange| {
        if wanted.contains(&tree.size()) {
            roots.insert(tree.size(), tree.root());
        }
    };
    note(&tree);
    let mut tail = None;
    let mut torn = None;
    for (place, segment) in segments.iter().enumerate() {
        if segment.first != link.sequence {
            let problem = Problem::Sequence { found: segment.first, expected: link.sequence };
            return Err(LedgerError::Damaged { file: segment.path.clone(), offset: 0, problem });
        }
        let mut reader = Reader::attached(segment, link)?;
        loop {
            match reader.read() {
                Ok(Some(frame)) => {
                    see(link, &frame);
                    link = Link {
                        sequence: frame.sequence + 1,
                        term: frame.term,
                        synced: frame.synced,
                        hash: frame.hash,
                    };
                    tree.push(leaf(frame.hash));
                    note(&tree);
                }
                Ok(None) => break,
                Err(Fault::Io(error)) => return Err(error),
                Err(Fault::Bytes(problem)) => {
                    let (file, offset) = (segment.path.clone(), reader.offset);
                    // A segment is synced before the next one is begun, so only the last may be torn.
                    let last = place + 1 == segments.len();
                    if !last || synced_past(&file, offset, link.sequence)? {
                        return Err(LedgerError::Damaged { file, offset, problem });
                    }
                    torn =
                        Some(Cut { bytes: length(&file)?.saturating_sub(offset), file, at: offset, problem });
                    break;
                }
            }
        }
        tail = Some((segment.clone(), reader.offset));
    }
    Ok(Walk { boundary, link, tree, roots, tail, torn })
}

/// Lists the segments that are part of the ledger.
fn kept(dir: &Path, boundary: Option<&Boundary>) -> Result<Vec<Segment>, LedgerError> {
    let first = boundary.map_or(0, Boundary::first);
    let mut segments = Segment::list(dir)?;
    segments.retain(|segment| segment.first >= first);
    Ok(segments)
}

fn length(path: &Path) -> Result<u64, LedgerError> {
    Ok(std::fs::metadata(path).map_err(LedgerError::io("measure the ledger file", path))?.len())
}

/// Streams frames, checking each and how they are chained. Ends after the first error.
#[derive(Debug)]
pub struct Frames {
    waiting: VecDeque<Segment>,
    reader: Option<Reader>,
    link: Option<Link>,
    from: u64,
    /// First sequence that is not returned: what was appended when the stream was made.
    until: u64,
}

impl Frames {
    pub(crate) fn new(dir: &Path, from: u64, until: u64) -> Result<Self, LedgerError> {
        let boundary = Boundary::find(dir)?;
        let first = boundary.as_ref().map_or(0, Boundary::first);
        if from < first {
            return Err(LedgerError::Dropped { first });
        }
        let mut waiting: VecDeque<Segment> = kept(dir, boundary.as_ref())?.into();
        while waiting.get(1).is_some_and(|next| next.first <= from) {
            waiting.pop_front();
        }
        let link = boundary.map(|boundary| boundary.link);
        // The first one attaches at the boundary; a later one that is read by itself is believed about it.
        let link = link.filter(|link| waiting.front().is_some_and(|segment| segment.first == link.sequence));
        Ok(Self { waiting, reader: None, link, from, until })
    }

    fn advance(&mut self) -> Result<Option<Frame>, LedgerError> {
        loop {
            let next = self.link.map_or(0, |link| link.sequence);
            if next >= self.until {
                return Ok(None);
            }
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => {
                    let Some(segment) = self.waiting.pop_front() else {
                        return Ok(None);
                    };
                    self.reader.insert(match self.link {
                        Some(link) => Reader::attached(&segment, link)?,
                        None => Reader::alone(&segment)?,
                    })
                }
            };
            match reader.read() {
                Ok(None) => self.reader = None,
                Ok(Some(frame)) => {
                    self.link = Some(Link {
                        sequence: frame.sequence + 1,
                        term: frame.term,
                        synced: frame.synced,
                        hash: frame.hash,
                    });
                    if frame.sequence >= self.from {
                        return Ok(Some(frame));
                    }
                }
                Err(Fault::Io(error)) => return Err(error),
                Err(Fault::Bytes(problem)) => {
                    let file: PathBuf = reader.path.clone();
                    return Err(LedgerError::Damaged { file, offset: reader.offset, problem });
                }
            }
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if !matches!(next, Ok(Some(_))) {
            self.until = 0;
        }
        next.transpose()
    }
}
