//! Deltas beside the images that they lead to: a signed manifest for each pair of images and profile.
//!
//! Packs are an object of their own, named by their root. Two manifests may name the same one: images of one length that
//! moved without a change have the same packs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tern_protocol::chunk::{self, leaf};
use tern_protocol::delta::signed::{SIGNED_DELTA_MAX, read_unverified};
use tern_protocol::delta::{DeltaManifest, Profile};
use tern_protocol::digest::Digest;

use super::aside::{at, remove, sync_folder};
use super::object::PART_MAX;
use super::{ChunkStore, StoreError};

/// A delta that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDelta {
    /// What it says.
    pub manifest: DeltaManifest,
    /// The same with its signatures, as it travels.
    pub signed: Vec<u8>,
}

impl ChunkStore {
    /// Adds a delta, or signs anew one that is here: `packs` must be exactly those that the manifest names. Who signed is
    /// not looked at: devices do. Complete or absent, as an image.
    pub fn add_delta(
        &self,
        signed: &[u8],
        packs: impl IntoIterator<Item = io::Result<Vec<u8>>>,
    ) -> Result<DeltaManifest, StoreError> {
        let manifest = read_unverified(signed)?;
        let _one = self.changing();
        let before = self.read_delta(&self.delta_path(&manifest))?;
        self.keep_packs(&manifest, packs)?;
        self.keep_manifest(&manifest, signed)?;
        if let Some(before) = before {
            self.drop_packs(&before.manifest.root)?;
        }
        Ok(manifest)
    }

    /// Keeps another signed manifest of a delta that is here.
    pub fn sign_delta(&self, signed: &[u8]) -> Result<(), StoreError> {
        let manifest = read_unverified(signed)?;
        let _one = self.changing();
        let held = self.read_delta(&self.delta_path(&manifest))?;
        if held.is_none_or(|held| held.manifest != manifest) {
            return Err(StoreError::Missing(manifest.root));
        }
        self.keep_manifest(&manifest, signed)
    }

    /// Returns the signed manifest of the smallest delta between two images among those for `profiles`.
    pub fn delta(
        &self,
        from: &Digest,
        to: &Digest,
        profiles: &[u8],
    ) -> Result<Option<StoredDelta>, StoreError> {
        let mut smallest: Option<StoredDelta> = None;
        for profile in Profile::ALL.into_iter().filter(|profile| profiles.contains(&profile.id())) {
            let found = self.read_delta(&self.delta_name(from, to, profile))?;
            let found = found.filter(|found| self.path(&found.manifest.root, "packs").exists());
            let bytes = |delta: &StoredDelta| delta.manifest.bytes;
            if let Some(found) = found
                && smallest.as_ref().is_none_or(|smallest| bytes(&found) < bytes(smallest))
            {
                smallest = Some(found);
            }
        }
        Ok(smallest)
    }

    /// Returns every delta that is here; one that does not read is left out.
    pub fn deltas(&self) -> Result<Vec<StoredDelta>, StoreError> {
        let mut found = Vec::new();
        for path in self.files_named("delta")? {
            match self.read_delta(&path) {
                Ok(delta) => found.extend(delta),
                Err(error) => tracing::warn!(%error, file = %path.display(), "a delta is left out"),
            }
        }
        Ok(found)
    }

    /// Removes a delta, and its packs if no other names them; one that is not here is no error.
    pub fn remove_delta(&self, manifest: &DeltaManifest) -> Result<(), StoreError> {
        let _one = self.changing();
        let path = self.delta_path(manifest);
        let held = self.read_delta(&path)?;
        remove(&path)?;
        self.drop_packs(&held.map_or(manifest.root, |held| held.manifest.root))
    }

    /// Removes packs that no manifest names: what an end in the middle left behind. Only for who alone adds deltas.
    pub fn sweep_packs(&self) -> Result<(), StoreError> {
        let _one = self.changing();
        let named: BTreeSet<Digest> = self.deltas()?.iter().map(|delta| delta.manifest.root).collect();
        for path in self.files_named("packs")? {
            let root = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            if let Some(root) = root.filter(|root| !named.contains(root)) {
                self.remove_packs(&root)?;
            }
        }
        Ok(())
    }

