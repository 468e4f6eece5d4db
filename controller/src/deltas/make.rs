//! The task that makes deltas, one after another.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::delta::{DeltaManifest, ImageId};

use super::book::{Key, State};
use super::child::{Made, Order, own_program, packs};
use super::{Deltas, Shared, sign};
use crate::core::service::DeltaKeys;
use crate::engine::Stopped;
use crate::plain;

/// What a device fetches beside the packs: the signed manifest, the tree, and the messages that ask for them.
const BESIDE: u64 = 1024;
/// Between two looks whether the service signs again.
const AGAIN: Duration = Duration::from_secs(5);

impl Deltas {
    /// Makes what waits, for as long as the engine runs.
    pub async fn run(self) {
        if let Err(error) = self.shared.prepare() {
            tracing::error!("no deltas are made: {error:#}");
            return;
        }
        if self.shared.settings.enabled && self.plan_all().await.is_err() {
            return;
        }
        self.shared.book().look_at_signatures();
        // Ends when the engine does.
        while self.step().await.is_ok() {}
    }

    async fn step(&self) -> Result<(), Stopped> {
        let shared = &self.shared;
        if shared.book().take_signatures() {
            let keys = shared.engine.query(|service, _| service.delta_keys()).await?;
            let own = shared.clone();
            // A panic there would be in the log already.
            drop(tokio::task::spawn_blocking(move || own.look_over(&keys)).await);
        }
        let next = shared.book().take_next();
        let Some(key) = next else {
            shared.filled.notified().await;
            return Ok(());
        };
        match shared.make(&key).await {
            Ok(Some(state)) => shared.book().set(&key, state),
            Ok(None) => {
                // While the service compares itself with its devices it signs nothing.
                shared.book().put_back(key);
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => {
                let why = plain::line(&format!("{error:#}"));
                tracing::warn!(old = %key.old().root, new = %key.new.root, "a delta was not made: {why}");
                shared.book().set(&key, State::Refused { why });
            }
        }
        Ok(())
    }
}

impl Shared {
    fn prepare(&self) -> anyhow::Result<()> {
        crate::files::private_folder(&self.folder)?;
        self.clear();
        self.store.sweep_packs()?;
        Ok(())
    }

    fn clear(&self) {
        // It may not be there; whatever stays is written over.
        drop(std::fs::remove_file(self.out()));
    }

    fn out(&self) -> std::path::PathBuf {
        self.folder.join("encoding")
    }

    /// Makes one; nothing if it cannot be signed now.
    async fn make(self: &Arc<Self>, key: &Key) -> anyhow::Result<Option<State>> {
        let keys = self.engine.query(|service, _| service.delta_keys()).await?;
        if keys.is_empty() {
            return Ok(None);
        }
        let image = |id: ImageId| self.store.image_path(&id.root);
        let order = Order {
            program: own_program(),
            key: *key,
            old: key.old.map(image),
            new: image(key.new),
            out: self.out(),
            threads: self.settings.threads,
            memory: self.settings.memory(),
            patience: self.settings.patience(),
        };
        let told = |percent| self.book().set(key, State::Encoding { percent });
        let made = order.run(told).await;
        let kept = match made {
            Ok(Made::Delta(manifest)) => self.keep(key, manifest).await,
            Ok(Made::Useless { bytes }) => self.useless(key, bytes).await,
            Err(error) => Err(error.into()),
        };
        self.clear();
        kept
    }

    async fn keep(self: &Arc<Self>, key: &Key, manifest: DeltaManifest) -> anyhow::Result<Option<State>> {
        let bytes = manifest.bytes;
        if bytes + BESIDE >= key.new.length {
            return self.useless(key, bytes).await;
        }
        // They may have been replaced while it was encoded.
        let keys = self.engine.query(|service, _| service.delta_keys()).await?;
        let own = self.clone();
        let kept = tokio::task::spawn_blocking(move || own.store(&manifest, &keys)).await??;
        // Without a product that names its image there is nobody to take it.
        Ok(Some(if kept { State::Ready { bytes } } else { State::NotMade }))
    }

    async fn useless(self: &Arc<Self>, key: &Key, bytes: u64) -> anyhow::Result<Option<State>> {
        let (own, key) = (self.clone(), *key);
        tokio::task::spawn_blocking(move || own.note(|notes| notes.found_useless(&key, bytes))).await??;
        Ok(Some(State::Useless { bytes }))
    }

    fn store(&self, manifest: &DeltaManifest, keys: &[DeltaKeys]) -> anyhow::Result<bool> {
        let Some(signed) = sign::signed(manifest, keys)? else { return Ok(false) };
        let written = self.out();
        let (_, packs) = packs(BufReader::new(File::open(Path::new(&written))?))?;
        self.store.add_delta(&signed, packs)?;
        let (new, packs, bytes) = (manifest.new.root, manifest.packs, manifest.bytes);
        tracing::info!(old = %manifest.old.root, %new, packs, bytes, full = manifest.new.length, "a delta is there");
        Ok(true)
    }

    /// Removes deltas whose images are gone, and signs anew what a replaced key has signed.
    fn look_over(&self, keys: &[DeltaKeys]) {
        let deltas = self.store.deltas().unwrap_or_else(|error| {
            tracing::error!("the deltas in the chunk store cannot be listed: {error}");
            Vec::new()
        });
        for delta in deltas {
            let manifest = &delta.manifest;
            let there = |image: &ImageId| image.length == 0 || self.store.contains(&image.root);
            let done = if !there(&manifest.old) || !there(&manifest.new) {
                self.store.remove_delta(manifest).map_err(anyhow::Error::from)
            } else if sign::is_believed(manifest, &delta.signed, keys) {
                Ok(())
            } else {
                self.sign_anew(manifest, keys)
            };
            if let Err(error) = done {
                tracing::error!(new = %manifest.new.root, "a delta could not be put in order: {error:#}");
            }
        }
    }

    fn sign_anew(&self, manifest: &DeltaManifest, keys: &[DeltaKeys]) -> anyhow::Result<()> {
        if let Some(signed) = sign::signed(manifest, keys)? {
            self.store.sign_delta(&signed)?;
            tracing::info!(new = %manifest.new.root, "a delta was signed anew");
        }
        Ok(())
    }
}
