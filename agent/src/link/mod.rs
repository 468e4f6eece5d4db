//! The link: one MQTT connection at a time, to the first broker of a list that does its duty.
//!
//! ```text
//! wait for the first Subscribe
//!   └► connect ──CONNACK──► subscribe ──every SUBACK──► Up ──connection lost──► Down
//!        ▲  silence, refusal         │ silence, 0x80                             │
//!        └──────── pause (random below a doubling ceiling), next broker ◄────────┘
//! ```
//! The link forgets: sessions are clean, and what is published while it is down, or faster than the broker takes
//! it, is dropped. Whoever publishes keeps it until the *controller* acknowledges (the outbox) or asks again (`get`).
//! In return the link never makes its caller wait: it takes commands at all times, so the two channels cannot
//! lock each other.

mod backoff;
mod session;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "without_tls.rs"]
mod tls;

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tern_protocol::message::Presence;
use tern_protocol::topic::{Topic, UpKind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::clock;
use crate::config::{BrokerAddress, Config};
use crate::core::time::BUILT;
use backoff::Backoff;
use session::End;
pub use tls::Tls;
#[cfg(feature = "http-source")]
pub(crate) use tls::{authorities, encrypted};

/// Commands and events that wait between the link and its caller. An event may hold a pack of 64 KiB.
const COMMANDS: usize = 64;
const EVENTS: usize = 8;

/// What the link tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected, and every subscription that was wanted by then is acknowledged.
    Up,
    /// No longer connected; another attempt is on its way. Comes only after an [`Self::Up`].
    Down {
        /// Why, for the log.
        reason: String,
    },
    /// A message on one of the wanted topics. It may come before [`Self::Up`].
    Message {
        /// Its topic.
        topic: String,
        /// Its bytes.
        payload: Vec<u8>,
    },
}

/// What the link is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkCommand {
    /// Sends a message, never retained. Dropped while the link is down.
    Publish {
        /// Its topic.
        topic: String,
        /// Its bytes.
        payload: Vec<u8>,
        /// 0, or anything else for 1.
        qos: u8,
    },
    /// Replaces the topics that are wanted. When they changed, all are subscribed to anew, so that retained
    /// messages come again. The first of these commands makes the link connect.
    Subscribe(Vec<String>),
    /// Subscribes anew to all wanted topics, so that retained messages come again.
    Resubscribe,
}

/// What the link needs to know.
pub struct LinkConfig {
    /// Brokers, tried in order.
    pub brokers: Vec<BrokerAddress>,
    /// MQTT client id: the device id.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// TLS for the brokers that want it.
    pub tls: Option<Tls>,
    /// Topic and payload that the broker publishes when the device goes without a word.
    pub will: Option<(String, Vec<u8>)>,
    /// MQTT keep-alive; at least one second is used.
    pub keepalive: Duration,
    /// How long a broker may owe CONNACK or SUBACK. Grows tenfold while no broker answers, for slow radio links.
    pub silence: Duration,
    /// First ceiling on the pause between attempts; doubles.
    pub reconnect_first: Duration,
    /// Highest such ceiling.
    pub reconnect_max: Duration,
    /// Source of randomness, 0 to 1: which part of the ceiling is waited.
    pub jitter: Box<dyn FnMut() -> f64 + Send + Sync>,
}

impl fmt::Debug for LinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkConfig")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// Says why the link cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A file that the configuration names could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what TLS needs.
    #[cfg(feature = "tls")]
    #[error("{} holds no {what} in PEM form", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        #[source]
        source: Option<rustls::pki_types::pem::Error>,
    },
    /// The pieces do not fit together.
    #[cfg(feature = "tls")]
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
}

