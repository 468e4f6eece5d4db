//! The images of slots: a root file system with kernel, first file system, programs, and our agent with its configuration.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::kit::{GuestKit, Kit, guest, run, tool};

/// Bytes of an image; a slot is larger.
const LENGTH: &str = "20M";
/// What the guest calls of busybox.
const APPLETS: [&str; 15] = [
    "sh",
    "cat",
    "devmem",
    "echo",
    "ifconfig",
    "insmod",
    "mkdir",
    "mount",
    "poweroff",
    "reboot",
    "sleep",
    "switch_root",
    "sync",
    "umount",
    "[",
];

/// What is wrong with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// U-Boot cannot start its kernel.
    Kernel,
    /// It runs, and its probe finds something missing.
    Userland,
    /// It hangs before the agent is up, and feeds no watchdog.
    Hangs,
}

/// Why the probe of a release with a broken userland fails.
pub(crate) const BROKEN: &str = "libmodem.so.3 is missing";

/// Makes the first file system: modules, and the script `init` that loads them.
pub(crate) fn initramfs(kit: &GuestKit, init: &str, folder: &Path) -> PathBuf {
    initramfs_with(kit, init, folder, &[])
}

/// The same with `more` files: where each comes from, and where it goes.
pub(crate) fn initramfs_with(kit: &GuestKit, init: &str, folder: &Path, more: &[(&Path, &str)]) -> PathBuf {
    let root = folder.join("initramfs");
    first_files(kit, init, &root);
    for (from, to) in more {
        let to = root.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        copy(from, &to);
    }
    pack(&root, folder.join("initrd"))
}

fn first_files(kit: &GuestKit, init: &str, root: &Path) {
    for name in ["bin", "dev", "proc", "slot", "sys"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    copy(&kit.busybox(), &root.join("bin/busybox"));
    copy(&guest(init), &root.join("init"));
    fs::create_dir_all(root.join("modules")).unwrap();
    for entry in fs::read_dir(kit.modules()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, root.join("modules").join(path.file_name().unwrap())).unwrap();
    }
}

/// Packs a first file system as the kernel takes it.
fn pack(root: &Path, packed: PathBuf) -> PathBuf {
    let mut pack = tool("sh");
    let status = pack
        .args(["-c", "find . | cpio --quiet -o -H newc -R 0:0 | gzip -n"])
        .current_dir(root)
        .stdout(fs::File::create(&packed).unwrap())
        .stderr(Stdio::inherit())
        .status();
    assert!(status.unwrap().success(), "cpio failed");
    packed
}

/// What is in an image beside the kit.
pub(crate) struct Content<'a> {
    /// The first file system.
    pub(crate) initrd: &'a Path,
    /// The agent's configuration, and the root of trust that it names.
    pub(crate) config: &'a str,
    pub(crate) root: &'a Path,
}

/// Makes the image of release `rc` at `folder/rc.img`.
pub(crate) fn image(kit: &Kit, folder: &Path, content: &Content, rc: u64, fault: Fault) -> PathBuf {
    let root = folder.join(format!("{rc}"));
    for name in ["bin", "boot", "data", "dev", "etc/tern", "proc", "run", "sbin", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    programs(kit, content, &root);
    copy(&guest("init"), &root.join("sbin/init"));
    copy(&guest("probe"), &root.join("bin/probe"));
    fs::write(root.join("etc/release"), format!("{rc}\n")).unwrap();
    fs::copy(content.initrd, root.join("boot/initrd")).unwrap();
    let kernel = root.join("boot/Image.gz");
    fs::copy(kit.arm64().kernel(), &kernel).unwrap();
    match fault {
        Fault::None => {}
        // As long as the real one: what is signed need not be sound.
        Fault::Kernel => fs::write(&kernel, vec![0x5a; 9 << 20]).unwrap(),
        Fault::Userland => fs::write(root.join("etc/broken"), BROKEN).unwrap(),
        Fault::Hangs => fs::write(root.join("etc/hangs"), "").unwrap(),
    }
    let image = folder.join(format!("{rc}.img"));
    file_system(&image, &root, "^has_journal,^metadata_csum,^64bit", LENGTH);
    fs::remove_dir_all(root).unwrap();
    image
}

/// Busybox, our agent, and its configuration.
fn programs(kit: &Kit, content: &Content, root: &Path) {
    copy(&kit.arm64().busybox(), &root.join("bin/busybox"));
    for name in APPLETS {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    copy(&kit.agent(), &root.join("bin/tern-agent"));
    copy(&guest("watchdog"), &root.join("etc/watchdog"));
    fs::write(root.join("etc/tern/agent.toml"), content.config).unwrap();
    fs::copy(content.root, root.join("etc/tern/root.json")).unwrap();
}

/// Makes the image of a recovery system at `folder/recovery.img`: kernel, and a first file system that stays, in which the
/// init of deploy/recovery runs.
pub(crate) fn recovery(kit: &Kit, folder: &Path, content: &Content) -> PathBuf {
    let [root, boot] = ["recovery-files", "recovery-boot"].map(|name| folder.join(name));
    first_files(&kit.arm64(), "recovery", &root);
    for name in [root.join("etc/tern"), root.join("sbin"), boot.join("boot")] {
        fs::create_dir_all(name).unwrap();
    }
    programs(kit, content, &root);
    copy(&guest("recovery-network"), &root.join("etc/recovery-network"));
    let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/recovery/init");
    copy(&init, &root.join("sbin/recovery"));
    pack(&root, boot.join("boot/initrd"));
    fs::copy(kit.arm64().kernel(), boot.join("boot/Image.gz")).unwrap();
    let image = folder.join("recovery.img");
    file_system(&image, &boot, "^has_journal,^metadata_csum,^64bit", LENGTH);
    image
}

/// Makes an ext4 file system of `length` with what is in `content`.
pub(crate) fn file_system(at: &Path, content: &Path, features: &str, length: &str) {
    run("mke2fs", &[&"-q", &"-t", &"ext4", &"-m", &"0", &"-O", &features, &"-d", &content, &at, &length]);
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}
