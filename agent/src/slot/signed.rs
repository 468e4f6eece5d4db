//! The signed files that were in force when a slot was labelled, kept beside it.
//!
//! ```text
//! <slot>.signed.0, .1      root, targets and release, as a record
//! ```
//! They are for the day on which both copies of the journal are lost: the release file says how far the floor had been
//! raised. It is verified again, up to the root beside it, and has to name the very image that the label vouches for.
//! Whoever can forge all of that writes on the device's disk; what he gains is a floor that is too high.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tern_protocol::bundle::File;
use tern_protocol::tuf::{Role, Trusted};

use super::{Image, SlotName};
use crate::record::{RecordError, RecordFile};
use crate::storage::Disk;

/// A signed file as a record keeps it: metadata is JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    role: Role,
    text: String,
}

impl StoredFile {
    /// Takes files for a record.
    pub fn of(files: &[File]) -> Vec<Self> {
        let stored = |f: &File| Some(Self { role: f.role, text: String::from_utf8(f.bytes.clone()).ok()? });
        files.iter().filter_map(stored).collect()
    }

    /// Returns the files of a record.
    pub fn files(stored: Vec<Self>) -> Vec<File> {
        stored.into_iter().map(|f| File { role: f.role, bytes: f.text.into_bytes() }).collect()
    }
}

fn record(disk: &Disk, folder: &Path, slot: SlotName) -> Result<RecordFile<Vec<StoredFile>>, RecordError> {
    RecordFile::on(disk, folder, &format!("{slot}.signed"))
}

/// Keeps what vouches for the image that is about to be labelled; durable when it returns.
pub fn keep(disk: &Disk, folder: &Path, slot: SlotName, files: &[File]) -> Result<(), RecordError> {
    let wanted = |file: &&File| matches!(file.role, Role::Root | Role::Targets | Role::Release);
    let files: Vec<File> = files.iter().filter(wanted).cloned().collect();
    record(disk, folder, slot)?.save_both(&StoredFile::of(&files))
}

/// Returns the floor that was signed with `image`; 0 if no file beside the slot names it.
pub fn floor(disk: &Disk, folder: &Path, slot: SlotName, image: &Image) -> u64 {
    let loaded = record(disk, folder, slot).and_then(|record| record.load());
    let stored = loaded.unwrap_or_else(|error| {
        tracing::warn!(%slot, error = &error as &dyn std::error::Error, "the signed files of a slot are lost");
        None
    });
    floor_in(&StoredFile::files(stored.unwrap_or_default()), image)
}

/// Returns the floor that `files` name for `image`, if they verify.
pub fn floor_in(files: &[File], image: &Image) -> u64 {
    let Ok(trusted) = Trusted::restore(files) else { return 0 };
    let Some(release) = trusted.release() else { return 0 };
    let named = release.content.iter().filter(|(path, artifact)| {
        let target = release.meta.targets.get(*path);
        artifact.rc == image.rc
            && artifact.root == image.root
            && target.is_some_and(|t| t.length == image.length && t.sha256() == Some(image.sha256))
    });
    named.map(|(_, artifact)| artifact.floor).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::SigningKey;
    use serde_json::Value;
    use tern_protocol::digest::Digest;
    use tern_protocol::tuf::build::{self, DelegatedKeys, Keys, Named, RootKeys};
    use tern_protocol::tuf::content::{ArtifactContent, TargetsContent};
    use tern_protocol::tuf::key::P256Signer;
    use tern_protocol::tuf::{Signer, sign};

    use super::*;

    fn key(byte: u8) -> P256Signer {
        P256Signer::new(SigningKey::from_slice(&[byte; 32]).unwrap())
    }

    fn image() -> Image {
        let (sha256, root) = (Digest::of(b"image"), Digest::of(b"root"));
        Image { rc: 9, version: "9.0".into(), length: 1000, sha256, root }
    }

    /// Files that approve [`image`] with floor 7; release is signed by the key of this byte.
    fn files(release_key: u8) -> Vec<File> {
        let one = |byte: u8| Keys::one(key(byte).public());
        let root = RootKeys { root: one(1), timestamp: one(2), snapshot: one(3), targets: one(4) };
        let delegated = DelegatedKeys { release: one(5), rollout: one(6), halt: one(7) };
        let product = "cam".parse().unwrap();
        let models = vec!["b3".parse().unwrap()];
        let content =
            ArtifactContent { floor: 7, ..ArtifactContent::new(9, "9.0", "rootfs", models, image().root) };
        let named = Named { path: "cam/9/rootfs".into(), length: 1000, sha256: image().sha256 };
        let signed = |role: Role, value: Value, byte: u8| File {
            role,
            bytes: sign::sign(value, &[&key(byte)]).unwrap(),
        };
        let later = 2_000_000_000;
        let targets = build::targets(1, later, &product, &delegated, &TargetsContent::default());
        vec![
            signed(Role::Root, build::root(1, later, &root), 1),
            signed(Role::Targets, targets, 4),
            signed(Role::Release, build::release(1, later, &[(named, content)]), release_key),
        ]
    }

    #[test]
    fn the_floor_that_was_signed_with_an_image_is_found_beside_its_slot() {
        let folder = tempfile::tempdir().unwrap();

        let disk = crate::storage::system();
        keep(&disk, folder.path(), SlotName::A, &files(5)).unwrap();

        assert_eq!(floor(&disk, folder.path(), SlotName::A, &image()), 7);
        assert_eq!(floor(&disk, folder.path(), SlotName::B, &image()), 0);
    }

    #[test]
    fn a_file_that_nobody_vouches_for_or_that_names_another_image_says_nothing() {
        assert_eq!(floor_in(&files(5), &image()), 7);

        assert_eq!(floor_in(&files(6), &image()), 0);
        assert_eq!(floor_in(&files(5)[1..], &image()), 0);
        for other in [
            Image { rc: 8, ..image() },
            Image { length: 999, ..image() },
            Image { sha256: Digest::of(b"other"), ..image() },
            Image { root: Digest::of(b"other"), ..image() },
        ] {
            assert_eq!(floor_in(&files(5), &other), 0, "{other:?}");
        }
    }
}
