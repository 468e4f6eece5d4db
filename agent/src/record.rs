//! One checksummed record in two alternating copies: what the device must still know after a power cut.
//!
//! ```text
//! <name>.0, <name>.1:   "TREC" ‖ format u32 ‖ generation u64 ‖ length u32 ‖ CRC-32C u32 ‖ JSON     (big endian)
//! ```
//! The checksum covers everything else, and the 24 bytes of the header are the same in every format, so an older
//! program can tell damage from a newer format. `save` writes the copy that is *not* the newest valid one, in
//! place: whatever a power cut leaves of it, the other copy stands. Overwriting needs no new blocks while a value
//! fits the room that was reserved for it, so a full disk cannot stop a journal, and no directory entry changes. Only the first write of a copy goes through a
//! temporary file and a rename: a copy that exists under its name was whole once, so one that is not is damage,
//! never an interrupted first save. A copy that the medium does not give any more is not written over, which would keep
//! nothing: it is made anew, elsewhere.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use crc::{CRC_32_ISCSI, Crc, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::storage::{self, Access, Disk, Storage};

/// CRC-32C, by a table of 1 KiB: quicker ones take sixteen times that of a device's flash.
const CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISCSI);
const MAGIC: [u8; 4] = *b"TREC";
const FORMAT: u32 = 1;
const HEADER: usize = 24;
/// Ceiling on a record's JSON: a damaged length must not become a buffer.
const JSON_MAX: usize = 1024 * 1024;
/// How often a copy that cannot be read is tried.
const READ_ATTEMPTS: u32 = 3;

