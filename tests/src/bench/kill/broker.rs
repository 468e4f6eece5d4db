//! The brokers: the service's embedded one with a bridge of its own for the baseline, or one mosquitto for both.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::super::reports::free_port;
use crate::lab::{Mosquitto, program, wait};

/// The password of the service at the baseline's bridge.
const PASSWORD: &str = "bench-password-1";

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillBroker {
    /// The service's own; the baseline has a bridge beside it, the same front and broker.
    Embedded,
    /// Mosquitto, as `deploy/mosquitto.conf` has it; the baseline is on the same one.
    Mosquitto,
}

impl KillBroker {
    /// Reads its name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "embedded" => Some(Self::Embedded),
            "mosquitto" => Some(Self::Mosquitto),
            _ => None,
        }
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Mosquitto => "mosquitto",
        }
    }
}

/// The broker that the baseline is on.
pub(super) enum BaselineBroker {
    /// A bridge of its own.
    Bridge(BareBridge),
    /// The product's.
    Shared(Arc<Mosquitto>),
}

impl BaselineBroker {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Bridge(bridge) => bridge.address,
            Self::Shared(mosquitto) => mosquitto.address(),
        }
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        match self {
            Self::Bridge(bridge) => vec![bridge.child.id()],
            Self::Shared(mosquitto) => vec![mosquitto.pid()],
        }
    }

    pub(super) fn password_of(&self, user: &str) -> Option<String> {
        match self {
            Self::Bridge(_) => None,
            Self::Shared(_) => Some(Mosquitto::password(user)),
        }
    }

    pub(super) fn service_login(&self) -> (String, String) {
        let password = match self {
            Self::Bridge(_) => PASSWORD.to_owned(),
            Self::Shared(_) => Mosquitto::password("service"),
        };
        ("service".to_owned(), password)
    }
}

/// Returns the limits of a front for so many clients.
pub(super) fn limits(clients: u32) -> String {
    format!("[limits]\nconnections = {}\n", clients + 100)
}

/// A bridge without a service.
pub(super) struct BareBridge {
    _dir: tempfile::TempDir,
    child: Child,
    address: SocketAddr,
}

impl BareBridge {
    pub(super) fn start(clients: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let text = format!(
            "fleet = \"lab\"\nservice_password = {PASSWORD:?}\nchunk_dir = {:?}\n[[listeners]]\nlisten = \
             \"{address}\"\nauth.mode = \"open\"\n{}",
            dir.path().join("chunks").display().to_string(),
            limits(clients)
        );
        let config = dir.path().join("bridge.toml");
        std::fs::write(&config, text).expect("a configuration");
        let child = Command::new(program("tern-bridge"))
            .arg("run")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the bridge starts");
        let bridge = Self { _dir: dir, child, address };
        wait("the bridge", Duration::from_secs(20), || std::net::TcpStream::connect(address).ok());
        bridge
    }
}

impl Drop for BareBridge {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
