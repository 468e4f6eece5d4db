//! The sample program of `deploy/components`, run as the agent runs it, with a tool that is not the real one.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tern_agent::command::Program;
use tern_agent::component::{Component, ComponentConfig, ComponentError, Kind};
use tern_agent::storage;
use tern_protocol::chunk::{RootHasher, root};
use tern_protocol::digest::Digest;
use tern_protocol::offer::Artifact;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/components/mcu-serial.sh");
/// What is in the microcontroller is a file beside it. Writing fails half way while `bad` is there.
const TOOL: &str = r#"#!/bin/sh
here=${0%/*}
for port; do :; done
[ "$port" = "$here/port" ] || exit 9
while [ $# -gt 1 ]; do
    case $1 in
    -r) to=$2 ;;
    -w) from=$2 ;;
    -S) part=$2 ;;
    esac
    case $1 in -v) shift ;; *) shift 2 ;; esac
done
if [ -n "${to:-}" ]; then
    head -c "${part#*:}" "$here/mcu" >"$to"
    exit
fi
echo "wrote" >>"$here/log"
if [ -e "$here/bad" ]; then
    head -c 2 "$from" >"$here/mcu"
    echo "no answer at 0x0800"
    exit 1
fi
cp "$from" "$here/mcu"
"#;

struct Scene {
    folder: tempfile::TempDir,
    component: Component,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let tool = folder.path().join("stm32flash");
        // By another process: a descriptor of ours that a test beside this one has just forked would keep it busy.
        let script = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let made = Command::new("/bin/sh").args(["-c", script, "-", TOOL]).arg(&tool).status();
        assert!(made.unwrap().success() && fs::metadata(&tool).unwrap().permissions().mode() & 0o100 != 0);
        for name in ["mcu", "factory"] {
            fs::write(path(name), "from the factory").unwrap();
        }
        let name = |step: &str| {
            let place = format!("PATH={}:/usr/bin:/bin", folder.path().display());
            let command = ["/usr/bin/env", &place, SCRIPT, &path("port"), &path("factory"), &path("lock")];
            let command = command.map(str::to_owned).into();
            Program { name: step.into(), command, deadline: Duration::from_secs(60) }
        };
        let config = ComponentConfig {
            name: "mcu".into(),
            capacity: 1000,
            version: "1.4".into(),
            kind: Kind::Program { install: name("mcu"), revert: name("mcu") },
        };
        let places = folder.path().join("places");
        let component = Component::on(&storage::system(), config, places, "dev-1".parse().unwrap()).unwrap();
        Self { folder, component }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The package of a release comes, and is installed.
    async fn installs(&self, rc: u64, text: &str) -> Result<(), ComponentError> {
        let bytes = text.as_bytes();
        self.component.mark_bad().unwrap();
        self.component.write(0, bytes).unwrap();
        self.component.sync().unwrap();
        let mut leaves = RootHasher::default();
        leaves.update(bytes);
        let artifact = Artifact::new("mcu", bytes.len() as u64, Digest::of(bytes), root(&leaves.finish()));
        assert!(self.component.hash(&artifact, rc, format!("{rc}.0"), &AtomicBool::new(false)).unwrap());
        self.component.install(rc).await.map(|_| ())
    }

    fn writes(&self) -> usize {
        self.read("log").lines().count()
    }
}

#[tokio::test]
async fn firmware_is_put_in_once_taken_back_and_kept() {
    let scene = Scene::new();

    scene.installs(2, "two").await.unwrap();
    assert_eq!(scene.read("mcu"), "two");
    // As after a power cut behind the last byte.
    scene.component.install(2).await.unwrap();
    assert_eq!(scene.writes(), 1, "what is in already is not written again");
    scene.component.revert().await.unwrap();
    assert_eq!(scene.read("mcu"), "from the factory");

    scene.installs(2, "two").await.unwrap();
    scene.component.keep().await.unwrap();
    scene.installs(3, "the third").await.unwrap();
    assert_eq!(scene.read("mcu"), "the third");
    scene.component.revert().await.unwrap();
    assert_eq!(scene.read("mcu"), "two", "a release brought it, so not the factory's");
}

#[tokio::test]
async fn a_write_that_fails_says_why_and_the_former_firmware_comes_back() {
    let scene = Scene::new();
    fs::write(scene.path("bad"), "").unwrap();

    let why = scene.installs(2, "two").await.unwrap_err().to_string();

    assert!(why.contains("exit code 1") && why.contains("no answer at 0x0800"), "{why}");
    assert_eq!(scene.read("mcu"), "tw");
    assert!(scene.read("places/logs/install-mcu.log").contains("no answer at 0x0800"));
    fs::remove_file(scene.path("bad")).unwrap();
    scene.component.revert().await.unwrap();
    assert_eq!(scene.read("mcu"), "from the factory");
}

/// Holds a lock as long as its input is open.
struct Holder(Child);

impl Holder {
    fn of(scene: &Scene) -> Self {
        let mut command = Command::new("flock");
        command.arg(scene.path("lock")).args(["sh", "-c", "echo has; cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 4];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_waited_for() {
    let scene = Scene::new();
    let holder = Holder::of(&scene);

    let refused = scene.installs(2, "two").await.unwrap_err();

    assert!(
        matches!(&refused, ComponentError::NotNow(why) if why.contains("somebody else has")),
        "{refused}"
    );
    assert_eq!(scene.writes(), 0);
    drop(holder);
    scene.component.install(2).await.unwrap();
    assert_eq!(scene.read("mcu"), "two");
}
