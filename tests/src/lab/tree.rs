//! User data: a tree with everything in it that a copy may lose, and a walk that sees all of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{
    FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown, symlink,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr,
    lsetxattr, mknodat, seek, utimensat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::in_ci;

/// Second of the time that the oldest of a tree was changed; each next one a bit later.
const FIRST_TIME: i64 = 1_234_567_890;
/// Bytes of an attribute: more than an inode has room for.
const LONG: usize = 2500;
/// Bytes that a walk takes at most of one attribute, or of a list of names.
const ATTRIBUTE_MAX: usize = 64 * 1024;

/// Returns names that a script may stumble over.
fn odd_names() -> Vec<OsString> {
    let mut names: Vec<Vec<u8>> = [
        &b"-rf"[..],
        b"--",
        b"-",
        b"new\nline",
        b"\n",
        b" sp ace ",
        b"tab\t",
        b"qu'o\"te",
        b"back\\slash\\n",
        b"*",
        b"?",
        b"[a]",
        b"$(id)",
        b"`id`",
        b"a;b&c|d",
        b"colon:colon",
        b"{slot}",
        b"...",
        b".hidden",
        b"~",
        b"#",
        b"%s%n",
        b"\xff\xfe\x80",
        b"\x01\x7f\x1b[31m",
        // One letter in two ways, and more than one byte each.
        "\u{e9}".as_bytes(),
        "e\u{301}".as_bytes(),
        "\u{6f22}\u{5b57}\u{1f980}".as_bytes(),
    ]
    .map(<[u8]>::to_vec)
    .into();
    names.push(vec![b'n'; 255]);
    names.into_iter().map(OsString::from_vec).collect()
}

/// Plants a tree in a folder, which is made. Returns false where the file system keeps no attributes: what the test is about
/// cannot be tried there.
///
/// # Panics
/// Without attributes in CI, and where the tree cannot be made.
#[must_use]
pub fn plant(area: &Path) -> bool {
    fs::create_dir_all(area.join("deep/er/empty folder")).expect("a folder");
    match lsetxattr(area, "user.tern.test", b"", XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => {
            let said = format!("NOT TRIED: the file system of {} keeps no attributes\n", area.display());
            assert!(!in_ci(), "{said}");
            let _shown = io::Write::write_all(&mut io::stderr(), said.as_bytes());
            return false;
        }
        set => set.expect("an attribute"),
    }
    let write = |name: &str, bytes: &[u8]| fs::write(area.join(name), bytes).expect("a file");
    for name in odd_names() {
        fs::write(area.join(&name), name.as_bytes()).expect("a file of an odd name");
        let folder = area.join("deep").join(&name);
        fs::create_dir(&folder).expect("a folder of an odd name");
        fs::write(folder.join(&name), "").expect("a file of an odd name");
    }
    write("empty", b"");
    write("deep/file", b"what the user has");
    write("settings", b"one = 1\n");
    fs::hard_link(area.join("deep/file"), area.join("second name")).expect("a link");
    fs::hard_link(area.join("deep/file"), area.join("deep/er/third name")).expect("a link");
    hold_data(area);
    for (target, name) in [("nowhere", "dangling"), ("deep/file", "link"), ("deep", "link to a folder")] {
        symlink(target, area.join(name)).expect("a link");
    }
    symlink(OsStr::from_bytes(b"\xff new\nline "), area.join("odd link")).expect("a link");
    mknodat(CWD, area.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("a pipe");
    // The name of a socket has to be short, the way to it not.
    let short = tempfile::tempdir().expect("a folder");
    let _bound = UnixListener::bind(short.path().join("socket")).expect("a socket");
    match fs::rename(short.path().join("socket"), area.join("socket")) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        moved => moved.expect("a socket of another name"),
    }
    bear_attributes(area);
    belong(area);
    for (name, mode) in [
        ("empty", 0o400),
        ("deep/er", 0o1777),
        ("deep/file", 0o4750),
        ("settings", 0o644),
        ("sparse", 0o2711),
        ("deep/er/empty folder", 0o2500),
        ("", 0o711),
    ] {
        fs::set_permissions(area.join(name), Permissions::from_mode(mode)).expect("a mode");
    }
    let mut time = FIRST_TIME;
    age(area, &mut time);
    true
}

