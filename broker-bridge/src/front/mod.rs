//! The front: where devices, sites and the service connect. Nothing reaches the broker but through here.
//!
//! | module | what it holds |
//! |---|---|
//! | [`frame`] | MQTT 3.1.1 packets; pure |
//! | `identity` | who connects |
//! | `tls` | certificates |
//! | `session` | one connection from CONNECT to its end |
//! | `uplink` | what a client sends |
//! | `queue` | what waits to be written to it |
//! | `upstream` | what waits to be written to the broker |
//! | `sessions` | who is connected; routing of `d/…` |
//! | `rate` | how fast a client may send; pure |
//! | `reader` | packets out of a stream |

pub mod frame;
mod identity;
mod queue;
mod rate;
pub(crate) mod reader;
mod session;
mod sessions;
mod tls;
mod uplink;
pub(crate) mod upstream;

pub(crate) use queue::End;
pub(crate) use session::pings;
pub use tls::TlsError;
pub(crate) use tls::client_tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::id::FleetId;
use tern_protocol::limits;
use tern_protocol::message::Revoked;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::broker::EmbeddedBroker;
use crate::chunks::ChunkStore;
use crate::config::{Auth, FrontLimits};
use crate::files::SignedFiles;
use crate::password::{PasswordError, Passwords};
use crate::policy::{self, Client};
use crate::site::Site;
use crate::stats::Counters;
use frame::{Connect, Packet};
use identity::{Identify, Refusal};
use reader::FrameReader;
use session::{Reader, Writer};
use sessions::Sessions;
use tls::ListenerTls;

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) fleet: FleetId,
    pub(crate) limits: FrontLimits,
    pub(crate) service_password: String,
    pub(crate) broker: Arc<EmbeddedBroker>,
    pub(crate) sessions: Sessions,
    pub(crate) files: SignedFiles,
    pub(crate) store: Arc<ChunkStore>,
    pub(crate) counters: Counters,
    /// Turns at the disk: enough to keep it busy, not a thread a device.
    pub(crate) disk: Semaphore,
    /// The site whose edge this is, if it is one.
    pub(crate) site: Option<Arc<Site>>,
}

impl Shared {
    /// Takes in who is revoked, as the service or upstream says.
    pub(crate) fn revoke(&self, payload: &[u8]) {
        match Revoked::read(payload) {
            Ok(revoked) => {
                let listed = revoked.len();
                let closed = self.sessions.revoke(revoked);
                self.counters.closed_revoked(closed);
                tracing::info!(listed, closed, "revoked devices are not let in");
            }
            // What was known stays: a list that cannot be read is no pardon.
            Err(error) => {
                self.counters.malformed();
                tracing::warn!(%error, "a list of revoked devices cannot be read");
            }
        }
    }
}

/// A listener, bound and ready.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) gate: Gate,
}

/// How a listener lets clients in.
#[derive(Clone)]
pub(crate) struct Gate {
    tls: Option<Arc<ListenerTls>>,
    identify: Identify,
}

