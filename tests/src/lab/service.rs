//! A service with its data folder, and the command line against it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use p256::SecretKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tern_protocol::tuf::content::point_hex;

use super::{Ran, program, wait, wait_telling};

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
        let mut lab = Self::bare(broker);
        lab.config = config;
        lab.make_keys();
        lab.start_service();
        lab
    }

    /// Makes an empty folder and nothing else yet.
    pub fn bare(broker: Broker) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mqtt = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { dir, api: String::new(), mqtt, broker, config: None, service: None }
    }

    /// Makes the keys of the fleet, into the data folder and into `offline`.
    pub fn make_keys(&self) {
        let (data, offline) = (self.data(), self.path("offline"));
        let ran = self.run(&[
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
            "--no-passphrase",
        ]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    /// Has the service start with this configuration from now on.
    pub fn configure(&mut self, config: &str) {
        self.config = Some(config.to_owned());
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

    /// Waits until the service has ended by itself and returns its exit code.
    pub fn wait_for_end(&mut self, most: Duration) -> Option<i32> {
        let code = wait("the service to end", most, || {
            let child = self.service.as_mut().expect("a service was started");
            child.try_wait().expect("a child can be asked").map(|status| status.code())
        });
        self.service = None;
        code
    }

    /// Stops the service as its supervisor would; it writes a checkpoint.
    pub fn stop_service(&mut self) {
        let pid = self.service_pid().expect("a service runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(sent.success(), "the service is gone already");
        let code = self.wait_for_end(Duration::from_secs(30));
        assert_eq!(code, Some(0), "{}", self.log());
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

    /// Returns the command that runs `tern` with these arguments against this service.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("tern"));
        if !self.api.is_empty() {
            command.env("TERN_API", &self.api);
        }
        // Nothing of whoever runs the tests.
        command.env_remove("TERN_TOKEN").env_remove("TERN_TOKEN_FILE");
        let token = self.admin_token();
        if token.is_file() {
            command.env("TERN_TOKEN_FILE", token);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs `tern` with these arguments against this service.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().expect("tern starts");
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
        self.publish_for(rc, image, &[MODEL]);
    }

    /// The same for several hardware models.
    pub fn publish_for(&self, rc: u64, image: &Path, models: &[&str]) {
        // Deltas are made at the lowest priority, which on a busy machine takes long.
        self.publish_with(rc, image, models, "--no-wait");
    }

    /// The same with another option of `release publish`.
    pub fn publish_with(&self, rc: u64, image: &Path, models: &[&str], option: &str) {
        let (draft, signed) = (self.path(&format!("{rc}.draft.json")), self.path(&format!("{rc}.json")));
        let (rc_text, version) = (rc.to_string(), format!("{rc}.0.0"));
        let key = self.path("offline").join("release.pem");
        let create = ["release", "create", "--product", PRODUCT, "--rc", &rc_text, "--version", &version];
        let (image_path, draft_path) = (text(image), text(&draft));
        let mut words = create.to_vec();
        models.iter().for_each(|model| words.extend(["--model", *model]));
        words.extend(["--image", &image_path, "--out", &draft_path]);
        self.json(&words);
        self.json(&["release", "sign", &text(&draft), "--key", &text(&key), "--out", &text(&signed)]);
        self.json(&["release", "publish", &text(&signed), "--image", &text(image), option]);
    }

    /// Starts a rollout by a plan.
    pub fn roll_out_by(&self, rc: u64, name: &str, plan: &Value) {
        let (rc, file) = (rc.to_string(), self.path(&format!("{name}.json")));
        std::fs::write(&file, plan.to_string()).expect("a file for the plan");
        let words = ["rollout", "start", "--product", PRODUCT, "--rc", &rc, "--name", name, "--plan"];
        self.json(&[&words[..], &[&text(&file), "--yes"]].concat());
    }

    /// Registers devices that nobody has switched on yet.
    pub fn register_absent(&self, count: usize, model: &str) {
        let line = |number: usize| {
            let key = SecretKey::from_slice(&Sha256::digest(format!("{model} {number}"))).expect("a key");
            json!({
                "device": format!("{model}-absent-{number}"), "identity": point_hex(&key.public_key()),
                "product": PRODUCT, "model": model, "carrier": "none", "region": "eu",
            })
        };
        let list = self.path(&format!("{model}-absent.json"));
        std::fs::write(&list, Value::from_iter((0..count).map(line)).to_string()).expect("a factory list");
        self.json(&["device", "add", "--unsigned", "--file", &text(&list)]);
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
            "--at-once",
            "--hold-back",
            "none",
            "--yes",
        ]);
    }

    /// Returns a rollout as the API shows it.
    pub fn rollout(&self, name: &str) -> Value {
        self.json(&["rollout", "explain", name])
    }

    /// Waits until every registered device was heard.
    pub fn wait_for_hellos(&self) {
        wait_telling(
            || "the devices to be heard".to_owned(),
            Duration::from_secs(180),
            || {
                let list = self.json(&["device", "list"]);
                list.as_array()?.iter().all(|device| device["seen_at"].as_u64() > Some(0)).then_some(())
            },
        );
    }

    /// Waits until a rollout has this status.
    pub fn wait_for_status(&self, name: &str, status: &str, most: Duration) -> Value {
        let what = format!("rollout {name} to be {status}");
        // Why it waits is what the reader of a failed test wants to know.
        let tell = || format!("{what}: {}", self.rollout(name));
        wait_telling(tell, most, || {
            let view = self.rollout(name);
            (view["status"] == status).then_some(view)
        })
    }

    /// Returns everything that a restart must not change: devices, releases, and rollouts with their counts.
    ///
    /// # Panics
    /// When the service does not answer.
    pub fn memory(&self) -> Value {
        let mut devices = self.json(&["device", "list"]);
        for device in devices.as_array_mut().expect("a list") {
            // Every connection moves it.
            device.as_object_mut().expect("an object").remove("seen_at");
        }
        let rollouts = self.json(&["rollout", "list"]);
        let names: Vec<String> = rollouts
            .as_array()
            .expect("a list")
            .iter()
            .map(|line| line["rollout"].as_str().expect("a name").to_owned())
            .collect();
        let views: Vec<Value> = names.iter().map(|name| self.rollout(name)).collect();
        let (_, releases) = self.http("GET", &format!("/v1/products/{PRODUCT}/releases"), None);
        serde_json::json!({"devices": devices, "rollouts": views, "releases": releases})
    }

    /// Returns `/v1/status`.
    pub fn status(&self) -> Value {
        let (code, body) = self.http("GET", "/v1/status", None);
        assert_eq!(code, 200, "{body}");
        body
    }

    /// Returns the file with the token that the service has made for its admin.
    pub fn admin_token(&self) -> PathBuf {
        self.data().join("admin.token")
    }

    /// Sends a request with the admin's token and returns status and body.
    ///
    /// # Panics
    /// When the answer is not HTTP with JSON inside.
    pub fn http(&self, method: &str, path: &str, body: Option<&[u8]>) -> (u16, Value) {
        let token = std::fs::read_to_string(self.admin_token()).unwrap_or_default();
        self.http_with(&format!("authorization: Bearer {}\r\n", token.trim()), method, path, body)
    }

    /// Sends a request with these header lines, each with its end, and returns status and body.
    ///
    /// # Panics
    /// When the answer is not HTTP with JSON inside.
    pub fn http_with(&self, lines: &str, method: &str, path: &str, body: Option<&[u8]>) -> (u16, Value) {
        use std::io::{Read as _, Write as _};
        let host = self.api.trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(host).expect("the API listens");
        let body = body.unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{lines}connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // The service may answer before it has read everything.
        let _early = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
        (code.expect("a status"), body.unwrap_or_else(|| panic!("{method} {path}: {text}")))
    }

    /// Checks the ledger and returns the number of its frames.
    pub fn verified_frames(&self) -> u64 {
        let verified = self.json(&["ledger", "verify", "--data", &text(&self.data())]);
        assert_eq!(verified["torn"], Value::Null, "{verified}");
        verified["frames"].as_u64().expect("a number")
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
