//! The section `[boot]`: what boots the device.

use std::time::Duration;

use super::BootConfig;
use super::file::runnable;
use super::section::Section;
use crate::boot::script::ScriptConfig;
use crate::boot::systemd_boot::SystemdBootConfig;
use crate::boot::uboot::UbootConfig;
use crate::boot::uboot::environment::SIZE_MAX;
use crate::boot::uboot::medium::{Location, Medium, overlap};

/// Least bytes of a copy: less holds no boot record beside a boot command.
const SIZE_MIN: usize = 512;

/// Every key of `[boot]`.
pub(super) const BOOT_KEYS: [&str; 10] =
    ["kind", "copies", "lock", "cmdline", "boot_id", "reboot", "entries", "templates", "command", "deadline"];
/// Keys that only one kind has.
const OWN_KEYS: [(&str, &str); 6] = [
    ("copies", UBOOT),
    ("lock", UBOOT),
    ("entries", SYSTEMD_BOOT),
    ("templates", SYSTEMD_BOOT),
    ("command", SCRIPT),
    ("deadline", SCRIPT),
];
const FILE: &str = "file";
const UBOOT: &str = "uboot";
const SYSTEMD_BOOT: &str = "systemd-boot";
const SCRIPT: &str = "script";
/// Every key of a copy.
pub(super) const COPY_KEYS: [&str; 3] = ["path", "offset", "size"];
/// Ceiling on the deadline of a program that the agent waits for: half of what a watchdog commonly gives it.
const DEADLINE_MAX: Duration = Duration::from_secs(30);

/// Reads `[boot]`, and checks what no single key can tell.
pub(super) fn boot(section: Section) -> Result<BootConfig, String> {
    let mut section = section.with_keys("boot", &BOOT_KEYS)?;
    let kind = section.text("kind")?.unwrap_or_else(|| FILE.into());
    if ![FILE, UBOOT, SYSTEMD_BOOT, SCRIPT].contains(&kind.as_str()) {
        return Err(format!(
            "boot.kind is {kind:?}; write {FILE:?}, {UBOOT:?}, {SYSTEMD_BOOT:?} or {SCRIPT:?}; a boot loader that is none \
             of these has {SCRIPT:?}"
        ));
    }
    if let Some((key, of)) = OWN_KEYS.into_iter().find(|(key, of)| *of != kind && section.has(key)) {
        return Err(format!(
            "boot.{key} is for boot.kind = {of:?}, and boot.kind is {kind:?}; take one of them out"
        ));
    }
    if kind == FILE {
        return Ok(BootConfig::File);
    }
    let reboot = section.list("reboot")?.unwrap_or_else(|| vec!["/sbin/reboot".into()]);
    if reboot.first().is_none_or(String::is_empty) {
        return Err("boot.reboot is empty; name an executable".into());
    }
    let cmdline = section.path("cmdline", "/proc/cmdline")?;
    let boot_id = section.path("boot_id", "/proc/sys/kernel/random/boot_id")?;
    match kind.as_str() {
        UBOOT => {
            Ok(BootConfig::Uboot(UbootConfig { medium: medium(&mut section)?, cmdline, boot_id, reboot }))
        }
        SYSTEMD_BOOT => {
            let entries = section.path("entries", "/boot/loader/entries")?;
            let templates = section.path("templates", "/etc/tern/entries")?;
            if entries == templates {
                return Err("boot.templates is the folder of boot.entries; the loader would boot them".into());
            }
            Ok(BootConfig::SystemdBoot(SystemdBootConfig { entries, templates, cmdline, boot_id, reboot }))
        }
        SCRIPT => {
            let command = section.list("command")?.ok_or_else(|| section.missing("command"))?;
            let deadline = section.duration("deadline", Duration::from_secs(10))?;
            runnable("boot.command", &command, deadline)?;
            if deadline > DEADLINE_MAX {
                return Err(format!(
                    "boot.deadline is above {} s; the agent does nothing else meanwhile, and a watchdog would reset it",
                    DEADLINE_MAX.as_secs()
                ));
            }
            Ok(BootConfig::Script(ScriptConfig { command, deadline, boot_id, reboot }))
        }
        _ => Ok(BootConfig::File),
    }
}

/// Reads where U-Boot's environment is.
fn medium(section: &mut Section) -> Result<Medium, String> {
    let copies = section.tables("copies")?.into_iter().map(copy).collect::<Result<Vec<_>, _>>()?;
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
    Ok(Medium { copies, size, lock: section.path("lock", "/var/lock/fw_printenv.lock")? })
}

/// Reads a copy; returns its size too.
fn copy(section: Section) -> Result<(Location, u64), String> {
    let mut section = section.with_keys("boot.copies", &COPY_KEYS)?;
    let path = section.needed("path")?.into();
    let offset = section.whole("offset")?.ok_or_else(|| section.missing("offset"))?;
    let size = section.whole("size")?.ok_or_else(|| section.missing("size"))?;
    Ok((Location { path, offset }, size))
}
