//! The link over TLS, against the other half of rustls.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::broker::{Broker, CONNECT, Peer};
use super::*;
use crate::config::TlsFiles;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Writes the files of a device that this authority knows.
    fn device_files(&self, folder: &Path) -> TlsFiles {
        let (cert, key) = self.issue("r-1");
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            ca: write("ca.pem", self.0.pem()),
            cert: Some(write("device.pem", cert.pem())),
            key: Some(write("device.key", key.serialize_pem())),
        }
    }

    /// Returns a server that wants certificates of this authority.
    fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_with(self.issue("127.0.0.1"))
    }

    fn acceptor_with(&self, (cert, key): (rcgen::Certificate, KeyPair)) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![cert.der().clone()], key.into())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

async fn encrypted_broker() -> Broker {
    let mut broker = Broker::start().await;
    broker.address.tls = true;
    broker
}

#[tokio::test]
async fn both_ends_prove_who_they_are() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let broker = encrypted_broker().await;
    let tls = tls::load(&authority.device_files(folder.path()), 0, crate::clock::wall).unwrap();
    let mut link = Link::start(LinkConfig { tls: Some(tls), ..config(&[&broker]) }, &["head"]).await;

    let stream = authority.acceptor().accept(broker.accept_raw().await).await.unwrap();

    assert_eq!(stream.get_ref().1.peer_certificates().map(<[_]>::len), Some(1));
    let mut peer = Peer(stream);
    peer.expect(CONNECT).await;
    peer.connack(0).await;
    assert_eq!(peer.subscribed(0).await, ["head"]);
    assert_eq!(link.event().await, LinkEvent::Up);
}

#[tokio::test]
async fn a_broker_of_another_authority_gets_no_word_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (stranger, good) = (encrypted_broker().await, Broker::start().await);
    let tls = tls::load(&Authority::new().device_files(folder.path()), 0, crate::clock::wall).unwrap();
    let mut link = Link::start(LinkConfig { tls: Some(tls), ..config(&[&stranger, &good]) }, &["head"]).await;

    let result = Authority::new().acceptor().accept(stranger.accept_raw().await).await;

    assert!(result.is_err());
    let (_peer, _) = good.welcome().await;
    assert_eq!(link.event().await, LinkEvent::Up);
}

#[tokio::test]
async fn a_device_without_a_clock_goes_by_the_latest_time_it_knew() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let files = authority.device_files(folder.path());
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2090, 1, 1);
    let acceptor = authority.acceptor_with((params.signed_by(&key, &authority.0).unwrap(), key));
    let in_2091 = 121 * 365 * 86_400 + 60 * 86_400;

    for (time_floor, accepted) in [(0, false), (in_2091, true)] {
        let broker = encrypted_broker().await;
        let tls = Some(tls::load(&files, time_floor, || 0).unwrap());
        let _link = Link::start(LinkConfig { tls, ..config(&[&broker]) }, &["head"]).await;

        let result = acceptor.accept(broker.accept_raw().await).await;

        assert_eq!(result.is_ok(), accepted, "{time_floor}");
    }
}

#[tokio::test]
async fn what_the_configuration_names_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::new().device_files(folder.path());
    let password = folder.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    let mut config =
        Config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/agent.toml"))).unwrap();
    (config.tls, config.user, config.password_file) = (Some(files), Some("user".into()), Some(password));

    let link = LinkConfig::load(&config, 0).unwrap();

    assert_eq!(link.login, Some(("user".into(), "secret".into())));
    let (topic, payload) = link.will.unwrap();
    assert!(topic.starts_with("ota/v1/acme/up/") && topic.ends_with("/router-0001/presence"), "{topic}");
    assert_eq!(payload, br#"{"online":false}"#);
    config.password_file = Some("/no/such/password".into());
    let error = LinkConfig::load(&config, 0).unwrap_err().to_string();
    assert_eq!(error, "could not read /no/such/password");
}

#[test]
fn a_file_that_holds_no_certificate_or_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = Authority::new().device_files(folder.path());
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let missing = folder.path().join("missing.pem");

    for (files, expected) in [
        (TlsFiles { ca: empty.clone(), ..good.clone() }, "empty.pem holds no certificate"),
        (TlsFiles { ca: missing, ..good.clone() }, "could not read"),
        (TlsFiles { cert: Some(empty.clone()), ..good.clone() }, "empty.pem holds no certificate"),
        (TlsFiles { key: Some(empty), ..good.clone() }, "empty.pem holds no private key"),
    ] {
        let error = tls::load(&files, 0, crate::clock::wall).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(tls::load(&good, 0, crate::clock::wall).is_ok());
}
