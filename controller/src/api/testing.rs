//! A service to test against: a real server on loopback, a real engine in a temporary data folder.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use p256::ecdsa::SigningKey;
use serde_json::Value;
use tempfile::TempDir;
use tern_protocol::digest::Digest;
use tern_protocol::id::ProductId;
use tern_protocol::message::Registry;
use tern_protocol::topic::Topic;
use tern_protocol::tuf::content::point_hex;
use tokio::sync::mpsc;

use super::access::FirstToken;
use super::client::{Client, ClientError};
use super::listen::{self, Limits};
use super::types::*;
use super::{ApiState, Images, routes};
use crate::clock;
use crate::core::access::{Made, Role, Secret};
use crate::core::fact::DeviceEntry;
use crate::core::rollout::hold_back::HoldBack;
use crate::core::rollout::plan::{Phase, Plan, Reach};
use crate::core::rollout::policy::PhaseRule;
use crate::core::rollout::wave::Waves;
use crate::core::service::{Command, Lives, MintToken, Service};
use crate::engine::{self, Engine, Pace, Works};
use crate::keys::{self, InitOptions};
use crate::release::{NewArtifact, NewRelease, ReleaseDocument, draft, measure, sign};
use crate::state;

/// Keeps what was uploaded in a folder, by root.
struct Shelf {
    staging: PathBuf,
    roots: Mutex<Vec<Digest>>,
}

impl Images for Shelf {
    fn add(&self, path: &Path) -> std::io::Result<StoredImage> {
        let image = measure(path, |_| {}).map_err(std::io::Error::other)?;
        self.roots.lock().unwrap().push(image.root);
        Ok(StoredImage { length: image.length, sha256: image.sha256, root: image.root })
    }
    fn has(&self, root: &Digest) -> bool {
        self.roots.lock().unwrap().contains(root)
    }
    fn staging(&self) -> PathBuf {
        self.staging.clone()
    }
}

