//! What hooks, and the programs of components, said last: one file each, `<step>-<name>.log`, replaced whole. A report has room for the end alone.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::SystemTime;

use crate::command::Finished;

/// Bytes kept of one hook's output: the last ones, which say why.
pub(crate) const KEPT: usize = 64 * 1024;
/// Files that are kept; the oldest goes first. Hooks that are not configured any more leave theirs behind.
const FILES_MAX: usize = 32;
/// Letters of a name in a file's name.
const NAME_MAX: usize = 48;

/// Writes down what a program said. Nothing is synced: it is for a person who looks for a reason, and flash wears out.
pub(crate) fn keep(folder: &Path, step: &str, name: &str, finished: &Finished) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = name.chars().take(NAME_MAX).map(plain).collect();
    let new = folder.join("new");
    let mut file = fs::File::create(&new)?;
    let mut line = format!("{step}: {}", finished.ending);
    if finished.left_out > 0 {
        line.push_str(&format!("; {} B before this are left out", finished.left_out));
    }
    writeln!(file, "{line}")?;
    file.write_all(&finished.output)?;
    drop(file);
    fs::rename(&new, folder.join(format!("{step}-{name}.log")))?;
    forget_oldest(folder)
}

fn forget_oldest(folder: &Path) -> io::Result<()> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        logs.push((entry.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
    }
    // One at a time: there is one too many as a rule, and sorting weighs more than all the rest here.
    while logs.len() > FILES_MAX {
        let Some((oldest, _)) = logs.iter().enumerate().min_by(|one, other| one.1.cmp(other.1)) else {
            break;
        };
        fs::remove_file(logs.swap_remove(oldest).1)?;
    }
    Ok(())
}
