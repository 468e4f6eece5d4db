//! The demo's devices: a folder, a configuration and a process each.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use sha2::Digest as _;
use tern_agent::boot::BootRecord;
use tern_agent::boot::file::FileBoot;
use tern_agent::core::agent::Keys as _;
use tern_agent::identity::FileIdentity;
use tern_agent::record::RecordFile;
use tern_agent::slot::file::FileSlots;
use tern_agent::slot::{Image, SlotLabel, Slots as _};
use tern_protocol::chunk::{RootHasher, root};
use tern_protocol::digest::Digest;
use tern_protocol::message::Registry;

use super::service::tail;
use crate::core::fact::DeviceEntry;

/// What the demo's devices have in common.
pub(super) struct Setting<'a> {
    pub(super) folder: &'a Path,
    pub(super) product: &'a str,
    pub(super) model: &'a str,
    pub(super) broker: &'a str,
    pub(super) root: &'a Path,
    pub(super) capacity: u64,
    /// Seconds that stand for a day.
    pub(super) day: f64,
}

/// One device.
pub(super) struct DemoDevice {
    pub(super) name: String,
    folder: PathBuf,
    capacity: u64,
    process: Option<Child>,
}

impl DemoDevice {
    /// Makes a device as its factory would: keys, first image, configuration.
    pub(super) fn make(
        setting: &Setting<'_>,
        index: u32,
        image: &Path,
        label: &Image,
    ) -> anyhow::Result<(Self, DeviceEntry)> {
        let name = format!("dev-{index:03}");
        let folder = setting.folder.join("devices").join(&name);
        std::fs::create_dir_all(folder.join("data"))?;
        std::fs::create_dir_all(folder.join("slots"))?;
        FileBoot::provision(&folder.join("slots"), image, label.clone())?;
        let identity = FileIdentity::open(&folder.join("data"))?;
        std::fs::write(folder.join("agent.toml"), configuration(setting, &name, &folder)?)?;
        let entry = DeviceEntry {
            device: name.parse()?,
            identity: hex::encode(identity.identity()),
            registry: Registry {
                product: setting.product.parse()?,
                model: setting.model.parse()?,
                carrier: "none".parse()?,
                region: "lab".parse()?,
            },
        };
        Ok((Self { name, folder, capacity: setting.capacity, process: None }, entry))
    }

    /// Starts its agent.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.folder.join("agent.log"))?;
        let child = Command::new(std::env::current_exe()?)
            .arg("demo-agent")
            .arg("--config")
            .arg(self.folder.join("agent.toml"))
            .env("TERN_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("could not start the agent of {}", self.name))?;
        self.process = Some(child);
        Ok(())
    }

    /// Tells whether its agent still runs.
    pub(super) fn alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| matches!(p.try_wait(), Ok(None)))
    }

    /// Fails with the end of its log if its agent has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let alive = self.alive();
        anyhow::ensure!(
            alive,
            "the agent of {} ended; its log: {}",
            self.name,
            tail(&self.folder.join("agent.log"))
        );
        Ok(())
    }

    /// Returns the release that its confirmed slot holds, read from its disk, after hashing the slot's bytes.
    pub(super) fn confirmed(&self) -> anyhow::Result<Option<u64>> {
        let slots_dir = self.folder.join("slots");
        let record = RecordFile::<BootRecord>::open(&slots_dir, "boot")?.load()?;
        let Some(record) = record else { return Ok(None) };
        let slots = FileSlots::open(&slots_dir, self.capacity, record.active)?;
        let SlotLabel::Holds(label) = slots.label(record.active)? else { return Ok(None) };
        let found = describe(&slots.path(record.active), label.rc, &label.version)?;
        Ok((found.sha256 == label.sha256).then_some(label.rc))
    }

    /// Ends its agent.
    pub(super) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ended = process.kill();
            let _reaped = process.wait();
        }
    }
}

impl Drop for DemoDevice {
    fn drop(&mut self) {
        self.stop();
    }
}

fn configuration(setting: &Setting<'_>, name: &str, folder: &Path) -> anyhow::Result<String> {
    // Hours are scaled; what guards a connection is not, and no wait is shorter than a second.
    let scale = setting.day / 86_400.0;
    let wait = |seconds: f64, least: f64| (seconds * scale).max(least);
    let program = std::env::current_exe()?;
    let mut text = String::new();
    let path = |p: &Path| format!("{:?}", p.display().to_string());
    writeln!(text, "fleet = \"demo\"\ndevice = {name:?}\nproduct = {:?}", setting.product)?;
    writeln!(text, "model = {:?}\ncarrier = \"none\"\nregion = \"lab\"", setting.model)?;
    writeln!(text, "brokers = [{:?}]", setting.broker)?;
    writeln!(text, "data_dir = {}", path(&folder.join("data")))?;
    writeln!(text, "runtime_dir = {}", path(&folder.join("run")))?;
    writeln!(text, "root = {}", path(setting.root))?;
    writeln!(text, "[slots]\ndir = {}\ncapacity = {}", path(&folder.join("slots")), setting.capacity)?;
    writeln!(text, "[[probes]]\nname = \"payload\"\ndeadline = 30")?;
    writeln!(
        text,
        "command = [{}, \"demo-probe\", \"--device\", \"{{device}}\", \"{{slot_path}}\"]",
        path(&program)
    )?;
    writeln!(text, "[timing]\nsoak = {:.3}", wait(900.0, 1.0))?;
    writeln!(text, "retry_base = {:.3}\nask_first = {:.3}", wait(30.0, 1.0), wait(60.0, 1.0))?;
    writeln!(text, "ask_max = {:.3}\nheartbeat = {:.3}", wait(600.0, 5.0), wait(21_600.0, 5.0))?;
    writeln!(text, "get_repeat_first = 2.0\nget_repeat_max = 10.0\nresend_first = 2.0")?;
    writeln!(text, "connect_deadline = 60.0\nstarted_timeout = 60.0\nanswer_valid = 60.0\nkeepalive = 60.0")?;
    Ok(text)
}

/// Hashes an image as its label needs it.
pub(super) fn describe(path: &Path, rc: u64, version: &str) -> anyhow::Result<Image> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path).with_context(|| format!("could not open {}", path.display()))?;
    let (mut sha256, mut leaves, mut length) = (sha2::Sha256::new(), RootHasher::default(), 0u64);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        sha256.update(&buffer[..read]);
        leaves.update(&buffer[..read]);
        length += read as u64;
    }
    let sha256 = Digest(sha256.finalize().into());
    Ok(Image { rc, version: version.to_owned(), length, sha256, root: root(&leaves.finish()) })
}
