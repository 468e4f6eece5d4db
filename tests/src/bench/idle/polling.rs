//! A client that polls a hawkBit-style server: goosebit as it comes, at the pace that it asks for; curl does the polls.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Radio, Terms, TlsProxy, program_in, wait};

/// Polls that are counted.
const POLLS: u64 = 5;

/// What was counted.
#[derive(Debug, Clone)]
pub struct Polling {
    /// How often the server asks to be polled, seconds.
    pub every: u64,
    /// Bytes of HTTP of one poll, both ways.
    pub http: u64,
    /// The same in TLS, with its handshake.
    pub tls: u64,
}

impl Polling {
    /// Returns how many polls a day has.
    pub fn a_day(&self) -> u64 {
        86_400 / self.every.max(1)
    }
}

/// Counts, if `.ci/idle-peer` has installed goosebit. The folder holds what [`crate::lab::certificates`] made.
pub(super) fn polling(folder: &Path) -> Option<Polling> {
    let python = program_in("idle-peer/bin", "python")?;
    let free =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("idle-peer.py");
    let mut server = Command::new(python)
        .arg(script)
        .arg(folder)
        .arg(free.port().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("python starts");
    wait("goosebit", Duration::from_secs(120), || TcpStream::connect(free).ok());
    let proxy = TlsProxy::start(folder, free.port());
    let base = format!("http://{free}/DEFAULT/controller/v1/dev-1");
    curl(folder, &[&base]);
    // What the device is, once: from then on there is nothing to say.
    let about = r#"{"mode":"merge","data":{"hw_boardname":"board","hw_revision":"1","sw_version":"1.0.0"}}"#;
    let put = ["-X", "PUT", "-H", "Content-Type: application/json", "-d", about];
    curl(folder, &[&put[..], &[&format!("{base}/configData")]].concat());
    let answer: Value = serde_json::from_str(&curl(folder, &[&base])).expect("the server answers in JSON");
    let sleep = answer["config"]["polling"]["sleep"].as_str().expect("a pause").to_owned();
    let every = sleep.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap_or(0));
    let count = |server: SocketAddr, host: &str| {
        let radio = Radio::to(server, Terms::plain(1_000_000_000, Duration::ZERO));
        let url = format!("{host}:{}/DEFAULT/controller/v1/dev-1", radio.address.port());
        (0..POLLS).for_each(|_| drop(curl(folder, &["--cacert", "ca.pem", &url])));
        radio.carried().iter().sum::<u64>() / POLLS
    };
    let http = count(free, "http://127.0.0.1");
    let tls = count(proxy.address, "https://localhost");
    let _gone = server.kill();
    let _reaped = server.wait();
    Some(Polling { every, http, tls })
}

fn curl(folder: &Path, words: &[&str]) -> String {
    let ran = Command::new("curl").args(["-sS", "-A", "swupdate"]).args(words).current_dir(folder).output();
    let ran = ran.expect("curl is installed");
    assert!(ran.status.success(), "curl {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}
