//! TLS through the socket: whose certificate opens, who cannot block whom, and renewal.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::{Client, Scene, bridge_with, hello};
use tern_bridge::front::frame::Connect;
use tern_bridge::{Auth, TlsFiles};
use tokio::net::TcpStream;

async fn tls_bridge(pki: &Pki) -> Scene {
    bridge_with(|config| {
        let tls = TlsFiles { certificate: pki.path("server.pem"), key: pki.path("server.key") };
        config.listeners[0].auth = Auth::Certificate { tls, client_ca: pki.path("ca.pem") };
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_tls_connection_blocks_no_other_and_a_certificate_opens_for_its_own_id() {
    let pki = Pki::new();
    let scene = tls_bridge(&pki).await;
    // The first in the queue of those that are to be accepted.
    let _idle = TcpStream::connect(scene.address).await.unwrap();

    for (certificate, id, code) in [
        (Some("r-1"), "r-1", Some(0)),
        (Some("r-1"), "r-2", Some(2)),
        (None, "r-1", Some(4)),
        (Some("stranger"), "stranger", None),
    ] {
        let mut client = Client::over(pki.connect(scene.address, certificate).await);
        assert_eq!(client.connect(hello(id)).await, code, "certificate {certificate:?}, id {id}");
    }
    let mut service = Client::over(pki.connect(scene.address, None).await);
    let (user, password) = (Some("service".into()), Some(common::PASSWORD.into()));
    assert_eq!(service.connect(Connect { user, password, ..hello("tern") }).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_to_new_clients_and_disconnects_nobody() {
    let pki = Pki::new();
    let scene = tls_bridge(&pki).await;
    let shown = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let stream = pki.connect(scene.address, Some("r-1")).await;
    let before = shown(&stream);
    let mut device = Client::over(stream);
    assert_eq!(device.connect(hello("r-1")).await, Some(0));

    // Half of a renewal: the key does not fit the certificate.
    std::fs::copy(pki.path("next.key"), pki.path("server.key")).unwrap();
    touch(&pki.path("server.key"), 1);
    assert_eq!(shown(&pki.connect(scene.address, Some("r-1")).await), before);
    std::fs::copy(pki.path("next.pem"), pki.path("server.pem")).unwrap();
    touch(&pki.path("server.pem"), 2);

    assert_ne!(shown(&pki.connect(scene.address, Some("r-1")).await), before);
    assert!(device.ping().await);
}

fn touch(path: &std::path::Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// An authority, its server, one device, and a device of an authority that nobody knows.
struct Pki {
    folder: tempfile::TempDir,
    authority: rustls_pki_types::CertificateDer<'static>,
}

impl Pki {
    fn new() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let params = |name: &str| {
            let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let authority = || {
            let mut params = params("authority");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap(), Issuer::new(params, key))
        };
        let (known, issuer) = authority();
        let (_, stranger) = authority();
        write("ca.pem", known.pem());
        for (name, issuer) in
            [("server", &issuer), ("next", &issuer), ("r-1", &issuer), ("stranger", &stranger)]
        {
            let key = KeyPair::generate().unwrap();
            write(&format!("{name}.pem"), params(name).signed_by(&key, issuer).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { folder, authority: known.der().clone() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn connect(
        &self,
        address: std::net::SocketAddr,
        certificate: Option<&str>,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        use rustls_pki_types::pem::PemObject as _;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = TcpStream::connect(address).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
    }
}
