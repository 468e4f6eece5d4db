//! What `.ci/boot-chain` has left: a kernel, a busybox, and our agent for the guest's processor.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tern_tests::lab::in_ci;

/// Names the folder.
const VARIABLE: &str = "TERN_BOOT_CHAIN";
const UBOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
const OVMF: [&str; 2] = ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"];
const SYSTEMD_BOOT: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const TOOLS: [&str; 11] = [
    "qemu-system-aarch64",
    "qemu-system-x86_64",
    "mkimage",
    "mkenvimage",
    "fw_printenv",
    "mke2fs",
    "mkfs.vfat",
    "mcopy",
    "sgdisk",
    "cpio",
    "nc",
];

/// What a guest is made of.
pub(crate) struct Kit(PathBuf);

impl Kit {
    /// None where something is missing, which only CI takes for a failure.
    pub(crate) fn find() -> Option<Self> {
        match Self::look() {
            Ok(kit) => Some(kit),
            Err(why) => {
                // Whoever names a folder means it.
                assert!(!in_ci() && std::env::var_os(VARIABLE).is_none(), "{why}");
                let said = format!("the real boot chain: NOT TESTED: {why}\n");
                let _shown = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
                None
            }
        }
    }

    fn look() -> Result<Self, String> {
        let hint = format!("run .ci/boot-chain and set {VARIABLE} to its folder");
        let Some(folder) = std::env::var_os(VARIABLE) else {
            return Err(format!("{VARIABLE} is not set; {hint}"));
        };
        // A test's working folder is its package's.
        let kit = Self(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder));
        let guests = [kit.arm64(), kit.amd64()];
        let of_guests =
            guests.iter().flat_map(|guest| [guest.kernel(), guest.busybox(), guest.modules().join("order")]);
        let installed = [UBOOT, OVMF[0], OVMF[1], SYSTEMD_BOOT].map(PathBuf::from);
        let files = of_guests.chain([kit.agent()]).chain(installed);
        let mut missing: Vec<String> =
            files.filter(|path| !path.is_file()).map(|path| path.display().to_string()).collect();
        missing.extend(TOOLS.iter().filter(|tool| !exists(tool)).map(|tool| (*tool).to_owned()));
        if missing.is_empty() { Ok(kit) } else { Err(format!("{} missing; {hint}", missing.join(", "))) }
    }

    /// What a guest on QEMU's arm64 board is made of.
    pub(crate) fn arm64(&self) -> GuestKit {
        GuestKit(self.0.join("arm64"))
    }

    /// What a guest on a PC is made of.
    pub(crate) fn amd64(&self) -> GuestKit {
        GuestKit(self.0.join("amd64"))
    }

    /// Our agent, for arm64.
    pub(crate) fn agent(&self) -> PathBuf {
        self.0.join("arm64/tern-agent")
    }

    /// U-Boot.
    pub(crate) fn uboot(&self) -> &Path {
        Path::new(UBOOT)
    }

    /// UEFI: the firmware, and its variables as a factory leaves them.
    pub(crate) fn ovmf(&self) -> [&Path; 2] {
        OVMF.map(Path::new)
    }

    /// systemd-boot.
    pub(crate) fn systemd_boot(&self) -> &Path {
        Path::new(SYSTEMD_BOOT)
    }
}

/// Debian's part of a guest.
pub(crate) struct GuestKit(PathBuf);

impl GuestKit {
    /// The kernel, as the boot loader takes it.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.0.join("kernel")
    }

    /// The kernel's modules for the first file system, and the order in which they load.
    pub(crate) fn modules(&self) -> PathBuf {
        self.0.join("modules")
    }

    /// The guest's programs.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.0.join("busybox")
    }
}

/// A script of the guest, or its configuration.
pub(crate) fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/boot_chain/guest").join(name)
}

/// A command that also finds what Debian keeps for administrators; it needs none of their rights.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
    command
}

fn exists(name: &str) -> bool {
    let mut found = tool("sh");
    found.args(["-c", "command -v \"$0\"", name]).stdout(Stdio::null());
    found.status().is_ok_and(|status| status.success())
}

/// Runs a tool that must succeed.
pub(crate) fn run(name: &str, arguments: &[&dyn AsRef<OsStr>]) {
    let output = tool(name).args(arguments.iter().map(|argument| argument.as_ref())).output().unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
}
