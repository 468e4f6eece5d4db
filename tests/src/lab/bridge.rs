//! The bridge as a process of its own: the devices' broker, which can die without the service.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::service::text;
use super::{Broker, certificates, program, wait};

const PASSWORD: &str = "the-service-of-the-laboratory";

/// How one device finds a bridge that speaks TLS.
#[derive(Debug, Clone)]
pub struct Encrypted {
    /// Port of localhost, which is the name in the bridge's certificate.
    pub port: u16,
    /// Folder of `ca.pem`, `device.pem` and `device.key`.
    pub folder: PathBuf,
}

/// A bridge in a folder of its own.
pub struct LabBridge {
    dir: tempfile::TempDir,
    port: u16,
    sites: u16,
    process: Option<Child>,
}

impl LabBridge {
    /// Chooses a port and a password; the bridge starts when the folder of images is known.
    pub fn prepare() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let [port, sites] = [free_port(), free_port()];
        std::fs::write(dir.path().join("password"), PASSWORD).expect("a password file");
        Self { dir, port, sites, process: None }
    }

    /// Returns how a service finds it.
    pub fn broker(&self) -> Broker {
        Broker::External { port: self.port, password_file: self.dir.path().join("password") }
    }

    /// Returns where sites connect, and the file of users by which they are known.
    pub fn for_sites(&self) -> (SocketAddr, PathBuf) {
        (SocketAddr::from((Ipv4Addr::LOCALHOST, self.sites)), self.users())
    }

    fn users(&self) -> PathBuf {
        self.dir.path().join("users")
    }

    /// Writes the configuration of a bridge that serves the images in `chunks`.
    pub fn configure(&self, chunks: &Path) {
        let lines = [
            "fleet = \"lab\"".to_owned(),
            format!("service_password = {PASSWORD:?}"),
            format!("chunk_dir = {:?}", text(chunks)),
            format!("[[listeners]]\nlisten = \"127.0.0.1:{}\"\nauth.mode = \"open\"\n", self.port),
            format!(
                "[[listeners]]\nlisten = \"127.0.0.1:{}\"\nauth.mode = \"password\"\nauth.file = {:?}\n",
                self.sites,
                text(&self.users())
            ),
        ];
        if !self.users().exists() {
            std::fs::write(self.users(), "").expect("a file of users");
        }
        std::fs::write(self.config(), lines.join("\n")).expect("a configuration");
    }

    /// Writes the configuration of a bridge that also lets `device` in, by its certificate.
    pub fn configure_encrypted(&self, chunks: &Path, device: &str) -> Encrypted {
        self.configure(chunks);
        let (port, folder) = (free_port(), self.dir.path().to_owned());
        certificates::make(&folder, device);
        let file = |name: &str| format!("{:?}", text(&folder.join(name)));
        let listener = format!(
            "[[listeners]]\nlisten = \"127.0.0.1:{port}\"\nauth.mode = \"certificate\"\n\
             auth.tls = {{ certificate = {}, key = {} }}\nauth.client_ca = {}\n",
            file("server.pem"),
            file("server.key"),
            file("ca.pem")
        );
        let config = std::fs::read_to_string(self.config()).expect("a configuration") + &listener;
        std::fs::write(self.config(), config).expect("a configuration");
        Encrypted { port, folder }
    }

    /// Starts the process and waits until it takes connections.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log());
        let child = Command::new(program("tern-bridge"))
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"))
            .spawn();
        self.process = Some(child.expect("tern-bridge starts"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        wait("the bridge", Duration::from_secs(30), || TcpStream::connect(address).ok());
    }

    /// Kills the process as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself; either way it is gone after this.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("bridge.toml")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("bridge.log")
    }
}

/// Taken and given back: the bridge must find it again after every restart, so it cannot be 0.
fn free_port() -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    free.expect("a free port").port()
}

impl Drop for LabBridge {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            let text = format!("the bridge's log ends:\n{}\n", tail.join("\n"));
            let _shown = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        }
    }
}
