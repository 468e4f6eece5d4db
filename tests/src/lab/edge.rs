//! A site's edge as a process of its own, which can be killed, and the broker that it leans on.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tern_bridge::password;
use tern_bridge::policy::Client;

use super::service::text;
use super::{program, wait};

/// A site's edge.
pub struct LabEdge {
    dir: tempfile::TempDir,
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl LabEdge {
    /// Makes the site `name`: its user in `users`, the file of the broker above it, and its configuration, which leads to `upstream`
    /// and has these lines more under `[upstream]`.
    pub fn make(name: &str, users: &Path, upstream: SocketAddr, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = dir.path().join("site");
        Self::make_in(dir, folder, name, users, upstream, more)
    }

    /// The same, with its data in another folder.
    pub fn make_in(
        dir: tempfile::TempDir,
        folder: PathBuf,
        name: &str,
        users: &Path,
        upstream: SocketAddr,
        more: &str,
    ) -> Self {
        let site = Client::Site(name.parse().expect("a site's id"));
        let drawn = password::set_password(users, &site).expect("a file of users");
        std::fs::write(dir.path().join("password"), drawn).expect("a password file");
        // Taken and given back: devices must find it again after every restart.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let path = |name: &str| text(&dir.path().join(name));
        let config = format!(
            "fleet = \"lab\"\nchunk_dir = {:?}\n[[listeners]]\nlisten = \"127.0.0.1:{port}\"\nauth.mode = \"open\"\n\
             [upstream]\nsite = {name:?}\nbrokers = [\"{upstream}\"]\npassword_file = {:?}\ndir = {:?}\n{more}\n",
            path("chunks"),
            path("password"),
            text(&folder),
        );
        std::fs::write(dir.path().join("bridge.toml"), config).expect("a configuration");
        Self { dir, folder, port, process: None }
    }

    /// Returns where its devices connect.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns the folder with cache, queue and mirror.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the process and waits until it takes connections.
    pub fn start(&mut self) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("edge.log"));
        let child = Command::new(program("tern-bridge"))
            .arg("run")
            .arg("--config")
            .arg(self.dir.path().join("bridge.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"))
            .spawn();
        self.process = Some(child.expect("tern-bridge starts"));
        let address = self.address();
        wait("the site's edge", Duration::from_secs(30), || TcpStream::connect(address).ok());
    }

    /// Kills the process as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself; either way it is gone after this.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Returns what it says of itself.
    pub fn status(&self) -> Value {
        let bytes = std::fs::read(self.folder.join("status.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    }

    /// Returns what it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("edge.log")).unwrap_or_default()
    }
}

impl Drop for LabEdge {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(25).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            let text = format!("the edge's log ends:\n{}\nits status: {}\n", tail.join("\n"), self.status());
            let _shown = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        }
    }
}
