//! A device's records, read from its disk: what is true of a device whose agent is dead.

use std::path::{Path, PathBuf};

use tern_agent::boot::BootRecord;
use tern_agent::core::SlotName;
use tern_agent::core::durable::Durable;
use tern_agent::record::RecordFile;
use tern_agent::slot::file::FileSlots;
use tern_agent::slot::{Image, SlotLabel, Slots as _};
use tern_protocol::digest::Digest;

use super::LabDevice;

/// A device's records.
pub struct Records {
    journal: RecordFile<Durable>,
    boot: RecordFile<BootRecord>,
    trust: [PathBuf; 2],
    slots: PathBuf,
}

impl Records {
    /// Opens the records of a device that was provisioned.
    pub fn of(device: &LabDevice) -> Self {
        Self::in_folders(&device.dir.join("data"), &device.dir.join("slots"))
    }

    /// Opens the records in a device's data and slots folders.
    pub fn in_folders(data: &Path, slots: &Path) -> Self {
        Self {
            journal: RecordFile::open(data, "journal").expect("a data folder"),
            boot: RecordFile::open(slots, "boot").expect("a slots folder"),
            trust: ["trust.0", "trust.1"].map(|name| data.join(name)),
            slots: slots.to_owned(),
        }
    }

    /// Returns the saved journal; none before the first save.
    ///
    /// # Panics
    /// When no copy is whole.
    pub fn journal(&self) -> Option<Durable> {
        // A living agent may begin to write the copy that we read while we read the other one: look again.
        let whole = (0..100).find_map(|_| self.journal.load().ok());
        whole.expect("one copy of the journal is always whole")
    }

    /// Tells whether the saved signed files speak of this rollout.
    pub fn trusts(&self, rollout: &str) -> bool {
        let speaks = |path: &PathBuf| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).contains(rollout)
        };
        self.trust.iter().any(speaks)
    }

    /// Returns the boot record.
    ///
    /// # Panics
    /// When there is none: such a device boots nothing.
    pub fn boot(&self) -> BootRecord {
        self.boot.load().expect("a whole boot record").expect("a boot record")
    }

    /// Returns the image that a slot claims to hold.
    pub fn claim(&self, slot: SlotName) -> Option<Image> {
        let slots = FileSlots::open(&self.slots, u64::MAX, slot.other()).expect("slots");
        match slots.label(slot).expect("a whole label") {
            SlotLabel::Holds(image) => Some(image),
            SlotLabel::Empty | SlotLabel::Bad => None,
        }
    }

    /// Returns the release that the confirmed slot claims.
    pub fn confirmed(&self) -> Option<u64> {
        self.claim(self.boot().active).map(|image| image.rc)
    }

    /// Compares what the slots claim with the bytes in them and with what was published; `published` gives the
    /// digest of a release's image. Says what is wrong.
    pub fn false_claims(&self, published: impl Fn(u64) -> Option<Digest>) -> Vec<String> {
        let mut wrong = Vec::new();
        for slot in SlotName::BOTH {
            let Some(image) = self.claim(slot) else { continue };
            let bytes = std::fs::read(self.slots.join(format!("{slot}.img"))).unwrap_or_default();
            let found = Digest::of(&bytes);
            if bytes.len() as u64 != image.length || found != image.sha256 {
                wrong.push(format!("slot {slot} claims release {} and holds something else", image.rc));
            }
            if published(image.rc) != Some(image.sha256) {
                wrong.push(format!("slot {slot} claims release {}, which was never published so", image.rc));
            }
        }
        if self.confirmed().is_none() {
            wrong.push(format!("the confirmed slot {} claims nothing", self.boot().active));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_agent::boot::file::FileBoot;
    use tern_protocol::chunk::{RootHasher, root};

    #[test]
    fn a_slot_that_claims_what_it_does_not_hold_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, path) = (vec![7; 100_000], dir.path().join("image"));
        std::fs::write(&path, &bytes).unwrap();
        let mut leaves = RootHasher::default();
        leaves.update(&bytes);
        let (sha256, root) = (Digest::of(&bytes), root(&leaves.finish()));
        let image = Image { rc: 1, version: "1".into(), length: bytes.len() as u64, sha256, root };
        FileBoot::provision(dir.path(), &path, image).unwrap();
        let records = Records::in_folders(dir.path(), dir.path());
        let published = |rc| (rc == 1).then_some(sha256);

        assert_eq!(records.false_claims(published), Vec::<String>::new());
        assert_eq!(records.false_claims(|_| None).len(), 1);
        let slot = dir.path().join("a.img");
        std::fs::write(&slot, [&bytes[..99_999], &[8]].concat()).unwrap();
        assert_eq!(records.false_claims(published).len(), 1);
        std::fs::write(&slot, [&bytes[..], &[7]].concat()).unwrap();
        assert_eq!(records.false_claims(published).len(), 1);
    }
}
