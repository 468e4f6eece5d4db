//! A trial, with the real program: what its probes, the service manager and the hardware watchdog see of it.
//!
//! The service manager is a socket and the watchdog a file. Nobody answers the device, so it can only be rolled back; why
//! is what the stories are about.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use p256::ecdsa::SigningKey;
use tern_agent::config::Config;
use tern_agent::core::SlotName;
use tern_agent::core::agent::Done;
use tern_agent::core::state::{State, Tries, UpdatingStep, Work};
use tern_agent::device::Device;
use tern_protocol::bundle::File;
use tern_protocol::chunk::{RootHasher, root};
use tern_protocol::digest::Digest;
use tern_protocol::message::Attempt;
use tern_protocol::offer::{Artifact, Offer};
use tern_protocol::tuf::build::{self, Keys, RootKeys};
use tern_protocol::tuf::content::{Arm, EntryKind};
use tern_protocol::tuf::key::{P256Signer, Signer as _};
use tern_protocol::tuf::sign;

/// What both releases consist of.
const IMAGE: &[u8] = b"#!/bin/sh\n";
/// Nobody is that slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A device that is about to boot release 2 on trial.
struct Scene {
    folder: tempfile::TempDir,
    manager: UnixDatagram,
    process: Option<Child>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

impl Scene {
    /// `probe` is what its one probe runs, with `keys` besides; `timing` all waits.
    fn new(probe: &str, keys: &str, timing: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let manager = UnixDatagram::bind(path("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        fs::write(path("watchdog"), "").unwrap();
        fs::write(path("image"), IMAGE).unwrap();
        let key = P256Signer::new(SigningKey::from_slice(&[1; 32]).unwrap());
        let one = || Keys::one(key.public());
        let keys_of = RootKeys { root: one(), timestamp: one(), snapshot: one(), targets: one() };
        let signed = sign::sign(build::root(1, 4_000_000_000, &keys_of), &[&key]).unwrap();
        fs::write(path("root.json"), signed).unwrap();
        let dir = folder.path().display();
        let config = format!(
            r#"
fleet = "acme"
device = "r-1"
product = "ap"
model = "m1"
region = "eu"
brokers = ["mqtt://127.0.0.1:1"]
data_dir = "{dir}/data"
runtime_dir = "{dir}/run"
root = "{dir}/root.json"
slots = {{ capacity = 1000 }}
[[probes]]
name = "app"
command = ["/bin/sh", "-c", "cd {dir}; {probe}"]
{keys}
[watchdog]
device = "{dir}/watchdog"
timeout = 3
[timing]
{timing}
"#
        );
        fs::write(path("agent.toml"), config).unwrap();
        let scene = Self { folder, manager, process: None };
        let provisioned = scene
            .agent("provision")
            .arg("--image")
            .arg(scene.path("image"))
            .args(["--rc", "1", "--version", "1.0"])
            .status();
        assert!(provisioned.unwrap().success());
        scene.arm();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn agent(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern-agent"));
        command.arg(verb).arg("--config").arg(self.path("agent.toml")).stderr(Stdio::null());
        command
    }

    /// Does what the agent does up to the boot of a trial.
    fn arm(&self) {
        let sha256 = Digest::of(IMAGE);
        let mut leaves = RootHasher::default();
        leaves.update(IMAGE);
        let artifact = Artifact::new("rootfs", IMAGE.len() as u64, sha256, root(&leaves.finish()));
        let offer = Offer {
            attempt: Attempt { rc: 2, rollout: "r2".parse().unwrap(), attempt: 1 },
            kind: EntryKind::Update,
            version: "2.0".into(),
            artifacts: vec![artifact.clone()],
            models: vec!["m1".parse().unwrap()],
            min_from: 0,
            floor: 0,
            arm: Arm::Acked,
            spread: 0,
            urgency: tern_protocol::tuf::content::Urgency::Soft,
            schedule: None,
            from: vec![],
        };
        let mut device = Device::open(&Config::load(&self.path("agent.toml")).unwrap()).unwrap();
        let slot = SlotName::B;
        assert_eq!(device.mark_bad(slot), Done::Ok);
        device.write(slot, 0, IMAGE);
        assert_eq!(device.sync(slot), Done::Ok);
        assert_eq!(device.hash(slot, artifact, 2, "2.0".into(), Vec::<File>::new())(), Done::Ok);
        let mut durable = device.load_journal().unwrap();
        let work = Work { offer, slot, tries: Tries::default() };
        durable.state = State::Updating { work, step: UpdatingStep::Reboot };
        device.save_journal(&durable).unwrap();
        assert_eq!(device.arm(slot, 2), Done::Ok);
        assert_eq!(device.reboot(), Done::Ok);
    }

    fn start(&mut self) {
        let mut command = self.agent("run");
        command.env("NOTIFY_SOCKET", self.path("notify")).env("WATCHDOG_USEC", "400000");
        self.process = Some(command.spawn().unwrap());
    }

    /// Returns what the service manager hears up to and with these words.
    fn heard_until(&self, last: &str) -> Vec<String> {
        let mut heard: Vec<String> = Vec::new();
        while heard.last().is_none_or(|words| words != last) {
            let mut words = [0; 200];
            let length = self.manager.recv(&mut words).unwrap_or_else(|error| panic!("{error}: {heard:?}"));
            heard.push(String::from_utf8(words[..length].to_vec()).unwrap());
        }
        heard
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// The agent is stopped as a service manager does it; returns the reason for which its attempt failed.
    fn stop(&mut self) -> String {
        let mut process = self.process.take().unwrap();
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.heard_until("STOPPING=1");
        assert!(process.wait().unwrap().success());
        let durable = Device::open(&Config::load(&self.path("agent.toml")).unwrap()).unwrap().load_journal();
        match durable.unwrap().state {
            State::Failed { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// Well the first two times.
const TWICE: &str = "echo x >> asked; test $(wc -l < asked) -lt 3";

#[test]
fn a_release_that_breaks_in_its_soak_is_rolled_back_and_says_why() {
    let mut scene = Scene::new(TWICE, "soak = true", "soak = 3\nconnect_deadline = 600");

    scene.start();
    let heard = scene.heard_until("STATUS=failed of release 2");

    assert_eq!(scene.stop(), "in the soak, app: exit code 1");
    assert_eq!(scene.read("asked").lines().count(), 3);
    let states: Vec<_> =
        heard.iter().map(String::as_str).filter(|words| !words.starts_with("WATCHDOG")).collect();
    let (up, trial) = ("READY=1", "STATUS=verify-post of release 2");
    // The process that comes up in the former slot is the same one to the service manager.
    assert_eq!(states, [up, trial, up, "STATUS=rollback of release 2", "STATUS=failed of release 2"]);
}

#[test]
fn the_same_release_is_not_found_out_by_a_probe_that_is_asked_once() {
    let mut scene = Scene::new(TWICE, "", "soak = 3\nconnect_deadline = 4");

    scene.start();
    scene.heard_until("STATUS=failed of release 2");

    assert_eq!(scene.stop(), "nobody answered during the trial");
    assert_eq!(scene.read("asked").lines().count(), 1);
}

#[test]
fn a_probe_that_takes_long_holds_up_neither_the_pings_nor_the_feeding() {
    let mut scene = Scene::new("sleep 5; exit 1", "", "soak = 600\nconnect_deadline = 600");

    scene.start();
    let heard = scene.heard_until("STATUS=failed of release 2");
    scene.stop();

    let pings = heard.iter().filter(|words| *words == "WATCHDOG=1").count();
    assert!(pings >= 10, "five seconds, with a word every 0.2 s: {heard:?}");
    // Fed every second; stopped because the former release, which came up, is not on trial.
    let fed = scene.read("watchdog");
    assert!(fed.len() >= 4 && fed.trim_start_matches('.') == "V", "{fed}");
}

#[test]
fn an_agent_that_hangs_is_heard_by_nobody() {
    let mut scene = Scene::new("sleep 30", "", "soak = 600\nconnect_deadline = 600");
    scene.start();
    scene.heard_until("WATCHDOG=1");
    let pid = rustix::process::Pid::from_child(scene.process.as_ref().unwrap());

    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // What was on its way before; after that nothing comes, however long the wait.
    scene.manager.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    while scene.manager.recv(&mut [0; 200]).is_ok() {}
    let fed = scene.read("watchdog");
    scene.manager.set_read_timeout(Some(Duration::from_secs(2))).unwrap();

    assert!(scene.manager.recv(&mut [0; 200]).is_err());
    assert!(fed.starts_with('.') && scene.read("watchdog") == fed, "and the watchdog is not fed");
}

#[test]
fn a_trial_whose_agent_ends_again_and_again_is_over() {
    let mut scene = Scene::new("sleep 30", "", "soak = 600\nconnect_deadline = 600");
    for _ in 0..tern_agent::starts::MOST {
        scene.start();
        scene.heard_until("READY=1");
        let mut process = scene.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    scene.start();
    scene.heard_until("STATUS=failed of release 2");

    assert_eq!(scene.stop(), "the agent ended by itself 5 times in this trial");
}

#[test]
fn an_agent_that_cannot_save_is_not_up_for_anybody() {
    let mut scene = Scene::new("true", "", "soak = 600\nconnect_deadline = 600");
    // Every copy of the journal is a folder.
    for file in fs::read_dir(scene.path("data")).unwrap().map(Result::unwrap) {
        let name = file.file_name().into_string().unwrap();
        if name.starts_with("journal") {
            fs::remove_file(file.path()).unwrap();
            fs::create_dir(file.path()).unwrap();
        }
    }

    scene.start();
    let ended = scene.process.take().unwrap().wait().unwrap();

    assert!(!ended.success());
    assert!(!scene.path("run").join("alive").exists());
    scene.manager.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    assert!(scene.manager.recv(&mut [0; 200]).is_err(), "the service manager has not heard of it");
}
