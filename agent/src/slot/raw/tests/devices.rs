//! The same on block devices, where this machine lets us make them: loop devices, as root.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;

use super::*;

/// Some machines have eight loop devices and no more.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A loop device on a file of its own.
struct Loop {
    path: PathBuf,
    _file: tempfile::NamedTempFile,
}

impl Loop {
    fn new(size: u64) -> Option<Self> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file.path()).output().ok()?;
        let path = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        made.status.success().then(|| Self { path: path.into(), _file: file })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _gone = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

/// A scene on two loop devices, or the reason why there is none; a failure where `TERN_LOOP=1` says that there are some.
fn devices() -> Option<(Scene, [Loop; 2], MutexGuard<'static, ()>)> {
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let both = Loop::new(1 << 20).zip(Loop::new(1 << 20));
    let Some((first, second)) = both else {
        assert!(
            std::env::var_os("TERN_LOOP").is_none_or(|value| value != "1"),
            "no loop devices, though TERN_LOOP=1"
        );
        // Past the harness, which shows nothing of a test that passes.
        let said =
            "NOT TESTED on block devices: losetup makes none here (it needs root and the kernel's loop)\n";
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return None;
    };
    let scene = Scene { paths: [first.path.clone(), second.path.clone()], ..Scene::files() };
    Some((scene, [first, second], guard))
}

/// Runs a program that claims a device; what another test starts may hold our last claim for the moment.
fn run(program: &str, arguments: &[&Path]) {
    for attempt in 1.. {
        let output = Command::new(program).args(arguments).output().unwrap();
        if output.status.success() {
            return;
        }
        assert!(attempt < 20, "{program}: {output:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A file system on a device, mounted as long as this lives.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn on(device: &Path) -> Self {
        run("mkfs.ext4", &[Path::new("-q"), device]);
        let folder = tempfile::tempdir().unwrap();
        run("mount", &[device, folder.path()]);
        Self(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn an_image_is_installed_on_a_block_device_and_read_back_past_the_cache() {
    let Some((scene, _loops, _guard)) = devices() else { return };
    let bytes = pattern(200_001);

    let image = install(&mut scene.slots(), 7, &bytes);

    assert_eq!(scene.slots().label(SlotName::B).unwrap(), SlotLabel::Holds(image));
    let found = fs::read(&scene.paths[1]).unwrap();
    assert!(found[..bytes.len()] == bytes[..] && found[bytes.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_mounted_device_is_refused_and_taken_once_it_is_free() {
    let Some((scene, loops, _guard)) = devices() else { return };
    let before = {
        let _mounted = Mounted::on(&loops[1].path);
        let before = fs::read(&loops[1].path).unwrap();

        assert_eq!(scene.problem(scene.paths.clone()), Problem::Mounted);

        assert!(fs::read(&loops[1].path).unwrap() == before, "nothing was written");
        before
    };
    drop(before);
    install(&mut scene.slots(), 7, b"release seven");
}

#[test]
fn a_device_that_is_mounted_between_two_runs_of_the_agent_is_not_written_any_further() {
    let Some((scene, loops, _guard)) = devices() else { return };
    let mut slots = scene.slots();
    slots.mark_bad(SlotName::B).unwrap();
    slots.write(SlotName::B, 0, b"x").unwrap();
    drop(slots);
    let _mounted = Mounted::on(&loops[1].path);

    let result = scene.slots().write(SlotName::B, 1, b"x");

    assert!(matches!(result, Err(SlotError::Unfit { problem: Problem::Mounted, .. })), "{result:?}");
}

#[test]
fn a_device_that_is_being_written_cannot_be_mounted() {
    let Some((scene, loops, _guard)) = devices() else { return };
    let mut slots = scene.slots();
    slots.mark_bad(SlotName::B).unwrap();
    slots.write(SlotName::B, 0, b"x").unwrap();

    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&loops[1].path).output().unwrap();

    assert!(!made.status.success(), "{made:?}");
}

#[test]
fn the_running_slot_may_be_mounted() {
    let Some((scene, loops, _guard)) = devices() else { return };
    let _mounted = Mounted::on(&loops[0].path);

    install(&mut scene.slots(), 7, b"release seven");
}

#[test]
fn a_device_that_the_system_has_claimed_is_refused() {
    let Some((scene, loops, _guard)) = devices() else { return };
    let claimed = |path: &Path| {
        let exclusive = i32::from_ne_bytes(OFlags::EXCL.bits().to_ne_bytes());
        OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(path).unwrap()
    };
    let _holder = claimed(&loops[1].path);

    assert_eq!(scene.problem(scene.paths.clone()), Problem::InUse);
}

#[test]
fn a_file_that_a_loop_device_stands_on_is_in_use_and_a_device_knows_its_other_names() {
    let Some((scene, loops, _guard)) = devices() else { return };
    let file = loops[1]._file.path().to_owned();
    assert_eq!(scene.problem([scene.paths[0].clone(), file]), Problem::InUse);

    let link = scene.folder.path().join("by-name");
    std::os::unix::fs::symlink(&loops[0].path, &link).unwrap();
    assert_eq!(scene.problem([scene.paths[0].clone(), link]), Problem::SameAsOther);
    let small = Loop::new(64 * 1024).unwrap();
    let expected = Problem::TooSmall { size: 64 * 1024, capacity: CAPACITY };
    assert_eq!(scene.problem([scene.paths[0].clone(), small.path.clone()]), expected);
}
