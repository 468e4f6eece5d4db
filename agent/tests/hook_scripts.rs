//! The sample hooks of `deploy/hooks`, run as the agent runs them.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use sha2::{Digest as _, Sha256};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/hooks");

struct Scene {
    folder: tempfile::TempDir,
    areas: Vec<PathBuf>,
    /// Version of the release that runs.
    runs: String,
}

impl Scene {
    /// Two areas with everything in them that a copy may lose.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let areas: Vec<_> = ["app data", "user"].map(|name| folder.path().join(name)).into();
        for area in &areas {
            fs::create_dir_all(area.join("deep/er/empty folder")).unwrap();
            fs::write(area.join("empty"), "").unwrap();
            fs::write(area.join("deep/file"), "what the user has").unwrap();
            let odd = [
                &b"-rf"[..],
                b"new\nline",
                b" sp ace ",
                b"qu'o\"te",
                b"*",
                b"\xff\xfe",
                b".hidden",
                b"$(id)",
            ];
            for name in odd {
                fs::write(area.join(OsStr::from_bytes(name)), name).unwrap();
            }
            symlink("nowhere", area.join("dangling")).unwrap();
            fs::hard_link(area.join("deep/file"), area.join("second name")).unwrap();
            let sparse = fs::File::create(area.join("sparse")).unwrap();
            sparse.write_all_at(b"end", 8 << 20).unwrap();
            fs::write(area.join("zeros"), [0; 300_000]).unwrap();
            let mode = |name: &str, mode| {
                fs::set_permissions(area.join(name), fs::Permissions::from_mode(mode)).unwrap();
            };
            mode("empty", 0o400);
            mode("deep/er", 0o1777);
            mode("deep/file", 0o4750);
            mode("", 0o711);
            for name in ["", "deep", "deep/file", "empty"] {
                attribute(&area.join(name), "user.tern.test", name.as_bytes());
            }
        }
        Self { folder, areas, runs: "1.5".into() }
    }

    fn snapshot_folder(&self) -> PathBuf {
        self.folder.path().join("a snapshot")
    }

    fn run(&self, script: &str, step: &str) -> String {
        self.run_for(script, step, 7)
    }

    fn run_for(&self, script: &str, step: &str, rc: u64) -> String {
        let output = self.ends(script, step, rc, &[]);
        assert!(output.status.success(), "{script} {step}: {output:?}");
        text(&output)
    }

    fn ends(&self, script: &str, step: &str, rc: u64, more: &[(&str, &OsStr)]) -> Output {
        let areas: Vec<_> = self.areas.iter().map(|area| area.as_os_str()).collect();
        Command::new(Path::new(SCRIPTS).join(script))
            .arg(self.snapshot_folder())
            .env("TERN_STEP", step)
            .env("TERN_RC", rc.to_string())
            .env("TERN_DATA", areas.join(OsStr::new(":")))
            .env("TERN_REASON", "a probe failed")
            .env("TERN_VERSION", format!("1.{rc}"))
            .env("TERN_FROM_VERSION", &self.runs)
            .env("TERN_AGENT", env!("CARGO_BIN_EXE_tern-agent"))
            .envs(more.iter().copied())
            .output()
            .unwrap()
    }

    /// Does what a migration that goes wrong may do.
    fn spoil(&self) {
        for area in &self.areas {
            fs::write(area.join("deep/file"), "something else").unwrap();
            fs::remove_file(area.join(" sp ace ")).unwrap();
            fs::write(area.join("new"), "new").unwrap();
            fs::set_permissions(area.join("empty"), fs::Permissions::from_mode(0o644)).unwrap();
            attribute(&area.join("deep"), "user.tern.test", b"spoilt");
            attribute(area, "user.tern.test", b"spoilt");
            attribute(&area.join("deep/er"), "user.tern.more", b"more");
            fs::set_permissions(area, fs::Permissions::from_mode(0o777)).unwrap();
        }
    }

    fn digest(&self) -> String {
        self.digests().concat()
    }

    /// One of each area.
    fn digests(&self) -> Vec<String> {
        let one = |area: &PathBuf| {
            let mut hash = Sha256::new();
            add(&mut hash, area, Path::new(""));
            hex::encode(hash.finalize())
        };
        self.areas.iter().map(one).collect()
    }

    /// Has every program that a script runs counted, and the script killed at the one with this number: before it, after
    /// it, or with the half of a copy done. Returns whether that came.
    fn killed_at(&self, script: &str, number: u32, how: &str) -> bool {
        let bin = self.folder.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let count = self.folder.path().join("count");
        fs::write(&count, "0").unwrap();
        for name in ["cp", "mv", "rm", "sync", "mkdir", "find", "tern-agent"] {
            let real = match name {
                "tern-agent" => env!("CARGO_BIN_EXE_tern-agent").to_owned(),
                name => format!("/usr/bin/{name}"),
            };
            let half = "for last; do :; done; /usr/bin/rm -rf \"$last/deep\" \"$last/user\"";
            executable(
                &bin.join(name),
                &format!(
                    "#!/bin/sh\nn=$(($(cat '{count}') + 1)); echo $n >'{count}'\n\
                     [ $n = {number} ] || exec {real} \"$@\"\n\
                     case {how} in before) ;; after) {real} \"$@\" ;; half) {real} \"$@\"; [ {name} != cp ] || {{ {half}; }} ;; esac\n\
                     kill -9 $PPID\n",
                    count = count.display()
                ),
            );
        }
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let agent = bin.join("tern-agent");
        let more = [("PATH", OsStr::new(&path)), ("TERN_AGENT", agent.as_os_str())];
        let output = self.ends(script, "undo", 7, &more);
        !output.status.success()
    }
}

