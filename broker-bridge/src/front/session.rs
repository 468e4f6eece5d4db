//! One connection from CONNECT to its end.
//!
//! ```text
//! client ──reader──▶ uplink ──policy──▶ upstream ──▶ broker
//! client ◀─writer── queue ◀────────── downlink ◀──── broker
//!                     ▲ d/… of the service, packs, acknowledgements of the front
//! ```
//! The broker is always read, whatever the client does: what piles up in the queue closes the client. Messages of
//! quality of service 1 from the broker are acknowledged as soon as they are queued and get ids of our own, for its
//! window is a hundred and behind it messages are skipped silently.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tern_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::Shared;
use super::frame::{Connect, Packet, Publish};
use super::queue::{End, Next, Origin, WriteQueue};
use super::reader::{FrameReader, ReadError};
use super::sessions::Session;
use super::uplink::{self, Uplink};
use super::upstream::{Upstream, UpstreamWriter};
use crate::broker::{Attachment, PING_EVERY};
use crate::chunks::pending::Job;
use crate::chunks::serve::{self, PACKS_AT_ONCE};
use crate::policy::Client;

pub(crate) type Reader = FrameReader<Box<dyn AsyncRead + Send + Unpin>>;
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The broker's side of a session may take so long to hear the last of it.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many devices' worth may wait for a site: what is retained for all of its devices comes at once when it connects.
const SITE_QUEUES: u32 = 16;

/// SUBACKs for which the broker's part is awaited: packet id, and the codes known so far.
pub(crate) type Awaited = Mutex<HashMap<u16, Vec<Option<u8>>>>;

/// Runs the session of an authenticated client to its end.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    client: Client,
    connect: Connect,
    mut reader: Reader,
    mut writer: Writer,
) -> End {
    let ceiling = match client {
        Client::Service(_) => shared.limits.service_queue_bytes,
        Client::Site(_) => shared.limits.queue_bytes.saturating_mul(SITE_QUEUES),
        _ => shared.limits.queue_bytes,
    };
    let session = Arc::new(Session::new(client, WriteQueue::new(ceiling as usize)));
    let broker = shared.broker.clone();
    // On a task of its own, for a half-made connection must not be dropped.
    let attached = match tokio::spawn(async move { broker.attach().await }).await {
        Ok(Ok(attached)) => attached,
        Ok(Err(error)) => {
            tracing::error!(client = %session.client, %error, "no connection to the embedded broker");
            return End::Broker;
        }
        Err(_) => return End::Broker,
    };
    shared.sessions.enter(&session);
    session.queue.push(&Packet::ConnAck { session_present: false, code: 0 });

    let Attachment { read: mut broker_read, write, id } = attached;
    let (upstream, mut to_broker) = (Upstream::default(), UpstreamWriter::new(write));
    let awaited = Awaited::default();
    let mut uplink = Uplink::new(shared, &session, &upstream, &awaited);
    let end = tokio::select! {
        end = session.queue.closed() => end,
        end = uplink.run(&mut reader, patience(connect.keep_alive, shared.limits.keep_alive_seconds)) => end,
        end = downlink(&mut broker_read, &session.queue, &upstream, &awaited) => end,
        end = to_client(shared, &session, &mut writer) => end,
        error = to_broker.run(&upstream) => {
            tracing::debug!(%error, "the embedded broker closed a connection");
            End::Broker
        }
        () = pings(&upstream) => End::Stopped,
    };
    shared.sessions.leave(&session);

    // A taken-over device is still there: its will would report it offline after its own greeting.
    if let Some(will) = connect.will.filter(|_| !matches!(end, End::Disconnected | End::TakenOver)) {
        uplink::last_will(shared, &upstream, will).await;
    }
    if timeout(FAREWELL, farewell(&mut to_broker, &mut broker_read, &upstream)).await.is_ok() {
        shared.broker.detached(id);
    }
    drop(timeout(FAREWELL, writer.shutdown()).await);
    end
}

/// Returns how long a client may be silent: one and a half times its keepalive ([MQTT-3.1.2-24]), within ours.
fn patience(wished: u16, ceiling: u16) -> Duration {
    let seconds = if wished == 0 { ceiling } else { wished.min(ceiling) };
    Duration::from_millis(u64::from(seconds) * 1500)
}

