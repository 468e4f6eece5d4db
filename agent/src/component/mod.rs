//! Components beside the slots: what the agent does with their packages, a kind each.
//!
//! | module | kind | install | take back |
//! |---|---|---|---|
//! | `file` | one file at a path | copy beside it, sync, rename | the file of before, copied aside first |
//! | `archive` | a folder per version | unpack beside, sync, turn the link `current` | turn it back |
//! | `program` | whatever a program does with it: a modem, a microcontroller | the program | the program, with the former package |
//!
//! Each has two places for packages in `data_dir/components/NAME`, like a pair of slots: one with what is for good, one
//! for what comes. The record `installed` says which is which; that something is tried stands in it, in both copies,
//! before anything changes, and is taken out when it is for good or taken back. All of it may be repeated.

mod archive;
mod every;
mod file;
mod program;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tern_protocol::id::DeviceId;
use tern_protocol::offer::Artifact;

use crate::command::{Context, Ending, Program, ProgramFailure};
use crate::core::SlotName;
use crate::core::agent::{ComponentFacts, Done, Held};
use crate::device::chain;
use crate::hooks::log;
use crate::record::{RecordError, RecordFile};
use crate::slot::file::FileSlots;
use crate::slot::{Image, SlotError, SlotLabel, Slots};
use crate::storage::Disk;

pub(crate) use every::catch_up;
pub use every::{Known, look_at_all, open_all};

/// Components of one device, the slots' not among them.
pub const COMPONENTS_MAX: usize = 16;

/// How often taking back is begun that never comes to an end.
const REVERTS: u32 = 5;

/// A component as it is configured.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentConfig {
    /// As releases name it.
    pub name: String,
    /// Bytes that a package may have.
    pub capacity: u64,
    /// Version that the factory put there; empty where it is not known.
    pub version: String,
    /// What is done with a package.
    pub kind: Kind,
}

/// What is done with a package.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// It is this file.
    File {
        /// Absolute path.
        path: PathBuf,
        /// Permissions where there was no file before.
        mode: u32,
    },
    /// It is unpacked into a folder of its own, below this one.
    Archive {
        /// Absolute path.
        path: PathBuf,
        /// How long that may take.
        deadline: Duration,
    },
    /// Programs do it.
    Program {
        /// Puts a package in.
        install: Program,
        /// Puts the former one back.
        revert: Program,
    },
    /// It is not configured any more, while something of it is tried: nobody knows how that is taken back.
    Gone,
}

/// Says why a component is not as it was to be.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// Its places could not be used.
    #[error("could not use its places")]
    Place(#[from] SlotError),
    /// The record of what is installed could not be used.
    #[error("could not use the record of what is installed")]
    Record(#[from] RecordError),
    /// A file or folder could not be used.
    #[error("could not use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The free place does not hold what is to be installed.
    #[error("its free place does not hold release {0}")]
    NotThere(u64),
    /// A program failed; what it said is among it.
    #[error("{0}")]
    Failed(String),
    /// A program asks for another time.
    #[error("{0}")]
    NotNow(String),
}

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Installed {
    /// The place of what is for good; without one the factory put it there.
    place: Option<SlotName>,
    /// What is tried, or was when the power went.
    tried: Option<Tried>,
}

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    place: SlotName,
    rc: u64,
    /// What there was before, as the kind needs it.
    before: Option<String>,
    /// It is in, whole.
    #[serde(default)]
    is_in: bool,
    /// Times that it was begun to be taken back, and did not come to an end: it takes the device down.
    #[serde(default)]
    reverts: u32,
}

/// One component.
#[derive(Debug, Clone)]
pub struct Component {
    config: ComponentConfig,
    disk: Disk,
    folder: PathBuf,
    device: DeviceId,
}

impl Component {
    /// Opens a component whose places are in `folder`.
    pub fn on(
        disk: &Disk,
        config: ComponentConfig,
        folder: PathBuf,
        device: DeviceId,
    ) -> Result<Self, ComponentError> {
        let io = |source| ComponentError::Io { path: folder.clone(), source };
        disk.create_folder(&folder).map_err(io)?;
        Ok(Self { config, disk: disk.clone(), folder, device })
    }