    fn keep_packs(
        &self,
        manifest: &DeltaManifest,
        packs: impl IntoIterator<Item = io::Result<Vec<u8>>>,
    ) -> Result<(), StoreError> {
        let mut leaves = Vec::new();
        let mut ends = Vec::new();
        let mut end = 0;
        // The list of ends comes first and its length is known; the packs follow as they come.
        let mut file = self.incoming.begin()?;
        file.write(&vec![0; 4 + manifest.packs as usize * 8])?;
        for pack in packs {
            let pack = pack.map_err(at("read the packs for", file.path()))?;
            end += pack.len() as u64;
            if pack.len() > PART_MAX || leaves.len() >= manifest.packs as usize || end > manifest.bytes {
                return Err(StoreError::OtherPacks);
            }
            leaves.push(leaf(&pack));
            ends.extend_from_slice(&end.to_le_bytes());
            file.write(&pack)?;
        }
        let found = chunk::root(&leaves);
        if found != manifest.root {
            return Err(StoreError::OtherRoot { expected: manifest.root, found });
        }
        if leaves.len() != manifest.packs as usize || end != manifest.bytes {
            return Err(StoreError::OtherPacks);
        }
        let path = self.path(&found, "packs");
        if path.exists() {
            return Ok(());
        }
        file.write_at_start(&[&manifest.packs.to_le_bytes()[..], &ends].concat())?;
        file.sync()?;
        self.keep(&found, &leaves, "packs", file)
    }

    fn keep_manifest(&self, manifest: &DeltaManifest, signed: &[u8]) -> Result<(), StoreError> {
        let mut file = self.incoming.begin()?;
        file.write(signed)?;
        file.sync()?;
        let folder = self.folder_of(&manifest.new.root)?;
        file.rename(&self.delta_path(manifest))?;
        sync_folder(&folder)
    }

    /// Removes packs unless a manifest names them.
    fn drop_packs(&self, root: &Digest) -> Result<(), StoreError> {
        if self.deltas()?.iter().any(|delta| delta.manifest.root == *root) {
            return Ok(());
        }
        self.remove_packs(root)
    }

    fn remove_packs(&self, root: &Digest) -> Result<(), StoreError> {
        self.forget(root);
        remove(&self.path(root, "packs"))?;
        // An image of the same root has the same tree.
        if self.contains(root) { Ok(()) } else { remove(&self.path(root, "tree")) }
    }

    fn delta_path(&self, manifest: &DeltaManifest) -> PathBuf {
        self.delta_name(&manifest.old.root, &manifest.new.root, manifest.profile)
    }

    fn delta_name(&self, from: &Digest, to: &Digest, profile: Profile) -> PathBuf {
        self.path(to, &format!("{from}.{}.delta", profile.name()))
    }

    fn read_delta(&self, path: &Path) -> Result<Option<StoredDelta>, StoreError> {
        let signed = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(about) if about.len() > SIGNED_DELTA_MAX as u64 => return Err(StoreError::Length),
            _ => fs::read(path).map_err(at("read", path))?,
        };
        Ok(Some(StoredDelta { manifest: read_unverified(&signed)?, signed }))
    }

    /// Lists the files whose names end so.
    fn files_named(&self, ending: &str) -> Result<Vec<PathBuf>, StoreError> {
        let mut found = Vec::new();
        let folders = fs::read_dir(self.folder()).map_err(at("list", self.folder()))?;
        for folder in folders {
            let folder = folder.map_err(at("list", self.folder()))?.path();
            if folder.file_name().is_none_or(|name| name.len() != 2) {
                continue;
            }
            for file in fs::read_dir(&folder).map_err(at("list", &folder))? {
                let path = file.map_err(at("list", &folder))?.path();
                if path.extension().is_some_and(|found| found == ending) {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

#[cfg(test)]
#[path = "deltas_tests.rs"]
mod tests;