/// Files with holes at either end and in between, without data, and with zeros that are data.
fn hold_data(area: &Path) {
    let file = |name: &str, pieces: &[(u64, &[u8])], size: u64| {
        let file = File::create(area.join(name)).expect("a file");
        for (offset, bytes) in pieces {
            file.write_all_at(bytes, *offset).expect("bytes of a file");
        }
        file.set_len(size).expect("a size");
        // So that it is said where holes are, and not where they may come to be.
        file.sync_all().expect("a synced file");
    };
    file("sparse", &[(0, b"first"), (3 << 20, &[7; 9000]), (5 << 20, b"last")], 6 << 20);
    file("hole", &[], 2 << 20);
    file("deep/hole first", &[(1 << 20, b"end")], (1 << 20) + 3);
    file("zeros", &[(0, &[0; 300_000])], 300_000);
    let bytes: Vec<u8> = (0..70_001_u32).map(|at| (at % 251) as u8).collect();
    file("deep/data", &[(0, &bytes)], 70_001);
}

fn bear_attributes(area: &Path) {
    for (name, attribute, value) in [
        ("", "user.tern.test", &b"area"[..]),
        ("deep", "user.tern.test", b""),
        ("deep/file", "user.tern.test", &[0, 1, 255, b'\n', 0]),
        ("deep/file", "user.\u{fc}", b"another"),
        ("sparse", "user.tern.long", &[b'l'; LONG]),
        ("-rf", "user.tern.test", b"-"),
        ("deep/er/empty folder", "user.tern.test", b"on a folder"),
    ] {
        set_attribute(&area.join(name), attribute, value);
    }
}

/// Sets an attribute.
///
/// # Panics
/// When the file system keeps none.
pub fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).expect("this file system keeps attributes");
}

/// Gives some of it to others, where we may.
fn belong(area: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (name, owner, group) in
        [("deep/file", 1000, 1000), ("deep", 4242, 17), ("zeros", 0, 100), ("fifo", 1001, 5), ("", 1000, 5)]
    {
        chown(area.join(name), Some(owner), Some(group)).expect("an owner");
    }
    lchown(area.join("dangling"), Some(1002), Some(1003)).expect("an owner of a link");
}

/// Gives each a time of its own, what is in a folder first.
fn age(path: &Path, time: &mut i64) {
    if fs::symlink_metadata(path).expect("it is there").is_dir() {
        for name in names_in(path) {
            age(&path.join(name), time);
        }
    }
    *time += 61;
    let nanoseconds = (*time * 7919) % 1_000_000_000;
    set_time(path, *time, nanoseconds);
}

/// Sets the time when it was changed last.
///
/// # Panics
/// When it is not there.
pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let it = Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: it, last_modification: it };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time");
}

fn names_in(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).expect("a folder that can be read");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort_unstable();
    names
}

/// What one name in a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    time: (i64, i64),
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Hash of a file's bytes, or where a link leads.
    content: Vec<u8>,
    /// Where a file has data, and no hole.
    data: Vec<(u64, u64)>,
    /// The first name of the same file.
    same_as: PathBuf,
}

/// Everything about a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk(BTreeMap<PathBuf, Entry>);

impl Walk {
    /// Walks through what is below a folder. Nothing is asked of the folder itself.
    ///
    /// # Panics
    /// When something cannot be read.
    pub fn through(folder: &Path) -> Self {
        let (mut entries, mut first_names) = (BTreeMap::new(), BTreeMap::new());
        walk(folder, Path::new(""), &mut entries, &mut first_names);
        Self(entries)
    }

    /// Returns how many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says what is different from what was `before`: the name, and what of it, such as `"user/deep/file": mode`.
    pub fn differs_from(&self, before: &Self) -> Vec<String> {
        let mut said = Vec::new();
        for (path, entry) in &self.0 {
            let Some(was) = before.0.get(path) else {
                said.push(format!("{path:?}: new"));
                continue;
            };
            let parts = [
                ("kind", entry.kind == was.kind),
                ("mode", entry.mode == was.mode),
                ("owner", entry.owner == was.owner),
                ("size", entry.size == was.size),
                ("time", entry.time == was.time),
                ("attributes", entry.attributes == was.attributes),
                ("content", entry.content == was.content),
                ("holes", entry.data == was.data),
                ("links", entry.same_as == was.same_as),
            ];
            let others = parts.iter().filter(|(_, is_same)| !is_same);
            said.extend(others.map(|(part, _)| format!("{path:?}: {part}")));
        }
        let gone = before.0.keys().filter(|path| !self.0.contains_key(*path));
        said.extend(gone.map(|path| format!("{path:?}: gone")));
        said
    }
}

