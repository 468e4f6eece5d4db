//! A service with its data folder, and the command line against it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{program, wait};

/// Which broker the service uses.
#[derive(Debug, Clone)]
pub enum Broker {
    /// The embedded one.
    Embedded,
    /// An external one on loopback, with the service's password.
    External {
        /// Port on 127.0.0.1.
        port: u16,
        /// File with the password of user `service`.
        password_file: PathBuf,
    },
}

/// What a command line gave.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none if it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A service in a folder of its own.
pub struct Lab {
    /// The folder.
    pub dir: tempfile::TempDir,
    /// Where the API listens.
    pub api: String,
    /// Where devices connect.
    pub mqtt: SocketAddr,
    broker: Broker,
    config: Option<String>,
    service: Option<Child>,
}

/// The product of every laboratory.
pub const PRODUCT: &str = "router";
/// The hardware model of every laboratory.
pub const MODEL: &str = "tr-100";

impl Lab {
    /// Sets up keys and starts a service with the embedded broker.
    pub fn start() -> Self {
        Self::start_with(Broker::Embedded)
    }

    /// Sets up keys and starts a service with the embedded broker and this configuration.
    pub fn start_configured(config: &str) -> Self {
        Self::set_up(Broker::Embedded, Some(config.to_owned()))
    }

    /// Sets up keys and starts a service.
    pub fn start_with(broker: Broker) -> Self {
        Self::set_up(broker, None)
    }

    fn set_up(broker: Broker, config: Option<String>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mqtt = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut lab = Self { dir, api: String::new(), mqtt, broker, config, service: None };
        let (data, offline) = (lab.data(), lab.path("offline"));
        let ran = lab.run(&[
            "keys",
            "init",
            "--fleet",
            "lab",
            "--product",
            PRODUCT,
            "--data",
            &text(&data),
            "--offline",
            &text(&offline),
        ]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        lab.start_service();
        lab
    }

    /// Returns a path in the laboratory's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the service's data folder.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Starts the service, which listens where it listened before.
    pub fn start_service(&mut self) {
        let ready = self.data().join("service.json");
        // What an earlier run wrote must not be believed.
        let _absent = std::fs::remove_file(&ready);
        let mut command = self.serve_command();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("service.log"));
        let child = command.stderr(log.expect("a log file")).spawn().expect("the service starts");
        self.service = Some(child);
        let addresses: Value = wait("the service", Duration::from_secs(60), || {
            let running = matches!(self.service.as_mut().map(Child::try_wait), Some(Ok(None)));
            assert!(running, "the service ended: {}", self.log());
            serde_json::from_slice(&std::fs::read(&ready).ok()?).ok()
        });
        self.api = format!("http://{}", addresses["api"].as_str().expect("an address"));
        self.mqtt = match (&self.broker, addresses["mqtt"][0].as_str()) {
            (Broker::External { port, .. }, _) => SocketAddr::from(([127, 0, 0, 1], *port)),
            (Broker::Embedded, found) => found.expect("a listener").parse().expect("an address"),
        };
    }

    /// Returns the command that starts the service.
    pub fn serve_command(&self) -> Command {
        let mut command = Command::new(program("tern"));
        command.arg("serve").arg("--data").arg(self.data()).args(["--listen-api", "127.0.0.1:0"]);
        match &self.broker {
            Broker::Embedded => {
                command.arg("--listen-mqtt").arg(self.mqtt.to_string());
            }
            Broker::External { port, password_file } => {
                command.arg("--broker").arg(format!("mqtt://127.0.0.1:{port}"));
                command.args(["--broker-user", "service", "--broker-password-file"]).arg(password_file);
            }
        }
        if let Some(config) = &self.config {
            let path = self.path("tern.toml");
            std::fs::write(&path, config).expect("a configuration");
            command.arg("--config").arg(path);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Returns the service's process id.
    pub fn service_pid(&self) -> Option<u32> {
        self.service.as_ref().map(Child::id)
    }

    /// Kills the service as a power cut would.
    pub fn kill_service(&mut self) {
        if let Some(mut child) = self.service.take() {
            // It may have ended by itself; either way it is gone after this.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Returns what the service has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("service.log")).unwrap_or_default()
    }

    /// Runs `tern` with these arguments against this service.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(program("tern"));
        if !self.api.is_empty() {
            command.env("TERN_API", &self.api);
        }
        let output = command.args(arguments).stdin(Stdio::null()).output().expect("tern starts");
        Ran {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `tern --json` and reads the last line that it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[&["--json"], arguments].concat());
        assert_eq!(ran.code, Some(0), "tern {arguments:?}: {ran:?}\n{}", self.log());
        serde_json::from_str(ran.out.trim()).unwrap_or_else(|_| panic!("tern {arguments:?}: {ran:?}"))
    }

    /// Signs a release of `image` offline and publishes it.
    pub fn publish(&self, rc: u64, image: &Path) {
        let (draft, signed) = (self.path(&format!("{rc}.draft.json")), self.path(&format!("{rc}.json")));
        let (rc_text, version) = (rc.to_string(), format!("{rc}.0.0"));
        let key = self.path("offline").join("release.pem");
        self.json(&[
            "release",
            "create",
            "--product",
            PRODUCT,
            "--rc",
            &rc_text,
            "--version",
            &version,
            "--model",
            MODEL,
            "--image",
            &text(image),
            "--out",
            &text(&draft),
        ]);
        self.json(&["release", "sign", &text(&draft), "--key", &text(&key), "--out", &text(&signed)]);
        self.json(&["release", "publish", &text(&signed), "--image", &text(image)]);
    }

    /// Starts a rollout with these phases.
    pub fn roll_out(&self, rc: u64, name: &str, phases: &str, soak: u64) {
        let (rc, soak) = (rc.to_string(), soak.to_string());
        self.json(&[
            "rollout",
            "start",
            "--product",
            PRODUCT,
            "--rc",
            &rc,
            "--name",
            name,
            "--phases",
            phases,
            "--soak",
            &soak,
            "--yes",
        ]);
    }

    /// Returns a rollout as the API shows it.
    pub fn rollout(&self, name: &str) -> Value {
        self.json(&["rollout", "explain", name])
    }

    /// Waits until a rollout has this status.
    pub fn wait_for_status(&self, name: &str, status: &str, most: Duration) -> Value {
        wait(&format!("rollout {name} to be {status}"), most, || {
            let view = self.rollout(name);
            (view["status"] == status).then_some(view)
        })
    }

    /// Returns what the service says of itself.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn status(&self) -> Value {
        let client = tern_controller::api::client::Client::new(&self.api);
        client.get("/v1/status").expect("the service answers")
    }

    /// Returns a device as the API shows it.
    pub fn device(&self, name: &str) -> Value {
        self.json(&["device", "show", name])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill_service();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            let text = format!("the service's log ends:\n{}\n", tail.join("\n"));
            // A test that fails should say what the service saw.
            let _shown = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        }
    }
}

pub(super) fn text(path: &Path) -> String {
    path.display().to_string()
}