/// Hands the broker what is left and waits until it has closed its side, so that nothing of it is lost.
async fn farewell(
    to_broker: &mut UpstreamWriter<OwnedWriteHalf>,
    read: &mut FrameReader<OwnedReadHalf>,
    upstream: &Upstream,
) {
    if to_broker.flush(upstream).await.is_ok() && to_broker.finish().await.is_ok() {
        while read.next().await.is_ok() {}
    }
}

/// Keeps a connection to the broker alive.
pub(crate) async fn pings(upstream: &Upstream) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        upstream.push(&Packet::PingReq);
    }
}

/// Takes what the broker sends into the queue. Never waits for the client.
async fn downlink(
    broker: &mut FrameReader<OwnedReadHalf>,
    queue: &WriteQueue,
    upstream: &Upstream,
    awaited: &Awaited,
) -> End {
    loop {
        let packet = match broker.next().await {
            Ok(packet) => packet,
            Err(error) => {
                tracing::debug!(%error, "the embedded broker closed a connection");
                return End::Broker;
            }
        };
        match packet {
            Packet::Publish(message) => {
                if message.qos > 0 {
                    upstream.push(&Packet::PubAck(message.id));
                }
                queue.push_message(&Publish { dup: false, ..message }, Origin::Broker);
            }
            Packet::PubAck(id) => queue.push(&Packet::PubAck(id)),
            Packet::SubAck { id, codes } => {
                let known = awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                let mut codes = codes.into_iter();
                if let Some(known) = known {
                    let codes =
                        known.into_iter().map(|code| code.or_else(|| codes.next()).unwrap_or(0x80)).collect();
                    queue.push(&Packet::SubAck { id, codes });
                }
            }
            // The client has had its UNSUBACK from us: the broker's are too many, or missing.
            _ => {}
        }
    }
}

/// Writes the queue to the client, and packs whenever nothing else waits.
async fn to_client(shared: &Arc<Shared>, session: &Session, writer: &mut Writer) -> End {
    let stall = Duration::from_secs(shared.limits.write_stall_seconds.into());
    loop {
        let bytes = match session.queue.next(PACKS_AT_ONCE).await {
            Next::Bytes(bytes) => bytes,
            Next::Packs(jobs) => read_packs(shared, jobs).await,
        };
        if let Err(end) = write_all(writer, &bytes, stall).await {
            return end;
        }
        if !matches!(session.client, Client::Service(_)) {
            shared.counters.wrote(bytes.len());
        }
    }
}

async fn write_all(writer: &mut Writer, mut bytes: &[u8], stall: Duration) -> Result<(), End> {
    while !bytes.is_empty() {
        match timeout(stall, writer.write(bytes)).await {
            Ok(Ok(0)) | Ok(Err(_)) => return Err(End::Lost),
            Ok(Ok(count)) => bytes = &bytes[count..],
            Err(_) => return Err(End::Overflow),
        }
    }
    match timeout(stall, writer.flush()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Lost),
        Err(_) => Err(End::Overflow),
    }
}

/// Reads packs and returns them as packets. What cannot be read is left out; the device asks again.
async fn read_packs(shared: &Arc<Shared>, jobs: Vec<Job>) -> Vec<u8> {
    // Closed only when the process ends.
    let Ok(_turn) = shared.disk.acquire().await else { return Vec::new() };
    let own = shared.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::with_capacity(jobs.len() * (limits::PACK_FRAME_MAX + 128));
        for job in &jobs {
            let pack = match (serve::pack(&own.store, job), &own.site) {
                (Ok(pack), None) => Some(pack),
                // What the site itself was given; but that it was given no delta does not say that there is none.
                (Ok(pack), Some(_)) if !serve::is_no_delta(job, &pack) => Some(pack),
                // Not here: the site has it, or gets it, and then the job comes again.
                (_, Some(site)) => site.pack(job),
                (Err(error), None) => {
                    own.store.complain(&job.of, &error, &job.topic);
                    None
                }
            };
            match pack {
                Some(payload) => {
                    own.counters.sent_pack(payload.len());
                    Publish { topic: job.topic.to_string(), payload, ..Publish::default() }.write(&mut bytes);
                }
                None => own.counters.missed_pack(),
            }
        }
        bytes
    });
    read.await.unwrap_or_default()
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed | ReadError::Io(_) => Self::Lost,
            ReadError::Frame(_) => Self::Protocol,
        }
    }
}
