//! Packs into a slot: the tables of the delta that is followed, and where it reads and writes.
//!
//! Everything here blocks, and is done beside the loop. Whoever wants the slots meanwhile sets `stop`, which is looked at
//! before every chunk.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tern_protocol::delta::{DecodeError, Decoder, DeltaManifest, ImageId, ReadAt, Slot};

use crate::core::SlotName;
use crate::core::agent::{Decode, Done};
use crate::device::chain;
use crate::slot::Slots;
use crate::storage::{self, Access, Disk, Opened};

/// The tables of one delta: megabytes, made when it begins and dropped when it ends.
#[derive(Default)]
pub(crate) struct Tables(Option<(DeltaManifest, Decoder)>);

impl Tables {
    fn of(&mut self, order: &Decode) -> &mut Decoder {
        let delta = *order.manifest;
        // Two of them at once would be too many.
        if self.0.as_ref().is_some_and(|(of, _)| *of != delta) {
            self.0 = None;
        }
        &mut self.0.get_or_insert_with(|| (delta, Decoder::new(&delta))).1
    }

    /// Drops them.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

/// Decodes a pack into `slot`, from what `base` has.
pub(crate) fn decode(
    (slots, slot): (&mut dyn Slots, SlotName),
    disk: &Disk,
    base: Option<PathBuf>,
    tables: &mut Tables,
    order: &Decode,
    stop: &AtomicBool,
) -> Done {
    let old: Box<dyn ReadAt> = match base.filter(|_| order.manifest.old != ImageId::nothing()) {
        None => Box::new(Vec::new()),
        Some(path) => match disk.open(&path, Access::Read) {
            Ok(file) => Box::new(Old(file)),
            Err(error) => return Done::Failed(format!("could not open what the delta leads from: {error}")),
        },
    };
    let path = slots.path(slot);
    let mut new = New { slots, slot, disk, path, file: RefCell::default(), refused: None, stop };
    let decoded = tables.of(order).decode(&order.pack, &*old, &mut new);
    let (slots, refused) = (new.slots, new.refused);
    let mut synced = || slots.sync(slot).map_err(|error| chain(&error));
    let end = match decoded {
        Ok(_) if !order.syncs => return Done::Ok,
        Ok(_) => Done::Ok,
        Err(DecodeError::Write { .. }) => return Done::Failed(refused.unwrap_or_default()),
        // A base that cannot be read there is as good as another one.
        Err(DecodeError::WrongChunk { chunk } | DecodeError::Read { chunk, .. }) => {
            Done::Undecoded(u64::from(chunk) << order.manifest.chunk_log2)
        }
        Err(error @ (DecodeError::Unknown | DecodeError::Malformed { .. })) => Done::Useless(chain(&error)),
    };
    // What comes before a wrong chunk stands.
    synced().map_or_else(Done::Failed, |()| end)
}

/// What a delta leads from.
struct Old(Box<dyn Opened>);

impl ReadAt for Old {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        storage::read_exact_at(&*self.0, into, offset)
    }
}

/// The slot that is written, and read where packs refer to what is written already.
struct New<'a> {
    slots: &'a mut dyn Slots,
    slot: SlotName,
    disk: &'a Disk,
    path: PathBuf,
    file: RefCell<Option<Box<dyn Opened>>>,
    /// Why the slot did not take a chunk.
    refused: Option<String>,
    stop: &'a AtomicBool,
}

impl New<'_> {
    fn open(&self) -> io::Result<Box<dyn Opened>> {
        let path: &Path = &self.path;
        self.disk.open(path, Access::Read)
    }
}

impl ReadAt for New<'_> {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut file = self.file.borrow_mut();
        // Of files, the slot is not there before its first byte.
        let file = match &mut *file {
            Some(file) => file,
            none => none.insert(self.open()?),
        };
        storage::read_exact_at(&**file, into, offset)
    }
}

impl Slot for New<'_> {
    fn write_chunk(&mut self, _chunk: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = match self.stop.load(Ordering::Relaxed) {
            true => Err("something else is to be done".to_owned()),
            false => self.slots.write(self.slot, offset, bytes).map_err(|error| chain(&error)),
        };
        written.map_err(|reason| {
            self.refused = Some(reason);
            io::ErrorKind::Other.into()
        })
    }
}
