//! The section `[boot]`: what boots the device.

use std::path::PathBuf;

use serde::Deserialize;

use super::BootConfig;
use super::table::Table;
use crate::boot::uboot::UbootConfig;
use crate::boot::uboot::environment::SIZE_MAX;
use crate::boot::uboot::medium::{Location, Medium, overlap};

/// Least bytes of a copy: less holds no boot record beside a boot command.
const SIZE_MIN: usize = 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BootFile {
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    copies: Vec<Table<CopyFile>>,
    #[serde(default = "lock")]
    lock: PathBuf,
    #[serde(default = "cmdline")]
    cmdline: PathBuf,
    #[serde(default = "boot_id")]
    boot_id: PathBuf,
    #[serde(default = "reboot")]
    reboot: Vec<String>,
}

#[derive(Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    File,
    Uboot,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopyFile {
    path: PathBuf,
    offset: u64,
    size: usize,
}

impl Default for BootFile {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            copies: Vec::new(),
            lock: lock(),
            cmdline: cmdline(),
            boot_id: boot_id(),
            reboot: reboot(),
        }
    }
}

fn lock() -> PathBuf {
    "/var/lock/fw_printenv.lock".into()
}

fn cmdline() -> PathBuf {
    "/proc/cmdline".into()
}

fn boot_id() -> PathBuf {
    "/proc/sys/kernel/random/boot_id".into()
}

fn reboot() -> Vec<String> {
    vec!["/sbin/reboot".into()]
}

impl BootFile {
    /// Checks what no single key can tell.
    pub(super) fn checked(self) -> Result<BootConfig, String> {
        if self.kind == Kind::File {
            return match self.copies.is_empty() {
                true => Ok(BootConfig::File),
                false => Err("boot.copies are U-Boot's; write boot.kind = \"uboot\"".into()),
            };
        }
        let Ok([Table(first), Table(second)]) = <[_; 2]>::try_from(self.copies) else {
            return Err(
                "boot.copies must be two, as in /etc/fw_env.config: one alone does not survive a power cut"
                    .into(),
            );
        };
        let size = first.size;
        if size != second.size {
            return Err("boot.copies differ in size; U-Boot's never do".into());
        }
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) {
            return Err(format!("a size of {size} in boot.copies is not within {SIZE_MIN} to {SIZE_MAX}"));
        }
        let copies = [first, second].map(|CopyFile { path, offset, .. }| Location { path, offset });
        if copies.iter().any(|copy| copy.offset.checked_add(size as u64).is_none()) || overlap(&copies, size)
        {
            return Err("boot.copies overlap; compare their offsets with /etc/fw_env.config".into());
        }
        if self.reboot.first().is_none_or(String::is_empty) {
            return Err("boot.reboot is empty; name an executable".into());
        }
        let medium = Medium { copies, size, lock: self.lock };
        let (cmdline, boot_id, reboot) = (self.cmdline, self.boot_id, self.reboot);
        Ok(BootConfig::Uboot(UbootConfig { medium, cmdline, boot_id, reboot }))
    }
}