/// Says why a record could not be read or saved.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refused.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What we were doing.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No copy is whole.
    #[error("no copy of the record is whole: {} and {}; restore one of them or provision the device again", .0[0].display(), .0[1].display())]
    Corrupt([PathBuf; 2]),
    /// A later version of this program wrote it.
    #[error("{} has record format {found}, this program reads up to {FORMAT}; run the newer program", path.display())]
    NewerFormat {
        /// The copy.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Whole, but not what this program keeps under that name.
    #[error("{} is whole but holds something else than expected; was it written by another version?", path.display())]
    Content {
        /// The copy.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The value is larger than a record may be.
    #[error("a record of {found} bytes is above the ceiling of {JSON_MAX}")]
    TooLarge {
        /// Bytes of its JSON.
        found: usize,
    },
}

/// A record of type `T` in a folder.
#[derive(Debug)]
pub struct RecordFile<T> {
    disk: Disk,
    folder: PathBuf,
    name: String,
    /// Bytes that each copy keeps on the disk, whatever its value needs now.
    room: usize,
    value: PhantomData<fn() -> T>,
}

/// What stands in both copies.
struct Survey {
    /// Number, generation and value of the newest whole one.
    newest: Option<(usize, u64, Vec<u8>)>,
    worn: [bool; 2],
}

/// What stands in one copy.
enum Copy {
    Missing,
    Bad(&'static str),
    /// The medium does not give it.
    Worn,
    Newer {
        format: u32,
    },
    Whole {
        generation: u64,
        json: Vec<u8>,
    },
}

impl<T: Serialize + DeserializeOwned> RecordFile<T> {
    /// Names the record `name` in `folder`, which must exist.
    pub fn open(folder: &Path, name: &str) -> Result<Self, RecordError> {
        Self::on(&storage::system(), folder, name)
    }

    /// The same on another disk than the system's.
    pub fn on(disk: &Disk, folder: &Path, name: &str) -> Result<Self, RecordError> {
        disk.look(folder).map_err(|source| io_error("open folder", folder, source))?;
        let (disk, folder, name) = (disk.clone(), folder.to_owned(), name.to_owned());
        Ok(Self { disk, folder, name, room: 0, value: PhantomData })
    }

    /// Has each copy that is made from here on take at least `room` bytes.
    pub fn with_room(self, room: usize) -> Self {
        Self { room, ..self }
    }

    /// Makes both copies, so that their room is taken before the disk is full; saves `first` if nothing is there.
    pub fn reserve(&self, first: impl FnOnce() -> T) -> Result<(), RecordError> {
        if self.has_both() {
            return Ok(());
        }
        let value = self.load()?.unwrap_or_else(first);
        while !self.has_both() {
            self.save(&value)?;
        }
        Ok(())
    }

    /// Has both copies say the same, so that losing either one of them changes nothing: where what the older one says
    /// would now be wrong, and not only old.
    pub fn settle(&self) -> Result<(), RecordError> {
        let Survey { newest, worn } = self.survey()?;
        let Some((newest, generation, json)) = newest else { return Ok(()) };
        if matches!(self.read(1 - newest)?, Copy::Whole { json: older, .. } if older == json) {
            return Ok(());
        }
        let value: T = serde_json::from_slice(&json)
            .map_err(|source| RecordError::Content { path: self.path(newest), source })?;
        self.write(1 - newest, generation + 1, &value, worn[1 - newest])
    }

    fn has_both(&self) -> bool {
        [0, 1].into_iter().all(|index| self.disk.look(&self.path(index)).is_ok())
    }

    /// Returns the newest whole copy, or `None` if nothing was ever saved.
    pub fn load(&self) -> Result<Option<T>, RecordError> {
        let Some((index, _, json)) = self.survey()?.newest else { return Ok(None) };
        serde_json::from_slice(&json)
            .map(Some)
            .map_err(|source| RecordError::Content { path: self.path(index), source })
    }

    /// Saves `value`; when this returns, it survives a power cut. Refuses to write over damage or a newer format.
    pub fn save(&self, value: &T) -> Result<(), RecordError> {
        let Survey { newest, worn } = self.survey()?;
        match newest {
            None => self.write(0, 1, value, false),
            Some((newest, generation, _)) => self.write(1 - newest, generation + 1, value, worn[1 - newest]),
        }
    }

    /// Saves `value` in one copy and then in the other: where what was there before must not come back, whichever of them is
    /// lost. Over damage, too.
    ///
    /// Not by [`Self::save`] and [`Self::settle`]: should the copy that was just written not be read, the older value would be
    /// taken for the newest, and be put over it.
    pub fn save_both(&self, value: &T) -> Result<(), RecordError> {
        let (first, generation, worn) = match self.survey() {
            Ok(Survey { newest: Some((newest, generation, _)), worn }) => (1 - newest, generation + 1, worn),
            Ok(Survey { newest: None, worn }) => (0, 1, worn),
            Err(RecordError::Corrupt(_)) => (0, 1, [true; 2]),
            Err(error) => return Err(error),
        };
        self.write(first, generation, value, worn[first])?;
        self.write(1 - first, generation + 1, value, worn[1 - first])
    }

    /// Saves `value` over a record of which no copy is whole, when its owner knows how to live with the loss.
    pub fn renew(&self, value: &T) -> Result<(), RecordError> {
        match self.save(value) {
            // One that only could not be read must not come back as the newer one.
            Err(RecordError::Corrupt(_)) => self.save_both(value),
            other => other,
        }
    }

    fn survey(&self) -> Result<Survey, RecordError> {
        let copies = [self.read(0)?, self.read(1)?];
        let mut newest: Option<(usize, u64, Vec<u8>)> = None;
        let (mut bad, mut worn) = (0, [false; 2]);
        for (index, copy) in copies.into_iter().enumerate() {
            match copy {
                Copy::Missing => {}
                Copy::Bad(why) => {
                    bad += 1;
                    tracing::warn!(file = %self.path(index).display(), why, "a copy of a record is damaged");
                }
                Copy::Worn => {
                    bad += 1;
                    worn[index] = true;
                }
                // Even beside a whole copy of ours: the newer program's word is the later one.
                Copy::Newer { format } => {
                    return Err(RecordError::NewerFormat { path: self.path(index), found: format });
                }
                Copy::Whole { generation, json } => {
                    if newest.as_ref().is_none_or(|(_, best, _)| generation > *best) {
                        newest = Some((index, generation, json));
                    }
                }
            }
        }
        match newest {
            None if bad > 0 => Err(RecordError::Corrupt([self.path(0), self.path(1)])),
            newest => Ok(Survey { newest, worn }),
        }
    }

    fn read(&self, index: usize) -> Result<Copy, RecordError> {
        let path = self.path(index);
        let found = self.disk.look(&path);
        if found.as_ref().is_ok_and(|found| found.kind != storage::Kind::File) {
            // A pipe would keep the reader for ever.
            return Ok(Copy::Bad("it is no file"));
        }
        if let Err(error) = found {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(Copy::Missing),
                io::ErrorKind::PermissionDenied => Err(io_error("open", &path, error)),
                _ => {
                    tracing::warn!(file = %path.display(), %error, "could not look at a copy of a record");
                    Ok(Copy::Worn)
                }
            };
        }
        for attempt in 1..=READ_ATTEMPTS {
            match read_copy(&*self.disk, &path) {
                Ok(bytes) => return Ok(decode(bytes)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(io_error("open", &path, error));
                }
                // A worn-out block under one copy is what the other copy is for.
                Err(error) => {
                    tracing::warn!(file = %path.display(), attempt, %error, "could not read a copy of a record");
                }
            }
        }
        Ok(Copy::Worn)
    }

    fn write(&self, index: usize, generation: u64, value: &T, is_worn: bool) -> Result<(), RecordError> {
        let path = self.path(index);
        let json = serde_json::to_vec(value)
            .map_err(|source| RecordError::Content { path: path.clone(), source })?;
        let mut bytes = encode(generation, &json)?;
        let is_there = self.disk.look(&path).is_ok();
        if is_there && !is_worn {
            return overwrite(&*self.disk, &path, &bytes, self.room);
        }
        let length = bytes.len();
        // Written, not left out: a hole takes no room.
        bytes.resize(length.max(self.room), 0);
        match create_on(&*self.disk, &self.folder, &path, &bytes, 0o644) {
            // A full disk: what is there may still keep it.
            Err(_) if is_there => overwrite(&*self.disk, &path, &bytes[..length], self.room),
            other => other,
        }
    }

    fn path(&self, index: usize) -> PathBuf {
        self.folder.join(format!("{}.{index}", self.name))
    }
}

/// Most names in a folder that are looked through for records.
const NAMES_MAX: usize = 4096;

/// Makes every record of `folder` durable as it is found, as [`storage::catch_up`] does.
pub(crate) fn catch_up(disk: &dyn Storage, folder: &Path) {
    let names = match disk.list(folder, NAMES_MAX) {
        Ok(names) => names,
        // None yet: whoever needs one says so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "what an earlier run left could not be made durable");
            return;
        }
    };
    let is_copy = |path: &PathBuf| path.extension().is_some_and(|end| end == "0" || end == "1");
    let copies: Vec<_> = names.iter().map(|name| folder.join(name)).filter(is_copy).collect();
    if !copies.is_empty() {
        storage::catch_up_in(disk, folder, &copies);
    }
}