/// Says why a listener cannot let clients in.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Its certificates.
    #[error("TLS of the listener cannot be set up")]
    Tls(#[from] TlsError),
    /// Its file of users.
    #[error("the listener's users cannot be read")]
    Users(#[from] PasswordError),
}

impl Gate {
    /// Reads the files that `auth` names.
    pub(crate) fn open(auth: &Auth) -> Result<Self, GateError> {
        Ok(match auth {
            Auth::Open {} => Self { tls: None, identify: Identify::Open },
            Auth::Password { file, tls } => Self {
                tls: tls.as_ref().map(|files| ListenerTls::open(files, None)).transpose()?.map(Arc::new),
                identify: Identify::Password(Arc::new(Passwords::open(file)?)),
            },
            Auth::Certificate { tls, client_ca } => Self {
                tls: Some(Arc::new(ListenerTls::open(tls, Some(client_ca))?)),
                identify: Identify::Certificate,
            },
        })
    }
}

/// Accepts connections until the task is aborted.
pub(crate) async fn accept(shared: Arc<Shared>, listener: Listener) {
    let handshakes = Arc::new(Semaphore::new(shared.limits.handshakes as usize));
    loop {
        // While too many have not said who they are, further ones wait in the kernel's queue. Each of those
        // inside is gone after the handshake deadline, so a crowd of silent ones delays others but no more.
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        match listener.socket.accept().await {
            Ok((stream, from)) => {
                let (shared, gate) = (shared.clone(), listener.gate.clone());
                // Ends by itself: every wait in it has a deadline, and stopping closes its queue.
                drop(tokio::spawn(connection(shared, gate, stream, from, permit)));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Most likely out of file descriptors: do not spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    gate: Gate,
    stream: TcpStream,
    from: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let deadline = Duration::from_secs(shared.limits.handshake_seconds.into());
    let greeted = timeout(deadline, greet(&shared, &gate, stream)).await;
    drop(permit);
    let Ok(Some((client, connect, reader, writer))) = greeted else {
        shared.counters.refused_connection();
        tracing::debug!(%from, "a connection did not get past CONNECT");
        return;
    };
    shared.counters.accepted_connection();
    let name = client.to_string();
    let is_service = matches!(client, Client::Service(_));
    tracing::debug!(client = name, %from, "connected");
    let end = session::run(&shared, client, connect, reader, writer).await;
    shared.counters.ended(end);
    match end {
        queue::End::Overflow if is_service => {
            tracing::error!(
                client = name,
                "the service was closed: it reads more slowly than the fleet reports"
            );
        }
        queue::End::Overflow => {
            tracing::warn!(client = name, "closed: it reads more slowly than messages come")
        }
        end => tracing::debug!(client = name, ?end, "gone"),
    }
}

async fn greet(
    shared: &Arc<Shared>,
    gate: &Gate,
    stream: TcpStream,
) -> Option<(Client, Connect, Reader, Writer)> {
    stream.set_nodelay(true).ok()?;
    let (certificate, read, mut write): (_, Box<dyn tokio::io::AsyncRead + Send + Unpin>, Writer) =
        match &gate.tls {
            None => {
                let (read, write) = stream.into_split();
                (None, Box::new(read), Box::new(write))
            }
            Some(tls) => {
                let (stream, client) = tls::accept(&tls.acceptor(), stream).await.ok()?;
                let (read, write) = tokio::io::split(stream);
                (client, Box::new(read), Box::new(write))
            }
        };
    let mut reader = FrameReader::new(read, limits::MQTT_PACKET_MAX);
    // [MQTT-3.1.0-1] the first packet is CONNECT; anything else closes the connection.
    let Ok(Packet::Connect(connect)) = reader.next().await else { return None };
    let (own, gate) = (shared.clone(), gate.clone());
    // The file of users may have to be read again.
    let judged = tokio::task::spawn_blocking(move || (judge(&own, &gate, certificate, &connect), connect));
    let (verdict, connect) = judged.await.ok()?;
    match verdict {
        Ok(client) => Some((client, *connect, reader, write)),
        Err(refusal) => {
            tracing::debug!(?connect, ?refusal, "refused");
            let answer = Packet::ConnAck { session_present: false, code: refusal.code() };
            write.write_all(&answer.to_bytes()).await.ok()?;
            write.shutdown().await.ok()?;
            None
        }
    }
}

fn judge(
    shared: &Shared,
    gate: &Gate,
    certificate: Option<Client>,
    connect: &Connect,
) -> Result<Client, Refusal> {
    let client = identity::identify(&gate.identify, certificate, &shared.service_password, connect)?;
    if let Some(will) = &connect.will {
        policy::may_publish(&shared.fleet, &client, &will.topic, will.retain, will.payload.len())
            .map_err(|_| Refusal::NotAuthorized)?;
    }
    if shared.sessions.is_revoked(&client) {
        return Err(Refusal::NotAuthorized);
    }
    if !shared.sessions.has_room(&client, shared.limits.connections as usize) {
        return Err(Refusal::Unavailable);
    }
    Ok(client)
}
