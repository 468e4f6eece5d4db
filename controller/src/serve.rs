//! The service as a process: data folder, broker, API, engine; and how it ends.

mod config;
mod first_token;
mod retain;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tern_bridge::{Auth, Bridge, BridgeConfig, BridgeError, ChunkStore};
use tern_protocol::digest::Digest;
use tern_protocol::id::FleetId;
use tern_protocol::tuf::Role;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use self::config::service_user;
pub use self::config::{ExternalBroker, ServeConfig};
pub(crate) use self::retain::retain;
use crate::api::listen;
use crate::api::routes::router;
use crate::api::types::{EdgeView, FrontCounters, StoredImage, WireBytes};
use crate::api::{ApiState, Images};
use crate::broker_link::{self, BrokerAddress};
use crate::cli::serve::ServeArgs;
use crate::core::service::{Command, Lives, Service};
use crate::deltas::Deltas;
use crate::engine::{self, Engine, EngineError, Pace, Works};
use crate::{keys, place, state};

/// Exit code when the embedded broker has died: the supervisor starts the process again.
pub const BROKER_DIED: u8 = 70;

/// Why the service compares with its devices after such a start.
const COPIED: &str = "the data folder was restored, moved or lost its ledger";

/// Name of a fleet that nobody has named.
const DEFAULT_FLEET: &str = "fleet";

/// Where a running service can be reached; written to `<data>/service.json` once it can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The API.
    pub api: SocketAddr,
    /// The embedded broker's listeners.
    pub mqtt: Vec<SocketAddr>,
    /// The process.
    pub pid: u32,
}

/// Says how the service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Somebody asked it to.
    Stopped,
    /// The embedded broker died.
    BrokerDied(String),
}

/// Runs the service as the command line asks.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TERN_LOG")
        // The broker calls every disconnect an error.
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,rumqttd=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    let renew_admin = args.new_admin_token;
    let config = ServeConfig::from_args(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let ended = runtime.block_on(serve(config, renew_admin))?;
    // Nothing that is left holds anything that must be kept.
    runtime.shutdown_background();
    match ended {
        Ended::Stopped => {
            tracing::info!("stopped");
            Ok(())
        }
        Ended::BrokerDied(reason) => {
            tracing::error!(reason, "the embedded broker died; the supervisor is to start the service again");
            std::process::exit(i32::from(BROKER_DIED));
        }
    }
}

