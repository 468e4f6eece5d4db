//! Copying an image's files, and those of the deltas that lead to it, to where a web server or an object store takes them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tern_protocol::digest::Digest;
use tern_protocol::object::ObjectFile;

use super::aside::{at, sync_folder};
use super::{ChunkStore, StoreError};

/// Ends the name of a file that is being copied: no device asks for one.
const PARTIAL: &str = "partial";
/// Whoever serves the files is most often another user.
const MODE: u32 = 0o644;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Deltas whose packs are there now.
    pub deltas: u32,
    /// Files that were copied.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already.
    pub present: u32,
}

impl ChunkStore {
    /// Copies the files of an image, and of every delta that leads to it, into the folder `to`. A file is complete or absent there too,
    /// and one that is there already is left as it is: what has this name and this length is the same.
    pub fn export(&self, root: &Digest, to: &Path) -> Result<Exported, StoreError> {
        if !self.contains(root) {
            return Err(StoreError::Missing(*root));
        }
        let mut exported = Exported::default();
        // A tree before what it is over: bytes alone could not be verified.
        for file in [ObjectFile::Tree, ObjectFile::Image] {
            self.copy(file, root, to, &mut exported)?;
        }
        // Two deltas may share their packs, and the second finds them there.
        for delta in self.deltas()?.iter().filter(|delta| delta.manifest.new.root == *root) {
            for file in [ObjectFile::Tree, ObjectFile::Packs] {
                self.copy(file, &delta.manifest.root, to, &mut exported)?;
            }
            exported.deltas += 1;
        }
        Ok(exported)
    }

    fn copy(
        &self,
        file: ObjectFile,
        root: &Digest,
        to: &Path,
        exported: &mut Exported,
    ) -> Result<(), StoreError> {
        let (from, target) = (self.path(root, file.ending()), to.join(file.path(root)));
        let mut source = File::open(&from).map_err(at("open", &from))?;
        let length = source.metadata().map_err(at("look at", &from))?.len();
        if fs::metadata(&target).is_ok_and(|there| there.len() == length) {
            exported.present += 1;
            return Ok(());
        }
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(at("make", folder))?;
        let partial = target.with_extension(PARTIAL);
        let copied = File::create(&partial).and_then(|mut into| {
            let copied = io::copy(&mut source, &mut into)?;
            into.set_permissions(fs::Permissions::from_mode(MODE))?;
            into.sync_all()?;
            Ok(copied)
        });
        let copied = copied.map_err(at("write", &partial))?;
        fs::rename(&partial, &target).map_err(at("rename to", &target))?;
        sync_folder(folder)?;
        exported.files += 1;
        exported.bytes += copied;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tern_protocol::delta::signed::sign;
    use tern_protocol::delta::{DeltaManifest, ImageId, Profile};
    use tern_protocol::{chunk, digest::Digest};

    use super::*;

    /// Every file below a folder, and what is in it.
    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for below in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            for file in fs::read_dir(&below).unwrap().map(|entry| entry.unwrap().path()) {
                let name = file.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&file).unwrap());
            }
        }
        found
    }

    #[test]
    fn an_image_leaves_with_its_tree_and_the_packs_that_lead_to_it_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("store"), dir.path().join("web"));
        let store = ChunkStore::open(&from).unwrap();
        let [old, new] = [1, 2].map(|byte| store.add(&vec![byte; 100_000][..]).unwrap());
        let packs = [vec![1; 30], vec![2; 20]];
        let leaves: Vec<Digest> = packs.iter().map(|pack| chunk::leaf(pack)).collect();
        let image = |of: &super::super::ObjectInfo| ImageId { length: of.length, root: of.root };
        let manifest = DeltaManifest {
            profile: Profile::Linux,
            chunk_log2: 16,
            old: image(&old),
            new: image(&new),
            packs: 2,
            bytes: 50,
            root: chunk::root(&leaves),
        };
        let signed = sign(&manifest, &[]).unwrap();
        store.add_delta(&signed, packs.map(Ok)).unwrap();
        // Something is being written all the while.
        fs::write(from.join("incoming/other"), "half").unwrap();

        let exported = ChunkStore::beside(&from).export(&new.root, &to).unwrap();
        let again = ChunkStore::beside(&from).export(&new.root, &to).unwrap();

        let name = |file: ObjectFile, root: &Digest| {
            (file.path(root), fs::read(store.path(root, file.ending())).unwrap())
        };
        let expected = BTreeMap::from([
            name(ObjectFile::Image, &new.root),
            name(ObjectFile::Tree, &new.root),
            name(ObjectFile::Packs, &manifest.root),
            name(ObjectFile::Tree, &manifest.root),
        ]);
        assert_eq!(files(&to), expected);
        assert_eq!((exported.deltas, exported.files, exported.present), (1, 4, 0));
        assert_eq!((again.deltas, again.files, again.present), (1, 0, 4), "nothing is copied twice");
        assert!(from.join("incoming/other").exists(), "what another process writes is left alone");
        let mode = fs::metadata(to.join(ObjectFile::Image.path(&new.root))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn a_copy_that_ended_half_way_is_made_again_and_an_image_that_is_not_here_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("store"), dir.path().join("web"));
        let store = ChunkStore::open(&from).unwrap();
        let image = store.add(&vec![3; 70_000][..]).unwrap();
        let path = to.join(ObjectFile::Image.path(&image.root));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "half").unwrap();

        store.export(&image.root, &to).unwrap();

        assert_eq!(fs::read(&path).unwrap(), vec![3; 70_000]);
        let missing = store.export(&Digest([9; 32]), &to);
        assert!(matches!(missing, Err(StoreError::Missing(_))), "{missing:?}");
    }
}
