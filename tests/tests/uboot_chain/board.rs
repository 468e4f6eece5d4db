//! A board in QEMU: flash with U-Boot, and a disk with environment, scripts and slots.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tern_agent::boot::BootRecord;
use tern_agent::boot::uboot::UbootBoot;
use tern_agent::boot::uboot::environment::Environment;
use tern_agent::boot::uboot::medium::{Location, Medium};
use tern_agent::boot::uboot::variables;
use tern_agent::storage::system::System;
use tern_tests::lab::in_ci;

const UBOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
const TOOLS: [&str; 3] = ["qemu-system-aarch64", "mkimage", "mkenvimage"];
/// Where things stand on the disk, in sectors.
const COPIES: [u64; 2] = [0, 0x80];
const SLOTS: [u64; 2] = [0x100, 0x180];
const ENVIRONMENT_SCRIPT: u64 = 0x280;
const BOOT_SCRIPT: u64 = 0x300;
pub(crate) const SECTOR: u64 = 512;
/// Bytes of a copy.
pub(crate) const SIZE: usize = 0x4000;

/// What a board supplies to the scripts: deploy/u-boot says which, this says how here.
const BOARD: &str = r#"bootdelay=0
tern_medium=virtio
tern_first=0
tern_second=80
tern_blocks=20
tern_size=4000
tern_ram=42000000
tern_keep=serial
tern_boot=if test "${tern_slot}" = a; then setenv at 100; else setenv at 180; fi; virtio read 43000000 ${at} 1; if itest.l *43000000 == 4e524554; then echo BOOTED ${tern_slot}; poweroff; fi
tern_recovery=echo BOOTED recovery; poweroff
bootcmd=virtio scan; virtio device 0; virtio read 41000000 280 80; source 41000000; virtio read 41000000 300 80; source 41000000; poweroff
"#;

/// A board: flash with U-Boot, and a disk.
pub(crate) struct Board {
    folder: tempfile::TempDir,
    pub(crate) medium: Medium,
}

impl Board {
    /// None where something is missing, which only CI takes for a failure.
    pub(crate) fn new() -> Option<Self> {
        Self::with("")
    }

    /// One with a single slot, which is slot a's place whatever is in it.
    pub(crate) fn single() -> Option<Self> {
        Self::single_with("")
    }

    /// The same with a recovery system that does not boot; where it `mends`, the slot does after that.
    pub(crate) fn single_without_recovery(mends: bool) -> Option<Self> {
        let mend = if mends { "mw.l 43000000 4e524554; virtio write 43000000 100 1; false" } else { "false" };
        let bootcmd = BOARD.lines().find(|line| line.starts_with("bootcmd=")).unwrap_or_default();
        let bootcmd = bootcmd.replace("; poweroff", "; echo BOOTED nothing; poweroff");
        Self::single_with(&format!("tern_recovery={mend}\n{bootcmd}\n"))
    }

    fn single_with(more: &str) -> Option<Self> {
        let boot = "if virtio read 43000000 100 1; then if itest.l *43000000 == 4e524554; then echo BOOTED ${tern_slot}; poweroff; fi; fi";
        Self::with(&format!("tern_single=1\ntern_boot={boot}\n{more}"))
    }

