//! One package into the system slot, chunk by chunk, resumed after a power cut.
//!
//! What was written and synced is kept as progress, so that a cut costs at most a stride; the whole is read back and hashed
//! in the end whatever the progress said, and begun anew if it is not the package.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;

use super::target::{self, TargetError};
use crate::config::Config;
use crate::record::{RecordError, RecordFile};
use crate::slot::file::FileSlots;
use crate::slot::{Image, SlotError, SlotLabel, SlotName, Slots as _, reread};
use crate::storage::{self, Access, Disk};

/// Chunks between two marks of progress: 1 MiB.
const STRIDE: u64 = 16;
/// How often a system slot that reads back wrong is written anew.
const ATTEMPTS: u32 = 3;
/// How often a system slot that cannot be read is asked for.
const READS: u32 = 3;

/// Hears of progress: bytes done, bytes in all.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Says why a package could not be put into the system slot.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The system slot.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The package's label.
    #[error("could not use the package")]
    Package(#[from] SlotError),
    /// Nothing vouches for the package.
    #[error("nothing vouches for the package")]
    NotWhole,
    /// The package could not be read.
    #[error("could not read the package")]
    Read(#[source] io::Error),
    /// Progress.
    #[error("could not keep the progress")]
    Progress(#[from] RecordError),
    /// The medium does not keep what is written.
    #[error(
        "the system slot reads back differently from what was written, {ATTEMPTS} times; the medium is failing"
    )]
    ReadBack,
}

/// How far a package has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    sha256: Digest,
    /// Bytes that are written and synced.
    done: u64,
}

/// Puts the package of `slot` into the system slot at `system`.
pub(super) fn apply(
    disk: &Disk,
    config: &Config,
    system: &Path,
    slot: SlotName,
    progress: &mut Progress<'_>,
) -> Result<(), ApplyError> {
    let image = image(disk, config, slot)?;
    let marks = RecordFile::<Mark>::on(disk, &config.slots.dir, "recovery")?;
    for _ in 0..ATTEMPTS {
        let known = marks.load().unwrap_or_default().filter(|mark| mark.sha256 == image.sha256);
        let from = known.map_or(0, |mark| mark.done.min(image.length));
        copy(disk, config, system, slot, &image, from, &marks, progress)?;
        if reads_back(disk, system, slot, &image) {
            return Ok(());
        }
        tracing::warn!(%slot, "the system slot reads back differently; writing it anew");
        marks.renew(&Mark { sha256: image.sha256, done: 0 })?;
    }
    Err(ApplyError::ReadBack)
}

/// Forgets how far a package had come: what is begun now has not been written at all.
pub(super) fn forget(disk: &Disk, config: &Config) -> Result<(), RecordError> {
    let marks = RecordFile::<Mark>::on(disk, &config.slots.dir, "recovery")?;
    match marks.load().unwrap_or_default() {
        Some(mark) if mark.done > 0 => marks.renew(&Mark { done: 0, ..mark }),
        _ => Ok(()),
    }
}

/// Tells whether the system slot holds the package of `slot`, and goes on holding it when the power fails: whoever wrote
/// it may have died before it was synced.
pub(super) fn keeps(disk: &Disk, config: &Config, system: &Path, slot: SlotName) -> bool {
    storage::catch_up(&**disk, &[system.to_owned()]);
    holds(disk, config, system, slot)
}

/// Tells whether the system slot holds the package of `slot`.
pub(super) fn holds(disk: &Disk, config: &Config, system: &Path, slot: SlotName) -> bool {
    image(disk, config, slot).is_ok_and(|image| reads_back(disk, system, slot, &image))
}

fn image(disk: &Disk, config: &Config, slot: SlotName) -> Result<Image, ApplyError> {
    let slots = FileSlots::on(disk, &config.slots.dir, config.slots.capacity, slot.other())?;
    match slots.label(slot)? {
        SlotLabel::Holds(image) => Ok(image),
        SlotLabel::Bad | SlotLabel::Empty => Err(ApplyError::NotWhole),
    }
}

/// One good reading is enough: a medium does not read the right bytes by chance. Wrong bytes are not read again, for the
/// package is there to write them anew.
fn reads_back(disk: &Disk, system: &Path, slot: SlotName, image: &Image) -> bool {
    for _ in 0..READS {
        match reread::hash_directly(&**disk, system, slot, image.length, &reread::GO_ON) {
            Ok(found) => return found == (image.sha256, image.root),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not read the system slot back"
                );
            }
        }
    }
    false
}

#[expect(clippy::too_many_arguments, reason = "one loop, and everything that it goes over")]
fn copy(
    disk: &Disk,
    config: &Config,
    system: &Path,
    slot: SlotName,
    image: &Image,
    from: u64,
    marks: &RecordFile<Mark>,
    progress: &mut Progress<'_>,
) -> Result<(), ApplyError> {
    let target = target::open(disk, system, image.length)?;
    let io = |action| {
        move |source| ApplyError::Target(TargetError::Io { action, path: system.to_owned(), source })
    };
    let package = crate::slot::file::image_path(&config.slots.dir, slot);
    let package = disk.open(&package, Access::Read).map_err(ApplyError::Read)?;
    let mut buffer = vec![0; CHUNK];
    let (mut done, mut marked) = (from, from);
    while done < image.length {
        let length = usize::try_from(image.length - done).map_or(CHUNK, |left| left.min(CHUNK));
        storage::read_exact_at(&*package, &mut buffer[..length], done).map_err(ApplyError::Read)?;
        target.write_at(&buffer[..length], done).map_err(io("write to"))?;
        done += length as u64;
        progress(done, image.length);
        if done - marked >= STRIDE * CHUNK as u64 && done < image.length {
            // Bytes first: a mark ahead of them would leave a hole that only the last reading back finds.
            target.sync().map_err(io("sync"))?;
            marks.renew(&Mark { sha256: image.sha256, done })?;
            marked = done;
        }
    }
    target.sync().map_err(io("sync"))
}
