//! A device's folder, configuration and agent process.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::process::Process;
use super::service::{Lab, MODEL, PRODUCT, text};
use super::{Encrypted, program};

/// How a device is made.
#[derive(Debug, Clone)]
pub struct Making {
    /// Bytes that a slot holds.
    pub capacity: u64,
    /// Seconds of soak.
    pub soak: f64,
    /// Health probe; none passes.
    pub probe: Option<Vec<String>>,
    /// Pre-update hook; none passes.
    pub hook: Option<Vec<String>>,
    /// More lines under `[timing]`.
    pub timing: String,
    /// The agent's own waits, instead of those for a laboratory that has no time.
    pub usual_waits: bool,
    /// More sections; `{dir}` is the device's folder.
    pub sections: String,
    /// User and password file, for brokers that want them.
    pub login: Option<(String, PathBuf)>,
    /// File with a claim's token.
    pub claim: Option<PathBuf>,
    /// Another way to the broker than the straight one.
    pub broker: Option<SocketAddr>,
    /// The authority of brokers with TLS, which are then called `localhost`.
    pub authority: Option<PathBuf>,
    /// A way under TLS.
    pub encrypted: Option<Encrypted>,
    /// Hardware model.
    pub model: &'static str,
    /// Region.
    pub region: &'static str,
}

impl Default for Making {
    fn default() -> Self {
        Self {
            capacity: 64 * 1024 * 1024,
            soak: 1.0,
            probe: None,
            hook: None,
            timing: String::new(),
            usual_waits: false,
            sections: String::new(),
            login: None,
            claim: None,
            broker: None,
            authority: None,
            encrypted: None,
            model: MODEL,
            region: "eu",
        }
    }
}

/// A device.
pub struct LabDevice {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    process: Process,
}

impl LabDevice {
    /// Makes a device as its factory would, with release 1 in slot a, and registers it.
    pub fn make(lab: &Lab, name: &str, image: &Path, making: &Making) -> Self {
        let device = Self::build(lab, name, image, making);
        device.register(lab);
        device
    }

    /// Makes a device without registering it.
    pub fn build(lab: &Lab, name: &str, image: &Path, making: &Making) -> Self {
        let dir = lab.path("devices").join(name);
        std::fs::create_dir_all(&dir).expect("a folder for the device");
        let process = Process::new(name, dir.join("agent.log"));
        let device = Self { name: name.to_owned(), dir, process };
        device.configure(lab, making);
        let image = text(image);
        let ran = device.agent(&["provision", "--image", &image, "--rc", "1", "--version", "1.0.0"]);
        assert!(ran.0, "{}", ran.1);
        device
    }

    /// Registers the device at the service.
    pub fn register(&self, lab: &Lab) {
        let list = self.dir.join("factory.json");
        std::fs::write(&list, self.identity().to_string()).expect("a factory list");
        lab.json(&["device", "add", "--unsigned", "--file", &text(&list)]);
    }

    /// Makes new keys beside the present ones.
    pub fn rotate_keys(&self) {
        let (ok, said) = self.agent(&["identity", "rotate"]);
        assert!(ok, "{said}");
    }

    /// Replaces the device's flash: keys and journal are gone, what it runs stays.
    pub fn lose_keys(&self) {
        for name in ["identity.pem", "telemetry.pem", "journal.0", "journal.1"] {
            std::fs::remove_file(self.dir.join("data").join(name)).expect("the file was there");
        }
    }

    /// Returns the device's line for the factory list.
    pub fn identity(&self) -> Value {
        let (ok, line) = self.agent(&["identity"]);
        assert!(ok, "{line}");
        serde_json::from_str(&line).expect("a factory line is JSON")
    }

    /// Returns the command that runs the agent.
    pub fn run_command(&self) -> Command {
        self.run_command_of(&program("tern-agent"))
    }

    fn run_command_of(&self, executable: &Path) -> Command {
        let mut command = Command::new(executable);
        command.arg("run").arg("--config").arg(self.config()).env("TERN_LOG", "debug,rumqttc=info");
        command
    }