/// Past the harness, which shows nothing of a test that passes.
fn not_tried(why: &str) {
    let said = format!("NOT TRIED: {why}\n");
    let _shown = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Written by another process: a descriptor of ours that a test beside this one has just forked would keep it busy.
fn executable(path: &Path, text: &str) {
    let script = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let path = path.to_str().unwrap();
    assert!(Command::new("/bin/sh").args(["-c", script, "-", text, path]).status().unwrap().success());
}

fn attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).expect("this file system keeps attributes");
}

/// Adds everything about a path and what is below it: names, kinds, modes, owners, times, attributes, contents.
fn add(hash: &mut Sha256, area: &Path, relative: &Path) {
    let path = area.join(relative);
    let found = fs::symlink_metadata(&path).unwrap();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(relative.as_os_str().as_bytes());
    let links = if found.is_file() { found.nlink() } else { 0 };
    part(format!("{:o} {}:{} {links} {}", found.mode(), found.uid(), found.gid(), found.size()).as_bytes());
    part(format!("{}.{}", found.mtime(), found.mtime_nsec()).as_bytes());
    let mut names = vec![0; 4096];
    let length = llistxattr(&path, &mut names[..]).unwrap();
    let mut names: Vec<_> =
        names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    for name in names {
        let mut value = vec![0; 4096];
        let length = lgetxattr(&path, OsStr::from_bytes(name), &mut value[..]).unwrap();
        part(name);
        part(&value[..length]);
    }
    if found.is_symlink() {
        part(fs::read_link(&path).unwrap().as_os_str().as_bytes());
    } else if found.is_file() {
        part(&fs::read(&path).unwrap());
    } else {
        let mut names: Vec<OsString> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable_by_key(|name| name.clone().into_vec());
        for name in names {
            add(hash, area, &relative.join(name));
        }
    }
}

#[test]
fn a_snapshot_brings_back_every_name_mode_attribute_and_byte() {
    let scene = Scene::new();
    let before = scene.digest();
    scene.run("snapshot-data.sh", "snapshot");
    assert_eq!(scene.digest(), before, "a copy changes nothing");
    scene.spoil();
    assert_ne!(scene.digest(), before, "the digest sees it");

    let said = scene.run("undo.sh", "undo");

    assert!(said.contains("a probe failed"), "{said}");
    assert_eq!(scene.digest(), before);
    let blocks = |name: &str| fs::metadata(scene.areas[0].join(name)).unwrap().blocks() * 512;
    assert!(blocks("sparse") < (1 << 20), "{} B", blocks("sparse"));
    assert!(blocks("zeros") >= 300_000, "{} B: room that was taken is not there any more", blocks("zeros"));
    assert!(!scene.snapshot_folder().exists());
}

