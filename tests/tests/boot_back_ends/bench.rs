//! A device with one of the back ends, both of whose slots boot.

use std::path::PathBuf;
use std::sync::Arc;

use tern_agent::backend;
use tern_agent::boot::script::ScriptBoot;
use tern_agent::boot::{Boot, BootRecord};
use tern_agent::config::BootConfig;
use tern_agent::core::SlotName;
use tern_agent::storage::{Disk, Storage as _};
use tern_tests::powercut::board::{Board, Kind, NoBoot};
use tern_tests::powercut::disk::{FakeDisk, Medium};
use tern_tests::powercut::service::{Release, Service};

use crate::grub::Grub;

/// What boots it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loader {
    Files,
    Uboot,
    SystemdBoot,
    Script,
}

impl Loader {
    pub(crate) const ALL: [Self; 4] = [Self::Files, Self::Uboot, Self::SystemdBoot, Self::Script];
}

/// The device.
pub(crate) enum Bench {
    /// Whose back end writes by the storage port.
    Fake { board: Arc<Board>, service: Service, disk: FakeDisk, boots: u64 },
    /// Whose program writes where it likes.
    Real(Grub),
}

impl Bench {
    pub(crate) fn new(loader: Loader) -> Self {
        let kind = match loader {
            Loader::Files => Kind::Files,
            Loader::Uboot => Kind::Uboot,
            Loader::SystemdBoot => Kind::SystemdBoot,
            Loader::Script => return Self::Real(Grub::new()),
        };
        let releases = [1, 2].map(|rc| Release::new(rc, 70_000));
        let service = Service::new(&releases);
        let board = Board::new(kind, &service);
        let disk = board.factory(&releases[0]);
        let port: Disk = Arc::new(disk.clone());
        let mut slots = backend::slots(&board.config, &port, SlotName::A).unwrap();
        let image = releases[1].label();
        slots.mark_bad(SlotName::B).unwrap();
        slots.write(SlotName::B, 0, &releases[1].image).unwrap();
        slots.sync(SlotName::B).unwrap();
        slots.hash(SlotName::B, image.length).unwrap();
        slots.set_label(SlotName::B, image).unwrap();
        drop(slots);
        Self::Fake { board, service, disk: FakeDisk::of(disk.shut_down()), boots: 0 }
    }

    /// Takes the power away for a moment, has the loader choose, and returns the slot that runs.
    pub(crate) fn power_on(&mut self) -> Result<SlotName, String> {
        match self {
            Self::Real(grub) => Ok(grub.power_on()),
            Self::Fake { board, service, disk, boots } => {
                disk.restart();
                *boots += 1;
                board.power_on(disk, service, *boots).map_err(|why| match why {
                    NoBoot::Cut => "cut".to_owned(),
                    NoBoot::Stranded(why) => why,
                })?;
                let port: Disk = Arc::new(disk.clone());
                port.create_folder(&board.config.runtime_dir).map_err(|error| error.to_string())?;
                if matches!(board.config.boot, BootConfig::File) {
                    // The agent is the loader there.
                    let boot = backend::boot(&board.config, &port).map_err(|error| error.to_string())?;
                    return Ok(boot.booted().map_err(|error| error.to_string())?.slot);
                }
                let cmdline = disk.bytes("/proc/cmdline".as_ref()).unwrap_or_default();
                let is_b = String::from_utf8_lossy(&cmdline).contains("tern.slot=b");
                Ok(if is_b { SlotName::B } else { SlotName::A })
            }
        }
    }

    /// The agent's back end in this boot.
    pub(crate) fn agent(&self) -> Box<dyn Boot + Send> {
        match self {
            Self::Real(grub) => {
                Box::new(ScriptBoot::on(&tern_agent::storage::system(), &grub.config).unwrap())
            }
            Self::Fake { board, disk, .. } => {
                let port: Disk = Arc::new(disk.clone());
                backend::boot(&board.config, &port).unwrap()
            }
        }
    }

    /// The record as nobody who takes part in a boot reads it.
    pub(crate) fn record(&self) -> Result<Option<BootRecord>, String> {
        let read = match self {
            Self::Real(grub) => ScriptBoot::read(&grub.config),
            Self::Fake { board, disk, .. } => {
                let port: Disk = Arc::new(disk.clone());
                backend::record_on(&port, &board.config)
            }
        };
        read.map_err(|error| error.to_string())
    }

    pub(crate) fn disk(&self) -> &FakeDisk {
        match self {
            Self::Fake { disk, .. } => disk,
            Self::Real(_) => panic!("its disk is this machine's"),
        }
    }

    /// The same device in the same boot.
    pub(crate) fn copy(&self) -> Self {
        let mut copy = self.with(self.disk().shut_down());
        // What is in memory is gone with that picture: the loader puts it there without taking another try.
        let Self::Fake { disk, board, .. } = &mut copy else { return copy };
        for path in ["/proc/cmdline", "/proc/sys/kernel/random/boot_id"] {
            if let Some(bytes) = self.disk().bytes(path.as_ref()) {
                disk.put(path.as_ref(), &bytes);
            }
        }
        let mark = board.config.runtime_dir.join("booted");
        if let Some(bytes) = self.disk().bytes(&mark) {
            disk.put(&mark, &bytes);
        }
        copy
    }

    /// The same device after a power cut that left this.
    pub(crate) fn with(&self, medium: Medium) -> Self {
        match self {
            Self::Fake { board, service, boots, .. } => {
                let (board, service) = (Arc::clone(board), service.clone());
                Self::Fake { board, service, disk: FakeDisk::of(medium), boots: *boots }
            }
            Self::Real(_) => panic!("its disk is this machine's"),
        }
    }

    /// Where the record stands: each place is a file, and a byte of it from which 512 can be lost.
    pub(crate) fn places(&self) -> Vec<(PathBuf, usize)> {
        let Self::Fake { board, .. } = self else { return Vec::new() };
        match &board.config.boot {
            BootConfig::File => {
                ["boot.0", "boot.1"].map(|name| (board.config.slots.dir.join(name), 0)).to_vec()
            }
            BootConfig::Uboot(uboot) => {
                let place = |copy: &tern_agent::boot::uboot::medium::Location| {
                    (copy.path.clone(), usize::try_from(copy.offset).unwrap())
                };
                uboot.medium.copies.iter().map(place).collect()
            }
            BootConfig::SystemdBoot(loader) => {
                self.entries().into_iter().map(|name| (loader.entries.join(name), 0)).collect()
            }
            BootConfig::Script(_) => Vec::new(),
        }
    }

    /// The entries of systemd-boot.
    pub(crate) fn entries(&self) -> Vec<String> {
        let names = self.disk().list("/boot/loader/entries".as_ref(), 100).unwrap();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    }
}
