//! The second device: `tests/second-device`, written in Python from docs/protocol.md, as a process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::process::Process;
use super::service::{Lab, MODEL, PRODUCT, text};
use super::{Ran, ends, in_ci};

/// A device of the other implementation.
pub struct SecondDevice {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    python: PathBuf,
    process: Process,
}

/// Returns the Python that has what the second device needs, or none outside CI where nobody has made it.
///
/// # Panics
/// In CI, when it is missing: a test that needs it must not pass by skipping.
pub fn foreign_python() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("a process has an executable");
    let found =
        own.ancestors().map(|folder| folder.join("foreign/venv/bin/python")).find(|path| path.exists());
    if found.is_none() {
        assert!(!in_ci(), "the foreign programs are missing: CI runs .ci/foreign");
        let said = "SKIPPED: the foreign programs are missing; run .ci/foreign\n";
        let _shown = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
    }
    found
}

/// Returns a script of the second device.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("second-device").join(name)
}

/// Checks the test vectors of docs/protocol.md in Python.
pub fn check_vectors(python: &Path) -> Ran {
    ends(Command::new(python).arg("-B").arg(script("vectors.py")))
}

impl SecondDevice {
    /// Makes a device as its factory would, with release 1 in slot a; `claim` is the token of a claim.
    ///
    /// A release whose image does not begin with `healthy` fails its probe.
    pub fn build(
        lab: &Lab,
        python: &Path,
        name: &str,
        image: &Path,
        healthy: &str,
        claim: Option<&str>,
    ) -> Self {
        let dir = lab.path("second").join(name);
        std::fs::create_dir_all(&dir).expect("a folder for the device");
        let process = Process::new(name, dir.join("device.log"));
        let device = Self { name: name.to_owned(), dir, python: python.to_owned(), process };
        let config = json!({
            "fleet": "lab",
            "device": name,
            "broker": lab.mqtt.to_string(),
            "product": PRODUCT,
            "model": MODEL,
            "carrier": "none",
            "region": "eu",
            "root": text(&lab.data().join("products").join(PRODUCT).join("root.json")),
            "data": text(&device.dir),
            "claim": claim,
            "healthy": healthy,
        });
        device.write(&config);
        device.set("soak", &json!(1));
        device.set("resend", &json!(1));
        let ran = device.ran(&["provision", &text(image), "1", "1.0.0"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        device
    }

    /// Changes one value of the configuration; it counts from the next boot.
    pub fn set(&self, name: &str, value: &Value) {
        let mut config: Value = std::fs::read(self.config())
            .ok()
            .and_then(|file| serde_json::from_slice(&file).ok())
            .expect("a configuration");
        config[name] = value.clone();
        self.write(&config);
    }

    fn write(&self, config: &Value) {
        std::fs::write(self.config(), config.to_string()).expect("a configuration");
    }

    fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg("-B").arg(script("device.py")).arg(self.config()).args(arguments).stdin(Stdio::null());
        command
    }

    fn ran(&self, arguments: &[&str]) -> Ran {
        ends(&mut self.command(arguments))
    }

    /// Returns the device's line for the factory list.
    pub fn identity(&self) -> Value {
        let ran = self.ran(&["identity"]);
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("a factory line is JSON: {ran:?}"))
    }

    /// Starts the device: a boot.
    pub fn start(&mut self) {
        let mut command = self.command(&["run"]);
        self.process.start(&mut command);
    }

    /// Cuts its power.
    pub fn cut_power(&mut self) {
        self.process.kill();
    }

    /// Loses the journal: epoch, numbers, outbox, floor and halted list.
    pub fn lose_journal(&self) {
        std::fs::remove_file(self.dir.join("journal.json")).expect("the journal was there");
    }

    /// Returns the journal.
    pub fn journal(&self) -> Value {
        let file = std::fs::read(self.dir.join("journal.json")).unwrap_or_default();
        serde_json::from_slice(&file).unwrap_or_default()
    }

    /// Returns the image in the slot that is confirmed.
    pub fn confirmed(&self) -> Vec<u8> {
        let record = std::fs::read(self.dir.join("boot.json")).unwrap_or_default();
        let record: Value = serde_json::from_slice(&record).unwrap_or_default();
        let slot = format!("{}.img", record["confirmed"].as_str().unwrap_or_default());
        std::fs::read(self.dir.join("slots").join(slot)).unwrap_or_default()
    }

    /// Returns what the device has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