#[test]
fn a_snapshot_that_runs_again_after_a_power_cut_keeps_what_it_had_before_the_migration() {
    let scene = Scene::new();
    let before = scene.digest();
    scene.run("snapshot-data.sh", "snapshot");
    scene.spoil();

    scene.run("snapshot-data.sh", "snapshot");
    scene.run("undo.sh", "undo");

    assert_eq!(scene.digest(), before);
}

#[test]
fn half_a_snapshot_and_one_of_another_release_put_nothing_back() {
    let scene = Scene::new();
    scene.run_for("snapshot-data.sh", "snapshot", 6);
    scene.spoil();
    let now = scene.digest();

    scene.run("undo.sh", "undo");
    assert_eq!(scene.digest(), now, "that was release 6");
    fs::remove_file(scene.snapshot_folder().join("whole")).unwrap();
    scene.run_for("undo.sh", "undo", 6);
    assert_eq!(scene.digest(), now, "it was not whole");

    // Half of one is no copy that anybody needs.
    scene.run("snapshot-data.sh", "snapshot");
    fs::write(scene.areas[0].join("empty folder is not empty"), "").unwrap();
    scene.run("undo.sh", "undo");
    assert_eq!(scene.digest(), now, "the copy of release 7 took its place");
}

#[test]
fn a_copy_that_another_release_still_needs_is_not_replaced_and_the_release_waits() {
    let mut scene = Scene::new();
    let before = scene.digest();
    scene.run_for("snapshot-data.sh", "snapshot", 6);
    scene.spoil();

    let output = scene.ends("snapshot-data.sh", "snapshot", 7, &[]);

    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(text(&output).contains("release 6 was not undone"), "{output:?}");
    scene.run_for("undo.sh", "undo", 6);
    assert_eq!(scene.digest(), before, "it can still be undone");
    scene.run("snapshot-data.sh", "snapshot");

    // Release 7 was confirmed, and its copy not dropped: nobody needs it any more.
    scene.runs = "1.7".into();
    scene.run_for("snapshot-data.sh", "snapshot", 8);
    assert_eq!(fs::read_to_string(scene.snapshot_folder().join("whole")).unwrap(), "8\n");
}

/// Before, after and in the middle of every program that the undo runs.
#[test]
fn an_undo_that_is_killed_anywhere_leaves_either_tree_and_can_be_repeated() {
    for how in ["before", "after", "half"] {
        let (mut kills, mut old, mut new) = (0, 0, 0);
        for number in 1.. {
            let scene = Scene::new();
            // It only takes time here.
            scene.areas.iter().for_each(|area| fs::remove_file(area.join("sparse")).unwrap());
            let wanted = scene.digests();
            scene.run("snapshot-data.sh", "snapshot");
            scene.spoil();
            let spoilt = scene.digests();

            if !scene.killed_at("undo.sh", number, how) {
                assert_eq!(scene.digests(), wanted);
                break;
            }

            kills += 1;
            for (area, found) in scene.digests().iter().enumerate() {
                let (is_old, is_new) = (*found == spoilt[area], *found == wanted[area]);
                assert!(is_old || is_new, "{how} program {number}: area {area} is neither");
                (old, new) = (old + u32::from(is_old), new + u32::from(is_new));
            }
            scene.run("undo.sh", "undo");
            assert_eq!(scene.digests(), wanted, "{how} program {number}");
            assert!(scene.areas.iter().all(|area| !area.with_added_extension("tern-undo").exists()));
        }
        assert!(kills > 12 && old > 8 && new > 8, "{how}: {kills} kills, {old} old, {new} new");
    }
}

