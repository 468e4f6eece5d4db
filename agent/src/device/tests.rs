//! A hash that nobody waits for any more, on a disk that answers when it is told to.

use std::any::Any;
use std::fs;
use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use tern_protocol::limits::CHUNK;
use tern_protocol::offer::Artifact;

use super::*;
use crate::boot::uboot::environment::Environment;
use crate::storage::system::System;
use crate::storage::{Access, Found, Opened, Rights, Storage, Use};

/// Says when a chunk of slot b is asked for, and gives it when it is told to.
#[derive(Debug)]
struct Gate {
    asked: Sender<u64>,
    may: Mutex<Receiver<()>>,
}

#[derive(Debug, Clone)]
struct SlowDisk(Arc<Gate>);

struct Slow(Arc<Gate>, Box<dyn Opened>);

impl Storage for SlowDisk {
    fn look(&self, path: &Path) -> io::Result<Found> {
        System.look(path)
    }
    fn use_of(&self, path: &Path, found: &Found) -> io::Result<Option<Use>> {
        System.use_of(path, found)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Opened>> {
        let file = System.open(path, access)?;
        let is_slow = access == Access::Read && path.ends_with("b.img");
        Ok(if is_slow { Box::new(Slow(Arc::clone(&self.0), file)) } else { file })
    }
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        System.create_folder(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        System.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        System.sync_folder(folder)
    }
    fn list(&self, folder: &Path, most: usize) -> io::Result<Vec<std::ffi::OsString>> {
        System.list(folder, most)
    }
    fn lock(&self, path: &Path, mode: u32) -> io::Result<Box<dyn Any + Send>> {
        System.lock(path, mode)
    }
}

impl Opened for Slow {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let _test_is_over = self.0.asked.send(offset / CHUNK as u64);
        let _test_is_over = self.0.may.lock().unwrap().recv();
        self.1.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.sync()
    }
    fn size(&self) -> io::Result<u64> {
        self.1.size()
    }
    fn set_size(&self, size: u64) -> io::Result<()> {
        self.1.set_size(size)
    }
    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.1.set_mode(mode)
    }
    fn rights(&self) -> io::Result<Rights> {
        self.1.rights()
    }
    fn set_rights(&self, rights: &Rights) -> io::Result<()> {
        self.1.set_rights(rights)
    }
    fn drop_cache(&self) -> io::Result<()> {
        self.1.drop_cache()
    }
    fn found(&self) -> io::Result<Found> {
        self.1.found()
    }
}

/// Slot b holds four chunks, and its hash has come to the third; returns what to do about that.
struct Scene {
    device: Device,
    asked: Receiver<u64>,
    may: Sender<()>,
    hash: std::thread::JoinHandle<Done>,
    _folder: tempfile::TempDir,
}

fn hashing() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = format!(
        "fleet = 'acme'\ndevice = 'r-1'\nproduct = 'ap'\nmodel = 'm1'\nregion = 'eu'\n\
         brokers = ['mqtt://localhost']\nslots = {{ capacity = 400000 }}\ndata_dir = '{0}/data'\nruntime_dir = '{0}/run'",
        folder.path().display()
    );
    fs::write(path("agent.toml"), text).unwrap();
    let config = Config::load(&path("agent.toml")).unwrap();
    fs::create_dir_all(&config.slots.dir).unwrap();
    fs::write(path("1.img"), b"release one").unwrap();
    backend::provision(&config, &path("1.img"), crate::slot::testing::image(1, b"release one")).unwrap();
    let (asked, asks) = channel();
    let (may, allowed) = channel();
    let disk: Disk = Arc::new(SlowDisk(Arc::new(Gate { asked, may: Mutex::new(allowed) })));
    let mut device = Device::on(&disk, &config).unwrap();
    let bytes = vec![7; 4 * CHUNK];
    assert_eq!(device.mark_bad(SlotName::B), Done::Ok);
    device.write(SlotName::B, 0, &bytes);
    assert_eq!(device.sync(SlotName::B), Done::Ok);
    let image = crate::slot::testing::image(2, &bytes);
    let artifact = Artifact::new("rootfs", image.length, image.sha256, image.root);
    let hash = device.hash(SlotName::B, artifact, 2, "2.0".into(), Vec::new());
    let hash = std::thread::spawn(hash);
    for chunk in 0..2 {
        assert_eq!(asks.recv().unwrap(), chunk);
        may.send(()).unwrap();
    }
    assert_eq!(asks.recv().unwrap(), 2);
    Scene { device, asked: asks, may, hash, _folder: folder }
}

#[test]
fn a_hash_that_nobody_waits_for_holds_the_slots_for_the_chunk_that_it_reads_and_no_longer() {
    let mut scene = hashing();

    scene.device.stop_hashing();
    // From here on whatever is asked for is given: a hash that went on would be seen to.
    drop(scene.may);
    // The loop's next job.
    assert_eq!(scene.device.mark_bad(SlotName::B), Done::Ok);

    assert!(matches!(scene.hash.join().unwrap(), Done::Failed(why) if why.contains("not read to its end")));
    assert_eq!(scene.asked.try_iter().count(), 0, "it asked for one more");
    assert_eq!(scene.device.slots().label(SlotName::B).unwrap(), SlotLabel::Bad);
}

