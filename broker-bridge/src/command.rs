//! The command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tern_bridge::policy::{Client, SERVICE, mosquitto_acl};
use tern_bridge::{Bridge, BridgeConfig, ChunkClient, ChunkClientConfig, ChunkStore, password};
use tern_protocol::id::{DeviceId, FleetId, SiteId};

/// EX_SOFTWARE of sysexits.h: the embedded broker died, and only a new process brings it back.
const BROKER_DIED: u8 = 70;

/// The device-facing MQTT edge of Tern
#[derive(Debug, Parser)]
#[command(
    name = "tern-bridge",
    version,
    after_help = "Examples:
  tern-bridge run --config /etc/tern/bridge.toml
  tern-bridge passwd set --file /etc/tern/users device router-17
  tern-bridge policy mosquitto --fleet acme --site hut-3 > /etc/mosquitto/tern.acl"
)]
pub(crate) struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the front with its embedded broker until it is told to stop
    #[command(
        after_help = "Ends with code 70 when the embedded broker has died: have it restarted by a supervisor."
    )]
    Run {
        /// Configuration, TOML; see deploy/bridge.toml
        #[arg(long)]
        config: PathBuf,
    },
    /// Serve chunks and signed files as a client of an external broker
    #[command(after_help = "Example:
  tern-bridge chunks --fleet acme --broker mqtt.example:8883 --ca ca.pem \\
      --password-file service.password --chunk-dir /var/lib/tern/chunks")]
    Chunks(Chunks),
    /// Print the topic policy for another broker
    #[command(subcommand)]
    Policy(Policy),
    /// Keep the file of users of a listener with auth mode "password"
    #[command(subcommand)]
    Passwd(Passwd),
    /// Keep the images that are served
    #[command(subcommand)]
    Chunk(Chunk),
}

#[derive(Debug, Args)]
struct Chunks {
    /// Fleet whose requests to answer
    #[arg(long)]
    fleet: FleetId,
    /// Broker as host:port; repeat for more, tried in order
    #[arg(long = "broker", required = true)]
    brokers: Vec<String>,
    /// Client id; must be the only one of its name
    #[arg(long, default_value = "chunks")]
    client_id: String,
    /// User name
    #[arg(long, default_value = SERVICE)]
    user: String,
    /// File whose first line is the password
    #[arg(long)]
    password_file: PathBuf,
    /// Authorities of the brokers' certificates, PEM; without, the connection is plain
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Folder of the chunk store
    #[arg(long)]
    chunk_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Print an ACL file for mosquitto
    Mosquitto {
        /// Fleet
        #[arg(long)]
        fleet: FleetId,
        /// Site that connects to this broker; repeat for more
        #[arg(long = "site")]
        sites: Vec<SiteId>,
        /// Revoked device, which may do nothing; repeat for more
        #[arg(long = "revoked", value_name = "DEVICE")]
        revoked: Vec<DeviceId>,
        /// File of revoked devices, one a line
        #[arg(long, value_name = "FILE")]
        revoked_file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum Passwd {
    /// Draw a new password for a user and print it
    Set {
        /// File of users
        #[arg(long)]
        file: PathBuf,
        /// What the user is
        kind: Kind,
        /// Its id, which is also its user name and client id
        id: String,
    },
    /// Remove a user
    Remove {
        /// File of users
        #[arg(long)]
        file: PathBuf,
        /// Its id
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Device,
    Site,
}

#[derive(Debug, Subcommand)]
enum Chunk {
    /// Add an image and print its root, SHA-256 and length
    Add {
        /// Folder of the chunk store
        #[arg(long)]
        chunk_dir: PathBuf,
        /// The image
        image: PathBuf,
    },
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Run { config } => return runtime()?.block_on(run(&config)),
            Verb::Chunks(chunks) => return runtime()?.block_on(serve_chunks(chunks)),
            Verb::Policy(Policy::Mosquitto { fleet, sites, mut revoked, revoked_file }) => {
                if let Some(file) = revoked_file {
                    revoked.extend(devices_in(&file)?);
                }
                say(&mosquitto_acl(&fleet, &sites, &revoked))?;
            }
            Verb::Passwd(Passwd::Set { file, kind, id }) => {
                let client = match kind {
                    Kind::Device => Client::Device(id.parse()?),
                    Kind::Site => Client::Site(id.parse()?),
                };
                say(&format!("{}\n", password::set_password(&file, &client)?))?;
            }
            Verb::Passwd(Passwd::Remove { file, id }) => {
                anyhow::ensure!(
                    password::remove_user(&file, &id)?,
                    "there is no user {id:?} in {}",
                    file.display()
                );
            }
            Verb::Chunk(Chunk::Add { chunk_dir, image }) => {
                let info = ChunkStore::open(chunk_dir)?.add_file(&image)?;
                say(&format!("root {}\nsha256 {}\nlength {}\n", info.root, info.sha256, info.length))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads a file of devices, one a line; empty lines are passed over.
fn devices_in(file: &Path) -> anyhow::Result<Vec<DeviceId>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| line.parse().with_context(|| format!("{line:?} in {} is no device id", file.display())))
        .collect()
}

fn say(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("could not write to standard output")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start the runtime")
}

async fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    let config = BridgeConfig::from_toml(&text).with_context(|| format!("in {}", path.display()))?;
    // Before clients can connect, or a stop just after would be none.
    let stop = stop_signal()?;
    let bridge = Bridge::start(config).await?;
    tokio::select! {
        reason = bridge.died() => {
            tracing::error!(reason, "ending with code {BROKER_DIED}, to be restarted");
            Ok(ExitCode::from(BROKER_DIED))
        }
        () = stop => {
            tracing::info!(stats = ?bridge.stats(), "stopping");
            bridge.stop().await;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn serve_chunks(chunks: Chunks) -> anyhow::Result<ExitCode> {
    let file = &chunks.password_file;
    let text = std::fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    let store = Arc::new(ChunkStore::open(chunks.chunk_dir)?);
    let config = ChunkClientConfig {
        fleet: chunks.fleet,
        brokers: chunks.brokers,
        client_id: chunks.client_id,
        user: chunks.user,
        password: text.lines().next().unwrap_or_default().to_owned(),
        ca: chunks.ca,
    };
    let stop = stop_signal()?;
    let client = ChunkClient::start(config, store)?;
    stop.await;
    tracing::info!(stats = ?client.stats(), "stopping");
    client.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Returns what ends when somebody wants the program to end. Signals count from now on.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
