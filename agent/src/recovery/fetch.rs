//! The wanted package once more, over MQTT: when no package on the device is whole any more.
//!
//! ```text
//! noted: which image, which chunks of it are here   ──►  first verified chunk in hand: the old label goes
//! a window of chunks: written, synced, noted        ──►  all here: read back, labelled
//! ```
//! What it must be is known from its label, or from what an earlier try has put down; every pack is verified against its
//! Merkle root, so nobody has to be trusted on the way. A try goes on where the one before it was, also after a power cut.
//! Until something of the new package has come the old one keeps its label: it may yet be read. Reports wait for the
//! system: recovery says nothing in its name.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tern_protocol::chunk::{ChunkSet, chunks_of};
use tern_protocol::limits::CHUNK;
use tern_protocol::message::{Get, Pack};
use tern_protocol::offer::Artifact;
use tern_protocol::topic::{Topic, UpKind};

use crate::clock;
use crate::config::Config;
use crate::core::download::{Accepted, Download};
use crate::core::durable::Durable;
use crate::link::{self, LinkCommand, LinkConfig, LinkError, LinkEvent};
use crate::record::{RecordError, RecordFile};
use crate::slot::file::FileSlots;
use crate::slot::{Image, SlotError, SlotLabel, SlotName, Slots as _};
use crate::storage::Disk;