    /// Returns what is known of it.
    pub fn facts(&self) -> Result<ComponentFacts, ComponentError> {
        self.facts_of(self.installed()?)
    }

    /// Returns what is known of it, and changes nothing.
    fn seen(&self) -> Result<ComponentFacts, ComponentError> {
        match self.disk.look(&self.folder) {
            Ok(_) => self.facts_of(self.record()?.load()?.unwrap_or_default()),
            // No agent has run yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (capacity, version) = (self.config.capacity, self.config.version.clone());
                Ok(ComponentFacts { capacity, version, ..ComponentFacts::default() })
            }
            Err(source) => Err(ComponentError::Io { path: self.folder.clone(), source }),
        }
    }

    fn facts_of(&self, installed: Installed) -> Result<ComponentFacts, ComponentError> {
        let slots = self.slots(&installed)?;
        let image = |place: Option<SlotName>| match place.map(|place| slots.label(place)).transpose()? {
            Some(SlotLabel::Holds(image)) => Ok::<_, ComponentError>(Some(image)),
            _ => Ok(None),
        };
        let held = |image: &Image| Held { root: image.root, length: image.length };
        let for_good = image(installed.place)?;
        let runs = match &installed.tried {
            Some(tried) if tried.is_in => image(Some(tried.place))?,
            // Half of this and half of that, for all that is known.
            Some(_) => None,
            None => for_good.clone(),
        };
        let is_factory = installed.place.is_none() && installed.tried.is_none();
        let factory = || if is_factory { self.config.version.clone() } else { String::new() };
        Ok(ComponentFacts {
            capacity: self.config.capacity,
            version: runs.map_or_else(factory, |image| image.version),
            installed: for_good.as_ref().map(held),
            held: image(Some(installed.free()))?.as_ref().map(held),
            unsettled: installed.tried.map(|tried| tried.rc),
        })
    }

    /// Marks the free place bad.
    pub fn mark_bad(&self) -> Result<(), ComponentError> {
        let (mut slots, free) = self.free()?;
        Ok(slots.mark_bad(free)?)
    }

    /// Writes into the free place.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), ComponentError> {
        let (mut slots, free) = self.free()?;
        Ok(slots.write(free, offset, bytes)?)
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> Result<(), ComponentError> {
        let (mut slots, free) = self.free()?;
        Ok(slots.sync(free)?)
    }

    /// Reads the free place back and labels it; tells whether it holds `artifact`.
    pub fn hash(
        &self,
        artifact: &Artifact,
        rc: u64,
        version: String,
        stop: &AtomicBool,
    ) -> Result<bool, ComponentError> {
        let (mut slots, free) = self.free()?;
        let (sha256, root) = match slots.hash_until(free, artifact.length, stop) {
            Ok(found) => found,
            Err(SlotError::Short { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if sha256 != artifact.sha256 || root != artifact.root {
            return Ok(false);
        }
        slots.set_label(free, Image { rc, version, length: artifact.length, sha256, root })?;
        Ok(true)
    }

    /// Installs what the free place holds for release `rc`.
    pub async fn install(&self, rc: u64) -> Result<ComponentFacts, ComponentError> {
        let mut installed = self.installed()?;
        let free = installed.free();
        let slots = self.slots(&installed)?;
        let image = match slots.label(free)? {
            SlotLabel::Holds(image) if image.rc == rc => image,
            _ => return Err(ComponentError::NotThere(rc)),
        };
        let package = slots.path(free);
        if installed.tried.as_ref().is_none_or(|tried| tried.rc != rc) {
            // An older copy of the record may still say that something is tried, and what there was before that goes now: it
            // must not come back should the newer be lost.
            self.record()?.settle()?;
            let before = match self.config.kind.clone() {
                Kind::File { path, .. } => {
                    let (disk, folder) = (self.disk.clone(), self.folder.clone());
                    apart(Box::new(move || file::before(&disk, &path, &folder))).await?
                }
                Kind::Archive { path, .. } => archive::before(&path)?,
                Kind::Program { .. } => None,
                Kind::Gone => return Err(self.gone()),
            };
            installed.tried = Some(Tried { place: free, rc, before, is_in: false, reverts: 0 });
            self.keep_in_mind(&installed)?;
        }
        // Days may have passed since it was read back.
        self.is_whole(free, &image).await?;
        match &self.config.kind {
            Kind::File { path, mode } => {
                let (disk, path, mode) = (self.disk.clone(), path.clone(), *mode);
                apart(Box::new(move || file::install(&disk, &package, &path, mode).map(|()| None))).await?;
            }
            Kind::Archive { path, deadline } => {
                let context = self.program_context(free, &package, &image);
                archive::install(&context, path, &package, *deadline, &self.logs()).await?;
            }
            Kind::Program { install, .. } => {
                let former = installed.place.map(|place| slots.path(place));
                let context = self.program_context(free, &package, &image);
                let logs = self.logs();
                program::run(install, "install", &self.config.name, &context, former.as_ref(), &logs).await?;
            }
            Kind::Gone => return Err(self.gone()),
        }
        if let Some(tried) = &mut installed.tried {
            tried.is_in = true;
        }
        self.keep_in_mind(&installed)?;
        self.facts()
    }

    /// Puts back what there was before; nothing if nothing was tried.
    pub async fn revert(&self) -> Result<ComponentFacts, ComponentError> {
        let mut installed = self.installed()?;
        let Some(mut tried) = installed.tried.take() else { return self.facts() };
        if tried.reverts >= REVERTS {
            return Err(ComponentError::Failed(format!(
                "it was begun {REVERTS} times and never ended: the device goes down with it"
            )));
        }
        (tried.is_in, tried.reverts) = (false, tried.reverts + 1);
        self.keep_in_mind(&Installed { tried: Some(tried.clone()), ..installed.clone() })?;
        if let Err(error) = self.put_back(&installed, &tried).await {
            tried.reverts = 0;
            self.keep_in_mind(&Installed { tried: Some(tried), ..installed })?;
            return Err(error);
        }
        self.keep_in_mind(&installed)?;
        self.facts()
    }

    async fn put_back(&self, installed: &Installed, tried: &Tried) -> Result<(), ComponentError> {
        let before = tried.before.clone();
        match &self.config.kind {
            Kind::File { path, .. } => {
                let (disk, path, folder) = (self.disk.clone(), path.clone(), self.folder.clone());
                let back = move || file::revert(&disk, before.as_deref(), &path, &folder);
                apart(Box::new(move || back().map(|()| None))).await?;
            }
            Kind::Archive { path, .. } => {
                let path = path.clone();
                let back = move || archive::turn_back(&path, before.as_deref());
                apart(Box::new(move || back().map(|()| None))).await?;
            }
            Kind::Program { revert, .. } => {
                let slots = self.slots(installed)?;
                let context = match installed.place.map(|place| (place, slots.label(place))) {
                    Some((place, Ok(SlotLabel::Holds(image)))) => {
                        self.is_whole(place, &image).await?;
                        self.program_context(place, &slots.path(place), &image)
                    }
                    // The factory's is another one than what was there.
                    Some(_) => return Err(ComponentError::Failed("its former package is damaged".into())),
                    None => self.factory_context(),
                };
                program::run(revert, "revert", &self.config.name, &context, None, &self.logs()).await?;
            }
            Kind::Gone => return Err(self.gone()),
        }
        Ok(())
    }

    /// Reads a package once more.
    async fn is_whole(&self, place: SlotName, image: &Image) -> Result<(), ComponentError> {
        let (component, image) = (self.clone(), image.clone());
        let read = move || {
            let mut slots = component.slots(&component.installed()?)?;
            let found = slots.hash(place, image.length)?;
            if found == (image.sha256, image.root) {
                return Ok(None);
            }
            let rc = image.rc;
            Err(ComponentError::Failed(format!(
                "its package of release {rc} is not what was read back any more"
            )))
        };
        apart(Box::new(read)).await.map(|_| ())
    }

    /// What was tried is for good.
    pub async fn keep(&self) -> Result<ComponentFacts, ComponentError> {
        let mut installed = self.installed()?;
        if let Some(tried) = installed.tried.take() {
            installed.place = Some(tried.place);
            self.keep_in_mind(&installed)?;
        }
        match &self.config.kind {
            Kind::File { .. } => file::forget(&self.disk, &self.folder),
            Kind::Archive { path, .. } => {
                let path = path.clone();
                let forget = move || {
                    archive::forget_others(&path);
                    Ok(None)
                };
                apart(Box::new(forget)).await?;
            }
            Kind::Program { .. } | Kind::Gone => {}
        }
        self.facts()
    }

    fn gone(&self) -> ComponentError {
        let name = &self.config.name;
        ComponentError::Failed(format!(
            "it is not in [[components]] of agent.toml any more, so nobody knows how to take it back; put {name} back there, \
             and restart the agent"
        ))
    }

    /// Returns the folder of what its programs said last.
    fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    fn record(&self) -> Result<RecordFile<Installed>, RecordError> {
        RecordFile::on(&self.disk, &self.folder, "installed")
    }

    fn installed(&self) -> Result<Installed, RecordError> {
        match self.record()?.load() {
            Ok(installed) => Ok(installed.unwrap_or_default()),
            Err(error @ RecordError::Corrupt { .. }) => {
                // What is installed stays so; only that it came from us is forgotten.
                let name = &self.config.name;
                tracing::error!(name, %error, "the record of what is installed is damaged and begun anew");
                self.record()?.renew(&Installed::default())?;
                Ok(Installed::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Both copies: what is tried must be known whichever of them is lost.
    fn keep_in_mind(&self, installed: &Installed) -> Result<(), RecordError> {
        self.record()?.save_both(installed)
    }

    fn slots(&self, installed: &Installed) -> Result<FileSlots, SlotError> {
        FileSlots::on(&self.disk, &self.folder, self.config.capacity, installed.free().other())
    }

    /// Returns the free place.
    pub(crate) fn free(&self) -> Result<(FileSlots, SlotName), ComponentError> {
        let installed = self.installed()?;
        if let Some(tried) = installed.tried {
            return Err(ComponentError::Failed(format!(
                "release {} is tried and has to be taken back, or kept, before",
                tried.rc
            )));
        }
        Ok((self.slots(&installed)?, installed.free()))
    }

    fn program_context(&self, place: SlotName, package: &Path, image: &Image) -> Context {
        let (rc, version) = (image.rc, image.version.clone());
        Context { slot: place, slot_path: package.to_owned(), rc, version, device: self.device.clone() }
    }

    fn factory_context(&self) -> Context {
        let (slot, version, device) = (SlotName::A, self.config.version.clone(), self.device.clone());
        Context { slot, slot_path: PathBuf::new(), rc: 0, version, device }
    }
}

impl Installed {
    fn free(&self) -> SlotName {
        self.place.map_or(SlotName::A, SlotName::other)
    }
}

/// What blocks: copying, syncing, removing.
type Blocking = Box<dyn FnOnce() -> Result<Option<String>, ComponentError> + Send>;

/// Does what blocks apart from the loop. Of one type, whatever it does: the runtime's code for each weighs some kilobytes.
async fn apart(work: Blocking) -> Result<Option<String>, ComponentError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(ComponentError::Failed(error.to_string())))
}

/// Says how a change of a component ended.
pub fn done(result: Result<ComponentFacts, ComponentError>) -> Done {
    match result {
        Ok(facts) => Done::Component(Box::new(facts)),
        Err(ComponentError::NotNow(reason)) => Done::NotNow(reason),
        Err(error) => Done::Failed(chain(&error)),
    }
}

/// Runs a program, and keeps the end of what it says in a file of `logs`, for people. One that does not exist or hangs has
/// failed.
async fn run(
    program: &Program,
    step: &'static str,
    context: &Context,
    more: &[(&str, &str)],
    logs: &Path,
) -> Result<(), ComponentError> {
    let finished = program.run_keeping(log::KEPT, context, more).await;
    if let Err(error) = log::keep(logs, step, &program.name, &finished) {
        // What it did counts, not whether somebody can read it.
        tracing::warn!(step, error = &error as &dyn std::error::Error, "the output of a program is lost");
    }
    let (name, output_tail) = (step.to_owned(), finished.output_tail);
    match finished.ending {
        Ending::Exit(0) => Ok(()),
        Ending::Exit(crate::hooks::NOT_NOW) => Err(ComponentError::NotNow(format!("not now; {output_tail}"))),
        reason => Err(ComponentError::Failed(ProgramFailure { name, reason, output_tail }.summary())),
    }
}
