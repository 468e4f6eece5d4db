//! The bridge as a process of its own: the devices' broker, which can die without the service.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::{Process, free_port};
use super::service::text;
use super::{Broker, certificates, program, wait};

const PASSWORD: &str = "the-service-of-the-laboratory";

/// How one device and one site find a bridge that speaks TLS.
#[derive(Debug, Clone)]
pub struct Encrypted {
    /// Port of localhost, which is the name in the bridge's certificate, for those who show one of their own.
    pub port: u16,
    /// Port for those who have a password.
    pub by_password: u16,
    /// Folder of `ca.pem`, `device.pem`, `device.key`, `site.pem` and `site.key`.
    pub folder: PathBuf,
}

/// A bridge in a folder of its own.
pub struct LabBridge {
    /// Before its folder goes: its log is in there.
    process: Process,
    dir: tempfile::TempDir,
    port: u16,
    sites: u16,
}

impl LabBridge {
    /// Chooses a port and a password; the bridge starts when the folder of images is known.
    pub fn prepare() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let [port, sites] = [free_port(), free_port()];
        std::fs::write(dir.path().join("password"), PASSWORD).expect("a password file");
        let process = Process::new("the bridge", dir.path().join("bridge.log"));
        Self { process, dir, port, sites }
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

    /// Writes the configuration of a bridge that also lets `device` and `site` in over TLS, by their certificates or, where they
    /// are in the file of users, by password.
    pub fn configure_encrypted(&self, chunks: &Path, device: &str, site: &str) -> Encrypted {
        self.configure(chunks);
        let ([port, by_password], folder) = ([free_port(), free_port()], self.dir.path().to_owned());
        certificates::make(&folder, device, site);
        let file = |name: &str| format!("{:?}", text(&folder.join(name)));
        let tls = format!("{{ certificate = {}, key = {} }}", file("server.pem"), file("server.key"));
        let listeners = format!(
            "[[listeners]]\nlisten = \"127.0.0.1:{port}\"\nauth.mode = \"certificate\"\nauth.tls = {tls}\n\
             auth.client_ca = {}\n\
             [[listeners]]\nlisten = \"127.0.0.1:{by_password}\"\nauth.mode = \"password\"\nauth.tls = {tls}\n\
             auth.file = {:?}\n",
            file("ca.pem"),
            text(&self.users()),
        );
        let config = std::fs::read_to_string(self.config()).expect("a configuration") + &listeners;
        std::fs::write(self.config(), config).expect("a configuration");
        Encrypted { port, by_password, folder }
    }

    /// Starts the process and waits until it takes connections.
    pub fn start(&mut self) {
        self.process
            .start(Command::new(program("tern-bridge")).arg("run").arg("--config").arg(self.config()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        wait("the bridge", Duration::from_secs(30), || TcpStream::connect(address).ok());
    }

    /// Kills the process as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("bridge.toml")
    }
}
