//! A device of a laboratory: what its factory makes of it, and what service, guest and disk say of it afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tern_tests::lab::{Lab, PRODUCT, program, wait_telling};

use crate::disk::{CAPACITY, COPY, Disk, Layout, SECOND, SINGLE_SLOT, TWO_SLOTS};
use crate::image::{Content, Fault, file_system, image, initramfs, recovery};
use crate::kit::{Kit, guest, run, tool};
use crate::machine::Machine;

const NAME: &str = "board-1";
/// How long an update may take from the start of its rollout to what is waited for.
pub(crate) const UPDATE: Duration = Duration::from_secs(300);

/// A fleet of one board.
pub(crate) struct Device {
    /// The service.
    pub(crate) lab: Lab,
    /// Its disk.
    pub(crate) disk: Disk,
    kit: Kit,
    layout: &'static Layout,
    initrd: PathBuf,
    config: String,
}

impl Device {
    /// Makes a service, and a board with release 1 in slot a and a recovery system that are one image. None where the
    /// boot chain cannot be had.
    pub(crate) fn make() -> Option<Self> {
        Self::with(&TWO_SLOTS)
    }

    /// The same with release 1 in a single slot, and a recovery system of its own.
    pub(crate) fn single() -> Option<Self> {
        Self::with(&SINGLE_SLOT)
    }

    fn with(layout: &'static Layout) -> Option<Self> {
        let kit = Kit::find()?;
        let lab = Lab::start();
        let disk = Disk::make(&kit, lab.dir.path(), layout);
        let initrd = initramfs(&kit.arm64(), "initramfs", lab.dir.path());
        let in_guest = [
            ("DATA", "/data/tern"),
            ("ROOT", "/etc/tern/root.json"),
            ("SLOTS", &slots(layout, |partition| disk.in_guest(partition))),
            ("ENVIRONMENT", &disk.in_guest("environment")),
            ("LOCK", "/run/lock/fw_printenv.lock"),
        ];
        let device = Self { config: configuration(in_guest), lab, disk, kit, layout, initrd };
        device.provision();
        Some(device)
    }

    /// What a factory does: slots, environment and data, made on a host and written to the disk.
    fn provision(&self) {
        let path = |name: &str| self.lab.path(name);
        let first = self.image(1, Fault::None);
        for (_, slot) in self.layout.slots {
            fs::File::create(path(slot)).unwrap().set_len(CAPACITY).unwrap();
        }
        // Sectors full, so that a record does not stand in the one with the checksum, and a torn write tears it.
        fs::write(path("factory.txt"), format!("calibration={}\nserial=7\n", "c".repeat(900))).unwrap();
        let size = format!("{COPY:#x}");
        run("mkenvimage", &[&"-r", &"-s", &size, &"-o", &path("copy"), &path("factory.txt")]);
        let copy = fs::read(path("copy")).unwrap();
        let mut environment = copy.clone();
        environment.resize(usize::try_from(SECOND).unwrap(), 0);
        fs::write(path("environment"), [environment, copy].concat()).unwrap();

        let text = |name: &str| path(name).display().to_string();
        fs::create_dir_all(path("factory")).unwrap();
        let config = self.host_config("factory", "environment");
        let agent = |arguments: &[&str]| {
            let mut command = Command::new(program("tern-agent"));
            let output = command.args(arguments).arg("--config").arg(&config).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            output.stdout
        };
        agent(&["provision", "--image", &first.display().to_string(), "--rc", "1", "--version", "1.0.0"]);
        fs::write(path("factory.json"), agent(&["identity"])).unwrap();
        self.lab.json(&["device", "add", "--unsigned", "--file", &text("factory.json")]);

        let length = format!("{}k", self.disk.partition("data").length >> 10);
        file_system(&path("data.ext4"), &path("factory"), "^metadata_csum,^64bit", &length);
        let slots = self.layout.slots.iter().map(|(_, partition)| (*partition, path(partition)));
        let others = [
            ("environment", path("environment")),
            ("recovery", self.recovery(first)),
            ("data", path("data.ext4")),
        ];
        for (name, from) in slots.chain(others) {
            self.disk.partition(name).fill(&from);
        }
    }