/// Runs the service until it is stopped, or cannot keep its promises. `renew_admin`: a new admin token is wanted.
pub async fn serve(config: ServeConfig, renew_admin: bool) -> anyhow::Result<Ended> {
    // Before anything is opened or written.
    if !config.listen_api.ip().is_loopback() {
        anyhow::ensure!(
            config.insecure_api_without_tls,
            "the API has no TLS, so on {} its tokens would travel in the clear: keep 127.0.0.1, and reach it through an \
             SSH tunnel, or a proxy on this machine that speaks TLS; or say --insecure-api-without-tls",
            config.listen_api
        );
        tracing::warn!(api = %config.listen_api, "the API listens without TLS: tokens travel in the clear");
    }
    let fleet = match keys::fleet(&config.data)? {
        Some(fleet) => fleet,
        // Nothing is set up yet; whoever runs `tern keys init` may still choose the name.
        None => DEFAULT_FLEET.parse().context("the default fleet has a valid name")?,
    };
    let opened = state::open(&config.data, &fleet)
        .with_context(|| format!("could not open the data folder {}", config.data.display()))?;
    for note in &opened.notes {
        tracing::warn!("{note}");
    }
    let products = keys::products(&config.data)?;
    let mut online = std::collections::BTreeMap::new();
    for product in &products {
        // The ledger knows which files are in force; those of the folder may be older, or newer and refused.
        let held = opened.fleet.products.get(product);
        let text = |role| held.and_then(|held| held.files.get(&role));
        let keys = match text(Role::Root).zip(text(Role::Targets)) {
            Some((root, targets)) => {
                keys::load_online_for(&config.data, product, root, targets, keys::Unnamed::Tolerated)?
            }
            None => keys::load_online(&config.data, product)?,
        };
        online.insert(product.clone(), keys);
    }
    if products.is_empty() {
        tracing::warn!(
            "data folder {0} holds no product, so no device can be served: if the path is right, run `tern keys init \
             --fleet NAME --product NAME --data {0} --offline DIR` and start again; if not, give the right one with \
             --data",
            config.data.display()
        );
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("the system gives no random numbers: {e}"))?;
    let lives = Lives { heartbeat: config.heartbeat, ..Lives::default() };
    let known: Vec<_> = opened.fleet.products.keys().cloned().collect();
    let mut service = Service::new(opened.fleet, online, lives, seed);
    let ledger_file = opened.ledger.file().to_owned();
    let mark = || {
        place::mark(&config.data, &ledger_file)
            .with_context(|| format!("could not mark the data folder {}", config.data.display()))
    };
    if opened.original {
        mark()?;
    } else {
        service.found_copied(COPIED.to_owned());
    }

    let staging = config.data.join("staging");
    std::fs::create_dir_all(&staging).with_context(|| format!("could not make {}", staging.display()))?;
    let api = TcpListener::bind(config.listen_api).await.with_context(|| {
        format!("could not listen for the API on {}; stop what uses it, or choose another address with --listen-api", config.listen_api)
    })?;
    let api_address = api.local_addr().context("the API has no address")?;
    let password = hex::encode(Digest::of_parts(&[b"service", &seed]).0);
    let edge = Edge::start(&config, &fleet, password).await?;

    let (handle, inbox) = engine::channel();
    let (outgoing, to_broker) = mpsc::channel(broker_link::OUTGOING);
    let works = Works {
        pace: Pace::default(),
        service,
        ledger: opened.ledger,
        notary: opened.notary,
        checkpoint: opened.checkpoint,
        term: opened.term,
        outgoing,
    };
    let signer = works.notary.signer().clone();
    let (gone, engine_ended) = oneshot::channel::<Result<(), EngineError>>();
    let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
        let result = engine::run(works, &inbox);
        // The process may be ending already.
        drop(gone.send(result));
    });
    thread.context("could not start the engine")?;
    if !opened.original {
        // Its reply says that the ledger knows: only then may the folder count as the original.
        let begun = handle.command(Command::Recover { because: COPIED.to_owned() }).await?;
        begun.context("could not begin to compare with the devices")?;
        mark()?;
    }
    for product in &products {
        let files = keys::offline_files(&config.data, product)?;
        let known = known.contains(product);
        if known && let Ok(keys) = keys::load_online(&config.data, product) {
            let id = product.clone();
            handle.query(move |service, _| service.stage_keys(id, keys)).await?;
        }
        match handle.command(Command::AddProduct { product: product.clone(), files }).await? {
            Ok(_) => {}
            // What is in force stays in force: a bad file in a folder must not take the service down.
            Err(refusal) if known => tracing::error!(%product, "new offline files are refused: {refusal}"),
            Err(refusal) => anyhow::bail!("{refusal}"),
        }
    }
    first_token::provide(&config.data, config.first_token, renew_admin, &handle).await?;
    // Only now is the folder marked as the one that is written to.
    let retention = config
        .ledger_days
        .map(|days| tokio::spawn(retain::daily(config.data.clone(), days, signer, handle.clone())));
    let link = tokio::spawn(broker_link::run(fleet.clone(), edge.broker.clone(), handle.clone(), to_broker));

    let (settings, folder) = (config.deltas.clone(), config.data.join("deltas"));
    let deltas = Deltas::new(handle.clone(), edge.store.clone(), settings, folder);
    let making = tokio::spawn(deltas.clone().run());

    let stats = edge.bridge.clone();
    let api_state = ApiState {
        engine: handle.clone(),
        deltas: Some(deltas),
        images: Arc::new(StoreImages { store: edge.store.clone(), staging }),
        extras: Arc::new(move || view(stats.as_deref())),
        data_dir: config.data.clone(),
        first_token: config.first_token,
    };
    let server = tokio::spawn(listen::serve(api, router(api_state), listen::Limits::default()));
    let mqtt = edge.bridge.as_ref().map(|b| b.addresses()).unwrap_or_default();
    write_addresses(
        &config.data,
        &Addresses { api: api_address, mqtt: mqtt.clone(), pid: std::process::id() },
    )?;
    tracing::info!(api = %api_address, mqtt = ?mqtt, fleet = %fleet, "the service is up");

    let ended = wait(&edge, engine_ended, &handle).await;
    server.abort();
    link.abort();
    // Its process ends with it.
    making.abort();
    if let Some(retention) = retention {
        retention.abort();
    }
    ended
}

async fn wait(
    edge: &Edge,
    engine_ended: oneshot::Receiver<Result<(), EngineError>>,
    engine: &Engine,
) -> anyhow::Result<Ended> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let died = async {
        match &edge.bridge {
            Some(bridge) => bridge.died().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        reason = died => {
            // Reports since the last sync are repeated by their devices; the ledger needs no goodbye.
            return Ok(Ended::BrokerDied(reason));
        }
        ended = engine_ended => {
            return match ended {
                Ok(Err(error)) => Err(error).context("the service cannot keep its promises and stops"),
                Ok(Ok(())) | Err(_) => Err(anyhow::anyhow!("the engine ended without being asked")),
            };
        }
    }
    if tokio::time::timeout(Duration::from_secs(20), engine.stop()).await.is_err() {
        tracing::warn!("the checkpoint took too long; the ledger has everything");
    }
    Ok(Ended::Stopped)
}