pub(crate) struct World {
    pub(crate) home: TempDir,
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) runtime: tokio::runtime::Runtime,
    api: ApiState,
    thread: Option<std::thread::JoinHandle<()>>,
    pub(crate) options: InitOptions,
    /// Topics that were published, in order.
    pub(crate) published: Arc<Mutex<Vec<Topic>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::build(FirstToken::File, true)
    }

    /// A service that lets whoever asks first from loopback make the first token.
    pub(crate) fn open() -> Self {
        Self::build(FirstToken::Loopback, false)
    }

    /// A service for which nobody has made a token yet.
    pub(crate) fn without_tokens() -> Self {
        Self::build(FirstToken::File, false)
    }

    fn build(first_token: FirstToken, with_admin: bool) -> Self {
        let home = TempDir::new().unwrap();
        let options = InitOptions::unencrypted(
            "acme".parse().unwrap(),
            "cam".parse().unwrap(),
            home.path().join("data"),
            home.path().join("offline"),
            clock::now() / 1000,
        );
        keys::init(&options).unwrap();
        let (data, product) = (&options.data, &options.product);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let opened = state::open(data, &keys::fleet(data).unwrap().unwrap()).unwrap();
        let online = BTreeMap::from([(product.clone(), keys::load_online(data, product).unwrap())]);
        let (outgoing, mut drain) = mpsc::channel(1024);
        let published = Arc::new(Mutex::new(Vec::new()));
        let seen = published.clone();
        runtime.spawn(async move {
            while let Some((topic, _)) = drain.recv().await {
                seen.lock().unwrap().push(topic);
            }
        });
        let works = Works {
            pace: Pace::default(),
            service: Service::new(opened.fleet, online, Lives::default(), [7; 32]),
            ledger: opened.ledger,
            notary: opened.notary,
            checkpoint: opened.checkpoint,
            term: opened.term,
            outgoing,
        };
        let (engine, from) = engine::channel();
        let thread = std::thread::spawn(move || engine::run(works, &from).unwrap());
        let files = keys::offline_files(data, product).unwrap();
        let add = Command::AddProduct { product: product.clone(), files };
        runtime.block_on(engine.command(add)).unwrap().unwrap();
        let (id, hash) = (admin().id(), admin().hash());
        let (token, made) = ("root".parse().unwrap(), Made::File);
        let mint = MintToken { token, role: Role::Admin, expires: None, id, hash, made };
        if with_admin {
            runtime.block_on(engine.command(Command::CreateToken(mint))).unwrap().unwrap();
        }

        let staging = home.path().join("staging");
        std::fs::create_dir(&staging).unwrap();
        let api = ApiState {
            engine: engine.clone(),
            deltas: None,
            images: Arc::new(Shelf { staging, roots: Mutex::default() }),
            extras: Arc::new(|| EdgeView {
                wire: WireBytes { packs: 42, down: 2, up: 1 },
                front: FrontCounters::default(),
                listeners: vec!["127.0.0.1:1883".into()],
            }),
            data_dir: data.clone(),
            first_token,
        };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(listen::serve(listener, routes::router(api.clone()), Limits::default()));
        let client = Client::new(&format!("http://{address}")).with_token(&admin());
        Self { home, client, address, engine, runtime, api, thread: Some(thread), options, published }
    }

    pub(crate) fn product(&self) -> &ProductId {
        &self.options.product
    }

    pub(crate) fn add_devices(&self, count: u64) {
        let devices = (0..count).map(|number| device(number, "b3")).collect();
        let added: AddedDevices =
            self.client.post("/v1/devices", &AddDevices { devices, unsigned: true }).unwrap();
        assert_eq!(added.added as u64, count);
    }

    pub(crate) fn image(&self, rc: u64) -> PathBuf {
        let path = self.home.path().join(format!("image-{rc}"));
        std::fs::write(&path, vec![u8::try_from(rc).unwrap(); 200_000]).unwrap();
        path
    }

    fn signed(&self, rc: u64) -> String {
        let path = format!("/v1/products/{}/release-file", self.product());
        let file: ReleaseFile = self.client.get(&path).unwrap();
        let previous = ReleaseDocument::read("present", file.release.as_bytes()).unwrap();
        let new = NewRelease {
            product: self.product().clone(),
            rc,
            version: format!("1.{rc}"),
            min_from: 0,
            floor: 0,
            artifacts: vec![NewArtifact::new(
                "rootfs",
                vec!["b3".parse().unwrap()],
                measure(&self.image(rc), |_| {}).unwrap(),
            )],
            expires: clock::now() / 1000 + 86_400,
        };
        let (bytes, _) = draft(&previous, &new).unwrap();
        let key = keys::load_signer(&self.options.holders[0].folder.join("release.pem")).unwrap();
        String::from_utf8(sign(&bytes, &key).unwrap()).unwrap()
    }

    pub(crate) fn publish(&self, rc: u64) -> Result<Published, ClientError> {
        let path = format!("/v1/products/{}/releases", self.product());
        self.client.post(&path, &PublishRelease { file: self.signed(rc), deltas: true })
    }

    pub(crate) fn request(&self, rc: u64) -> StartRollout {
        let phase = |reach, gate| Phase::new(reach, PhaseRule { gate, ..PhaseRule::default() });
        let phases = vec![phase(Reach::Devices(34), Some(0.1)), phase(Reach::All, None)];
        let plan = Plan { phases, waves: Waves::OFF, hold_back: HoldBack::OFF, ..Plan::default() };
        StartRollout { rollout: None, product: self.product().clone(), rc, attempt: 1, plan }
    }

    pub(crate) fn command(&self, rollout: &str, verb: &str, body: Value) -> Result<DoneBody, ClientError> {
        self.client.post(&format!("/v1/rollouts/{rollout}/{verb}"), &body)
    }

    pub(crate) fn rollout(&self, name: &str) -> RolloutView {
        self.client.get(&format!("/v1/rollouts/{name}")).unwrap()
    }

    /// Speaks HTTP by hand, as a client that is not ours would, with the admin's token.
    pub(crate) fn raw(&self, request: &str) -> (u16, String) {
        let token = format!("\r\nAuthorization: Bearer {}\r\n", admin().reveal().as_str());
        self.bare(&request.replacen("\r\n", &token, 1))
    }

    /// The same with nothing added.
    pub(crate) fn bare(&self, request: &str) -> (u16, String) {
        Self::send(&self.address.to_string(), request)
    }

    /// What the API works on.
    pub(crate) fn api(&self) -> ApiState {
        self.api.clone()
    }

    /// Serves a router of the test's own beside the real one.
    pub(crate) fn serve(&self, router: axum::Router) -> Client {
        let listener = self.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        self.runtime.spawn(listen::serve(listener, router, Limits::default()));
        Client::new(&format!("http://{address}"))
    }

    pub(crate) fn send(host: &str, request: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(host).unwrap();
        // A request that is refused at its head may find the door shut before its end.
        let _early = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.runtime.block_on(self.engine.stop());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The token of every test's admin.
pub(crate) fn admin() -> Secret {
    Secret::new([1; 6], [2; 32])
}

pub(crate) fn device(number: u64, model: &str) -> DeviceEntry {
    let mut secret = [1; 32];
    secret[24..].copy_from_slice(&(number + 1).to_be_bytes());
    let key = SigningKey::from_slice(&secret).unwrap();
    DeviceEntry {
        device: format!("cam-{number:04}").parse().unwrap(),
        identity: point_hex(&p256::PublicKey::from(key.verifying_key())),
        registry: Registry {
            product: "cam".parse().unwrap(),
            model: model.parse().unwrap(),
            carrier: "none".parse().unwrap(),
            region: "eu".parse().unwrap(),
        },
    }
}