    /// Writes the configuration.
    pub fn configure(&self, lab: &Lab, making: &Making) {
        let path = |name: &str| format!("{:?}", text(&self.dir.join(name)));
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a string takes everything");
        line(format!(
            "fleet = \"lab\"\ndevice = {:?}\nproduct = {PRODUCT:?}\nmodel = {:?}",
            self.name, making.model
        ));
        let broker = making.broker.unwrap_or(lab.mqtt);
        let url = match (&making.encrypted, &making.authority) {
            (Some(encrypted), _) => format!("mqtts://localhost:{}", encrypted.port),
            (None, Some(_)) => format!("mqtts://localhost:{}", broker.port()),
            (None, None) => format!("mqtt://{broker}"),
        };
        line(format!("region = {:?}\nbrokers = [{url:?}]", making.region));
        if let Some((user, file)) = &making.login {
            line(format!("user = {user:?}\npassword_file = {:?}", text(file)));
        }
        if let Some(file) = &making.claim {
            line(format!("claim_file = {:?}", text(file)));
        }
        line(format!("data_dir = {}\nruntime_dir = {}", path("data"), path("run")));
        line(format!("root = {:?}", text(&lab.data().join("products").join(PRODUCT).join("root.json"))));
        if let Some(authority) = &making.authority {
            line(format!("[tls]\nca = {:?}", text(authority)));
        }
        if let Some(Encrypted { folder, .. }) = &making.encrypted {
            let [ca, cert, key] = ["ca.pem", "device.pem", "device.key"].map(|name| text(&folder.join(name)));
            line(format!("[tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}"));
        }
        line(format!("[slots]\ndir = {}\ncapacity = {}", path("slots"), making.capacity));
        if let Some(probe) = &making.probe {
            line(format!("[[probes]]\nname = \"probe\"\ncommand = {probe:?}\ndeadline = 20"));
        }
        if let Some(hook) = &making.hook {
            line(format!(
                "[[hooks]]\nstep = \"pre-update\"\nname = \"hook\"\ncommand = {hook:?}\ndeadline = 60"
            ));
        }
        line(making.sections.replace("{dir}", &text(&self.dir)));
        line(format!("[timing]\nsoak = {:.3}\n{}", making.soak, making.timing));
        if !making.usual_waits {
            line("retry_base = 0.5\nask_first = 1.0\nask_max = 2.0\nget_repeat_first = 1.0".into());
            line("get_repeat_max = 3.0\nresend_first = 1.0\nretained_wait = 1.0\nheartbeat = 4.0".into());
            line("reconnect_max = 1.0\nreport_gather = 0.2".into());
        }
        std::fs::write(self.config(), out).expect("a configuration");
    }

    /// Returns the path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    fn agent(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(program("tern-agent"));
        let output =
            command.args(arguments).arg("--config").arg(self.config()).output().expect("tern-agent starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { (true, out) } else { (false, out + &error) }
    }

    /// Starts the agent.
    pub fn start(&mut self) {
        self.start_program(&program("tern-agent"));
    }

    /// Returns the agent's process id; 0 when it was not started.
    pub fn pid(&self) -> u32 {
        self.process.pid().unwrap_or(0)
    }

    /// Starts an agent of another build.
    pub fn start_program(&mut self, executable: &Path) {
        let mut command = self.run_command_of(executable);
        self.process.start(&mut command);
    }

    /// Kills the agent; the device stays up.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Cuts the device's power: the agent is gone, and what runs is decided anew at the next start.
    pub fn cut_power(&mut self) {
        self.kill();
        // A device that was never up has nothing there.
        let _absent = std::fs::remove_dir_all(self.dir.join("run"));
    }

    /// Tells whether the agent runs.
    pub fn alive(&mut self) -> bool {
        self.process.is_alive()
    }

    /// Returns what `tern-agent status --json` says.
    pub fn status(&self) -> Value {
        let (ok, out) = self.agent(&["status", "--json"]);
        assert!(ok, "{out}");
        serde_json::from_str(&out).expect("status is JSON")
    }

    /// Returns the bytes of a slot.
    pub fn slot(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.join("slots").join(format!("{name}.img"))).unwrap_or_default()
    }

    /// Returns what the agent has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
