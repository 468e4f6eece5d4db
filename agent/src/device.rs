//! The agent's hold on one device: records, slots, boot record. Carries out what the core asks for.

mod booting;
mod work;
mod writing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use tern_protocol::bundle::File;
use tern_protocol::tuf::Trusted;

use crate::backend;
use crate::boot::{Boot, Booted};
use crate::command::Context;
use crate::component::{self, Component, ComponentError};
use crate::config::Config;
use crate::core::SlotName;
use crate::core::agent::{BootFacts, ComponentFacts, Content, Done, Held};
use crate::core::durable::Durable;
use crate::delta::Tables;
use crate::record::{self, RecordError, RecordFile};
use crate::recovery;
use crate::slot::file::FileSlots;
use crate::slot::place;
use crate::slot::signed::{self, StoredFile};
use crate::slot::{SlotError, SlotLabel, Slots};
use crate::storage::{self, Disk};

/// How often, and after which pause, a lock that somebody has is tried again.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(25);
/// Bytes kept for each copy of journal and trusted files: a slot that fills the disk must not keep the agent from
/// saying so. Both are a few KiB as a rule.
const RECORD_ROOM: usize = 64 * 1024;

/// Says why the device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Another agent holds the data folder.
    #[error("another agent is running on data folder {0}; stop it first")]
    InUse(String),
    /// A folder or file could not be used.
    #[error("could not use {path}")]
    Io {
        /// What.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A record does not read.
    #[error("could not use the {what}")]
    Record {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// The provisioned root file is not one.
    #[error("the provisioned root file {path} is not valid; copy root.json of the product there")]
    Root {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: tern_protocol::tuf::TufError,
    },
    /// Booting.
    #[error("could not find out what has booted")]
    Boot(#[from] crate::boot::BootError),
    /// A slot.
    #[error("could not use the slots")]
    Slot(#[from] SlotError),
    /// A component.
    #[error("could not use a component")]
    Component(#[from] ComponentError),
}

type AnySlots = Box<dyn Slots + Send>;

/// Where something is written.
enum Place {
    Slot(Arc<Mutex<AnySlots>>, SlotName),
    Component(Box<FileSlots>, SlotName),
}

/// One device.
pub struct Device {
    disk: Disk,
    boot: Box<dyn Boot + Send>,
    slots: Arc<Mutex<AnySlots>>,
    slots_dir: PathBuf,
    components: BTreeMap<String, Component>,
    journal: RecordFile<Durable>,
    trust: RecordFile<Vec<StoredFile>>,
    booted: Booted,
    write_failed: Option<String>,
    /// The slot whose writing the boot record does not speak against, looked at once in this process.
    cleared: Option<SlotName>,
    /// Ends the hash, or the pack, that was begun last.
    stop: Arc<AtomicBool>,
    /// Of the delta that is followed.
    tables: Arc<Mutex<Tables>>,
    /// One system slot, which recovery fills: going there and back takes changes of the boot record.
    is_single: bool,
    _lock: Box<dyn std::any::Any + Send>,
}

impl Device {
    /// Takes the device in hand: one agent at a time.
    pub fn open(config: &Config) -> Result<Self, DeviceError> {
        Self::on(&storage::system(), config)
    }

    /// The same on another disk than the system's.
    pub fn on(disk: &Disk, config: &Config) -> Result<Self, DeviceError> {
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |source| DeviceError::Io { path, source }
        };
        disk.create_folder(&config.data_dir).map_err(io(&config.data_dir))?;
        disk.create_folder(&config.runtime_dir).map_err(io(&config.runtime_dir))?;
        let lock_path = config.data_dir.join("lock");
        let lock = match lock_soon(disk, &lock_path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(DeviceError::InUse(config.data_dir.display().to_string()));
            }
            Err(source) => return Err(io(&lock_path)(source)),
        };
        // Before anything is read: no agent runs now, and none that died has still to be believed.
        record::catch_up(&**disk, &config.data_dir);
        record::catch_up(&**disk, &config.slots.dir);
        component::catch_up(&**disk, &config.data_dir);
        let boot = backend::boot(config, disk)?;
        let booted = boot.booted()?;
        let slots = backend::slots(config, disk, booted.slot)?;
        let open = |what, source| DeviceError::Record { what, source };
        let journal = RecordFile::on(disk, &config.data_dir, "journal")
            .map_err(|e| open("journal", e))?
            .with_room(RECORD_ROOM);
        let trust = RecordFile::on(disk, &config.data_dir, "trust")
            .map_err(|e| open("trust record", e))?
            .with_room(RECORD_ROOM);
        let slots = Arc::new(Mutex::new(slots));
        let slots_dir = config.slots.dir.clone();
        let components = component::open_all(disk, &config.components, &config.data_dir, &config.device)?;
        if config.slots.system.is_some() {
            recovery::came_up(disk, &slots_dir);
        }
        Ok(Self {
            disk: disk.clone(),
            boot,
            slots,
            slots_dir,
            components,
            journal,
            trust,
            booted,
            write_failed: None,
            cleared: None,
            stop: Arc::default(),
            tables: Arc::default(),
            is_single: config.slots.system.is_some(),
            _lock: lock,
        })
    }

    /// Reads the journal; a damaged one is said and begun anew, because a device that does nothing helps nobody.
    pub fn load_journal(&self) -> Result<Durable, DeviceError> {
        match self.journal.load() {
            Ok(durable) => {
                let durable = durable.unwrap_or_default();
                reserved("journal", self.journal.reserve(|| durable.clone()));
                Ok(durable)
            }
            Err(error @ RecordError::Corrupt { .. }) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the journal is damaged and begun anew"
                );
                let fresh = Durable::default();
                self.journal
                    .renew(&fresh)
                    .map_err(|source| DeviceError::Record { what: "journal", source })?;
                Ok(fresh)
            }
            Err(source) => Err(DeviceError::Record { what: "journal", source }),
        }
    }

    /// Reads the trusted files, or starts from the provisioned root.
    pub fn load_trust(&self, root: &Path) -> Result<Trusted, DeviceError> {
        let stored = match self.trust.load() {
            Ok(stored) => {
                reserved("trusted files", self.trust.reserve(Vec::new));
                stored.unwrap_or_default()
            }
            Err(error @ RecordError::Corrupt { .. }) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the trusted files are damaged");
                self.trust
                    .renew(&Vec::new())
                    .map_err(|source| DeviceError::Record { what: "trust record", source })?;
                Vec::new()
            }
            Err(source) => return Err(DeviceError::Record { what: "trust record", source }),
        };
        if !stored.is_empty() {
            match Trusted::restore(&StoredFile::files(stored)) {
                Ok(trusted) => return Ok(trusted),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "stored files are not trusted any more"
                    );
                }
            }
        }
        let path = root.display().to_string();
        let bytes = std::fs::read(root).map_err(|source| DeviceError::Io { path: path.clone(), source })?;
        Trusted::new(&bytes).map_err(|source| DeviceError::Root { path, source })
    }

    /// Makes the journal durable.
    pub fn save_journal(&self, durable: &Durable) -> Result<(), RecordError> {
        self.journal.save(durable)
    }

    /// Makes the trusted files durable.
    pub fn save_trust(&self, files: &[File]) -> Result<(), RecordError> {
        let files = StoredFile::of(files);
        // Should the newer copy be lost, an older one would have the device believe what was in force before.
        self.trust.save_both(&files).or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the trusted files are kept only once");
            self.trust.save(&files)
        })
    }

    /// Returns what boot record and slots say.
    pub fn facts(&self) -> Result<BootFacts, DeviceError> {
        let slots = self.slots();
        let slot = self.booted.slot;
        let labels = [slots.label(SlotName::A)?, slots.label(SlotName::B)?];
        let image = |slot| match &labels[place(slot)] {
            SlotLabel::Holds(image) => Some(image),
            SlotLabel::Empty | SlotLabel::Bad => None,
        };
        let record = self.boot.record()?;
        let active = record.active;
        let floor =
            image(active).map_or(0, |image| signed::floor(&self.disk, &self.slots_dir, active, image));
        let running = image(slot);
        let kept = |of| of == active || of == slot;
        let facts = |(name, component): (&String, &Component)| {
            let facts = component.facts().unwrap_or_else(|error| {
                // An agent that does not start helps nobody. Nothing fits into it, so no release begins with it.
                let error = &error as &dyn std::error::Error;
                tracing::error!(component = name, error, "nothing is known of a component");
                ComponentFacts::default()
            });
            (name.clone(), facts)
        };
        let components = self.components.iter().map(facts).collect();
        Ok(BootFacts {
            components,
            slot,
            boot_id: self.booted.boot_id.clone(),
            active,
            trial: record.trial.as_ref().map(|trial| trial.slot),
            running: running.map_or(0, |image| image.rc),
            running_version: running.map(|image| image.version.clone()).unwrap_or_default(),
            floor,
            capacity: slots.capacity(slot.other())?,
            contents: SlotName::BOTH.map(|slot| match &labels[place(slot)] {
                // Nothing is ever written to a slot that is confirmed or runs: it is the label that was lost.
                SlotLabel::Bad if kept(slot) && !self.boot.heeds_labels() => Content::Unknown,
                SlotLabel::Empty => Content::Unknown,
                SlotLabel::Bad => Content::Bad,
                SlotLabel::Holds(image) => Content::Whole(Held { root: image.root, length: image.length }),
            }),
        })
    }

    /// Returns the boot that this process lives in.
    pub fn booted(&self) -> &Booted {
        &self.booted
    }

    /// Returns what programs are told about the slot that they judge.
    pub fn context(&self, config: &Config, slot: SlotName, rc: u64, version: String) -> Context {
        let slot_path = self.slots().path(slot);
        Context { slot, slot_path, rc, version, device: config.device.clone() }
    }

    fn slots(&self) -> MutexGuard<'_, AnySlots> {
        // One job at a time: whoever comes to the slots has another one, and must not wait for the end of this.
        self.stop_hashing();
        lock(&self.slots)
    }
}

