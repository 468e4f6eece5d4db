//! Debian's mosquitto as `deploy/mosquitto.conf` has it, with the generated policy, and passwords in the place of
//! certificates.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::process::free_port;
use super::{MqttClient, ends, in_ci, program, wait};

const PATIENCE: Duration = Duration::from_secs(90);
const SERVER: &str = "/usr/sbin/mosquitto";

/// A broker that nobody here wrote, on loopback.
pub struct Mosquitto {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Mosquitto {
    /// Starts it with these users; none where it is not installed and this is not CI.
    ///
    /// # Panics
    /// When it does not start, or is missing in CI.
    pub fn start<S: AsRef<str>>(users: &[S]) -> Option<Self> {
        if !Path::new(SERVER).exists() {
            assert!(!in_ci(), "{SERVER} is missing: CI installs the package mosquitto");
            let said = format!("SKIPPED: {SERVER} is missing; install the Debian package mosquitto\n");
            let _shown = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let write =
            |name: &str, text: String| std::fs::write(path(name), text).expect("a file in the folder");
        let policy =
            ends(Command::new(program("tern-bridge")).args(["policy", "mosquitto", "--fleet", "lab"]));
        assert_eq!(policy.code, Some(0), "{policy:?}");
        write("acl", policy.out);
        let users = users.iter().map(AsRef::as_ref);
        write("passwd", users.map(|user| format!("{user}:{}\n", Self::password(user))).collect());
        // Hashes all of them at once: there may be thousands.
        let ran = ends(Command::new("mosquitto_passwd").arg("-U").arg(path("passwd")));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let port = free_port();
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/mosquitto.conf");
        let sample = std::fs::read_to_string(sample).expect("the sample configuration");
        let certificates = ["listener 8883", "cafile", "certfile", "keyfile", "require_", "use_identity"];
        let kept = sample.lines().filter(|line| !certificates.iter().any(|word| line.starts_with(word)));
        let config: String = kept
            .map(|line| match line.split(' ').next() {
                Some("listener") => format!("listener {port} 127.0.0.1\n"),
                Some("acl_file") => format!("acl_file {}\n", path("acl")),
                Some("password_file") => format!("password_file {}\n", path("passwd")),
                Some("persistence_location") => format!("persistence_location {}/\n", dir.path().display()),
                _ => format!("{line}\n"),
            })
            .collect();
        // Else it gives up root, and cannot read this folder.
        write("conf", config + "user root\n");
        let log = std::fs::File::create(path("log")).expect("a log file");
        let child =
            Command::new(SERVER).arg("-c").arg(path("conf")).stdout(Stdio::null()).stderr(log).spawn();
        let mosquitto = Self { child: child.expect("mosquitto starts"), port, dir };
        wait("mosquitto", PATIENCE, || std::net::TcpStream::connect(mosquitto.address()).ok());
        Some(mosquitto)
    }

    /// Returns a user's password.
    pub fn password(user: &str) -> String {
        format!("word-of-{user}")
    }

    /// Returns a file that holds a user's password.
    pub fn password_file(&self, user: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{user}.password"));
        std::fs::write(&path, Self::password(user)).expect("a file in the folder");
        path
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Connects as a user.
    pub fn connect(&self, client: &str, user: &str) -> MqttClient {
        MqttClient::connect(self.address(), client, Some((user, &Self::password(user))))
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