    /// Writes a configuration of the same device for an agent on the host: its data in `folder/tern`, the environment in
    /// a file.
    pub(crate) fn host_config(&self, folder: &str, environment: &str) -> PathBuf {
        let text = |name: &str| self.lab.path(name).display().to_string();
        let root = self.root().display().to_string();
        let (slots, lock) = (slots(self.layout, text), text("lock"));
        let on_host = [
            ("DATA", &text(&format!("{folder}/tern"))),
            ("ROOT", &root),
            ("SLOTS", &slots),
            ("ENVIRONMENT", &text(environment)),
            ("LOCK", &lock),
        ];
        let path = self.lab.path(&format!("{folder}.toml"));
        fs::write(&path, configuration(on_host.map(|(word, place)| (word, place.as_str())))).unwrap();
        path
    }

    fn root(&self) -> PathBuf {
        self.lab.data().join("products").join(PRODUCT).join("root.json")
    }

    fn image(&self, rc: u64, fault: Fault) -> PathBuf {
        let root = self.root();
        let content = Content { initrd: &self.initrd, config: &self.config, root: &root };
        image(&self.kit, self.lab.dir.path(), &content, rc, fault)
    }

    /// The image of the recovery system; with two slots it is the first release.
    fn recovery(&self, first: PathBuf) -> PathBuf {
        if self.layout.slots.len() > 1 {
            return first;
        }
        let root = self.root();
        let content = Content { initrd: &self.initrd, config: &self.config, root: &root };
        recovery(&self.kit, self.lab.dir.path(), &content)
    }

    /// Switches the board on.
    pub(crate) fn power_on(&self) -> Machine {
        Machine::power_on(&self.disk, self.lab.mqtt, &self.lab.path("console"), None)
    }

    /// The same, with a log of all that is written to the disk.
    pub(crate) fn power_on_logged(&self, log: &Path) -> Machine {
        Machine::power_on(&self.disk, self.lab.mqtt, &self.lab.path("console"), Some(log))
    }

    /// Signs, publishes and rolls out a release.
    pub(crate) fn roll_out(&self, rc: u64, fault: Fault) {
        let image = self.image(rc, fault);
        self.lab.publish(rc, &image);
        self.lab.roll_out(rc, &format!("r{rc}"), "all", 0);
    }

    /// Ends a rollout that has failed, if the service has not done so.
    pub(crate) fn give_up(&self, rc: u64) {
        let name = format!("r{rc}");
        let status = self.lab.rollout(&name)["status"].clone();
        if status != "killed" {
            self.lab.json(&["rollout", "kill", &name, "--reason", "the only device has failed"]);
        }
    }

    /// Waits until the service knows how the device's attempt at release `rc` ended, and returns the attempt.
    pub(crate) fn outcome(&self, rc: u64) -> Value {
        let attempt = || self.lab.device(NAME)["attempts"][format!("r{rc}")].clone();
        let tell = || format!("an outcome of r{rc}: {}", self.lab.device(NAME));
        wait_telling(tell, UPDATE, || Some(attempt()).filter(|attempt| attempt["outcome"].is_string()))
    }

    /// Returns the device as the service shows it.
    pub(crate) fn shown(&self) -> Value {
        self.lab.device(NAME)
    }

    /// Reads U-Boot's variables from the disk of a board that is off, by a program that nobody here wrote.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let at = self.disk.partition("environment").offset;
        let line = |offset| format!("{} {offset:#x} {COPY:#x}\n", self.disk.path.display());
        fs::write(self.lab.path("fw_env.config"), line(at) + &line(at + SECOND)).unwrap();
        let output = tool("fw_printenv").arg("-c").arg(self.lab.path("fw_env.config")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }
}

/// What `[slots]` says of partitions, each at the place that `place` gives it.
fn slots(layout: &Layout, place: impl Fn(&str) -> String) -> String {
    let lines = layout.slots.iter().map(|(key, partition)| format!("{key} = \"{}\"", place(partition)));
    lines.collect::<Vec<_>>().join("\n")
}

fn configuration(places: [(&str, &str); 5]) -> String {
    let mut text = fs::read_to_string(guest("agent.toml")).unwrap();
    text = text.replace("NAME", NAME).replace("CAPACITY", &CAPACITY.to_string());
    for (word, place) in places {
        text = text.replace(word, place);
    }
    text
}
