//! A PC with UEFI and systemd-boot, as the place of a back end to come: two entries, one of them on trial by the counter
//! in its name. Nothing of Tern is in it yet; the test pins what such a back end relies on.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::image::initramfs;
use crate::kit::{Kit, run, tool};
use crate::machine::Machine;

const MIB: u64 = 1 << 20;
/// The EFI system partition begins here; mtools is told so.
const BEGIN: u64 = MIB;

/// A PC that is off.
pub(crate) struct Pc {
    folder: tempfile::TempDir,
    kit: Kit,
}

impl Pc {
    /// A PC with the entries `a` and `b`, of which b is newer and has two tries. None where the boot chain cannot be had.
    pub(crate) fn make() -> Option<Self> {
        let kit = Kit::find()?;
        let pc = Self { folder: tempfile::tempdir().unwrap(), kit };
        let initrd = initramfs(&pc.kit.amd64(), "pc", pc.folder.path());
        let partition = pc.path("partition");
        run("mkfs.vfat", &[&"-F", &"32", &"-C", &partition, &"65536"]);
        run(
            "mmd",
            &[&"-i", &partition, &"::EFI", &"::EFI/BOOT", &"::loader", &"::loader/entries", &"::a", &"::b"],
        );
        let put = |from: &dyn AsRef<std::ffi::OsStr>, to: &str| run("mcopy", &[&"-i", &partition, from, &to]);
        put(&pc.kit.systemd_boot(), "::EFI/BOOT/BOOTX64.EFI");
        for (slot, version, entry) in [("a", 1, "a.conf"), ("b", 2, "b+2.conf")] {
            put(&pc.kit.amd64().kernel(), &format!("::{slot}/linux"));
            put(&initrd, &format!("::{slot}/initrd"));
            let text = format!(
                "title Tern {slot}\nsort-key tern\nversion {version}\nlinux /{slot}/linux\ninitrd /{slot}/initrd\n\
                 options console=ttyS0 quiet panic=1 tern.slot={slot}\n"
            );
            fs::write(pc.path(entry), text).unwrap();
            put(&pc.path(entry), "::loader/entries/");
        }
        fs::write(pc.path("loader.conf"), "timeout 0\n").unwrap();
        put(&pc.path("loader.conf"), "::loader/");
        File::create(pc.path("disk")).unwrap().set_len(66 * MIB).unwrap();
        run("sgdisk", &[&"-n1:2048:+64M", &"-t1:ef00", &"-c1:esp", &pc.path("disk")]);
        let disk = OpenOptions::new().write(true).open(pc.path("disk")).unwrap();
        disk.write_all_at(&fs::read(&partition).unwrap(), BEGIN).unwrap();
        fs::copy(pc.kit.ovmf()[1], pc.path("variables")).unwrap();
        Some(pc)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Switches it on.
    pub(crate) fn power_on(&self) -> Machine {
        let firmware = [self.kit.ovmf()[0], &self.path("variables")];
        Machine::power_on_pc(firmware, &self.path("disk"), &self.path("console"))
    }

    /// The names of the entries, read by mtools from the disk of a PC that is off.
    pub(crate) fn entries(&self) -> Vec<String> {
        let image = format!("{}@@{BEGIN}", self.path("disk").display());
        let output = tool("mdir").args(["-b", "-i", &image, "::loader/entries"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter_map(|line| line.rsplit('/').next()).map(str::to_owned).collect()
    }
}
