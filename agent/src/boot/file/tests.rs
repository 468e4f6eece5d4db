use tern_protocol::chunk;
use tern_protocol::digest::Digest;

use super::*;
use crate::boot::Trial;
use crate::slot::Slots as _;
use crate::slot::file::FileSlots;

const IMAGE: &[u8] = b"release one";

struct Device {
    folder: tempfile::TempDir,
    runtime: tempfile::TempDir,
}

impl Device {
    fn blank() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), runtime: tempfile::tempdir().unwrap() }
    }

    fn provisioned() -> Self {
        let device = Self::blank();
        device.provision(image(1, IMAGE)).unwrap();
        device
    }

    fn provision(&self, image: Image) -> Result<(), BootError> {
        let path = self.runtime.path().join("first.img");
        fs::write(&path, IMAGE).unwrap();
        let result = FileBoot::provision(self.folder.path(), &path, image);
        fs::remove_file(path).unwrap();
        result
    }

    fn start(&self) -> Result<FileBoot, BootError> {
        self.start_at(100, "kernel-1")
    }

    fn start_at(&self, seconds: u64, kernel: &str) -> Result<FileBoot, BootError> {
        let now = Duration::from_secs(seconds);
        FileBoot::start_at(
            &storage::system(),
            self.folder.path(),
            self.runtime.path(),
            now,
            Some(kernel.into()),
        )
    }

    /// Installs release 2 into slot b and has it boot on trial.
    fn arm(&self, boot: &mut FileBoot, tries_left: u8) {
        let bytes = b"release two";
        let mut slots = FileSlots::open(self.folder.path(), 1000, SlotName::A).unwrap();
        slots.mark_bad(SlotName::B).unwrap();
        slots.write(SlotName::B, 0, bytes).unwrap();
        slots.hash(SlotName::B, bytes.len() as u64).unwrap();
        slots.set_label(SlotName::B, image(2, bytes)).unwrap();
        let trial = Some(Trial { slot: SlotName::B, rc: 2, tries_left });
        boot.write(&BootRecord { active: SlotName::A, trial }).unwrap();
    }
}

fn image(rc: u64, bytes: &[u8]) -> Image {
    let root = chunk::root(&[chunk::leaf(bytes)]);
    Image { rc, version: format!("1.{rc}"), length: bytes.len() as u64, sha256: Digest::of(bytes), root }
}

fn slot(boot: &FileBoot) -> SlotName {
    boot.booted().unwrap().slot
}

#[test]
fn a_provisioned_device_boots_slot_a() {
    let device = Device::provisioned();

    let boot = device.start().unwrap();

    assert_eq!(slot(&boot), SlotName::A);
    assert_eq!(boot.record().unwrap(), BootRecord { active: SlotName::A, trial: None });
}

#[test]
fn an_agent_restart_is_not_a_boot() {
    let device = Device::provisioned();
    let first = device.start_at(100, "kernel-1").unwrap().booted().unwrap();

    let second = device.start_at(160, "kernel-1").unwrap().booted().unwrap();

    assert_eq!(second, first);
    assert_eq!(second.uptime(Duration::from_secs(160)), Duration::from_secs(60));
}

