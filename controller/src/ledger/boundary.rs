//! Where a ledger begins after old segments were dropped: a signed checkpoint that says how chain and tree go on.
//!
//! ```text
//! tern-ledger/4f1c…                  a checkpoint as every other …
//! 300000
//! CsUYapGG…
//! link <hash of the last dropped frame> <term> <synced>       where frame 300000 attaches
//! range <base64> <base64> …                                   the tree's compact range at that size
//! snapshot <SHA-256 of snapshot-300000.json>                  what the dropped frames add up to
//! dropped <Unix ms> <days>                                    when, and how old frames had to be
//! ```
//!
//! It lies in `<ledger>/boundary`. From the moment at which it does, frames below it are no part of the ledger, whether
//! their segments are there still or not. So the steps of a retention are, in this order: the snapshot, the boundary,
//! the segments, the snapshot of the boundary before. A power cut between any two leaves the ledger as it was, or the
//! ledger as it is to be and files that the next opening takes away.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tern_protocol::digest::Digest;

use super::checkpoint::Checkpoint;
use super::frame::Link;
use super::note::{NOTE_MAX, NoteError, NoteKey, NoteSigner};
use super::segment::Segment;
use super::tree::{CompactRange, PATH_MAX};
use super::{LedgerError, ProofError};
use crate::files::{self, Readers};

const NAME: &str = "boundary";
const SNAPSHOT: &str = "snapshot-";

/// The beginning of what is left of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// Where the first frame that is kept attaches; its sequence is the number of frames that were dropped.
    pub link: Link,
    /// The tree over the dropped frames.
    pub tree: CompactRange,
    /// Hash of the snapshot file.
    pub snapshot: Digest,
    /// When they were dropped, Unix milliseconds.
    pub dropped_at: u64,
    /// How old they had to be, in days.
    pub days: u64,
}

impl Boundary {
    /// Returns the sequence of the first frame that is kept.
    pub fn first(&self) -> u64 {
        self.link.sequence
    }

    /// Signs it.
    pub fn sign(&self, signer: &NoteSigner) -> String {
        let Link { hash, term, synced, .. } = self.link;
        let range: Vec<String> = self.tree.hashes().iter().map(|hash| STANDARD.encode(hash.0)).collect();
        let more = vec![
            format!("link {hash} {term} {synced}"),
            format!("range {}", range.join(" ")),
            format!("snapshot {}", self.snapshot),
            format!("dropped {} {}", self.dropped_at, self.days),
        ];
        Checkpoint { more, ..Checkpoint::new(self.tree.size(), self.tree.root()) }.sign(signer)
    }

    /// Reads one that this key has signed.
    pub fn open(signed: &str, key: &NoteKey) -> Result<Self, NoteError> {
        Self::of(&Checkpoint::open(signed, key)?)
    }

    fn of(checkpoint: &Checkpoint) -> Result<Self, NoteError> {
        Self::parse(checkpoint).ok_or(NoteError::Form("it does not say how the ledger goes on"))
    }

    fn parse(checkpoint: &Checkpoint) -> Option<Self> {
        let [link, range, snapshot, dropped] = &checkpoint.more[..] else { return None };
        let mut link = link.strip_prefix("link ")?.split(' ');
        let hash = link.next()?.parse().ok()?;
        let term = link.next()?.parse().ok()?;
        let synced = link.next()?.parse().ok()?;
        let hash_of = |text: &str| Some(Digest(STANDARD.decode(text).ok()?.try_into().ok()?));
        let hashes: Vec<Digest> = range
            .strip_prefix("range ")?
            .split(' ')
            .take(PATH_MAX + 1)
            .map(hash_of)
            .collect::<Option<_>>()?;
        let tree = CompactRange::restored(checkpoint.size, hashes)?;
        let (dropped_at, days) = dropped.strip_prefix("dropped ")?.split_once(' ')?;
        let boundary = Self {
            link: Link { sequence: checkpoint.size, term, synced, hash },
            snapshot: snapshot.strip_prefix("snapshot ")?.parse().ok()?,
            dropped_at: dropped_at.parse().ok()?,
            days: days.parse().ok()?,
            tree,
        };
        (boundary.tree.root() == checkpoint.root && synced <= checkpoint.size).then_some(boundary)
    }

    /// Reads the boundary of the ledger in `dir`, without asking who signed it; none if nothing was ever dropped.
    pub fn find(dir: &Path) -> Result<Option<Self>, LedgerError> {
        let Some(text) = text(dir)? else { return Ok(None) };
        let checkpoint = Checkpoint::unverified(&text).and_then(|checkpoint| Self::of(&checkpoint));
        let problem = |problem| LedgerError::Boundary { path: dir.join(NAME), problem };
        checkpoint.map(Some).map_err(problem)
    }

    /// Returns the path of its snapshot.
    pub fn snapshot_path(&self, dir: &Path) -> PathBuf {
        snapshot_path(dir, self.first())
    }

    /// Reads the snapshot and checks that it is the one that was signed.
    pub fn read_snapshot(&self, dir: &Path) -> Result<Vec<u8>, ProofError> {
        let path = self.snapshot_path(dir);
        let bytes = fs::read(&path).map_err(LedgerError::io("read the snapshot", &path))?;
        if Digest::of(&bytes) == self.snapshot { Ok(bytes) } else { Err(ProofError::Snapshot { path }) }
    }

