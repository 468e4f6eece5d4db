//! systemd-boot as its specifications describe it (Boot Loader Specification, Automatic Boot Assessment, Version Format
//! Specification) and 252 does it, on a fake disk: written from those, and from nothing of the agent's.

use std::cmp::Ordering;
use std::io;
use std::path::Path;

use tern_agent::storage::{self, Storage};

/// What it boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The entry as it was named before it was counted.
    pub entry: String,
    /// The name after that; the same where nothing was counted.
    pub counted: String,
    /// The kernel's command line.
    pub options: String,
}

#[derive(Debug)]
struct Entry {
    file: String,
    id: String,
    sort_key: Option<String>,
    version: String,
    options: String,
    tries: Option<(u64, u64)>,
    stem: String,
}

/// Chooses, counts and returns what boots: `loader` is the folder with `loader.conf` and `entries`.
pub fn boot(disk: &dyn Storage, loader: &Path) -> io::Result<Choice> {
    let folder = loader.join("entries");
    let mut entries = Vec::new();
    for file in disk.list(&folder, usize::MAX - 1)? {
        let file = file.into_string().map_err(|_| io::ErrorKind::InvalidData)?;
        let bytes = storage::read(disk, &folder.join(&file), 1 << 20)?;
        entries.extend(parse(&file, &String::from_utf8_lossy(&bytes)));
    }
    entries.sort_by(order);
    let conf = storage::read(disk, &loader.join("loader.conf"), 1 << 20)?;
    let conf = String::from_utf8_lossy(&conf).into_owned();
    let default = pairs(&conf).filter(|(key, _)| *key == "default").last();
    let matching = default.and_then(|(_, glob)| entries.iter().find(|entry| is_like(glob, &entry.id)));
    let Some(entry) = matching.or(entries.first()) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no entry"));
    };
    let mut counted = entry.file.clone();
    if let Some((left, done)) = entry.tries {
        let next = format!("{}+{}-{}.conf", entry.stem, left.saturating_sub(1), done + 1);
        let to = folder.join(&next);
        // The firmware renames onto nothing that is there; the loader goes on all the same.
        if disk.look(&to).is_err() {
            disk.rename(&folder.join(&entry.file), &to)?;
            disk.sync_folder(&folder)?;
            counted = next;
        }
    }
    Ok(Choice { entry: entry.file.clone(), counted, options: entry.options.clone() })
}

fn parse(file: &str, text: &str) -> Option<Entry> {
    let id = file.to_lowercase();
    let before = id.strip_suffix(".conf")?.len();
    let stem = &file[..before];
    let (stem, tries) = stem
        .rsplit_once('+')
        .and_then(|(stem, counter)| {
            let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
            Some((stem, Some((left.parse().ok()?, done.parse().ok()?))))
        })
        .unwrap_or((stem, None));
    let value = |wanted: &str| {
        pairs(text).filter(|(key, _)| *key == wanted).last().map(|(_, value)| value.to_owned())
    };
    value("linux").or(value("efi"))?;
    let options: Vec<_> = pairs(text).filter(|(key, _)| *key == "options").map(|(_, value)| value).collect();
    Some(Entry {
        file: file.to_owned(),
        sort_key: value("sort-key"),
        version: value("version").unwrap_or_default(),
        options: options.join(" "),
        tries,
        stem: stem.to_owned(),
        id,
    })
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once([' ', '\t'])).map(|(key, value)| (key, value.trim()))
}

/// What is tried first stands first.
fn order(a: &Entry, b: &Entry) -> Ordering {
    let is_bad = |entry: &Entry| entry.tries.is_some_and(|(left, _)| left == 0);
    let keyed = || match (&a.sort_key, &b.sort_key) {
        (Some(one), Some(other)) => one.cmp(other).then_with(|| versions(&b.version, &a.version)),
        (one, other) => one.is_none().cmp(&other.is_none()),
    };
    let counted = || match (a.tries, b.tries) {
        (Some(a), Some(b)) => b.0.cmp(&a.0).then(a.1.cmp(&b.1)),
        _ => Ordering::Equal,
    };
    is_bad(a).cmp(&is_bad(b)).then_with(keyed).then_with(|| versions(&b.id, &a.id)).then_with(counted)
}

