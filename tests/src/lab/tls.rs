//! TLS before a service on loopback: certificates made by openssl, and the proxy that an operator would put there.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A proxy that ends TLS.
pub struct TlsProxy {
    /// Where it listens; its certificate is for `localhost`.
    pub address: SocketAddr,
    process: Child,
}

/// Makes an authority (`ca.pem`), a certificate of it for `localhost` (`proxy.pem`, `proxy.key`), and another authority
/// (`other.pem`).
///
/// # Panics
/// When openssl does not do it.
pub fn certificates(folder: &Path) {
    for ca in ["ca", "other"] {
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj";
        openssl(folder, &format!("{new} /CN={ca} -keyout {ca}.key -out {ca}.pem"));
    }
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=tern";
    openssl(folder, &format!("{new} -keyout proxy.key -out proxy.csr"));
    std::fs::write(folder.join("proxy.ext"), "subjectAltName=DNS:localhost\n")
        .expect("a file can be written");
    let sign = "x509 -req -in proxy.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2";
    openssl(folder, &format!("{sign} -extfile proxy.ext -out proxy.pem"));
}

fn openssl(folder: &Path, words: &str) {
    let ran = Command::new("openssl").args(words.split(' ')).current_dir(folder).output();
    let ran = ran.expect("openssl is installed");
    assert!(ran.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&ran.stderr));
}

impl TlsProxy {
    /// Starts one before `port`, with what [`certificates`] has put into the folder.
    pub fn start(folder: &Path, port: u16) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tls-proxy.py");
        let mut process = Command::new("python3")
            .arg(script)
            .args([folder.join("proxy.pem"), folder.join("proxy.key")])
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut line = String::new();
        let out = process.stdout.as_mut().expect("it is a pipe");
        BufReader::new(out).read_line(&mut line).expect("the proxy says its port");
        let port = line.trim().parse().expect("a port");
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), process }
    }

    /// Stops it; tells whether it ended well.
    pub fn stop(mut self) -> bool {
        drop(self.process.stdin.take());
        self.process.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