/// Makes `path` appear with all of `bytes`, or not at all. Also right for keys: the mode holds from the start.
pub(crate) fn create(folder: &Path, path: &Path, bytes: &[u8], mode: u32) -> Result<(), RecordError> {
    create_on(&storage::system::System, folder, path, bytes, mode)
}

/// The same on another disk than the system's.
pub(crate) fn create_on(
    disk: &dyn Storage,
    folder: &Path,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<(), RecordError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    // A leftover of an earlier cut may carry another mode; a fresh file has ours.
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &temporary, error));
        }
        _ => {}
    }
    disk.open(&temporary, Access::CreateNew { mode })
        .and_then(|file| file.write_at(bytes, 0).and_then(|()| file.sync()))
        .map_err(|source| io_error("write", &temporary, source))?;
    disk.rename(&temporary, path).map_err(|source| io_error("create", path, source))?;
    sync_folder_on(disk, folder)
}

/// Makes the entries of `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), RecordError> {
    sync_folder_on(&storage::system::System, folder)
}

/// The same on another disk than the system's.
pub(crate) fn sync_folder_on(disk: &dyn Storage, folder: &Path) -> Result<(), RecordError> {
    disk.sync_folder(folder).map_err(|source| io_error("sync folder", folder, source))
}

/// Reads as much of a copy as is said to be its value: what a longer predecessor left, and room that is only kept, may be
/// lost.
fn read_copy(disk: &dyn Storage, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Access::Read)?;
    storage::ask_medium(&*file);
    let (mut bytes, mut wanted) = (Vec::new(), HEADER);
    let mut buffer = [0; 4096];
    while bytes.len() < wanted {
        match file.read_at(&mut buffer, bytes.len() as u64) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if let Some(length) = bytes.first_chunk::<HEADER>().filter(|header| header[..4] == MAGIC) {
            let length = u32::from_be_bytes([16, 17, 18, 19].map(|at| length[at])) as usize;
            wanted = HEADER + length.min(JSON_MAX);
        }
    }
    Ok(bytes)
}

