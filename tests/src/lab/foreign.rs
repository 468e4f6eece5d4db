//! Implementations of TUF that nobody here wrote, as `.ci/foreign` builds them, and what they are given to read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tern_protocol::bundle::{Bundle, File};
use tern_protocol::id::DeviceId;
use tern_protocol::message::{Get, Want};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::{Role, peek};

use super::{Lab, MqttClient, PRODUCT, Ran, ends, in_ci, wait};

const PATIENCE: Duration = Duration::from_secs(60);

/// The foreign programs.
#[derive(Debug, Clone)]
pub struct Foreign {
    folder: PathBuf,
}

/// A foreign client: both have the same command line and print the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// `tuf.ngclient` of python-tuf.
    PythonTuf,
    /// The crate `tough`.
    Tough,
}

impl Foreign {
    /// Finds what `.ci/foreign` has built: in the folder `TERN_FOREIGN`, or in `foreign` below the target folder.
    ///
    /// # Panics
    /// In CI, when it is missing: a test that needs it must not pass by skipping.
    pub fn built() -> Option<Self> {
        let named = std::env::var_os("TERN_FOREIGN").map(PathBuf::from);
        let own = std::env::current_exe().expect("a process has an executable");
        let beside = || own.ancestors().map(|above| above.join("foreign")).find(|folder| folder.is_dir());
        let foreign = named.or_else(beside).map(|folder| Self { folder });
        let whole = |foreign: &Self| foreign.python().exists() && foreign.tough().exists();
        if let Some(foreign) = foreign.filter(whole) {
            return Some(foreign);
        }
        assert!(!in_ci(), "python-tuf and tough are missing: CI builds them with .ci/foreign");
        let said = "SKIPPED: python-tuf and tough are missing; build them with .ci/foreign\n";
        let _shown = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
        None
    }

    fn python(&self) -> PathBuf {
        self.folder.join("venv/bin/python")
    }

    fn tough(&self) -> PathBuf {
        self.folder.join("tough/debug/tern-tough")
    }

    /// Returns the command that runs a script of `tests/foreign`.
    pub fn script(&self, name: &str) -> Command {
        let mut command = Command::new(self.python());
        // Nothing is written beside the scripts.
        command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign").join(name));
        command
    }

    /// Has a client follow `mirror`: it trusts `root`, and keeps what it trusts in `store`.
    pub fn follows(&self, peer: Peer, root: &Path, store: &Path, mirror: &Mirror, names: &[&str]) -> Ran {
        fs::create_dir_all(store).expect("a folder for the client");
        let mut command = match peer {
            Peer::PythonTuf => self.script("client.py"),
            Peer::Tough => Command::new(self.tough()),
        };
        ends(command.arg(root).arg(store).arg(mirror.metadata()).arg(mirror.targets()).args(names))
    }
}

/// What the service has published, as a web server of TUF files would have it.
#[derive(Debug, Clone)]
pub struct Mirror {
    folder: PathBuf,
}

impl Mirror {
    /// Makes an empty one.
    pub fn new(folder: PathBuf) -> Self {
        let mirror = Self { folder };
        fs::create_dir_all(mirror.metadata()).expect("a folder for metadata");
        fs::create_dir_all(mirror.targets()).expect("a folder for targets");
        mirror
    }

    /// Returns the folder of metadata.
    pub fn metadata(&self) -> PathBuf {
        self.folder.join("metadata")
    }

    /// Returns the folder of targets.
    pub fn targets(&self) -> PathBuf {
        self.folder.join("targets")
    }

    /// Returns where a role's file lies; of root, the one with this version.
    pub fn file(&self, role: Role, root: u64) -> PathBuf {
        let name = if role == Role::Root { format!("{root}.root.json") } else { format!("{role}.json") };
        self.metadata().join(name)
    }

    /// Adds a target.
    pub fn add(&self, name: &str, image: &Path) {
        let path = self.targets().join(name);
        fs::create_dir_all(path.parent().expect("a target is below a folder")).expect("a folder");
        fs::copy(image, path).expect("an image");
    }

    /// Copies all of it.
    pub fn copied(&self, folder: PathBuf) -> Self {
        let copy = Self::new(folder);
        for entry in fs::read_dir(self.metadata()).expect("metadata") {
            let path = entry.expect("an entry").path();
            fs::copy(&path, copy.metadata().join(path.file_name().expect("a name"))).expect("a file");
        }
        fs::remove_dir(copy.targets()).expect("an empty folder");
        std::os::unix::fs::symlink(self.targets(), copy.targets()).expect("a link");
        copy
    }

    /// Asks as a device does, over MQTT, until what comes is what the service says that it has; returns the versions.
    ///
    /// # Panics
    /// When that does not come.
    pub fn follow(&self, lab: &Lab) -> BTreeMap<String, u64> {
        let device: DeviceId = "mirror".parse().expect("an id");
        let mut client = MqttClient::connect(lab.mqtt, device.as_str(), None);
        let fleet = "lab".parse().expect("an id");
        let answers = Topic::DeviceIn(device.clone()).render(&fleet);
        let asks = Topic::Up(device, UpKind::Get).render(&fleet);
        let mut heard = Vec::new();
        client.subscribe(&[&answers], &mut heard);
        let ask = |client: &mut MqttClient, want: Vec<Want>| {
            let body = serde_json::to_vec(&Get::from(want)).expect("a request is JSON");
            client.publish(&asks, &body, false);
        };
        let product: tern_protocol::id::ProductId = PRODUCT.parse().expect("an id");
        let file = |role, version| Want::File { product: product.clone(), role, version };
        wait("the service's files", PATIENCE, || {
            let wanted = versions(lab);
            let newest = u32::try_from(*wanted.get("root")?).ok()?;
            ask(&mut client, Role::ALL.iter().skip(1).map(|role| file(*role, None)).collect());
            for first in (1..=newest).step_by(8) {
                let roots = first..=newest.min(first + 7);
                ask(&mut client, roots.map(|version| file(Role::Root, Some(version))).collect());
            }
            let mut found: BTreeMap<(Role, u64), Vec<u8>> = BTreeMap::new();
            wait("answers", PATIENCE, || {
                for message in client.messages() {
                    let bundle =
                        Bundle::unpack(&message.payload, None).expect("a bundle that everybody can read");
                    for File { role, bytes } in bundle.files {
                        let version = u64::from(peek(&bytes).expect("a version"));
                        found.insert((role, if role == Role::Root { version } else { 0 }), bytes);
                    }
                }
                (found.len() as u64 == 6 + u64::from(newest)).then_some(())
            });
            for ((role, version), bytes) in &found {
                fs::write(self.file(*role, *version), bytes).expect("a file");
            }
            let held = |role: Role| u64::from(peek(&found[&(role, 0)]).expect("a version"));
            let same = Role::ALL.iter().skip(1).all(|role| wanted.get(role.name()) == Some(&held(*role)));
            same.then_some(wanted)
        })
    }
}

/// Returns the versions that the service says it has.
fn versions(lab: &Lab) -> BTreeMap<String, u64> {
    let status: Value = lab.json(&["keys", "status"]);
    let files = status[PRODUCT]["files"].as_array().expect("a list").clone();
    let line = |file: &Value| Some((file["role"].as_str()?.to_owned(), file["version"].as_u64()?));
    files.iter().filter_map(line).collect()
}