#[test]
fn another_hash_ends_the_one_before_it() {
    let mut scene = hashing();

    let bytes = vec![7; 4 * CHUNK];
    let image = crate::slot::testing::image(3, &bytes);
    let artifact = Artifact::new("rootfs", image.length, image.sha256, image.root);
    let again = scene.device.hash(SlotName::B, artifact, 3, "3.0".into(), Vec::new());
    scene.may.send(()).unwrap();

    assert!(matches!(scene.hash.join().unwrap(), Done::Failed(_)));
    (0..4).for_each(|_| scene.may.send(()).unwrap());
    assert_eq!(again(), Done::Ok);
    assert_eq!(scene.asked.try_iter().collect::<Vec<_>>()[..4], [0, 1, 2, 3]);
}

#[test]
fn a_hash_that_is_waited_for_reads_to_the_end_and_labels() {
    let scene = hashing();

    (0..8).for_each(|_| scene.may.send(()).unwrap());

    assert_eq!(scene.hash.join().unwrap(), Done::Ok);
    assert!(
        matches!(scene.device.slots().label(SlotName::B).unwrap(), SlotLabel::Holds(image) if image.rc == 2)
    );
}

/// A device of this configuration with release 1 in slot a.
fn provisioned(sections: &str) -> (Device, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let copy = Environment::default().encode(1, COPY).unwrap();
    fs::write(path("environment"), [copy.clone(), copy].concat()).unwrap();
    fs::write(path("cmdline"), "quiet tern.slot=a").unwrap();
    fs::write(path("boot_id"), "first").unwrap();
    ["a.img", "b.img"].iter().for_each(|name| fs::write(path(name), vec![0; 400_000]).unwrap());
    let dir = folder.path().display().to_string();
    let text = format!(
        "fleet = 'acme'\ndevice = 'r-1'\nproduct = 'ap'\nmodel = 'm1'\nregion = 'eu'\n\
         brokers = ['mqtt://localhost']\ndata_dir = '{{dir}}/data'\nruntime_dir = '{{dir}}/run'\n{sections}"
    );
    fs::write(path("agent.toml"), text.replace("{dir}", &dir)).unwrap();
    let config = Config::load(&path("agent.toml")).unwrap();
    fs::create_dir_all(&config.slots.dir).unwrap();
    fs::write(path("1.img"), b"release one").unwrap();
    backend::provision(&config, &path("1.img"), crate::slot::testing::image(1, b"release one")).unwrap();
    (Device::open(&config).unwrap(), folder)
}

/// Bytes of a copy of U-Boot's environment.
const COPY: usize = 0x2000;
const FILES: &str = "slots = { capacity = 400000 }\n";
const PARTITIONS: &str = "[slots]\ncapacity = 400000\na = '{dir}/a.img'\nb = '{dir}/b.img'\n\
    [boot]\nkind = 'uboot'\nlock = '{dir}/lock'\ncmdline = '{dir}/cmdline'\nboot_id = '{dir}/boot_id'\n\
    copies = [{ path = '{dir}/environment', offset = 0, size = 8192 }, { path = '{dir}/environment', offset = 8192, size = 8192 }]\n";

#[test]
fn what_a_label_says_is_what_is_known_of_a_slot() {
    let image = |bytes: &[u8]| crate::slot::testing::image(2, bytes);
    let whole = |bytes: &[u8]| Content::Whole(Held { root: image(bytes).root, length: bytes.len() as u64 });
    let first = whole(b"release one");
    for sections in [FILES, PARTITIONS] {
        let (mut device, _folder) = provisioned(sections);
        let contents = |device: &Device| device.facts().unwrap().contents;

        // Never written.
        let facts = device.facts().unwrap();
        assert_eq!(facts.contents, [first, Content::Unknown], "{sections}");
        assert_eq!((facts.running, facts.running_version.as_str(), facts.capacity), (1, "1.1", 400_000));

        assert_eq!(device.mark_bad(SlotName::B), Done::Ok);
        assert_eq!(contents(&device), [first, Content::Bad], "{sections}");

        device.write(SlotName::B, 0, b"two");
        assert_eq!(device.sync(SlotName::B), Done::Ok);
        let artifact = Artifact::new("rootfs", 3, image(b"two").sha256, image(b"two").root);
        assert_eq!(device.hash(SlotName::B, artifact, 2, "2.0".into(), Vec::new())(), Done::Ok);
        assert_eq!(contents(&device), [first, whole(b"two")], "{sections}");
    }
}

/// The boot loader looks at no label, so the slot runs all the same; only what is in it is not known any more.
#[test]
fn a_lost_label_of_a_slot_that_is_kept_makes_it_unknown_and_not_bad() {
    let (device, folder) = provisioned(PARTITIONS);
    for slot in ["a", "b"] {
        for copy in 0..2 {
            fs::write(folder.path().join(format!("data/slots/{slot}.label.{copy}")), "damaged").unwrap();
        }
    }

    let facts = device.facts().unwrap();

    assert_eq!(facts.contents, [Content::Unknown, Content::Bad]);
    assert_eq!((facts.running, facts.running_version.as_str()), (0, ""));
}
