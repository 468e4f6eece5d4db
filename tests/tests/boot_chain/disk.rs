//! The disk and the flash of a board: partitions, boot scripts, U-Boot and its built-in environment.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::kit::{Kit, run};

const MIB: u64 = 1 << 20;
/// Sectors of a MiB.
const SECTORS: u64 = MIB / 512;

/// How a disk is divided, and what boots from where.
pub(crate) struct Layout {
    /// Partitions, each from the end of the one before: name and MiB. The first begins at 1 MiB.
    partitions: &'static [(&'static str, u64)],
    /// The keys of `[slots]` that name a partition, and which.
    pub(crate) slots: &'static [(&'static str, &'static str)],
    /// The board's part of the built-in environment that boots.
    boots: &'static str,
}

/// Two slots; the recovery system is an image like theirs.
pub(crate) const TWO_SLOTS: Layout = Layout {
    partitions: &[("boot", 4), ("environment", 1), ("slot-a", 24), ("slot-b", 24), ("recovery", 24), ("data", 16)],
    slots: &[("a", "slot-a"), ("b", "slot-b")],
    boots: "tern_boot=if test ${tern_slot} = a; then setenv part 3; else setenv part 4; fi; setenv bootargs console=ttyAMA0 quiet panic=1 root=/dev/vda${part} TERN_DATA_DEVICE=/dev/vda6 tern.slot=${tern_slot}; run board_start
tern_recovery=setenv part 5; setenv bootargs console=ttyAMA0 quiet panic=1 root=/dev/vda5 TERN_DATA_DEVICE=/dev/vda6; run board_start
",
};

/// A single slot, and a recovery system of its own; packages lie on the data partition.
pub(crate) const SINGLE_SLOT: Layout = Layout {
    partitions: &[("boot", 4), ("environment", 1), ("system", 24), ("recovery", 24), ("data", 72)],
    slots: &[("system", "system")],
    boots: "tern_single=1
tern_boot=setenv part 3; setenv bootargs console=ttyAMA0 quiet panic=1 root=/dev/vda3 TERN_DATA_DEVICE=/dev/vda5 tern.slot=${tern_slot}; run board_start
tern_recovery=setenv part 4; setenv bootargs console=ttyAMA0 quiet panic=1 TERN_DATA_DEVICE=/dev/vda5; run board_start
",
};

/// Bytes that a slot holds.
pub(crate) const CAPACITY: u64 = 24 * MIB;
/// Bytes of a copy of the environment, and where the second one begins.
pub(crate) const COPY: usize = 0x4000;
pub(crate) const SECOND: u64 = 0x10000;

/// What a board supplies to the scripts of deploy/u-boot, and its watchdog: an Intel 6300ESB of two stages, each 40 s
/// until userland says less. tern_boot comes back if the kernel cannot be loaded or started.
const BOARD: &str = "bootdelay=-2
fdt_high=ffffffff
initrd_high=ffffffff
kernel_addr_r=40400000
ramdisk_addr_r=44000000
kernel_comp_addr_r=48000000
kernel_comp_size=2000000
fdt_addr=40000000
tern_medium=virtio
tern_blocks=20
tern_size=4000
tern_ram=46000000
tern_keep=calibration serial
board_watch=pci enum; pci write.l 0.10.0 10 3e000000; pci write.w 0.10.0 4 2; mw.w 3e00000c 80; mw.w 3e00000c 86; mw.l 3e000000 9c40; mw.w 3e00000c 80; mw.w 3e00000c 86; mw.l 3e000004 9c40; pci write.b 0.10.0 68 2
board_start=load virtio 0:${part} ${kernel_addr_r} /boot/Image.gz && load virtio 0:${part} ${ramdisk_addr_r} /boot/initrd && booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdt_addr}
bootcmd=run board_watch; virtio scan; virtio device 0; part start virtio 0 2 tern_first; setexpr tern_second 0x${tern_first} + 80; load virtio 0:1 41000000 environment.scr; source 41000000; load virtio 0:1 41000000 boot.scr; source 41000000
";

/// A partition of a disk, as a range of the file.
pub(crate) struct Partition {
    disk: PathBuf,
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    /// Its bytes.
    pub(crate) length: u64,
}

