//! Is a process of that name alive, and how long has it been?
//!
//! Only what every process may read of every other one is looked at, `comm`, `cmdline` and `stat`: the agent runs
//! without the capability that `exe` needs.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use crate::clock;

/// Where the kernel lists processes.
pub const PROC: &str = "/proc";
/// Bytes of a name that the kernel keeps.
const COMM_MAX: usize = 15;
/// Processes that are looked at: more than a 32-bit device can have.
const PROCESSES_MAX: usize = 65_536;
/// Bytes that are read of one file.
const READ_MAX: u64 = 4096;
/// The kernel tells times to programs in hundredths of a second, whatever its own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// Tells whether a process called `name` is alive, and has been for at least `lived`. Of several the oldest counts.
pub fn alive(proc: &Path, name: &str, lived: Duration) -> Result<(), String> {
    let entries =
        fs::read_dir(proc).map_err(|error| format!("could not list {}: {error}", proc.display()))?;
    let is_number = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let oldest = entries
        .take(PROCESSES_MAX)
        .flatten()
        .filter(|entry| is_number(&entry.file_name()))
        .filter_map(|entry| age(&entry.path(), name, clock::uptime()))
        .max();
    match oldest {
        None => Err(format!("no process {name:?} is alive")),
        Some(age) if age < lived => {
            Err(format!("process {name:?} has lived for {} s of {} s", age.as_secs(), lived.as_secs()))
        }
        Some(_) => Ok(()),
    }
}

/// Returns how long the process in `folder` has lived, if it has that name. One that ends meanwhile has not.
fn age(folder: &Path, name: &str, now: Duration) -> Option<Duration> {
    let comm = read(&folder.join("comm"))?;
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    if comm != &name.as_bytes()[..name.len().min(COMM_MAX)] {
        return None;
    }
    if name.len() > COMM_MAX && !is_called(&read(&folder.join("cmdline"))?, name) {
        return None;
    }
    let stat = read(&folder.join("stat"))?;
    // The name is in parentheses and may hold anything, parentheses too: what counts comes after the last one.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let fields = std::str::from_utf8(&stat[after..]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    // Field 3. A zombie is one that has ended.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // Field 22: start after boot.
    let ticks: u64 = fields.nth(18)?.parse().ok()?;
    Some(now.saturating_sub(Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND))))
}

/// Tells whether the program that a command line begins with has that name. A script is its interpreter's second word.
fn is_called(cmdline: &[u8], name: &str) -> bool {
    cmdline.split(|byte| *byte == 0).take(2).any(|word| {
        let file = word.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        file == name.as_bytes()
    })
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(READ_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process in a folder that looks like the kernel's, started `age` ago.
    fn scene(comm: &str, cmdline: &[u8], state: char, age: Duration) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("4711");
        fs::create_dir(&process).unwrap();
        fs::create_dir(folder.path().join("sys")).unwrap();
        let start = (clock::uptime().saturating_sub(age).as_millis() / 10).to_string();
        let zeros = "0 ".repeat(18);
        fs::write(process.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(process.join("cmdline"), cmdline).unwrap();
        fs::write(process.join("stat"), format!("4711 ({comm}) {state} {zeros}{start} 0 0\n")).unwrap();
        folder
    }

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn a_process_is_found_by_its_name_and_no_other() {
        let scene = scene("modem (x) y", b"/usr/bin/modem", 'S', NONE);

        assert_eq!(alive(scene.path(), "modem (x) y", NONE), Ok(()));
        for other in ["modem", "modem (x) ", "modem (x) yz", "S"] {
            let refusal = alive(scene.path(), other, NONE).unwrap_err();
            assert_eq!(refusal, format!("no process {other:?} is alive"));
        }
    }

    #[test]
    fn a_name_that_the_kernel_cuts_off_is_looked_up_in_the_command_line() {
        let kept = "connection-mana";
        let program = scene(kept, b"/usr/bin/connection-manager\0--foreground\0", 'S', NONE);
        let script = scene(kept, b"/bin/sh\0/usr/bin/connection-manager\0", 'S', NONE);
        let other = scene(kept, b"/usr/bin/connection-managed\0", 'S', NONE);

        assert_eq!(alive(program.path(), "connection-manager", NONE), Ok(()));
        assert_eq!(alive(script.path(), "connection-manager", NONE), Ok(()));
        assert!(alive(other.path(), "connection-manager", NONE).is_err());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        assert_eq!(alive(scene("app", b"app", 'R', NONE).path(), "app", NONE), Ok(()));
        assert!(alive(scene("app", b"", 'Z', NONE).path(), "app", NONE).is_err());
    }

    #[test]
    fn a_process_that_was_just_restarted_has_not_lived_long_enough() {
        // As long as this machine is up, there is no older process.
        let lived = (clock::uptime() / 2).min(Duration::from_secs(30));
        let restarted = scene("app", b"app", 'S', lived / 2);

        let refusal = alive(restarted.path(), "app", lived).unwrap_err();

        assert!(refusal.contains("has lived for"), "{refusal}");
        assert_eq!(alive(scene("app", b"app", 'S', lived).path(), "app", lived), Ok(()));
    }

    #[test]
    fn the_kernel_here_tells_of_this_very_process() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();

        assert_eq!(alive(PROC.as_ref(), own.trim_end(), NONE), Ok(()));
        assert!(alive(PROC.as_ref(), own.trim_end(), clock::uptime() * 2).is_err());
        assert!(alive("/no/such/folder".as_ref(), "app", NONE).unwrap_err().contains("could not list"));
    }
}
