//! The printed policy, enforced by a real mosquitto. Passes over itself where none is installed.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use common::{Client, hello, up};
use tern_bridge::front::frame::Connect;
use tern_bridge::policy::mosquitto_acl;
use tern_protocol::topic::UpKind;

struct Mosquitto {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn program(name: &str) -> Option<std::path::PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| std::path::Path::new(folder).join(name))
        .find(|path| path.exists())
}

fn mosquitto() -> Option<Mosquitto> {
    let (server, passwd) = (program("mosquitto")?, program("mosquitto_passwd")?);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let acl = mosquitto_acl(&"acme".parse().unwrap(), &["hut-3".parse().unwrap()], &["r-9".parse().unwrap()]);
    std::fs::write(path("acl"), acl).unwrap();
    std::fs::write(path("passwd"), "").unwrap();
    for user in ["service", "hut-3", "r-1", "r-2", "r-9"] {
        let done = Command::new(&passwd).arg("-b").arg(path("passwd")).args([user, "word"]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "listener {} 127.0.0.1\nallow_anonymous false\nacl_file {}\npassword_file {}\nuser root\n",
        address.port(),
        path("acl").display(),
        path("passwd").display()
    );
    std::fs::write(path("conf"), config).unwrap();
    let child = Command::new(server).arg("-c").arg(path("conf")).stderr(Stdio::null()).spawn().unwrap();
    Some(Mosquitto { child, address, _folder: folder })
}

async fn connect(mosquitto: &Mosquitto, user: &str) -> Client {
    while tokio::net::TcpStream::connect(mosquitto.address).await.is_err() {
        tokio::task::yield_now().await;
    }
    let mut client = Client::raw(mosquitto.address).await;
    let login = Connect { user: Some(user.into()), password: Some("word".into()), ..hello(user) };
    assert_eq!(client.connect(login).await, Some(0), "{user}");
    client
}

#[tokio::test]
async fn mosquitto_lets_pass_what_the_front_lets_pass_and_nothing_of_others() {
    let Some(mosquitto) = mosquitto() else { return };
    let (mut service, mut site) = (connect(&mosquitto, "service").await, connect(&mosquitto, "hut-3").await);
    let mut revoked = connect(&mosquitto, "r-9").await;
    let (mut device, mut other) = (connect(&mosquitto, "r-1").await, connect(&mosquitto, "r-2").await);
    service.subscribe(&["ota/v1/acme/up/#"], 0).await;
    site.subscribe(&["ota/v1/acme/d/+/+"], 0).await;
    device.subscribe(&["ota/v1/acme/d/r-1/in", "ota/v1/acme/p/ap/head"], 0).await;
    other.subscribe(&["ota/v1/acme/d/r-1/in", "ota/v1/acme/d/#", "ota/v1/acme/up/#"], 0).await;

    revoked.subscribe(&["ota/v1/acme/d/r-9/in", "ota/v1/acme/p/ap/head"], 0).await;
    revoked.publish(&up("r-9", UpKind::Report), b"revoked", 0).await;
    assert!(revoked.ping().await);
    other.publish(&up("r-1", UpKind::Report), b"forged", 0).await;
    other.publish("ota/v1/acme/p/ap/head", b"forged", 0).await;
    other.publish("ota/v1/acme/d/r-1/in", b"forged", 0).await;
    // Whatever was forged is ahead of this in the broker.
    assert!(other.ping().await);
    device.publish(&up("r-1", UpKind::Report), b"mine", 0).await;
    site.publish(&up("r-1", UpKind::Presence), b"by its site", 0).await;
    service.publish("ota/v1/acme/d/r-1/in", b"answer", 0).await;
    service.publish("ota/v1/acme/d/r-9/in", b"answer", 0).await;
    service.publish("ota/v1/acme/p/ap/head", b"files", 0).await;

    let mut heard = [service.message().await.payload, service.message().await.payload];
    heard.sort();
    assert_eq!(heard, [b"by its site".to_vec(), b"mine".to_vec()]);
    assert_eq!(device.message().await.payload, b"answer");
    assert_eq!(device.message().await.payload, b"files");
    assert_eq!(site.message().await.payload, b"answer");
    other.hears_nothing().await;
    revoked.hears_nothing().await;
}