    fn with(more: &str) -> Option<Self> {
        let missing = |tool: &&&str| {
            let quiet =
                Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            quiet.is_err()
        };
        let missing: Vec<_> = TOOLS.iter().filter(missing).copied().collect();
        if !missing.is_empty() || !Path::new(UBOOT).exists() {
            let packages = "qemu-system-arm, u-boot-qemu and u-boot-tools";
            assert!(!in_ci(), "{missing:?} or {UBOOT} are missing: CI installs {packages}");
            let said = format!("NOT BOOTED in QEMU: this needs the packages {packages}\n");
            let _shown = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let names: Vec<&str> = more.lines().filter_map(|line| line.split('=').next()).collect();
        let is_replaced = |line: &&str| !names.iter().any(|name| line.split('=').next() == Some(*name));
        let usual: Vec<&str> = BOARD.lines().filter(is_replaced).collect();
        fs::write(path("board.txt"), format!("{}\n{more}", usual.join("\n"))).unwrap();
        run("mkenvimage", &["-s", "0x40000", "-o"], &[&path("board.flash"), &path("board.txt")]);
        fs::copy(UBOOT, path("code.flash")).unwrap();
        for flash in ["board.flash", "code.flash"] {
            fs::OpenOptions::new().write(true).open(path(flash)).unwrap().set_len(64 << 20).unwrap();
        }
        let disk = fs::File::create(path("disk")).unwrap();
        disk.set_len(1 << 20).unwrap();
        for (script, sector) in [("environment", ENVIRONMENT_SCRIPT), ("boot", BOOT_SCRIPT)] {
            let source = format!("{}/../deploy/u-boot/{script}.cmd", env!("CARGO_MANIFEST_DIR"));
            run(
                "mkimage",
                &["-A", "arm64", "-T", "script", "-C", "none", "-d"],
                &[Path::new(&source), &path(script)],
            );
            let bytes = fs::read(path(script)).unwrap();
            assert!(bytes.len() as u64 <= 0x80 * SECTOR);
            disk.write_all_at(&bytes, sector * SECTOR).unwrap();
        }
        let copies = COPIES.map(|sector| Location { path: path("disk"), offset: sector * SECTOR });
        let medium = Medium { copies, size: SIZE, lock: path("lock") };
        let board = Self { folder, medium };
        let mut factory = Environment::default();
        factory.set("serial", Some("7"));
        board.put([&factory.encode(1, SIZE).unwrap(), &factory.encode(1, SIZE).unwrap()]);
        board.fill([true, true]);
        Some(board)
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn write(&self, sector: u64, bytes: &[u8]) {
        let disk = fs::OpenOptions::new().write(true).open(self.disk()).unwrap();
        disk.write_all_at(bytes, sector * SECTOR).unwrap();
    }

    pub(crate) fn put(&self, copies: [&[u8]; 2]) {
        for (sector, copy) in COPIES.into_iter().zip(copies) {
            self.write(sector, copy);
        }
    }

    pub(crate) fn copies(&self) -> [Vec<u8>; 2] {
        let disk = fs::read(self.disk()).unwrap();
        COPIES.map(|sector| disk[usize::try_from(sector * SECTOR).unwrap()..][..SIZE].to_vec())
    }

    /// Says which slots can boot.
    pub(crate) fn fill(&self, usable: [bool; 2]) {
        for (sector, usable) in SLOTS.into_iter().zip(usable) {
            self.write(sector, if usable { b"TERN" } else { b"none" });
        }
    }

    pub(crate) fn arm(&self, record: &BootRecord) {
        self.medium.change(&System, |environment| variables::put(environment, record)).unwrap();
    }

    pub(crate) fn record(&self) -> BootRecord {
        UbootBoot::read(&self.medium).unwrap()
    }

    /// Powers the board on until it has decided: what has booted, and all that it said.
    pub(crate) fn boot(&self, disk_options: &str) -> (String, String) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let flash =
            |index, name| format!("if=pflash,format=raw,index={index},readonly=on,file={}", path(name));
        let disk = format!("if=none,format=raw,id=disk,file={}{disk_options}", path("disk"));
        let output = Command::new("timeout")
            .args([
                "120",
                TOOLS[0],
                "-M",
                "virt",
                "-cpu",
                "cortex-a53",
                "-m",
                "256",
                "-nographic",
                "-no-reboot",
            ])
            .args(["-drive", &flash(0, "code.flash"), "-drive", &flash(1, "board.flash"), "-drive", &disk])
            .args(["-device", "virtio-blk-device,drive=disk", "-nic", "none"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let console = String::from_utf8_lossy(&output.stdout).into_owned();
        let booted = console.lines().find_map(|line| line.strip_prefix("BOOTED "));
        let booted = booted.unwrap_or_else(|| panic!("nothing has booted: {console}\n{output:?}"));
        (booted.trim().to_owned(), console)
    }

    pub(crate) fn booted(&self) -> String {
        self.boot("").0
    }
}

fn run(program: &str, arguments: &[&str], paths: &[&Path]) {
    let output = Command::new(program).args(arguments).args(paths).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}