/// A process that ends does not wait until a slot is read.
impl Drop for Device {
    fn drop(&mut self) {
        self.stop_hashing();
    }
}

/// Takes the lock of the data folder. A program that an agent before us has just started may hold it for a moment.
fn lock_soon(disk: &Disk, path: &Path) -> std::io::Result<Box<dyn std::any::Any + Send>> {
    let mut tries = 1;
    loop {
        match disk.lock(path, 0o600) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && tries < LOCK_TRIES => {
                tries += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            other => return other,
        }
    }
}

/// Without room the agent may still get by; whoever looks for the reason later finds it here.
fn reserved(what: &'static str, result: Result<(), RecordError>) {
    if let Err(error) = result {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "could not reserve room for the {what}; free room on the disk of data_dir");
    }
}

/// A panic while slots were held leaves no half-made promise: every call is complete or repeated.
fn lock(slots: &Mutex<AnySlots>) -> MutexGuard<'_, AnySlots> {
    slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn done<E: std::error::Error>(result: Result<(), E>) -> Done {
    match result {
        Ok(()) => Done::Ok,
        Err(error) => Done::Failed(chain(&error)),
    }
}

/// Writes an error with its causes in one line, as a report carries it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.truncate(text.floor_char_boundary(tern_protocol::limits::REASON_MAX));
    text
}

#[cfg(test)]
mod tests;