/// The broker's side: embedded, or a client of an external one with a chunk server of its own.
struct Edge {
    bridge: Option<Arc<Bridge>>,
    broker: BrokerAddress,
    store: Arc<ChunkStore>,
    _chunks: Option<tern_bridge::ChunkClient>,
}

impl Edge {
    async fn start(config: &ServeConfig, fleet: &FleetId, password: String) -> anyhow::Result<Self> {
        let images = config.data.join("images");
        if let Some(external) = &config.broker {
            let password = match &external.password_file {
                Some(path) => std::fs::read_to_string(path)
                    .with_context(|| format!("could not read {}", path.display()))?
                    .trim_end()
                    .to_owned(),
                None => String::new(),
            };
            let broker = BrokerAddress::parse(&external.url, external.user.clone(), password.clone())
                .map_err(|e| anyhow::anyhow!(e))?;
            let store = Arc::new(ChunkStore::open(images)?);
            let config = tern_bridge::ChunkClientConfig {
                fleet: fleet.clone(),
                brokers: vec![format!("{}:{}", broker.host, broker.port)],
                client_id: "tern-chunks".to_owned(),
                user: broker.user.clone(),
                password,
                ca: None,
            };
            let chunks = tern_bridge::ChunkClient::start(config, store.clone())?;
            return Ok(Self { bridge: None, broker, store, _chunks: Some(chunks) });
        }
        tern_bridge::abort_on_broker_panic();
        let bridge = Bridge::start(BridgeConfig {
            fleet: fleet.clone(),
            listeners: config.listeners.clone(),
            service_password: password.clone(),
            chunk_dir: images,
            limits: config.limits,
            upstream: None,
        })
        .await;
        let bridge = match bridge {
            // The bridge knows the key of its configuration; most services were told on the command line.
            Err(error @ BridgeError::Listen { .. }) => {
                return Err(error)
                    .context("the embedded broker has no address; choose one with --listen-mqtt");
            }
            other => other?,
        };
        // The service comes in by the front like everybody else, on the first listener that takes plain
        // connections.
        let plain = config.listeners.iter().zip(bridge.addresses()).find(|(l, _)| is_plain(&l.auth));
        let (_, address) = plain.context(
            "the embedded broker needs one loopback listener without TLS for the service itself; add \
             [[listeners]] with listen = \"127.0.0.1:0\" and auth.mode = \"open\"",
        )?;
        let broker = BrokerAddress {
            host: address.ip().to_string(),
            port: address.port(),
            user: service_user(),
            password,
            client: "tern-service".to_owned(),
        };
        let store = bridge.chunk_store();
        Ok(Self { bridge: Some(Arc::new(bridge)), broker, store, _chunks: None })
    }
}

fn is_plain(auth: &Auth) -> bool {
    matches!(auth, Auth::Open {} | Auth::Password { tls: None, .. })
}

fn view(bridge: Option<&Bridge>) -> EdgeView {
    let Some(bridge) = bridge else { return EdgeView::default() };
    let stats = bridge.stats();
    EdgeView {
        wire: WireBytes { packs: stats.pack_bytes, down: stats.bytes_down, up: stats.bytes_up },
        front: FrontCounters {
            refused_connections: stats.refused,
            revoked_connections: stats.revoked,
            refused_messages: stats.denied_publishes,
            refused_subscriptions: stats.denied_subscribes,
            malformed: stats.malformed,
        },
        listeners: bridge.addresses().iter().map(ToString::to_string).collect(),
    }
}

struct StoreImages {
    store: Arc<ChunkStore>,
    staging: PathBuf,
}

impl Images for StoreImages {
    fn add(&self, path: &Path) -> std::io::Result<StoredImage> {
        let info = self.store.add_file(path).map_err(|error| {
            let error = anyhow::Error::from(error);
            let cause = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
            let kind = cause.map_or(std::io::ErrorKind::Other, std::io::Error::kind);
            std::io::Error::new(kind, format!("{error:#}"))
        })?;
        Ok(StoredImage { length: info.length, sha256: info.sha256, root: info.root })
    }

    fn has(&self, root: &Digest) -> bool {
        self.store.contains(root)
    }

    fn staging(&self) -> PathBuf {
        self.staging.clone()
    }
}

fn write_addresses(data: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    let path = data.join("service.json");
    let part = data.join("service.json.part");
    std::fs::write(&part, serde_json::to_vec(addresses)?)
        .and_then(|()| std::fs::rename(&part, &path))
        .with_context(|| format!("could not write {}", path.display()))
}
