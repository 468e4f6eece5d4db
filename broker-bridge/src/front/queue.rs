//! What waits to be written to one client. Never blocks whoever fills it: over its ceiling the client goes.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::frame::{Packet, Publish};
use crate::chunks::pending::{Job, Pending};

/// Messages of quality of service 1 that a client may leave unacknowledged, from each of the two origins.
const WINDOW: usize = 8192;
/// Bytes of one write.
const BATCH: usize = 256 * 1024;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    /// The client said goodbye.
    Disconnected,
    /// The client closed the connection, or it broke.
    Lost,
    /// No sign of life.
    Silent,
    /// The client breaks a rule of MQTT.
    Protocol,
    /// The client did what the policy forbids.
    Denied,
    /// The client reads too slowly.
    Overflow,
    /// A newer connection has the same id.
    TakenOver,
    /// The service has revoked the device.
    Revoked,
    /// The embedded broker closed its side.
    Broker,
    /// The bridge stops.
    Stopped,
}

/// Who chose a message's packet id: the two number ranges never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Came from the broker: ids below 0x8000.
    Broker,
    /// Routed by the front: ids from 0x8000.
    Front,
}

/// The queue towards one client.
#[derive(Debug)]
pub(crate) struct WriteQueue {
    inner: Mutex<Inner>,
    filled: Notify,
    end: watch::Sender<Option<End>>,
    ceiling: usize,
}

#[derive(Debug)]
struct Inner {
    items: VecDeque<Item>,
    bytes: usize,
    broker_ids: PacketIds,
    front_ids: PacketIds,
    pending: Pending,
}

#[derive(Debug)]
struct Item {
    bytes: Vec<u8>,
    /// Where the packet id stands, and who it is from, when one is to be chosen at the time of writing.
    id: Option<(usize, Origin)>,
}

/// What to write next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Packets as they are.
    Bytes(Vec<u8>),
    /// Packs to be read from the chunk store: nothing more urgent waits.
    Packs(Vec<Job>),
}

impl WriteQueue {
    pub(crate) fn new(ceiling: usize) -> Self {
        let inner = Inner {
            items: VecDeque::new(),
            bytes: 0,
            broker_ids: PacketIds::new(1, 0x7fff),
            front_ids: PacketIds::new(0x8000, 0xffff),
            pending: Pending::default(),
        };
        Self { inner: Mutex::new(inner), filled: Notify::new(), end: watch::Sender::new(None), ceiling }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a packet that has no id, or one that the client chose.
    pub(crate) fn push(&self, packet: &Packet) {
        self.add(Item { bytes: packet.to_bytes(), id: None });
    }

    /// Adds a message; at quality of service 1 it gets an id of `origin` when it is written.
    pub(crate) fn push_message(&self, message: &Publish, origin: Origin) {
        let mut bytes = Vec::with_capacity(message.topic.len() + message.payload.len() + 10);
        message.write(&mut bytes);
        let id = (message.qos > 0).then(|| (bytes.len() - message.payload.len() - 2, origin));
        self.add(Item { bytes, id });
    }

    fn add(&self, item: Item) {
        let mut inner = self.lock();
        inner.bytes += item.bytes.len();
        if inner.bytes > self.ceiling {
            drop(inner);
            self.close(End::Overflow);
            return;
        }
        inner.items.push_back(item);
        drop(inner);
        self.filled.notify_one();
    }

    /// Adds what a `get` asks of the chunk store.
    pub(crate) fn ask(&self, jobs: impl IntoIterator<Item = Job>) {
        self.lock().pending.add(jobs);
        self.filled.notify_one();
    }

    /// Frees the id of a message that the client acknowledged; unknown ids are ignored.
    pub(crate) fn acknowledged(&self, id: u16) {
        let mut inner = self.lock();
        let ids = if id < 0x8000 { &mut inner.broker_ids } else { &mut inner.front_ids };
        ids.in_use.remove(&id);
        drop(inner);
        self.filled.notify_one();
    }

    /// Waits for something to write. Packets come before packs.
    pub(crate) async fn next(&self, packs: usize) -> Next {
        loop {
            if let Some(next) = self.try_next(packs) {
                return next;
            }
            self.filled.notified().await;
        }
    }

    /// Returns something to write if there is any.
    pub(crate) fn try_next(&self, packs: usize) -> Option<Next> {
        let mut inner = self.lock();
        let batch = inner.batch();
        if !batch.is_empty() {
            return Some(Next::Bytes(batch));
        }
        let jobs = inner.pending.take(packs);
        (!jobs.is_empty()).then_some(Next::Packs(jobs))
    }

    /// Ends the session; the first reason stays.
    pub(crate) fn close(&self, end: End) {
        self.end.send_if_modified(|old| {
            let first = old.is_none();
            old.get_or_insert(end);
            first
        });
    }

    /// Returns why the session was ended, if it was.
    #[cfg(test)]
    pub(crate) fn end(&self) -> Option<End> {
        *self.end.borrow()
    }

    /// Waits until somebody ends the session.
    pub(crate) async fn closed(&self) -> End {
        let mut end = self.end.subscribe();
        loop {
            if let Some(end) = *end.borrow_and_update() {
                return end;
            }
            if end.changed().await.is_err() {
                return End::Stopped;
            }
        }
    }
}

impl Inner {
    fn batch(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < BATCH {
            let Some(item) = self.items.front_mut() else { break };
            if let Some((at, origin)) = item.id {
                let ids = match origin {
                    Origin::Broker => &mut self.broker_ids,
                    Origin::Front => &mut self.front_ids,
                };
                // Wait for acknowledgements; a client that sends none fills its queue and goes.
                let Some(id) = ids.take() else { break };
                item.bytes[at..at + 2].copy_from_slice(&id.to_be_bytes());
            }
            self.bytes -= item.bytes.len();
            let Some(item) = self.items.pop_front() else { break };
            if out.is_empty() {
                out = item.bytes;
            } else {
                out.extend_from_slice(&item.bytes);
            }
        }
        out
    }
}

#[derive(Debug)]
struct PacketIds {
    first: u16,
    last: u16,
    next: u16,
    in_use: HashSet<u16>,
}

impl PacketIds {
    fn new(first: u16, last: u16) -> Self {
        Self { first, last, next: first, in_use: HashSet::new() }
    }