/// How long nothing new may come before a try is given up: whoever called starts another one.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Says why a package could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing says what the package must be.
    #[error("nothing on the device says what package {0} must be; write a signed image by hand")]
    Unknown(SlotName),
    /// The package.
    #[error("could not write the package")]
    Slot(#[from] SlotError),
    /// What is fetched could not be put down.
    #[error("could not put down what is fetched")]
    Record(#[from] RecordError),
    /// The link.
    #[error("could not set up the link")]
    Link(#[from] LinkError),
    /// Nothing came.
    #[error("nothing came for {} s; are the brokers right, and is the release still published?", PATIENCE.as_secs())]
    Silence,
    /// The packs were right and the whole is not: the medium.
    #[error("the package reads back differently from what came; the medium is failing")]
    ReadBack,
}

/// What is being fetched: put down before the label that says so is withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    slot: SlotName,
    image: Image,
    /// Chunks that were verified, written and synced since the label was withdrawn.
    #[serde(default)]
    have: ChunkSet,
}

/// A package that is being fetched.
#[derive(Debug)]
pub struct Fetching {
    slots: FileSlots,
    notes: RecordFile<Wanted>,
    wanted: Wanted,
    download: Download,
    is_marked: bool,
}

impl Fetching {
    /// Begins, or goes on with, the package of `slot`.
    pub fn begin(disk: &Disk, config: &Config, slot: SlotName) -> Result<Self, FetchError> {
        let slots = FileSlots::on(disk, &config.slots.dir, config.slots.capacity, slot.other())?;
        let notes = RecordFile::<Wanted>::on(disk, &config.slots.dir, "fetch")?;
        let noted = notes.load().unwrap_or_default().filter(|wanted| wanted.slot == slot);
        let wanted = match (slots.label(slot)?, noted) {
            // Bytes of an image that somebody vouched for since: nothing of what was fetched before is to be relied on.
            (SlotLabel::Holds(image), _) => Wanted { slot, image, have: ChunkSet::default() },
            (_, Some(wanted)) => wanted,
            _ => return Err(FetchError::Unknown(slot)),
        };
        notes.renew(&wanted)?;
        let Wanted { image, have, .. } = &wanted;
        tracing::warn!(%slot, rc = image.rc, chunks = have.len(), "no package is whole; fetching it again");
        let artifact = Artifact::new(config.component.clone(), image.length, image.sha256, image.root);
        let download = Download::new(&artifact, have, &config.timing.core(0.0));
        Ok(Self { slots, notes, wanted, download, is_marked: false })
    }

    /// Returns what to ask for at this uptime, ms.
    pub fn request(&mut self, uptime: u64) -> Option<Get> {
        self.download.request(uptime)
    }

    /// Takes a pack; tells whether it was a chunk that is new.
    pub fn take(&mut self, pack: Pack, uptime: u64) -> Result<bool, FetchError> {
        let Accepted::Chunk { index, bytes } = self.download.accept(pack, uptime) else { return Ok(false) };
        let slot = self.wanted.slot;
        if !self.is_marked {
            self.slots.mark_bad(slot)?;
            self.is_marked = true;
        }
        self.slots.write(slot, u64::from(index) * CHUNK as u64, &bytes)?;
        if let Some(chunks) = self.download.to_sync() {
            // Bytes first: what is noted is not asked for again.
            self.slots.sync(slot)?;
            for chunk in chunks {
                self.wanted.have.insert(chunk);
            }
            self.notes.renew(&self.wanted)?;
        }
        Ok(true)
    }

    /// Tells whether all of it is here.
    pub fn is_here(&self) -> bool {
        chunks_of(self.wanted.image.length) == Some(self.wanted.have.len())
    }

    /// Reads the package back and vouches for it.
    pub fn finish(mut self) -> Result<(), FetchError> {
        let Wanted { slot, image, .. } = self.wanted.clone();
        if self.slots.hash(slot, image.length)? != (image.sha256, image.root) {
            self.wanted.have = ChunkSet::default();
            self.notes.renew(&self.wanted)?;
            return Err(FetchError::ReadBack);
        }
        Ok(self.slots.set_label(slot, image)?)
    }
}

/// Returns the time before which it is not, as the system's agent has kept it: a recovery system has no clock.
fn time_floor(disk: &Disk, config: &Config) -> u64 {
    let journal = RecordFile::<Durable>::on(disk, &config.data_dir, "journal");
    let durable = journal.and_then(|journal| journal.load()).ok().flatten();
    durable.map_or(0, |durable| durable.time_floor.latest())
}

/// Fetches the package of `slot` anew.
pub(super) async fn fetch(disk: &Disk, config: &Config, slot: SlotName) -> Result<(), FetchError> {
    let mut fetching = Fetching::begin(disk, config, slot)?;
    let (commands, mut events, _link) = link::start(LinkConfig::load(config, time_floor(disk, config))?);
    let packs = Topic::DevicePack(config.device.clone()).render(&config.fleet);
    let get = Topic::Up(config.device.clone(), UpKind::Get);
    let send = async |command| commands.send(command).await.is_ok();
    send(LinkCommand::Subscribe(vec![packs.clone()])).await;
    let (mut is_up, mut heard) = (false, clock::uptime());
    while !fetching.is_here() {
        if clock::uptime().saturating_sub(heard) > PATIENCE {
            return Err(FetchError::Silence);
        }
        let now = u64::try_from(clock::uptime().as_millis()).unwrap_or(u64::MAX);
        if is_up && let Some(request) = fetching.request(now) {
            let qos = if fetching.download.doubts_link() { 1 } else { get.qos() };
            let (topic, payload) = (get.render(&config.fleet), request.write());
            send(LinkCommand::Publish { topic, payload, qos }).await;
        }
        let due = fetching.download.due().saturating_sub(now);
        let wait = Duration::from_millis(due).min(Duration::from_secs(10));
        match tokio::time::timeout(wait.max(Duration::from_millis(10)), events.recv()).await {
            Ok(Some(LinkEvent::Up)) => is_up = true,
            Ok(Some(LinkEvent::Down { .. })) => {
                is_up = false;
                fetching.download.cut();
            }
            Ok(Some(LinkEvent::Message { topic, payload })) if topic == packs => {
                let Ok(pack) = Pack::read(&payload) else { continue };
                if fetching.take(pack, now)? {
                    heard = clock::uptime();
                }
            }
            Ok(Some(LinkEvent::Message { .. })) | Err(_) => {}
            Ok(None) => return Err(FetchError::Silence),
        }
    }
    fetching.finish()
}