impl Partition {
    /// Writes the file `from` to the beginning of the partition.
    pub(crate) fn fill(&self, from: &Path) {
        let bytes = fs::read(from).unwrap();
        assert!(bytes.len() as u64 <= self.length, "{} does not fit", from.display());
        let disk = OpenOptions::new().write(true).open(&self.disk).unwrap();
        // A disk is mostly zeros, and a file of them mostly holes.
        for (index, piece) in
            bytes.chunks(65536).enumerate().filter(|(_, piece)| piece.iter().any(|b| *b != 0))
        {
            disk.write_all_at(piece, self.offset + index as u64 * 65536).unwrap();
        }
    }

    /// Where it lies on the disk.
    pub(crate) fn range(&self) -> Range<usize> {
        let place = |at: u64| usize::try_from(at).unwrap();
        place(self.offset)..place(self.offset + self.length)
    }

    /// Overwrites all of it, as a worn-out medium would.
    pub(crate) fn ruin(&self) {
        let disk = OpenOptions::new().write(true).open(&self.disk).unwrap();
        for at in (0..self.length).step_by(65536) {
            disk.write_all_at(&[0xa5; 65536], self.offset + at).unwrap();
        }
    }
}

/// A disk, and the two flashes beside it.
pub(crate) struct Disk {
    /// The disk.
    pub(crate) path: PathBuf,
    /// U-Boot.
    pub(crate) code: PathBuf,
    /// Its built-in environment.
    pub(crate) flash: PathBuf,
    /// How it is divided.
    pub(crate) layout: &'static Layout,
}

impl Disk {
    /// Makes a disk with boot scripts, and all other partitions empty.
    pub(crate) fn make(kit: &Kit, folder: &Path, layout: &'static Layout) -> Self {
        let file = |name: &str| folder.join(name);
        let (path, code, flash) = (file("disk"), file("code.flash"), file("board.flash"));
        let disk = Self { path, code, flash, layout };
        let total = 2 + layout.partitions.iter().map(|(_, size)| size).sum::<u64>();
        File::create(&disk.path).unwrap().set_len(total * MIB).unwrap();
        let mut arguments = vec!["-o".to_owned()];
        for (index, (name, size)) in layout.partitions.iter().enumerate() {
            let number = index + 1;
            let begin = disk.begin(name);
            // sgdisk counts sectors, the last one included.
            arguments.push(format!("-n{number}:{}:{}", begin * SECTORS, (begin + size) * SECTORS - 1));
            arguments.push(format!("-c{number}:{name}"));
        }
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = arguments.iter().map(|a| a as _).collect();
        all.push(&disk.path);
        run("sgdisk", &all);

        fs::write(file("board.txt"), format!("{BOARD}{}", layout.boots)).unwrap();
        run("mkenvimage", &[&"-s", &"0x40000", &"-o", &disk.flash, &file("board.txt")]);
        fs::copy(kit.uboot(), &disk.code).unwrap();
        for flash in [&disk.flash, &disk.code] {
            OpenOptions::new().write(true).open(flash).unwrap().set_len(64 * MIB).unwrap();
        }
        let boot = file("boot.fat");
        run("mkfs.vfat", &[&"-C", &boot, &"4096"]);
        for name in ["environment", "boot"] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../deploy/u-boot/{name}.cmd"));
            let script = file(&format!("{name}.scr"));
            run("mkimage", &[&"-A", &"arm64", &"-T", &"script", &"-C", &"none", &"-d", &source, &script]);
            run("mcopy", &[&"-i", &boot, &script, &"::"]);
        }
        disk.partition("boot").fill(&boot);
        disk
    }

    /// Finds a partition by its name.
    pub(crate) fn partition(&self, name: &str) -> Partition {
        let (_, size) = self.layout.partitions.iter().find(|(known, _)| *known == name).unwrap();
        Partition { disk: self.path.clone(), offset: self.begin(name) * MIB, length: size * MIB }
    }

    /// The guest's name of a partition.
    pub(crate) fn in_guest(&self, name: &str) -> String {
        let index = self.layout.partitions.iter().position(|(known, _)| *known == name).unwrap();
        format!("/dev/vda{}", index + 1)
    }

    /// Where a partition begins, in MiB.
    fn begin(&self, name: &str) -> u64 {
        1 + self
            .layout
            .partitions
            .iter()
            .take_while(|(known, _)| *known != name)
            .map(|(_, size)| size)
            .sum::<u64>()
    }
}
