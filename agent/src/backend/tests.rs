use std::fs;
use std::path::PathBuf;

use tern_protocol::chunk::{RootHasher, root};
use tern_protocol::digest::Digest;
use tern_protocol::offer::Artifact;

use super::*;
use crate::boot::Trial;
use crate::boot::uboot::UbootConfig;
use crate::boot::uboot::environment::Environment;
use crate::boot::uboot::medium::{Location, Medium};
use crate::config::SlotsConfig;
use crate::core::agent::Done;
use crate::device::Device;
use crate::slot::SlotLabel;

const SIZE: usize = 0x2000;

/// A device with U-Boot, whose environment and slots are files.
struct Board {
    folder: tempfile::TempDir,
    config: Config,
}

impl Board {
    fn blank(raw: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut environment = Environment::default();
        environment.set("bootcmd", Some("run tern"));
        let copy = environment.encode(1, SIZE).unwrap();
        fs::write(path("env"), [copy.clone(), copy].concat()).unwrap();
        fs::create_dir(path("slots")).unwrap();
        for slot in ["a.part", "b.part"] {
            fs::write(path(slot), vec![0xee; 200_000]).unwrap();
        }
        let text = format!(
            "fleet = 'acme'\ndevice = 'r-1'\nproduct = 'ap'\nmodel = 'm1'\nregion = 'eu'\n\
             brokers = ['mqtt://localhost']\nslots = {{ capacity = 150000 }}\ndata_dir = '{0}/data'\nruntime_dir = '{0}/run'",
            folder.path().display()
        );
        fs::write(path("agent.toml"), text).unwrap();
        let mut config = Config::load(&path("agent.toml")).unwrap();
        let copies = [0, SIZE as u64].map(|offset| Location { path: path("env"), offset });
        config.boot = BootConfig::Uboot(UbootConfig {
            medium: Medium { copies, size: SIZE, lock: path("lock") },
            cmdline: path("cmdline"),
            boot_id: path("boot_id"),
            reboot: vec!["/bin/true".into()],
        });
        config.slots.dir = path("slots");
        config.slots.paths = raw.then(|| [path("a.part"), path("b.part")]);
        let board = Self { folder, config };
        board.boots("a");
        board
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn boots(&self, slot: &str) {
        fs::write(self.path("cmdline"), format!("tern.slot={slot}")).unwrap();
        fs::write(self.path("boot_id"), slot).unwrap();
    }

    fn provision(&self, bytes: &[u8]) -> Result<(), BootError> {
        fs::write(self.path("first.img"), bytes).unwrap();
        provision(&self.config, &self.path("first.img"), image(1, bytes))
    }
}

fn image(rc: u64, bytes: &[u8]) -> Image {
    let mut leaves = RootHasher::default();
    leaves.update(bytes);
    let (sha256, root) = (Digest::of(bytes), root(&leaves.finish()));
    Image { rc, version: format!("{rc}.0"), length: bytes.len() as u64, sha256, root }
}

#[test]
fn a_device_with_u_boot_is_provisioned_once_into_either_kind_of_slot() {
    for raw in [false, true] {
        let board = Board::blank(raw);
        assert_eq!(record(&board.config).unwrap(), None);
        assert!(matches!(board.provision(b""), Err(BootError::EmptyImage)));

        board.provision(b"release one").unwrap();

        assert_eq!(record(&board.config).unwrap(), Some(BootRecord { active: SlotName::A, trial: None }));
        let slots = slots(&board.config, &crate::storage::system(), SlotName::A).unwrap();
        assert_eq!(slots.label(SlotName::A).unwrap(), SlotLabel::Holds(image(1, b"release one")));
        assert!(fs::read(slots.path(SlotName::A)).unwrap().starts_with(b"release one"));
        assert!(matches!(board.provision(b"release two"), Err(BootError::AlreadyProvisioned)));
    }
}

/// A device that ran before may run from the slot that provisioning would fill.
#[test]
fn a_record_that_is_lost_is_no_reason_to_fill_a_slot_with_something_else() {
    let board = Board::blank(false);
    board.provision(b"release one").unwrap();
    let BootConfig::Uboot(uboot) = &board.config.boot else { panic!("a board with U-Boot") };
    let lost = |environment: &mut Environment| environment.set("tern_active", None);
    uboot.medium.change(&*crate::storage::system(), lost).unwrap();

    let refused = board.provision(b"release two").unwrap_err();

    assert!(matches!(refused, BootError::RecordLost { slot: SlotName::A, rc: 1, .. }), "{refused:?}");
    assert!(fs::read(board.path("slots/a.img")).unwrap().starts_with(b"release one"));
    board.provision(b"release one").unwrap();
    assert_eq!(record(&board.config).unwrap(), Some(BootRecord { active: SlotName::A, trial: None }));
}

#[test]
fn a_slot_that_may_not_be_written_leaves_the_device_without_a_record() {
    let board = Board::blank(true);
    fs::write(board.path("a.part"), b"small").unwrap();

    let result = board.provision(b"release one");

    assert!(matches!(result, Err(BootError::Slot(SlotError::Unfit { .. }))), "{result:?}");
    assert_eq!(record(&board.config).unwrap(), None);
}

#[test]
fn a_device_arms_confirms_and_disarms_through_the_environment() {
    let board = Board::blank(true);
    board.provision(b"release one").unwrap();
    let mut device = Device::open(&board.config).unwrap();
    assert!(device.goes_down());
    let facts = device.facts().unwrap();
    assert_eq!((facts.slot, facts.running, facts.trial), (SlotName::A, 1, None));

    assert_eq!(device.mark_bad(SlotName::B), Done::Ok);
    device.write(SlotName::B, 0, b"release two");
    assert_eq!(device.sync(SlotName::B), Done::Ok);
    let refused = device.arm(SlotName::B, 2);
    assert!(matches!(&refused, Done::Failed(why) if why.contains("does not hold")), "{refused:?}");
    let image = crate::slot::testing::image(2, b"release two");
    let artifact = Artifact::new("rootfs", image.length, image.sha256, image.root);
    assert_eq!(device.hash(SlotName::B, artifact, 2, "1.2".into(), Vec::new())(), Done::Ok);
    assert_eq!(device.arm(SlotName::B, 2), Done::Ok);

    let trial = Some(Trial { slot: SlotName::B, rc: 2, tries_left: 2 });
    assert_eq!(record(&board.config).unwrap(), Some(BootRecord { active: SlotName::A, trial }));
    assert_eq!(device.reboot(), Done::Ok);
    drop(device);
    board.boots("b");
    let mut device = Device::open(&board.config).unwrap();
    assert_eq!(device.facts().unwrap().trial, Some(SlotName::B));
    assert_eq!(device.confirm(SlotName::B), Done::Ok);
    assert_eq!(record(&board.config).unwrap(), Some(BootRecord { active: SlotName::B, trial: None }));
    assert_eq!(device.disarm(), Done::Ok);
}

#[test]
fn a_copy_of_the_boot_record_on_a_slot_is_refused_under_any_name() {
    let refused = |change: fn(&Board, &mut Medium, &mut SlotsConfig)| {
        let mut board = Board::blank(true);
        for (name, of) in [("env-again", "env"), ("a-again", "a.part")] {
            std::os::unix::fs::symlink(board.path(of), board.path(name)).unwrap();
        }
        fs::hard_link(board.path("env"), board.path("env-hard")).unwrap();
        let (BootConfig::Uboot(mut uboot), mut slots) =
            (board.config.boot.clone(), board.config.slots.clone())
        else {
            unreachable!("a board has U-Boot");
        };
        change(&board, &mut uboot.medium, &mut slots);
        (board.config.boot, board.config.slots) = (BootConfig::Uboot(uboot), slots);
        let said =
            [board.provision(b"release one").err(), boot(&board.config, &crate::storage::system()).err()];
        said.map(|error| error.map(|error| error.to_string()).unwrap_or_default())
    };

    for said in [
        refused(|board, medium, _| medium.copies[1].path = board.path("a-again")),
        refused(|board, _, slots| slots.paths = Some([board.path("env-hard"), board.path("b.part")])),
        refused(|board, _, slots| (slots.paths, slots.system) = (None, Some(board.path("env-again")))),
    ] {
        assert!(said.iter().all(|said| said.contains("a partition of its own")), "{said:?}");
    }
    for said in [
        refused(|board, medium, _| medium.copies[1] = Location { path: board.path("env-again"), offset: 1 }),
        refused(|board, medium, _| medium.copies[1] = Location { path: board.path("env-hard"), offset: 1 }),
    ] {
        assert!(said.iter().all(|said| said.contains("two names of one place")), "{said:?}");
    }
    // The controls: two names whose copies lie apart, and what is not there.
    for said in [
        refused(|board, medium, _| medium.copies[1].path = board.path("env-again")),
        refused(|board, _, slots| slots.paths = Some([board.path("a.part"), board.path("nowhere")])),
    ] {
        assert_eq!(said, ["", ""]);
    }
}

/// On trial, after a rollback's disarming, and where a person chose at the boot loader.
#[test]
fn the_confirmed_slot_is_not_written_while_another_runs() {
    let board = Board::blank(true);
    board.provision(b"release one").unwrap();
    board.boots("b");
    let mut device = Device::open(&board.config).unwrap();

    let refused = device.mark_bad(SlotName::A);

    assert!(matches!(&refused, Done::Failed(why) if why.contains("is the confirmed one")), "{refused:?}");
    assert!(fs::read(board.path("a.part")).unwrap().starts_with(b"release one"));
    assert_eq!(device.confirm(SlotName::B), Done::Ok);
    assert_eq!(device.mark_bad(SlotName::A), Done::Ok, "the control");
}

/// Every mounted file system of this machine that is on a device with a name stands for a slot.
#[test]
fn entries_on_the_file_system_of_a_slot_are_refused() {
    let none = SlotsConfig { dir: "/x".into(), capacity: 1, paths: None, system: None };
    assert_eq!(apart::check_entries(&storage::system::System, &none, Path::new("/")), Ok(()));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ').map(PathBuf::from);
        let (Some(device), Some(folder)) = (words.next(), words.next()) else { continue };
        let Ok(number) = fs::metadata(&device).map(|found| std::os::unix::fs::MetadataExt::rdev(&found))
        else {
            continue;
        };
        let Ok(on) = fs::metadata(&folder).map(|found| std::os::unix::fs::MetadataExt::dev(&found)) else {
            continue;
        };
        let slots = SlotsConfig { paths: Some([device.clone(), device]), ..none.clone() };

        let refused = apart::check_entries(&storage::system::System, &slots, &folder).is_err();

        assert_eq!(refused, number != 0 && number == on, "{line}");
    }
}