    fn take(&mut self) -> Option<u16> {
        if self.in_use.len() >= WINDOW {
            return None;
        }
        // Ends: the range is four times the window.
        loop {
            let id = self.next;
            self.next = if id == self.last { self.first } else { id + 1 };
            if self.in_use.insert(id) {
                return Some(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    fn message(qos: u8) -> Publish {
        Publish { qos, topic: "t".into(), payload: vec![7; 10], ..Publish::default() }
    }

    fn ids(queue: &WriteQueue) -> Vec<u16> {
        let mut ids = Vec::new();
        while let Some(Next::Bytes(bytes)) = queue.try_next(0) {
            let mut rest = bytes.as_slice();
            while let Some((Packet::Publish(publish), length)) = frame::read(rest, 1000).unwrap() {
                assert_eq!(publish.payload, [7; 10]);
                ids.push(publish.id);
                rest = &rest[length..];
            }
        }
        ids
    }

    #[test]
    fn the_two_origins_have_their_own_ids() {
        let queue = WriteQueue::new(10_000);
        queue.push_message(&message(1), Origin::Broker);
        queue.push_message(&message(1), Origin::Front);
        queue.push_message(&message(0), Origin::Front);
        queue.push_message(&message(1), Origin::Broker);

        assert_eq!(ids(&queue), [1, 0x8000, 0, 2]);
    }

    #[test]
    fn an_id_is_not_used_again_before_its_acknowledgement() {
        let queue = WriteQueue::new(100_000_000);
        for _ in 0..WINDOW + 3 {
            queue.push_message(&message(1), Origin::Front);
        }
        let first = ids(&queue);
        assert_eq!(first.len(), WINDOW);
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), WINDOW);

        queue.acknowledged(first[5]);
        queue.acknowledged(first[5]);
        queue.acknowledged(1);

        assert_eq!(ids(&queue).len(), 1);
    }

    #[tokio::test]
    async fn a_client_that_reads_too_slowly_is_let_go_and_the_first_reason_stays() {
        let queue = WriteQueue::new(40);
        for _ in 0..3 {
            queue.push_message(&message(0), Origin::Broker);
        }
        queue.close(End::Stopped);

        assert_eq!(queue.closed().await, End::Overflow);
    }
}