impl LinkConfig {
    /// Reads what the configuration names: password, certificates, keys. Certificates are judged as if it were at
    /// least `time_floor`, the latest time in Unix seconds that a signed file or an answer has shown.
    pub fn load(config: &Config, time_floor: u64) -> Result<Self, LinkError> {
        let login = match (&config.user, &config.password_file) {
            (None, _) => None,
            (Some(user), None) => Some((user.clone(), String::new())),
            (Some(user), Some(path)) => {
                let text = fs::read_to_string(path)
                    .map_err(|source| LinkError::Read { path: path.clone(), source })?;
                Some((user.clone(), text.trim_end_matches(['\r', '\n']).to_owned()))
            }
        };
        let presence = Topic::Up(config.device.clone(), UpKind::Presence).render(&config.fleet);
        let offline = serde_json::to_vec(&Presence { online: false }).expect("our own messages serialise");
        Ok(Self {
            brokers: config.brokers.clone(),
            client_id: config.device.to_string(),
            login,
            // A device that has never heard the time was built all the same.
            tls: tls::wanted(config.tls.as_ref(), time_floor.max(BUILT))?,
            will: Some((presence, offline)),
            keepalive: config.timing.keepalive,
            silence: config.timing.broker_silence,
            reconnect_first: config.timing.reconnect_first,
            reconnect_max: config.timing.reconnect_max,
            jitter: Box::new(random),
        })
    }
}

/// Starts the link on the current runtime. Drop the sender to end it: what was published before is sent first.
pub fn start(config: LinkConfig) -> (mpsc::Sender<LinkCommand>, mpsc::Receiver<LinkEvent>, JoinHandle<()>) {
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    let (events, event_receiver) = mpsc::channel(EVENTS);
    let task = tokio::spawn(run(config, Caller { commands, events, wanted: Vec::new() }));
    (command_sender, event_receiver, task)
}

/// The caller's side: the two channels, and what the caller wants to hear.
struct Caller {
    commands: mpsc::Receiver<LinkCommand>,
    events: mpsc::Sender<LinkEvent>,
    wanted: Vec<String>,
}

/// The caller has gone; there is nobody to work for.
struct Gone;

impl Caller {
    /// Takes commands while there is no connection, until `done`.
    async fn wait_without_link(&mut self, done: impl Future<Output = ()>) -> Result<(), Gone> {
        let mut done = std::pin::pin!(done);
        loop {
            tokio::select! {
                () = &mut done => return Ok(()),
                command = self.commands.recv() => match command.ok_or(Gone)? {
                    LinkCommand::Subscribe(topics) => self.wanted = unique(topics),
                    LinkCommand::Publish { topic, .. } => tracing::debug!(topic, "dropped: the link is down"),
                    LinkCommand::Resubscribe => {}
                },
            }
        }
    }

    async fn wait_for_topics(&mut self) -> Result<(), Gone> {
        loop {
            match self.commands.recv().await.ok_or(Gone)? {
                LinkCommand::Subscribe(topics) => {
                    self.wanted = unique(topics);
                    return Ok(());
                }
                other => tracing::debug!(?other, "dropped: nothing was subscribed to yet"),
            }
        }
    }

    /// Tells `event`, and takes commands while the caller is too busy to hear it.
    async fn tell_without_link(&mut self, event: LinkEvent) -> Result<(), Gone> {
        let events = self.events.clone();
        let mut told = Ok(());
        self.wait_without_link(async { told = events.send(event).await.map_err(|_| Gone) }).await?;
        told
    }
}

fn unique(mut topics: Vec<String>) -> Vec<String> {
    topics.sort();
    topics.dedup();
    topics
}

async fn run(mut config: LinkConfig, mut caller: Caller) {
    if let Err(Gone) = keep_connected(&mut config, &mut caller).await {
        tracing::debug!("the link ends");
    }
}

async fn keep_connected(config: &mut LinkConfig, caller: &mut Caller) -> Result<(), Gone> {
    caller.wait_for_topics().await?;
    let mut backoff = Backoff::new(config);
    loop {
        let broker = config.brokers[backoff.broker()].clone();
        let began = clock::uptime();
        match session::run(config, &broker, backoff.patience(), caller).await {
            End::Gone => return Err(Gone),
            End::Lost { was_up, reason } => {
                tracing::warn!(broker = broker.host, port = broker.port, reason, "no link");
                if was_up {
                    caller.tell_without_link(LinkEvent::Down { reason }).await?;
                }
                let lasted = if was_up { clock::uptime().saturating_sub(began) } else { Duration::ZERO };
                backoff.failed(lasted);
            }
        }
        let pause = backoff.pause((config.jitter)());
        caller.wait_without_link(sleep(pause)).await?;
    }
}

/// Returns a random part of 1. Without randomness the whole ceiling is waited, the careful end.
fn random() -> f64 {
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
