//! A site's edge as a process of its own, which can be killed, and the broker that it leans on.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tern_bridge::password;
use tern_bridge::policy::Client;
use tern_protocol::digest::Digest;

use super::process::{Process, free_port};
use super::service::text;
use super::{WanPart, program, wait};

/// A site's edge.
pub struct LabEdge {
    /// Before its folder goes: its log is in there.
    process: Process,
    dir: tempfile::TempDir,
    folder: PathBuf,
    port: u16,
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
        let more = format!("password_file = {:?}\n{more}", text(&dir.path().join("password")));
        Self::configured(dir, folder, name, upstream, &more)
    }

    /// Makes a site that proves itself as these lines say, and is known already.
    pub fn known(name: &str, upstream: SocketAddr, lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = dir.path().join("site");
        Self::configured(dir, folder, name, upstream, lines)
    }

    fn configured(
        dir: tempfile::TempDir,
        folder: PathBuf,
        name: &str,
        upstream: SocketAddr,
        lines: &str,
    ) -> Self {
        let port = free_port();
        let path = |name: &str| text(&dir.path().join(name));
        let config = format!(
            "fleet = \"lab\"\nchunk_dir = {:?}\n[[listeners]]\nlisten = \"127.0.0.1:{port}\"\nauth.mode = \"open\"\n\
             [upstream]\nsite = {name:?}\nbrokers = [\"{upstream}\"]\ndir = {:?}\n{lines}\n",
            path("chunks"),
            text(&folder),
        );
        std::fs::write(dir.path().join("bridge.toml"), config).expect("a configuration");
        let process = Process::new("the edge", dir.path().join("edge.log"));
        Self { process, dir, folder, port }
    }

    /// Returns where its devices connect.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns the folder with cache, queue and mirror.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns what of its cache is on the disk, by the names of the link, and its bytes.
    ///
    /// # Panics
    /// When its folder cannot be read.
    pub fn cached(&self) -> (BTreeSet<WanPart>, u64) {
        let (mut parts, mut bytes) = (BTreeSet::new(), 0);
        for shelf in std::fs::read_dir(self.folder.join("cache")).expect("a cache").flatten() {
            for file in std::fs::read_dir(shelf.path()).into_iter().flatten().flatten() {
                let name = file.file_name().into_string().expect("names are text");
                let Some((root, part)) = name.split_once('-') else { continue };
                let of = root.parse::<Digest>().expect("a root").short();
                // What is known of deltas is there too, and no part of anything.
                let place = match (part.strip_prefix('c'), part[1..].split_once('.')) {
                    (Some(index), _) => index.parse().map(|index| (9, index)),
                    (None, Some((level, index))) => {
                        level.parse().and_then(|level| index.parse().map(|index| (level, index)))
                    }
                    (None, None) => continue,
                };
                let Ok((level, index)) = place else { continue };
                let part = (of, level, index);
                parts.insert(part);
                bytes += file.metadata().map_or(0, |data| data.len());
            }
        }
        (parts, bytes)
    }

    /// Starts the process and waits until it takes connections.
    pub fn start(&mut self) {
        let config = self.dir.path().join("bridge.toml");
        self.process.start(Command::new(program("tern-bridge")).arg("run").arg("--config").arg(config));
        let address = self.address();
        wait("the site's edge", Duration::from_secs(30), || TcpStream::connect(address).ok());
    }

    /// Kills the process as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Returns what it says of itself.
    pub fn status(&self) -> Value {
        let bytes = std::fs::read(self.folder.join("status.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    }

    /// Returns what it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for LabEdge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = format!("the status of the edge: {}\n", self.status());
            let _shown = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        }
    }
}
