//! Kinds of devices: one whose boot loader is made of files, those with U-Boot and partitions, and one with systemd-boot.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tern_agent::backend;
use tern_agent::boot::systemd_boot::SystemdBootConfig;
use tern_agent::boot::uboot::UbootConfig;
use tern_agent::boot::uboot::environment::{Environment, newest};
use tern_agent::boot::uboot::variables;
use tern_agent::boot::{BootError, choose};
use tern_agent::config::{BootConfig, Config};
use tern_agent::core::SlotName;
use tern_agent::recovery::{self, Recovered, RecoveryError, Remedy};
use tern_agent::storage::{self, Access, Disk, Storage as _};

use super::disk::FakeDisk;
use super::service::{Release, Service};
use super::systemd_boot;

/// Bytes of a slot.
pub const CAPACITY: usize = 4 * 65_536;
const PARTITIONS: [&str; 2] = ["/dev/slot-a", "/dev/slot-b"];
const SYSTEM: &str = "/dev/system";
pub(super) const ENVIRONMENT: &str = "/dev/environment";
const LOADER: &str = "/boot/loader";
const TEMPLATES: &str = "/etc/tern/entries";
/// Boots of a kernel that panics, before somebody looks at the device.
const PANICS: u32 = 8;
pub(super) const COPY: usize = 8192;
pub(super) const SECOND: u64 = 65_536;
/// Components beside the slots: one of them is there from the factory.
pub const COMPONENTS: [&str; 2] = ["modem", "app"];
const APPS: &str = "/opt";
/// What the factory has put into the first of them.
const FACTORY: &[u8] = b"the factory's own";
/// Tries of a recovery system in one boot.
const RECOVERIES: u32 = 20;

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Slots and boot record are files, and the agent boots.
    Files,
    /// Slots are partitions, and the boot record is in U-Boot's environment.
    Uboot,
    /// One partition, filled by recovery from packages that are files; the boot record is in U-Boot's environment.
    Single,
    /// Slots are partitions, and the boot record is in the entries of systemd-boot.
    SystemdBoot,
}

/// A device's configuration.
#[derive(Debug)]
pub struct Board {
    /// Which kind.
    pub kind: Kind,
    /// As the agent reads it.
    pub config: Config,
    capacity: usize,
    folder: tempfile::TempDir,
}

/// Why a device does not come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoBoot {
    /// The power failed while it did.
    Cut,
    /// Nothing boots any more.
    Stranded(String),
}

impl Board {
    /// Describes a device.
    pub fn new(kind: Kind, service: &Service) -> Arc<Self> {
        Self::with_capacity(kind, service, CAPACITY)
    }

