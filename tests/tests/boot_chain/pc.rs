//! A PC with UEFI and systemd-boot, as the place of a back end to come: two entries, one of them on trial by the counter
//! in its name. Nothing of Tern is in it yet; the test pins what such a back end relies on.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::image::initramfs;
use crate::kit::{Kit, run, tool};
use crate::machine::Machine;

const MIB: u64 = 1 << 20;
/// The EFI system partition begins here; mtools is told so.
const BEGIN: u64 = MIB;
/// Bytes of it.
const SIZE: u64 = 80 * MIB;

/// A PC that is off.
pub(crate) struct Pc {
    folder: tempfile::TempDir,
    kit: Kit,
}

impl Pc {
    /// A PC with the entries `a` and `b`, of which b is newer and has two tries, behind `more` files that are no entries.
    /// None where the boot chain cannot be had.
    pub(crate) fn make(more: usize) -> Option<Self> {
        let kit = Kit::find()?;
        let pc = Self { folder: tempfile::tempdir().unwrap(), kit };
        let initrd = initramfs(&pc.kit.amd64(), "pc", pc.folder.path());
        let partition = pc.path("partition");
        // Clusters of two sectors: the entries' folder, two sectors long, need not grow.
        run("mkfs.vfat", &[&"-F", &"32", &"-s", &"2", &"-C", &partition, &(SIZE >> 10).to_string()]);
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
            if slot == "b" {
                (0..more).for_each(|number| {
                    put(&pc.path("a.conf"), &format!("::loader/entries/more-{number}.text"))
                });
            }
            put(&pc.path(entry), "::loader/entries/");
        }
        fs::write(pc.path("loader.conf"), "timeout 0\n").unwrap();
        put(&pc.path("loader.conf"), "::loader/");
        File::create(pc.path("disk")).unwrap().set_len(2 * MIB + SIZE).unwrap();
        run("sgdisk", &[&format!("-n1:2048:+{}M", SIZE / MIB), &"-t1:ef00", &"-c1:esp", &pc.path("disk")]);
        let disk = OpenOptions::new().write(true).open(pc.path("disk")).unwrap();
        disk.write_all_at(&fs::read(&partition).unwrap(), BEGIN).unwrap();
        fs::copy(pc.kit.ovmf()[1], pc.path("variables")).unwrap();
        Some(pc)
    }

    /// Returns a path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its disk.
    pub(crate) fn disk(&self) -> PathBuf {
        self.path("disk")
    }

    /// Switches it on with this disk; with `log`, all that is written to the disk is logged there.
    pub(crate) fn power_on(&self, disk: &Path, log: Option<&Path>) -> Machine {
        let firmware = [self.kit.ovmf()[0], &self.path("variables")];
        Machine::power_on_pc(firmware, disk, &self.path("console"), log)
    }

    /// The names of the entries, read by mtools from the disk of a PC that is off.
    pub(crate) fn entries(&self) -> Vec<String> {
        entries(&self.disk()).unwrap()
    }

    /// What a disk shows after a power cut: which entries, whether that of slot a is what it was, and what fsck says.
    pub(crate) fn look(&self, bytes: &[u8]) -> String {
        let disk = self.path("cut");
        fs::write(&disk, bytes).unwrap();
        let found = entries(&disk).map_or_else(|said| format!("none: {said}"), |names| names.join(" "));
        let image = format!("{}@@{BEGIN}", disk.display());
        let a = tool("mtype").args(["-i", &image, "::loader/entries/a.conf"]).output().unwrap().stdout;
        let is_same = a == fs::read(self.path("a.conf")).unwrap();
        let [begin, end] = [BEGIN, BEGIN + SIZE].map(|at| usize::try_from(at).unwrap());
        fs::write(self.path("cut.partition"), &bytes[begin..end]).unwrap();
        let clean =
            tool("fsck.vfat").arg("-n").arg(self.path("cut.partition")).output().unwrap().status.success();
        format!("entries {found}; a whole: {is_same}; fsck clean: {clean}")
    }
}

fn entries(disk: &Path) -> Result<Vec<String>, String> {
    let image = format!("{}@@{BEGIN}", disk.display());
    let output = tool("mdir").args(["-b", "-i", &image, "::loader/entries"]).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', ", "));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .filter(|name| !name.ends_with(".text"))
        .map(str::to_owned)
        .collect())
}