#[test]
fn a_reboot_an_older_clock_or_another_kernel_is_a_boot() {
    let device = Device::provisioned();
    let mut boot = device.start_at(100, "kernel-1").unwrap();
    let mut ids = vec![boot.booted().unwrap().boot_id];

    boot.reboot().unwrap();
    boot.reboot().unwrap();
    for (seconds, kernel) in [(101, "kernel-1"), (99, "kernel-1"), (200, "kernel-2")] {
        let boot = device.start_at(seconds, kernel).unwrap();
        assert_eq!(boot.booted().unwrap().powered_on_at, Duration::from_secs(seconds));
        ids.push(boot.booted().unwrap().boot_id);
    }

    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_trial_uses_up_its_tries_by_power_cycles_and_not_by_agent_restarts() {
    let device = Device::provisioned();
    let mut boot = device.start().unwrap();
    device.arm(&mut boot, 2);
    let mut booted = Vec::new();

    for _ in 0..4 {
        boot.reboot().unwrap();
        boot = device.start().unwrap();
        boot = device.start().unwrap_or(boot);
        booted.push(slot(&boot));
    }

    assert_eq!(booted, [SlotName::B, SlotName::B, SlotName::A, SlotName::A]);
}

#[test]
fn a_confirmed_trial_stays() {
    let device = Device::provisioned();
    let mut boot = device.start().unwrap();
    device.arm(&mut boot, 1);
    boot.reboot().unwrap();
    let mut boot = device.start().unwrap();

    boot.write(&BootRecord { active: SlotName::B, trial: None }).unwrap();

    for _ in 0..3 {
        boot.reboot().unwrap();
        boot = device.start().unwrap();
        assert_eq!(slot(&boot), SlotName::B);
    }
}

#[test]
fn a_trial_whose_bytes_changed_does_not_boot() {
    let device = Device::provisioned();
    let mut boot = device.start().unwrap();
    device.arm(&mut boot, 2);
    fs::write(device.folder.path().join("b.img"), b"release TWO").unwrap();
    boot.reboot().unwrap();

    let boot = device.start().unwrap();

    assert_eq!(slot(&boot), SlotName::A);
    assert_eq!(boot.record().unwrap().trial.unwrap().tries_left, 0);
}

#[test]
fn with_nothing_to_boot_the_device_asks_for_recovery_every_time() {
    let device = Device::provisioned();
    fs::write(device.folder.path().join("a.img"), b"rotten").unwrap();

    for _ in 0..2 {
        let error = device.start().unwrap_err();
        assert!(error.to_string().contains("recovery needed"), "{error}");
    }
}

#[test]
fn a_device_is_provisioned_once_and_only_with_the_image_that_was_named() {
    let device = Device::blank();
    assert!(matches!(device.start(), Err(BootError::NotProvisioned)));
    assert!(matches!(device.provision(image(1, b"another image")), Err(BootError::Slot(_))));
    assert!(matches!(device.start(), Err(BootError::NotProvisioned)));

    device.provision(image(1, IMAGE)).unwrap();

    assert!(matches!(device.provision(image(1, IMAGE)), Err(BootError::AlreadyProvisioned)));
}

#[test]
fn a_damaged_marker_is_a_power_on() {
    let device = Device::provisioned();
    let first = device.start().unwrap().booted().unwrap();
    fs::write(device.runtime.path().join(MARKER), b"{").unwrap();

    let second = device.start().unwrap().booted().unwrap();

    assert_ne!(second.boot_id, first.boot_id);
}

#[test]
fn this_machine_can_be_started_on() {
    let device = Device::provisioned();

    let first = FileBoot::start(device.folder.path(), device.runtime.path()).unwrap();
    let second = FileBoot::start(device.folder.path(), device.runtime.path()).unwrap();

    assert_eq!(first.booted().unwrap(), second.booted().unwrap());
}

#[test]
fn an_empty_image_is_refused_and_the_device_can_still_be_provisioned() {
    let device = Device::blank();
    let empty = device.runtime.path().join("empty.img");
    fs::write(&empty, b"").unwrap();

    let result = FileBoot::provision(device.folder.path(), &empty, image(1, b""));

    assert!(matches!(result, Err(BootError::EmptyImage)), "{result:?}");
    assert_eq!(fs::read_dir(device.folder.path()).unwrap().count(), 0);
    device.provision(image(1, IMAGE)).unwrap();
}

#[test]
fn an_agent_that_was_never_provisioned_says_so_also_before_the_folder_of_the_slots_is_there() {
    let home = tempfile::tempdir().unwrap();
    let start = |folder: &Path| FileBoot::start(folder, home.path());

    let missing = start(&home.path().join("slots")).unwrap_err();
    let no_folder = home.path().join("file");
    fs::write(&no_folder, b"").unwrap();

    assert!(matches!(missing, BootError::NotProvisioned), "{missing:?}");
    assert!(missing.to_string().contains("tern-agent provision"));
    // The control: another reason keeps its own words.
    assert!(matches!(start(&no_folder), Err(BootError::Record(_))));
}