    /// The same with slots of `capacity` bytes.
    pub fn with_capacity(kind: Kind, service: &Service, capacity: usize) -> Arc<Self> {
        let folder = tempfile::tempdir().expect("a folder for a configuration");
        let root = folder.path().join("root.json");
        let trust = service.trust();
        let bytes = trust.file(tern_protocol::tuf::Role::Root).expect("a root").to_vec();
        std::fs::write(&root, bytes).expect("a root file");
        let slots = match kind {
            Kind::Single => format!("system = {SYSTEM:?}\n"),
            _ => format!("a = {:?}\nb = {:?}\n", PARTITIONS[0], PARTITIONS[1]),
        };
        let boot = match kind {
            Kind::Files | Kind::SystemdBoot => String::new(),
            Kind::Uboot | Kind::Single => format!(
                "{slots}[boot]\nkind = \"uboot\"\nlock = \"/run/lock\"\nreboot = [\"/bin/true\"]\ncopies = [\n\
                 {{ path = {ENVIRONMENT:?}, offset = 0, size = {COPY} }},\n\
                 {{ path = {ENVIRONMENT:?}, offset = {SECOND}, size = {COPY} }},\n]\n",
            ),
        };
        let component = |name: &str| {
            format!(
                "[[components]]\nname = {name:?}\nkind = \"file\"\npath = \"{APPS}/{name}\"\ncapacity = 100000\n"
            )
        };
        let components =
            if service.has_packages() { COMPONENTS.map(component).concat() } else { String::new() };
        let boot = match kind {
            Kind::SystemdBoot => format!(
                "{slots}[boot]\nkind = \"systemd-boot\"\nentries = \"{LOADER}/entries\"\ntemplates = {TEMPLATES:?}\n\
                 reboot = [\"/bin/true\"]\n"
            ),
            _ => boot,
        };
        let text = format!(
            "fleet = \"acme\"\ndevice = \"dev-1\"\nproduct = \"cam\"\nmodel = \"b3\"\nregion = \"eu\"\n\
             brokers = [\"mqtt://127.0.0.1\"]\ndata_dir = \"/data\"\nruntime_dir = \"/run/tern\"\nroot = {root:?}\n\
             [timing]\nwindow = 1\n{components}[slots]\ncapacity = {capacity}\n{boot}"
        );
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).expect("a configuration");
        let config = Config::load(&path).expect("our own configuration is valid");
        Arc::new(Self { kind, config, capacity, folder })
    }

    /// Makes the disk as it leaves the factory, with `release` in slot a.
    pub fn factory(&self, release: &Release) -> FakeDisk {
        let fake = self.bare();
        self.provision(&fake, release).expect("a device is provisioned");
        FakeDisk::of(fake.shut_down())
    }

    /// Puts the first release on it.
    pub fn provision(&self, disk: &FakeDisk, release: &Release) -> Result<(), BootError> {
        let image = self.folder.path().join("factory.img");
        std::fs::write(&image, &release.image).expect("an image");
        let disk: Disk = Arc::new(disk.clone());
        backend::provision_on(&disk, &self.config, &image, release.label())
    }

    /// Makes the disk as the factory finds it.
    pub fn bare(&self) -> FakeDisk {
        let fake = FakeDisk::default();
        let disk: Disk = Arc::new(fake.clone());
        disk.create_folder(&self.config.slots.dir).expect("a folder");
        if !self.config.components.is_empty() {
            fake.put(&self.component(COMPONENTS[0]), FACTORY);
        }
        if self.kind != Kind::Files {
            for path in PARTITIONS.into_iter().chain([SYSTEM]) {
                fake.device(Path::new(path), vec![0xee; self.capacity]);
            }
            let mut environment = Environment::default();
            environment.set("bootcmd", Some("run tern"));
            let copy = environment.encode(1, COPY).expect("one variable fits");
            let mut bytes = vec![0xff; 2 * usize::try_from(SECOND).expect("a small number")];
            for offset in [0, usize::try_from(SECOND).expect("a small number")] {
                bytes[offset..offset + COPY].copy_from_slice(&copy);
            }
            fake.device(Path::new(ENVIRONMENT), bytes);
        }
        if self.kind == Kind::SystemdBoot {
            fake.put(&Path::new(LOADER).join("loader.conf"), b"timeout 0\ndefault tern-*\n");
            disk.create_folder(&Path::new(LOADER).join("entries")).expect("a folder");
            for slot in SlotName::BOTH {
                let text = format!(
                    "title Tern\noptions root=PARTLABEL=slot-{slot} ro tern.slot={slot}\nlinux /{slot}/linux\n"
                );
                fake.put(&Path::new(TEMPLATES).join(format!("{slot}.conf")), text.as_bytes());
            }
        }
        FakeDisk::of(fake.shut_down())
    }

    /// Returns where the bytes of a slot are.
    pub fn slot(&self, slot: SlotName) -> PathBuf {
        match self.kind {
            Kind::Files | Kind::Single => self.config.slots.dir.join(format!("{slot}.img")),
            Kind::Uboot | Kind::SystemdBoot => PARTITIONS[slot as usize].into(),
        }
    }

    /// Returns the release that a slot's place holds; a file ends where its image does.
    pub fn release_in(&self, disk: &FakeDisk, service: &Service, place: &Path) -> Option<u64> {
        let bytes = disk.bytes(place)?;
        let rc = service.release_in(&bytes)?;
        let is_file = place.starts_with(&self.config.slots.dir);
        (!is_file || bytes.len() == service.release(rc).image.len()).then_some(rc)
    }

    /// Returns where a component is installed.
    pub fn component(&self, name: &str) -> PathBuf {
        Path::new(APPS).join(name)
    }

    /// Returns what a component has while nothing of ours is installed.
    pub fn factory_component(&self, name: &str) -> Option<Vec<u8>> {
        (name == COMPONENTS[0]).then(|| FACTORY.to_vec())
    }

    /// Returns where the bytes are that run when a slot does.
    pub fn runs_from(&self, slot: SlotName) -> PathBuf {
        match self.kind {
            Kind::Single => SYSTEM.into(),
            Kind::Files | Kind::Uboot | Kind::SystemdBoot => self.slot(slot),
        }
    }

    /// systemd-boot, and a kernel that panics where it does not find what it knows.
    fn systemd_boot(
        &self,
        config: &SystemdBootConfig,
        disk: &FakeDisk,
        service: &Service,
        boot: u64,
    ) -> Result<(), NoBoot> {
        let stranded = |why: String| {
            if disk.is_dead() { NoBoot::Cut } else { NoBoot::Stranded(why) }
        };
        for _ in 0..PANICS {
            let choice =
                systemd_boot::boot(disk, Path::new(LOADER)).map_err(|error| stranded(error.to_string()))?;
            let named = choice.options.split(' ').find_map(|word| word.strip_prefix("tern.slot="));
            let slot = SlotName::BOTH.into_iter().find(|slot| Some(slot.to_string().as_str()) == named);
            let slot = slot.ok_or_else(|| stranded(format!("{choice:?} names no slot")))?;
            if self.release_in(disk, service, &self.slot(slot)).is_some() {
                disk.put(&config.cmdline, format!("{}\n", choice.options).as_bytes());
                disk.put(&config.boot_id, format!("boot-{boot}\n").as_bytes());
                return Ok(());
            }
        }
        Err(stranded("the kernel panics again and again".into()))
    }

    /// Does what happens before the agent: U-Boot and its script, recovery, systemd-boot, or nothing.
    pub fn power_on(&self, disk: &FakeDisk, service: &Service, boot: u64) -> Result<(), NoBoot> {
        let uboot = match &self.config.boot {
            BootConfig::Uboot(uboot) => uboot,
            BootConfig::SystemdBoot(config) => return self.systemd_boot(config, disk, service, boot),
            BootConfig::File | BootConfig::Script(_) => return Ok(()),
        };
        let stranded = |why: String| {
            if disk.is_dead() { NoBoot::Cut } else { NoBoot::Stranded(why) }
        };
        let environment = uboot.medium.read(disk).map_err(|error| stranded(error.to_string()))?;
        let record = variables::record(&environment).map_err(|error| stranded(error.to_string()))?;
        let record = record.ok_or_else(|| stranded("no boot record".into()))?;
        if self.kind == Kind::Single {
            let installed =
                variables::installed(&environment).map_err(|error| stranded(error.to_string()))?;
            let (wanted, _) = choose(&record, [true, true]).map_err(|error| stranded(error.to_string()))?;
            let is_there = installed == Some(record.active);
            if installed != Some(wanted) && is_there && self.save(uboot, disk).is_err() {
                if disk.is_dead() {
                    return Err(NoBoot::Cut);
                }
                // No trial: the script boots what is confirmed.
                self.kernel(uboot, disk, record.active, boot);
                return Ok(());
            }
            if installed != Some(wanted) {
                self.recover(disk).map_err(stranded)?;
                disk.restart();
                return self.power_on(disk, service, boot);
            }
        }
        // U-Boot looks at no label: what boots is what is whole, wherever it came from.
        let is_whole = |slot| self.release_in(disk, service, &self.runs_from(slot)).is_some();
        let usable = SlotName::BOTH.map(is_whole);
        let (slot, next) =
            choose(&record, usable).map_err(|error| stranded(format!("{error}; {record:?} {usable:?}")))?;
        if next != record {
            let change = |environment: &mut Environment| variables::put(environment, &next);
            if uboot.medium.change(disk, change).is_err() {
                if disk.is_dead() {
                    return Err(NoBoot::Cut);
                }
                // A try that cannot be taken is not made. With a single slot nothing else is there to boot.
                let slot = if self.kind == Kind::Single { slot } else { record.active };
                self.kernel(uboot, disk, slot, boot);
                return Ok(());
            }
        }
        self.kernel(uboot, disk, slot, boot);
        Ok(())
    }

    /// Does what `environment.cmd` does to save: the copy that does not count is written with what counts, and read back.
    fn save(&self, uboot: &UbootConfig, disk: &FakeDisk) -> io::Result<()> {
        let copies = uboot.medium.copies.each_ref().map(|copy| {
            let mut bytes = vec![0; COPY];
            let file = disk.open(&copy.path, Access::Read)?;
            storage::read_exact_at(&*file, &mut bytes, copy.offset).map(|()| bytes)
        });
        let found = newest(copies.each_ref().map(|copy| copy.as_deref().unwrap_or_default()));
        let found = found.ok_or(io::ErrorKind::InvalidData)?;
        let bytes = found.environment.encode(found.flag.wrapping_add(1), COPY).map_err(io::Error::other)?;
        let other = &uboot.medium.copies[1 - found.index];
        let file = disk.open(&other.path, Access::Write)?;
        file.write_at(&bytes, other.offset)?;
        file.sync()?;
        let mut found = vec![0; COPY];
        storage::read_exact_at(&*file, &mut found, other.offset)?;
        if found == bytes { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Runs recovery.
    pub fn recover_once(&self, disk: &FakeDisk) -> Result<Recovered, RecoveryError> {
        disk.starts();
        let port: Disk = Arc::new(disk.clone());
        recovery::recover(&port, &self.config, &mut |_, _| {})
    }

    /// Does what the init of a recovery system does: tries again, but for what a person has to see to.
    fn recover(&self, disk: &FakeDisk) -> Result<(), String> {
        let mut tries = 1..=RECOVERIES;
        loop {
            let recovered = disk.sparing(false, || self.recover_once(disk));
            let Err(error) = recovered else { return Ok(()) };
            disk.revive();
            if disk.is_dead() || error.remedy() == Remedy::Person || tries.next().is_none() {
                return Err(error.to_string());
            }
        }
    }

    /// Returns where a copy of the environment lies, if there are any.
    pub fn environment(&self) -> Option<(&Path, [Range<usize>; 2])> {
        let second = usize::try_from(SECOND).unwrap_or(0);
        let copies = [0..COPY, second..second + COPY];
        (self.kind != Kind::Files).then_some((Path::new(ENVIRONMENT), copies))
    }

    fn kernel(&self, uboot: &UbootConfig, disk: &FakeDisk, slot: SlotName, boot: u64) {
        disk.put(&uboot.cmdline, format!("quiet tern.slot={slot}\n").as_bytes());
        disk.put(&uboot.boot_id, format!("boot-{boot}\n").as_bytes());
    }
}