    /// Checks the snapshot without having all of it in memory.
    pub(crate) fn check_snapshot(&self, dir: &Path) -> Result<(), ProofError> {
        let path = self.snapshot_path(dir);
        let failed = || LedgerError::io("read the snapshot", &path);
        let mut file = fs::File::open(&path).map_err(failed())?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match file.read(&mut buffer).map_err(failed())? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        if hasher.finalize()[..] == self.snapshot.0 { Ok(()) } else { Err(ProofError::Snapshot { path }) }
    }
}

/// Returns the text of the boundary file.
pub(crate) fn text(dir: &Path) -> Result<Option<String>, LedgerError> {
    read_note(&dir.join(NAME))
}

/// Reads a note; none if there is no such file. One that is too long comes back cut, and is no note then.
pub(crate) fn read_note(path: &Path) -> Result<Option<String>, LedgerError> {
    let failed = || LedgerError::io("read", path);
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed()(error)),
    };
    let mut bytes = Vec::new();
    file.take(NOTE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed())?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn snapshot_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{SNAPSHOT}{first:020}.json"))
}

/// One step of a retention. Each may be taken twice.
#[derive(Debug)]
pub enum Step {
    /// Writes the snapshot.
    Snapshot(PathBuf, Vec<u8>),
    /// Writes the boundary: from here on the frames below it are gone.
    Boundary(PathBuf, String),
    /// Takes away a file that is no part of the ledger any more.
    Drop(PathBuf),
}

impl Step {
    /// Takes it.
    pub fn take(&self) -> Result<(), LedgerError> {
        match self {
            // Like the ledger, it holds what claims are used with.
            Self::Snapshot(path, bytes) => {
                files::replace(path, bytes, Readers::Owner).map_err(LedgerError::io("write", path))
            }
            Self::Boundary(path, note) => {
                files::replace(path, note.as_bytes(), Readers::All).map_err(LedgerError::io("write", path))
            }
            Self::Drop(path) => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(LedgerError::io("take away", path)(error))
                }
                _ => Ok(()),
            },
        }
    }
}

/// Returns the steps that make `boundary` the beginning of the ledger in `dir`.
pub fn steps(
    dir: &Path,
    boundary: &Boundary,
    signer: &NoteSigner,
    snapshot: Vec<u8>,
) -> Result<Vec<Step>, LedgerError> {
    let mut steps = vec![
        Step::Snapshot(boundary.snapshot_path(dir), snapshot),
        Step::Boundary(dir.join(NAME), boundary.sign(signer)),
    ];
    steps.extend(leftovers(dir, Some(boundary.first()))?.into_iter().map(Step::Drop));
    Ok(steps)
}

/// Signs the boundary again, with another key.
pub(crate) fn sign_again(dir: &Path, boundary: &Boundary, signer: &NoteSigner) -> Result<(), LedgerError> {
    Step::Boundary(dir.join(NAME), boundary.sign(signer)).take()
}

/// Takes away what an interrupted retention has left. Only for who holds the ledger's lock.
pub(crate) fn finish(dir: &Path) -> Result<(), LedgerError> {
    let first = Boundary::find(dir)?.map(|boundary| boundary.first());
    leftovers(dir, first)?.into_iter().try_for_each(|path| Step::Drop(path).take())
}

/// Lists segments below the boundary and snapshots of other boundaries.
pub(crate) fn leftovers(dir: &Path, first: Option<u64>) -> Result<Vec<PathBuf>, LedgerError> {
    let kept = first.map(|first| snapshot_path(dir, first));
    let below =
        Segment::list(dir)?.into_iter().filter(|segment| first.is_some_and(|first| segment.first < first));
    let mut paths: Vec<PathBuf> = below.map(|segment| segment.path).collect();
    let failed = || LedgerError::io("list the ledger folder", dir);
    for entry in fs::read_dir(dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(SNAPSHOT) && name.ends_with(".json") && Some(&path) != kept.as_ref() {
            paths.push(path);
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::super::note::tests::signer;
    use super::super::tree::leaf;
    use super::*;

    fn boundary(first: u64) -> Boundary {
        let mut tree = CompactRange::default();
        (0..first).for_each(|n| tree.push(leaf(Digest::of(&n.to_be_bytes()))));
        let link = Link { sequence: first, term: 3, synced: first, hash: Digest::of(b"last") };
        Boundary { link, tree, snapshot: Digest::of(b"snapshot"), dropped_at: 1_700_000_000_000, days: 90 }
    }

    #[test]
    fn a_boundary_comes_back_as_it_was() {
        for first in [1, 2, 3, 255, 256] {
            let made = boundary(first);
            assert_eq!(Boundary::open(&made.sign(&signer(1)), signer(1).public()), Ok(made));
        }
        assert!(Boundary::open(&boundary(3).sign(&signer(1)), signer(2).public()).is_err());
    }

    #[test]
    fn a_boundary_whose_range_is_not_the_one_of_its_root_is_refused_though_it_is_signed() {
        let made = boundary(7);
        let other = boundary(6);
        let root = Checkpoint::unverified(&other.sign(&signer(1))).unwrap().root;
        let mut lines = Checkpoint::unverified(&made.sign(&signer(1))).unwrap();
        assert!(Boundary::open(&lines.sign(&signer(1)), signer(1).public()).is_ok());
        lines.root = root;
        assert!(Boundary::open(&lines.sign(&signer(1)), signer(1).public()).is_err());
        // A plain checkpoint is no boundary.
        let plain = Checkpoint::new(7, made.tree.root()).sign(&signer(1));
        assert!(Boundary::open(&plain, signer(1).public()).is_err());
    }
}