fn walk(
    root: &Path,
    relative: &Path,
    entries: &mut BTreeMap<PathBuf, Entry>,
    first_names: &mut BTreeMap<(u64, u64), PathBuf>,
) {
    for name in names_in(&root.join(relative)) {
        let relative = relative.join(name);
        let path = root.join(&relative);
        let found = fs::symlink_metadata(&path).expect("it is there");
        let kind = found.file_type();
        let is_file = kind.is_file();
        let named = match kind {
            kind if kind.is_file() => "file",
            kind if kind.is_dir() => "folder",
            kind if kind.is_symlink() => "link",
            kind if kind.is_fifo() => "pipe",
            kind if kind.is_socket() => "socket",
            _ => "device",
        };
        let same_as = match kind.is_dir() {
            true => relative.clone(),
            false => {
                first_names.entry((found.dev(), found.ino())).or_insert_with(|| relative.clone()).clone()
            }
        };
        let content = match named {
            "file" => Sha256::digest(fs::read(&path).expect("a file that can be read")).to_vec(),
            "link" => fs::read_link(&path).expect("a link").into_os_string().into_vec(),
            _ => Vec::new(),
        };
        let entry = Entry {
            kind: named,
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            // That of a folder says what once was in it.
            size: if kind.is_dir() { 0 } else { found.size() },
            time: (found.mtime(), found.mtime_nsec()),
            attributes: attributes(&path),
            content,
            data: if is_file { data(&path, found.size()) } else { Vec::new() },
            same_as,
        };
        entries.insert(relative.clone(), entry);
        if kind.is_dir() {
            walk(root, &relative, entries, first_names);
        }
    }
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; ATTRIBUTE_MAX];
    let length = match llistxattr(path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length.expect("names of attributes"),
    };
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; ATTRIBUTE_MAX];
        let length = lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).expect("an attribute");
        value.truncate(length);
        (name.to_vec(), value)
    };
    names.map(value).collect()
}

fn data(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = File::open(path).expect("a file that can be read");
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < size {
        let from = match seek(&file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            from => from.expect("where data begins"),
        };
        at = seek(&file, SeekFrom::Hole(from)).expect("where data ends");
        pieces.push((from, at));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plants a tree, changes one thing of it, and says what a second walk sees.
    fn seen(change: impl FnOnce(&Path)) -> Option<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let area = folder.path().join("user");
        plant(&area).then(|| {
            let before = Walk::through(folder.path());
            assert!(before.len() > 80, "{}", before.len());
            change(&area);
            Walk::through(folder.path()).differs_from(&before)
        })
    }

    fn sees(change: impl FnOnce(&Path), expected: &[&str]) {
        let Some(seen) = seen(change) else { return };
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_walk_sees_each_thing_that_a_copy_may_lose() {
        sees(|_| {}, &[]);
        let mode = |name: &str, mode| {
            let (name, permissions) = (name.to_owned(), Permissions::from_mode(mode));
            move |area: &Path| fs::set_permissions(area.join(name), permissions).unwrap()
        };
        sees(mode("deep/er", 0o777), &["\"user/deep/er\": mode"]);
        sees(|area| set_time(&area.join("dangling"), 5, 5), &["\"user/dangling\": time"]);
        sees(|area| set_time(area, FIRST_TIME, 0), &["\"user\": time"]);
        sees(|area| set_attribute(&area.join("-rf"), "user.x", b""), &["\"user/-rf\": attributes"]);
        sees(
            |area| set_attribute(&area.join("deep"), "user.tern.test", b"more"),
            &["\"user/deep\": attributes"],
        );
        let written = |name: &'static str, bytes: &'static [u8], offset: u64| {
            move |area: &Path| {
                let path = area.join(name);
                let before = fs::metadata(&path).unwrap();
                let file = File::options().write(true).open(&path).unwrap();
                file.write_all_at(bytes, offset).unwrap();
                file.sync_all().unwrap();
                set_time(&path, before.mtime(), before.mtime_nsec());
            }
        };
        sees(written("deep/data", b"x", 1000), &["\"user/deep/data\": content"]);
        sees(written("sparse", &[0; 4096], 1 << 20), &["\"user/sparse\": holes"]);
        let relinked = |area: &Path| {
            let (name, file) = (area.join("second name"), area.join("deep/file"));
            let (time, above) = (fs::metadata(&file).unwrap(), fs::metadata(area).unwrap());
            fs::remove_file(&name).unwrap();
            assert!(
                std::process::Command::new("cp").arg("-a").args([&file, &name]).status().unwrap().success()
            );
            set_time(&name, time.mtime(), time.mtime_nsec());
            set_time(area, above.mtime(), above.mtime_nsec());
        };
        sees(relinked, &["\"user/second name\": links"]);
        if rustix::process::geteuid().is_root() {
            sees(|area| lchown(area.join("link"), Some(7), None).unwrap(), &["\"user/link\": owner"]);
        }
        let Some(seen) = seen(|area| fs::rename(area.join("*"), area.join("**")).unwrap()) else { return };
        assert_eq!(seen, ["\"user\": time", "\"user/**\": new", "\"user/*\": gone"]);
    }
}