/// It cannot be exchanged as a whole, and what is in it can.
#[test]
fn an_area_that_is_a_mount_point_gets_its_entries_back() {
    let scene = Scene::new();
    let before = scene.digest();
    scene.run("snapshot-data.sh", "snapshot");
    scene.spoil();
    attribute(&scene.areas[0], "user.tern.test", b"");
    let area = scene.areas[0].to_str().unwrap();
    let script = Path::new(SCRIPTS).join("undo.sh");
    let mut command = Command::new("unshare");
    let inside = "mount --bind \"$1\" \"$1\" || exit 99; exec \"$2\" \"$3\"";
    command.args(["-rm", "/bin/sh", "-c", inside, "-", area]).arg(script).arg(scene.snapshot_folder());
    let areas: Vec<_> = scene.areas.iter().map(|area| area.as_os_str()).collect();
    command.env("TERN_RC", "7").env("TERN_DATA", areas.join(OsStr::new(":")));
    let output = command.env("TERN_AGENT", env!("CARGO_BIN_EXE_tern-agent")).output();
    let output = match output {
        Ok(output) if output.status.code() != Some(99) => output,
        refused => return not_tried(&format!("no mount in a namespace of its own here: {refused:?}")),
    };

    assert!(output.status.success(), "{output:?}");
    assert_eq!(scene.digest(), before);
    assert!(!scene.areas[0].join(".tern-undo").exists());
}

