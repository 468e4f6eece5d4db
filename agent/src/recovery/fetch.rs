//! The wanted package once more, over MQTT: when no package on the device is whole any more.
//!
//! What it must be is known from its label, or from what an earlier try has put down; every pack is verified against its
//! Merkle root, so nobody has to be trusted on the way. Reports wait for the system: recovery says nothing in its name.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tern_protocol::chunk::ChunkSet;
use tern_protocol::limits::CHUNK;
use tern_protocol::message::Pack;
use tern_protocol::offer::Artifact;
use tern_protocol::topic::{Topic, UpKind};

use crate::clock;
use crate::config::Config;
use crate::core::download::{Accepted, Download};
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
}

/// Fetches the package of `slot` anew.
pub(super) async fn fetch(disk: &Disk, config: &Config, slot: SlotName) -> Result<(), FetchError> {
    let mut slots = FileSlots::on(disk, &config.slots.dir, config.slots.capacity, slot.other())?;
    let notes = RecordFile::<Wanted>::on(disk, &config.slots.dir, "fetch")?;
    let noted = notes.load().unwrap_or_default().filter(|wanted| wanted.slot == slot);
    let image = match (slots.label(slot)?, noted) {
        (SlotLabel::Holds(image), _) => image,
        (_, Some(wanted)) => wanted.image,
        _ => return Err(FetchError::Unknown(slot)),
    };
    notes.renew(&Wanted { slot, image: image.clone() })?;
    tracing::warn!(%slot, rc = image.rc, "no package is whole; fetching it again");
    slots.mark_bad(slot)?;
    let artifact = Artifact::new(config.component.clone(), image.length, image.sha256, image.root);
    let timing = config.timing.core(0.0);
    let mut download = Download::new(&artifact, &ChunkSet::default(), &timing);
    let (commands, mut events, _link) = link::start(LinkConfig::load(config, 0)?);
    let packs = Topic::DevicePack(config.device.clone()).render(&config.fleet);
    let get = Topic::Up(config.device.clone(), UpKind::Get);
    let send = async |command| commands.send(command).await.is_ok();
    send(LinkCommand::Subscribe(vec![packs.clone()])).await;
    let (mut is_up, mut heard) = (false, clock::uptime());
    let mut left = image.length;
    while left > 0 {
        if clock::uptime().saturating_sub(heard) > PATIENCE {
            return Err(FetchError::Silence);
        }
        let now = u64::try_from(clock::uptime().as_millis()).unwrap_or(u64::MAX);
        if is_up && let Some(request) = download.request(now) {
            let (topic, payload, qos) = (get.render(&config.fleet), request.write(), get.qos());
            send(LinkCommand::Publish { topic, payload, qos }).await;
        }
        let wait = Duration::from_millis(download.due().saturating_sub(now)).min(Duration::from_secs(10));
        match tokio::time::timeout(wait.max(Duration::from_millis(10)), events.recv()).await {
            Ok(Some(LinkEvent::Up)) => is_up = true,
            Ok(Some(LinkEvent::Down { .. })) => is_up = false,
            Ok(Some(LinkEvent::Message { topic, payload })) if topic == packs => {
                let Ok(pack) = Pack::read(&payload) else { continue };
                if let Accepted::Chunk { index, bytes } = download.accept(pack, now) {
                    slots.write(slot, u64::from(index) * CHUNK as u64, &bytes)?;
                    left -= bytes.len() as u64;
                    heard = clock::uptime();
                }
            }
            Ok(Some(LinkEvent::Message { .. })) | Err(_) => {}
            Ok(None) => return Err(FetchError::Silence),
        }
    }
    slots.sync(slot)?;
    if slots.hash(slot, image.length)? != (image.sha256, image.root) {
        return Err(FetchError::ReadBack);
    }
    Ok(slots.set_label(slot, image)?)
}
