//! A PC with UEFI and systemd-boot: two entries, one of them on trial by the counter in its name, with nothing of Tern in
//! it, to pin what our back end relies on; or with the back end itself, to write them.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::image::{initramfs, initramfs_with};
use crate::kit::{Kit, guest, run, tool};
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
        let pc = Self::blank()?;
        let initrd = initramfs(&pc.kit.amd64(), "pc", pc.folder.path());
        let entry = |slot: &str, version: u32| {
            format!(
                "title Tern {slot}\nsort-key tern\nversion {version}\nlinux /{slot}/linux\ninitrd /{slot}/initrd\n\
                 options console=ttyS0 quiet panic=1 tern.slot={slot}\n"
            )
        };
        let mut entries = vec![("a.conf".to_owned(), entry("a", 1))];
        entries.extend((0..more).map(|number| (format!("more-{number}.text"), entry("a", 1))));
        entries.push(("b+2.conf".to_owned(), entry("b", 2)));
        pc.install(pc.kit.systemd_boot(), &initrd, &[("loader.conf", "timeout 0\n")], &entries);
        Some(pc)
    }

    /// A PC as its factory leaves it, with one entry that is not ours, and the example `boot-record` to write ours.
    pub(crate) fn of_ours(record: &Path) -> Option<Self> {
        let pc = Self::blank()?;
        let options = "console=ttyS0 quiet panic=1 tern.slot";
        for slot in ["a", "b"] {
            let text = format!(
                "title Tern {slot}\noptions {options}={slot}\ninitrd /{slot}/initrd\nlinux /{slot}/linux\n"
            );
            fs::write(pc.path(&format!("{slot}.conf")), text).unwrap();
        }
        let (a, b, config) = (pc.path("a.conf"), pc.path("b.conf"), guest("entries.toml"));
        let more = [
            (record, "bin/boot-record"),
            (&config, "etc/agent.toml"),
            (&a, "etc/tern/entries/a.conf"),
            (&b, "etc/tern/entries/b.conf"),
        ];
        let initrd = initramfs_with(&pc.kit.amd64(), "pc-entries", pc.folder.path(), &more);
        let factory = format!("title Factory\nlinux /a/linux\ninitrd /a/initrd\noptions {options}=a\n");
        let entries = [("factory.conf".to_owned(), factory)];
        pc.install(
            pc.kit.systemd_boot(),
            &initrd,
            &[("loader.conf", "timeout 0\ndefault tern-*\n")],
            &entries,
        );
        Some(pc)
    }

    /// A PC with GRUB, its part of deploy/boot-script, and the example `boot-record` with the program there.
    pub(crate) fn of_grub(record: &Path) -> Option<Self> {
        let pc = Self::blank()?;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/boot-script");
        let (program, config) = (deploy.join("grub-env.sh"), guest("script.toml"));
        let more = [(record, "bin/boot-record"), (&config, "etc/agent.toml"), (&program, "bin/grub-env.sh")];
        let initrd = initramfs_with(&pc.kit.amd64(), "pc-entries", pc.folder.path(), &more);
        let grub = pc.path("grub.efi");
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
            vec![&"-O", &"x86_64-efi", &"-o", &grub, &"-p", &"(hd0,gpt1)/grub"];
        let modules = ["part_gpt", "fat", "normal", "linux", "loadenv", "test", "echo", "configfile"];
        arguments.extend(modules.iter().map(|name| name as &dyn AsRef<std::ffi::OsStr>));
        run("grub-mkimage", &arguments);
        let board = fs::read_to_string(guest("grub.cfg")).unwrap();
        let ours = fs::read_to_string(deploy.join("grub.cfg")).unwrap();
        pc.install(&grub, &initrd, &[("grub.cfg", &board), ("tern.cfg", &ours)], &[]);
        Some(pc)
    }

    fn blank() -> Option<Self> {
        let kit = Kit::find()?;
        Some(Self { folder: tempfile::tempdir().unwrap(), kit })
    }

    /// Makes its disk, with these entries, in this order.
    fn install(&self, efi: &Path, initrd: &Path, loader: &[(&str, &str)], entries: &[(String, String)]) {
        let partition = self.path("partition");
        // Clusters of two sectors: the entries' folder, two sectors long, need not grow.
        run("mkfs.vfat", &[&"-F", &"32", &"-s", &"2", &"-C", &partition, &(SIZE >> 10).to_string()]);
        run(
            "mmd",
            &[
                &"-i",
                &partition,
                &"::EFI",
                &"::EFI/BOOT",
                &"::loader",
                &"::loader/entries",
                &"::a",
                &"::b",
                &"::grub",
            ],
        );
        let put = |from: &dyn AsRef<std::ffi::OsStr>, to: &str| run("mcopy", &[&"-i", &partition, from, &to]);
        put(&efi, "::EFI/BOOT/BOOTX64.EFI");
        for slot in ["a", "b"] {
            put(&self.kit.amd64().kernel(), &format!("::{slot}/linux"));
            put(&initrd, &format!("::{slot}/initrd"));
        }
        for (name, text) in entries {
            fs::write(self.path(name), text).unwrap();
            put(&self.path(name), "::loader/entries/");
        }
        for (name, text) in loader {
            fs::write(self.path(name), text).unwrap();
            put(&self.path(name), if name.ends_with(".cfg") { "::grub/" } else { "::loader/" });
        }
        File::create(self.path("disk")).unwrap().set_len(2 * MIB + SIZE).unwrap();
        run("sgdisk", &[&format!("-n1:2048:+{}M", SIZE / MIB), &"-t1:ef00", &"-c1:esp", &self.path("disk")]);
        let disk = OpenOptions::new().write(true).open(self.path("disk")).unwrap();
        disk.write_all_at(&fs::read(&partition).unwrap(), BEGIN).unwrap();
        fs::copy(self.kit.ovmf()[1], self.path("variables")).unwrap();
    }

    /// What mtools finds in the folder of entries of a disk: names and texts.
    pub(crate) fn files(&self, bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let disk = self.path("cut");
        fs::write(&disk, bytes).unwrap();
        let image = format!("{}@@{BEGIN}", disk.display());
        let read = |name: String| {
            let text =
                tool("mtype").args(["-i", &image, &format!("::loader/entries/{name}")]).output().unwrap();
            (name, text.stdout)
        };
        Ok(entries(&disk)?.into_iter().map(read).collect())
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