/// What docs/device-integration.md says that the copy takes in a unit without capabilities.
#[test]
fn a_copy_that_may_not_keep_everything_says_so_and_the_capabilities_that_the_page_names_are_enough() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const ENOUGH: [&str; 4] = ["chown", "fowner", "dac_override", "fsetid"];
    let page = fs::read_to_string(Path::new(SCRIPTS).join("../../docs/device-integration.md")).unwrap();
    let named = ENOUGH.map(|name| format!("CAP_{}", name.to_uppercase())).join(" ");
    assert!(page.contains(&format!("CapabilityBoundingSet={named}")), "{named}");
    let scene = Scene::new();
    for area in &scene.areas {
        for (name, mode) in [("deep/file", 0o6700), ("deep/er", 0o2500), ("empty", 0o400)] {
            chown(area.join(name), Some(1000), Some(17)).unwrap();
            fs::set_permissions(area.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    let before = scene.digest();
    let ends = |script: &str, step: &str, with: &[&str]| {
        let areas: Vec<_> = scene.areas.iter().map(|area| area.as_os_str()).collect();
        let bounds =
            format!("--bounding-set=-all{}", with.iter().map(|name| format!(",+{name}")).collect::<String>());
        let mut command = Command::new("setpriv");
        command
            .args(["--inh-caps=-all", &bounds])
            .arg(Path::new(SCRIPTS).join(script))
            .arg(scene.snapshot_folder());
        command.env("TERN_STEP", step).env("TERN_RC", "7").env("TERN_DATA", areas.join(OsStr::new(":")));
        command.env("TERN_AGENT", env!("CARGO_BIN_EXE_tern-agent")).output().expect("setpriv is there")
    };

    for missing in ["chown", "fowner", "dac_override"] {
        let with: Vec<_> = ENOUGH.into_iter().filter(|name| *name != missing).collect();
        let output = ends("snapshot-data.sh", "snapshot", &with);
        assert!(!output.status.success() && !output.stderr.is_empty(), "without {missing}: {output:?}");
        assert!(!scene.snapshot_folder().join("whole").exists());
    }
    let output = ends("snapshot-data.sh", "snapshot", &ENOUGH);
    assert!(output.status.success(), "{output:?}");
    scene.spoil();
    let output = ends("undo.sh", "undo", &ENOUGH);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(scene.digest(), before);
}

/// In a memory file system that has none they would be lost, and nobody told.
#[test]
fn a_copy_that_cannot_keep_attributes_fails_before_anything_is_changed() {
    let scene = Scene::new();
    let before = scene.digest();
    let place = scene.folder.path().join("memory");
    fs::create_dir(&place).unwrap();
    let mut command = Command::new("unshare");
    let inside = "mount -t ramfs none \"$1\" || exit 99; \"$2\" \"$1/copy\" || exit; test -e \"$1/copy/whole\" && exit 98";
    command.args(["-rm", "/bin/sh", "-c", inside, "-"]).arg(&place);
    let areas: Vec<_> = scene.areas.iter().map(|area| area.as_os_str()).collect();
    command.arg(Path::new(SCRIPTS).join("snapshot-data.sh")).env("TERN_STEP", "snapshot");
    let output = command.env("TERN_RC", "7").env("TERN_DATA", areas.join(OsStr::new(":"))).output();
    let Some(output) = output.ok().filter(|output| output.status.code() != Some(99)) else {
        return not_tried("no mount in a namespace of its own here");
    };

    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("ttribute"), "{output:?}");
    assert_eq!(scene.digest(), before);
}

#[test]
fn an_undo_may_run_twice_and_without_a_snapshot_and_a_confirmed_release_needs_none() {
    let scene = Scene::new();
    let before = scene.digest();
    scene.run("undo.sh", "undo");
    scene.run("snapshot-data.sh", "snapshot");
    scene.run("undo.sh", "undo");
    scene.run("undo.sh", "undo");
    assert_eq!(scene.digest(), before);

    scene.run("snapshot-data.sh", "snapshot");
    scene.run("snapshot-data.sh", "confirmed");
    scene.run("snapshot-data.sh", "confirmed");
    assert!(!scene.snapshot_folder().exists());
}

#[test]
fn a_migration_runs_every_step_once_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (data, steps) = (folder.path().join("data"), folder.path().join("steps"));
    fs::create_dir_all(&data).unwrap();
    fs::create_dir_all(&steps).unwrap();
    for number in 1..=3 {
        let fails = if number == 3 { "test -e \"$1/may\" || exit 4\n" } else { "" };
        let step = steps.join(number.to_string());
        executable(&step, &format!("#!/bin/sh\n{fails}echo {number} >> \"$1/ran\"\n"));
    }
    let migrate = |last: &str| {
        let script = Path::new(SCRIPTS).join("migrate.sh");
        Command::new(script)
            .args([data.as_os_str(), steps.as_os_str(), OsStr::new(last)])
            .status()
            .unwrap()
            .code()
    };

    let codes = [migrate("1"), migrate("3"), migrate("3")];
    fs::write(data.join("may"), "").unwrap();

    assert_eq!((codes, migrate("3"), migrate("3")), ([Some(0), Some(4), Some(4)], Some(0), Some(0)));
    assert_eq!(fs::read_to_string(data.join("ran")).unwrap(), "1\n2\n3\n");
    assert_eq!(fs::read_to_string(data.join("schema")).unwrap(), "3\n");
}

#[test]
fn the_modem_is_asked_and_a_modem_that_does_not_answer_is_no_yes() {
    let folder = tempfile::tempdir().unwrap();
    let mmcli = folder.path().join("mmcli");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let run = |script: &str| {
        let output = Command::new(Path::new(SCRIPTS).join(script)).env("PATH", &path).output().unwrap();
        (output.status.code(), text(&output))
    };
    let says = |said: &str, code: i32| {
        executable(&mmcli, &format!("#!/bin/sh\necho '{said}'\nexit {code}\n"));
    };

    assert_eq!(run("not-during-calls.sh").0, Some(75), "there is no mmcli");
    for (said, code, exit) in [
        ("No calls were found", 0, 0),
        ("Found 1 calls:\n  /org/freedesktop/ModemManager1/Call/0 incoming", 0, 75),
        ("error: could not find modem", 1, 75),
    ] {
        says(said, code);
        assert_eq!(run("not-during-calls.sh").0, Some(exit), "{said}");
    }
    for (state, exit) in [("registered", 0), ("connected", 0), ("failed", 1), ("locked", 1)] {
        says(&format!("modem.generic.state               : {state}"), 0);
        assert_eq!(run("modem-registered.sh").0, Some(exit), "{state}");
    }
}
