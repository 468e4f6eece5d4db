//! Signs checkpoints of what was synced, and keeps them in a folder of the ledger's.
//!
//! ```text
//! <ledger>/ledger.pub                    public half of the key, PEM
//! <ledger>/checkpoints/newest            the newest; replaced
//! <ledger>/checkpoints/<size>            those at verdicts, and one a day; kept
//! <ledger>/checkpoints-<key>/            those of a key that was lost
//! ```
//!
//! Each is written beside its place, synced and moved there. Should one be torn all the same, by a disk that lies, the
//! ledger has lost nothing: the next start says so and signs a new one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::boundary::{self, Boundary, read_note};
use super::checkpoint::Checkpoint;
use super::note::{NoteError, NoteKey, NoteSigner};
use super::{Ledger, LedgerError, ProofError};
use crate::files::{self, Readers};

const FOLDER: &str = "checkpoints";
const NEWEST: &str = "newest";
const PUBLIC: &str = "ledger.pub";
/// How often a checkpoint is signed when nothing special happens.
const EVERY: u64 = 60_000;
/// How often one of these is kept.
const KEEP_EVERY: u64 = 24 * 3600 * 1000;

/// Why a checkpoint might be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Time has passed.
    Time,
    /// A rollout was widened, paused, killed or completed.
    Verdict,
    /// The service ends.
    Stop,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    No,
    /// A new newest one.
    Newest,
    /// The same, and it is kept.
    Kept,
}

/// What was signed last. Times are Unix milliseconds; a service that has just started begins to wait then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signed {
    /// Frames.
    pub size: u64,
    /// When.
    pub at: u64,
    /// When the last one was kept.
    pub kept_at: u64,
}

/// Decides whether a checkpoint of `size` frames is due.
pub fn due(last: Signed, size: u64, occasion: Occasion, now: u64) -> Due {
    // A clock that was set back must not put checkpoints off.
    let passed = |since: u64, wait: u64| now.checked_sub(since).is_none_or(|waited| waited >= wait);
    match occasion {
        _ if size <= last.size => Due::No,
        Occasion::Verdict => Due::Kept,
        _ if passed(last.kept_at, KEEP_EVERY) => Due::Kept,
        Occasion::Stop => Due::Newest,
        Occasion::Time if passed(last.at, EVERY) => Due::Newest,
        Occasion::Time => Due::No,
    }
}

/// Signs checkpoints of one ledger.
#[derive(Debug)]
pub struct Notary {
    signer: NoteSigner,
    dir: PathBuf,
    last: Signed,
    began: bool,
}

impl Notary {
    /// Begins to sign for a ledger that was opened, and says what an operator should hear. A ledger that the newest
    /// checkpoint contradicts is refused: this key has vouched for other frames. In a copy (`original` is false) frames
    /// may be missing at the end: it was made a while ago, or while they were written.
    pub fn open(
        signer: NoteSigner,
        ledger: &Ledger,
        original: bool,
    ) -> Result<(Self, Vec<String>), ProofError> {
        let dir = ledger.dir().to_owned();
        let folder = dir.join(FOLDER);
        fs::create_dir_all(&folder).map_err(LedgerError::io("make the folder", &folder))?;
        take_drafts_away(&folder)?;
        let mut notes = Vec::new();
        let mut size = 0;
        let path = folder.join(NEWEST);
        if let Some(text) = read_note(&path)? {
            match Checkpoint::open(&text, signer.public()) {
                Ok(found) if found.size > ledger.next() && !original => {
                    let aside = set_aside(&dir, &folder)?;
                    notes.push(format!(
                        "the ledger was copied at frame {}, and signed up to frame {}: the checkpoints are set aside as {}",
                        ledger.next(),
                        found.size,
                        aside.display()
                    ));
                }
                // The boundary speaks for what was dropped.
                Ok(found) if ledger.boundary().is_some_and(|boundary| found.size < boundary.first()) => {}
                Ok(found) => {
                    agrees(&path, &found, ledger.next(), ledger.root_at(found.size))?;
                    size = found.size;
                }
                Err(NoteError::OtherKey { found, .. }) => {
                    let aside = set_aside(&dir, &folder)?;
                    notes.push(format!(
                        "the ledger's checkpoints are signed by {found}, and the key here is {}: they are set aside as \
                         {}; tell whoever checks the ledger that its key is another",
                        signer.public().name(),
                        aside.display()
                    ));
                }
                Err(problem) => {
                    notes.push(format!(
                        "the checkpoint {} is not whole ({problem}); a new one is signed",
                        path.display()
                    ));
                }
            }
        }
        if let (Some(boundary), Some(text)) = (ledger.boundary(), boundary::text(&dir)?)
            && let Err(problem) = Boundary::open(&text, signer.public())
        {
            // What it says held the chain and the tree together a moment ago; only who vouches for it is new.
            boundary::sign_again(&dir, boundary, &signer)?;
            notes.push(format!("the ledger's boundary is signed anew: {problem}"));
        }
        let public = dir.join(PUBLIC);
        if fs::read_to_string(&public).ok() != Some(signer.public().pem()) {
            files::replace(&public, signer.public().pem().as_bytes(), Readers::All)
                .map_err(LedgerError::io("write", &public))?;
        }
        Ok((Self { signer, dir, last: Signed { size, ..Signed::default() }, began: false }, notes))
    }

    /// Returns what signs.
    pub fn signer(&self) -> &NoteSigner {
        &self.signer
    }