/// Compares two versions.
pub fn versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let is_separator = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '~' | '-' | '^' | '.'));
        (a, b) = (a.trim_start_matches(is_separator), b.trim_start_matches(is_separator));
        for (mark, of_end) in [('~', false), ('\0', true), ('-', false), ('^', false), ('.', false)] {
            if of_end {
                if a.is_empty() || b.is_empty() {
                    return a.len().min(1).cmp(&b.len().min(1));
                }
                continue;
            }
            match (a.strip_prefix(mark), b.strip_prefix(mark)) {
                (Some(rest), Some(other)) => (a, b) = (rest, other),
                (Some(_), None) => return Ordering::Less,
                (None, Some(_)) => return Ordering::Greater,
                (None, None) => {}
            }
        }
        let is_number = [a, b].iter().any(|text| text.starts_with(|c: char| c.is_ascii_digit()));
        let belongs = |c: char| if is_number { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
        let end = |text: &str| text.find(|c| !belongs(c)).unwrap_or(text.len());
        let ((x, rest), (y, other)) = (a.split_at(end(a)), b.split_at(end(b)));
        let found = if is_number {
            let (x, y) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            x.cmp(y)
        };
        if found != Ordering::Equal {
            return found;
        }
        // A mark that only one of them has, further on, would be met again for ever otherwise.
        if (x.len(), y.len()) == (0, 0) && (rest, other) == (a, b) {
            return a.cmp(b);
        }
        (a, b) = (rest, other);
    }
}

/// Tells whether a name is like a pattern with stars.
fn is_like(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| is_like(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::powercut::disk::FakeDisk;

    fn disk(entries: &[(&str, u32)]) -> FakeDisk {
        let disk = FakeDisk::default();
        disk.put(Path::new("/boot/loader/loader.conf"), b"default tern-*\n");
        for (file, version) in entries {
            let text = format!("sort-key tern\nversion {version}\noptions of {file}\nlinux /x\n");
            disk.put(&PathBuf::from("/boot/loader/entries").join(file), text.as_bytes());
        }
        disk
    }

    fn boots(disk: &FakeDisk) -> (String, String) {
        let choice = boot(disk, Path::new("/boot/loader")).unwrap();
        (choice.entry, choice.counted)
    }

    /// As 252 did it under OVMF: tests/boot_chain.
    #[test]
    fn it_counts_as_systemd_boot_was_seen_to() {
        let disk = disk(&[("tern-a.conf", 1), ("tern-b+2.conf", 2), ("0.conf", 9)]);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(boots(&disk));
        }

        let names = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(seen[0], names("tern-b+2.conf", "tern-b+1-1.conf"));
        assert_eq!(seen[1], names("tern-b+1-1.conf", "tern-b+0-2.conf"));
        assert_eq!(seen[2..], [names("tern-a.conf", "tern-a.conf"), names("tern-a.conf", "tern-a.conf")]);
    }

    #[test]
    fn it_takes_no_try_of_an_entry_that_is_there_twice() {
        let disk = disk(&[("tern-a.conf", 1), ("tern-b+1-1.conf", 2), ("tern-b+0-2.conf", 2)]);

        let seen = [boots(&disk), boots(&disk)];

        assert!(seen.iter().all(|(from, to)| from == "tern-b+1-1.conf" && to == from), "{seen:?}");
    }

    #[test]
    fn versions_are_ordered_as_their_specification_says() {
        for (less, more) in [
            ("2", "12"),
            ("9", "10"),
            ("1", "1.1"),
            ("1~rc", "1"),
            ("1-2", "1.2"),
            ("a", "b"),
            ("", "1"),
            ("tern-b+1-1.conf", "tern-b+2.conf"),
            ("tern-a.conf", "tern-b.conf"),
            ("007", "8"),
        ] {
            assert_eq!(versions(less, more), Ordering::Less, "{less} {more}");
            assert_eq!(versions(more, less), Ordering::Greater, "{less} {more}");
            assert_eq!(versions(more, more), Ordering::Equal);
        }
    }
}
