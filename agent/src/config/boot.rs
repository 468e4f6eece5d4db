//! The section `[boot]`: what boots the device.

use super::BootConfig;
use super::section::Section;
use crate::boot::uboot::UbootConfig;
use crate::boot::uboot::environment::SIZE_MAX;
use crate::boot::uboot::medium::{Location, Medium, overlap};

/// Least bytes of a copy: less holds no boot record beside a boot command.
const SIZE_MIN: usize = 512;

/// Every key of `[boot]`.
pub(super) const BOOT_KEYS: [&str; 6] = ["kind", "copies", "lock", "cmdline", "boot_id", "reboot"];
/// Every key of a copy.
pub(super) const COPY_KEYS: [&str; 3] = ["path", "offset", "size"];

/// Reads `[boot]`, and checks what no single key can tell.
pub(super) fn boot(section: Section) -> Result<BootConfig, String> {
    let mut section = section.with_keys("boot", &BOOT_KEYS)?;
    let copies = section.tables("copies")?.into_iter().map(copy).collect::<Result<Vec<_>, _>>()?;
    match section.text("kind")?.as_deref() {
        None | Some("file") if copies.is_empty() => return Ok(BootConfig::File),
        None | Some("file") => return Err("boot.copies are U-Boot's; write boot.kind = \"uboot\"".into()),
        Some("uboot") => {}
        Some(other) => return Err(format!("boot.kind is {other:?}; write \"file\" or \"uboot\"")),
    }
    let Ok([(first, size), (second, other_size)]) = <[_; 2]>::try_from(copies) else {
        return Err(
            "boot.copies must be two, as in /etc/fw_env.config: one alone does not survive a power cut"
                .into(),
        );
    };
    if size != other_size {
        return Err("boot.copies differ in size; U-Boot's never do".into());
    }
    let Some(size) = usize::try_from(size).ok().filter(|size| (SIZE_MIN..=SIZE_MAX).contains(size)) else {
        return Err(format!("a size of {size} in boot.copies is not within {SIZE_MIN} to {SIZE_MAX}"));
    };
    let copies = [first, second];
    if copies.iter().any(|copy| copy.offset.checked_add(size as u64).is_none()) || overlap(&copies, size) {
        return Err("boot.copies overlap; compare their offsets with /etc/fw_env.config".into());
    }
    let reboot = section.list("reboot")?.unwrap_or_else(|| vec!["/sbin/reboot".into()]);
    if reboot.first().is_none_or(String::is_empty) {
        return Err("boot.reboot is empty; name an executable".into());
    }
    let medium = Medium { copies, size, lock: section.path("lock", "/var/lock/fw_printenv.lock")? };
    let cmdline = section.path("cmdline", "/proc/cmdline")?;
    let boot_id = section.path("boot_id", "/proc/sys/kernel/random/boot_id")?;
    Ok(BootConfig::Uboot(UbootConfig { medium, cmdline, boot_id, reboot }))
}

/// Reads a copy; returns its size too.
fn copy(section: Section) -> Result<(Location, u64), String> {
    let mut section = section.with_keys("boot.copies", &COPY_KEYS)?;
    let path = section.needed("path")?.into();
    let offset = section.whole("offset")?.ok_or_else(|| section.missing("offset"))?;
    let size = section.whole("size")?.ok_or_else(|| section.missing("size"))?;
    Ok((Location { path, offset }, size))
}