    /// Signs a checkpoint of everything synced, if one is due.
    pub fn consider(&mut self, ledger: &Ledger, occasion: Occasion, now: u64) -> Result<Due, LedgerError> {
        if !self.began {
            self.began = true;
            self.last = Signed { at: now, kept_at: now, ..self.last };
        }
        // The tree has what was appended; a checkpoint must not name a frame that a power cut may take.
        if ledger.synced() != ledger.next() {
            return Ok(Due::No);
        }
        let due = due(self.last, ledger.next(), occasion, now);
        if due == Due::No {
            return Ok(due);
        }
        // Before it is written: a disk that refuses is not asked again at once.
        self.last.at = now;
        let signed = Checkpoint::new(ledger.next(), ledger.root()).sign(&self.signer);
        let folder = self.dir.join(FOLDER);
        let put = |name: &str| {
            let path = folder.join(name);
            files::replace(&path, signed.as_bytes(), Readers::All).map_err(LedgerError::io("write", &path))
        };
        if due == Due::Kept {
            put(&format!("{:020}", ledger.next()))?;
            self.last.kept_at = now;
        }
        put(NEWEST)?;
        self.last.size = ledger.next();
        Ok(due)
    }
}

/// A draft of a process that was cut off; the next process may have its id, and could not make its own.
fn take_drafts_away(folder: &Path) -> Result<(), LedgerError> {
    for path in list(folder)? {
        if path.extension().is_some_and(|extension| extension == "part") {
            boundary::Step::Drop(path).take()?;
        }
    }
    Ok(())
}

fn set_aside(dir: &Path, folder: &Path) -> Result<PathBuf, LedgerError> {
    let old = public_key(dir)?.map_or_else(|| "unknown".to_owned(), |key| key.name().replace('/', "-"));
    let free =
        |n: u32| dir.join(format!("{FOLDER}-{old}{}", if n == 0 { String::new() } else { format!("-{n}") }));
    let aside = (0..).map(free).find(|path| !path.exists()).expect("there are fewer folders than numbers");
    fs::rename(folder, &aside).map_err(LedgerError::io("set aside", folder))?;
    // The old key goes along, so that the old checkpoints can still be checked.
    let kept = fs::copy(dir.join(PUBLIC), aside.join(PUBLIC)).map(drop);
    kept.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(LedgerError::io("keep the key in", &aside))?;
    fs::create_dir_all(folder).map_err(LedgerError::io("make the folder", folder))?;
    Ok(aside)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    let failed = || LedgerError::io("list the folder", folder);
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed()(error)),
    }
}

/// Returns the public key that lies beside the ledger in `dir`.
pub fn public_key(dir: &Path) -> Result<Option<NoteKey>, LedgerError> {
    Ok(read_note(&dir.join(PUBLIC))?.and_then(|text| NoteKey::read(&text).ok()))
}

/// Returns the newest checkpoint as it lies there.
pub(crate) fn newest(dir: &Path) -> Result<(PathBuf, Option<String>), LedgerError> {
    let path = dir.join(FOLDER).join(NEWEST);
    let text = read_note(&path)?;
    Ok((path, text))
}

/// Returns every checkpoint that is kept, with its path.
pub(crate) fn kept(dir: &Path) -> Result<Vec<(PathBuf, String)>, LedgerError> {
    let mut paths = list(&dir.join(FOLDER))?;
    paths.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit())
    });
    paths.sort();
    let read = |path: PathBuf| Ok(read_note(&path)?.map(|text| (path, text)));
    paths.into_iter().filter_map(|path| read(path).transpose()).collect()
}

/// Returns for which numbers of frames checkpoints speak, believing all of them, so that one reading finds all roots.
pub(crate) fn sizes(dir: &Path) -> Result<BTreeSet<u64>, LedgerError> {
    let (kept, (_, newest)) = (kept(dir)?, newest(dir)?);
    Ok(sizes_of(kept.iter().map(|(_, text)| text).chain(&newest)))
}

/// Returns for which numbers of frames these speak; what is no checkpoint speaks for none.
pub(crate) fn sizes_of<'a>(texts: impl Iterator<Item = &'a String>) -> BTreeSet<u64> {
    texts.filter_map(|text| Checkpoint::unverified(text).ok()).map(|checkpoint| checkpoint.size).collect()
}

/// Checks a checkpoint against the ledger: `frames` are there, and `root` is theirs at the checkpoint's size.
pub(crate) fn agrees(
    path: &Path,
    checkpoint: &Checkpoint,
    frames: u64,
    root: Option<tern_protocol::digest::Digest>,
) -> Result<(), ProofError> {
    let (path, size) = (path.to_owned(), checkpoint.size);
    if size > frames {
        return Err(ProofError::Truncated { path, size, frames });
    }
    if root != Some(checkpoint.root) { Err(ProofError::Forged { path, size }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_once_a_minute_at_every_verdict_and_at_the_end() {
        const DAY: u64 = KEEP_EVERY;
        let last = Signed { size: 10, at: DAY, kept_at: DAY };
        let at = |ms| DAY + ms;
        for (size, occasion, now, expected) in [
            (10, Occasion::Time, at(10 * EVERY), Due::No),
            (10, Occasion::Verdict, at(1), Due::No),
            (10, Occasion::Stop, at(1), Due::No),
            (11, Occasion::Time, at(EVERY - 1), Due::No),
            (11, Occasion::Time, at(EVERY), Due::Newest),
            (11, Occasion::Verdict, at(1), Due::Kept),
            (11, Occasion::Stop, at(1), Due::Newest),
            (11, Occasion::Time, at(DAY), Due::Kept),
            (11, Occasion::Stop, at(DAY), Due::Kept),
            (11, Occasion::Time, 0, Due::Kept),
        ] {
            assert_eq!(due(last, size, occasion, now), expected, "{size} {occasion:?} {now}");
        }
    }
}