fn overwrite(disk: &dyn Storage, path: &Path, bytes: &[u8], room: usize) -> Result<(), RecordError> {
    disk.open(path, Access::Write)
        .and_then(|file| {
            file.write_at(bytes, 0)?;
            // A copy of an earlier version may have less room than is wanted now; it gets no hole instead.
            let most = bytes.len().max(room) as u64;
            if file.size()? > most {
                file.set_size(most)?;
            }
            file.sync()
        })
        .map_err(|source| io_error("write", path, source))
}

fn encode(generation: u64, json: &[u8]) -> Result<Vec<u8>, RecordError> {
    let length = u32::try_from(json.len())
        .ok()
        .filter(|_| json.len() <= JSON_MAX)
        .ok_or(RecordError::TooLarge { found: json.len() })?;
    let mut bytes = Vec::with_capacity(HEADER + json.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_be_bytes());
    bytes.extend_from_slice(&generation.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    let checksum = checksum(&bytes, json);
    bytes.extend_from_slice(&checksum.to_be_bytes());
    bytes.extend_from_slice(json);
    Ok(bytes)
}

fn checksum(header: &[u8], json: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(header);
    digest.update(json);
    digest.finalize()
}

fn decode(mut bytes: Vec<u8>) -> Copy {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Copy::Bad("shorter than its header");
    };
    let number = |from: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| header[from + i]));
    if header[..4] != MAGIC {
        return Copy::Bad("not a record");
    }
    let length = number(16) as usize;
    // Bytes past the length are what a longer predecessor left before the file was shortened.
    let Some(json) = body.get(..length) else { return Copy::Bad("shorter than its length says") };
    if checksum(&header[..20], json) != number(20) {
        return Copy::Bad("its checksum does not match");
    }
    // Only now is the format believed: damage must not pass for a newer program.
    let (format, generation) = (number(4), u64::from(number(8)) << 32 | u64::from(number(12)));
    if format > FORMAT {
        return Copy::Newer { format };
    }
    bytes.truncate(HEADER + length);
    bytes.drain(..HEADER);
    Copy::Whole { generation, json: bytes }
}

/// Tells whether the bytes of a copy are whole: for whoever looks at one from outside.
pub fn is_whole(copy: &[u8]) -> bool {
    matches!(decode(copy.to_vec()), Copy::Whole { .. } | Copy::Newer { .. })
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> RecordError {
    RecordError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
