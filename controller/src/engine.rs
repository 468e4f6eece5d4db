//! The thread that owns the controller: reads what happened, records it, and only then lets anything out.
//!
//! One thread, because a decision must see every report before it, and because an fsync blocks. While one batch
//! is being synced the next one gathers in the channel: that is the group commit.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tern_protocol::topic::Topic;
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock;
use crate::core::access::{Access, TokenName};
use crate::core::fact::{EntryRef, Fact, Millis};
use crate::core::service::{BATCH, Command, Input, Output, Refusal, Reply, Service};
use crate::fault::{self, Operation};
use crate::ledger::{Ledger, LedgerError, Notary, Occasion};
use crate::retention::{self, Standing};

/// Messages that may wait for the engine.
pub const QUEUE: usize = 8192;
/// Room to begin with for a fact as JSON; a report has about 200 bytes.
const FACT_BYTES: usize = 256;

/// A question about the state.
pub type Query = Box<dyn FnOnce(&mut Service, &Ledger) + Send>;

/// Something for the engine.
pub enum Message {
    /// A message from the broker.
    Received(Topic, Vec<u8>),
    /// The connection to the broker came up.
    BrokerUp,
    /// The connection to the broker is gone.
    BrokerDown,
    /// A command, and whose token asks for it.
    Command(Option<TokenName>, Box<Command>, oneshot::Sender<Result<Reply, Refusal>>),
    /// A question about the state.
    Query(Query),
    /// Write a checkpoint, begin a segment if the present one began before this time, and say where things stand.
    Retention(Millis, oneshot::Sender<Standing>),
    /// Write a checkpoint and end.
    Stop(oneshot::Sender<()>),
}

/// Sends to the engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    to: SyncSender<Message>,
    access: Board,
}

/// Where the engine hangs out who may use the API, so that a flood of wrong tokens costs it nothing. It is renewed
/// before the reply to whatever changed it leaves. Nothing hangs there until the engine runs.
type Board = Arc<RwLock<Option<Arc<Access>>>>;

/// The engine's end of its queue.
pub struct Inbox {
    from: Receiver<Message>,
    access: Board,
}

/// Says that the engine has ended; the process is about to.
#[derive(Debug, thiserror::Error)]
#[error("the service is stopping")]
pub struct Stopped;

impl Engine {
    /// Hands over a message; `false` when the queue is full or the engine has ended. A device repeats what is
    /// not acknowledged, so nothing is lost.
    pub fn offer(&self, message: Message) -> bool {
        match self.to.try_send(message) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Hands over a message from an async task, waiting for room.
    pub async fn send(&self, message: Message) -> Result<(), Stopped> {
        let mut message = message;
        loop {
            match self.to.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Stopped),
                Err(TrySendError::Full(back)) => message = back,
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Runs a command that the service wants itself.
    pub async fn command(&self, command: Command) -> Result<Result<Reply, Refusal>, Stopped> {
        self.command_by(None, command).await
    }

    /// Returns who may use the API; none before the engine runs.
    pub fn access(&self) -> Option<Arc<Access>> {
        // Whoever panics while holding the lock has only swapped a pointer.
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a command for the holder of a token.
    pub async fn command_by(
        &self,
        by: Option<TokenName>,
        command: Command,
    ) -> Result<Result<Reply, Refusal>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Command(by, Box::new(command), reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Asks about the state.
    pub async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Service, &Ledger) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let ask = move |service: &mut Service, ledger: &Ledger| {
            // The asker may have gone away; then nobody wants the answer.
            drop(reply.send(question(service, ledger)));
        };
        self.send(Message::Query(Box::new(ask))).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Asks where things stand, so that old frames can be dropped; see [`Message::Retention`].
    pub async fn standing(&self, before: Millis) -> Result<Standing, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Retention(before, reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Writes a checkpoint and ends the engine.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        if self.send(Message::Stop(done)).await.is_ok() {
            // An error means that it ended before it could say so.
            drop(ended.await);
        }
    }
}

/// Says why the engine ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The ledger could not be written; nothing was acknowledged after its last sync.
    #[error("could not write the ledger")]
    Ledger(#[from] LedgerError),
    /// The checkpoint could not be written.
    #[error("could not write the checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// A fact could not be written as JSON.
    #[error("could not encode a fact for the ledger")]
    Encode(#[from] serde_json::Error),
}

/// When the engine does what nobody asks for.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How often time is looked at when nothing happens.
    pub tick: Duration,
    /// Frames between two checkpoints of a small fleet.
    pub checkpoint: u64,
    /// Tells the time: Unix time in milliseconds.
    pub clock: fn() -> Millis,
}

impl Default for Pace {
    fn default() -> Self {
        Self { tick: Duration::from_millis(200), checkpoint: 20_000, clock: clock::now }
    }
}

/// What the engine works on.
pub struct Works {
    /// When it does what nobody asks for.
    pub pace: Pace,
    /// The controller.
    pub service: Service,
    /// The ledger, positioned at its end.
    pub ledger: Ledger,
    /// Signs the ledger's checkpoints.
    pub notary: Notary,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Fencing number.
    pub term: u64,
    /// To the broker.
    pub outgoing: mpsc::Sender<(Topic, Vec<u8>)>,
}

/// Returns the sending end and the receiving end for [`run`].
pub fn channel() -> (Engine, Inbox) {
    let (to, from) = std::sync::mpsc::sync_channel(QUEUE);
    let access = Board::default();
    (Engine { to, access: access.clone() }, Inbox { from, access })
}

/// Runs until it is stopped or cannot keep its promise any more.
pub fn run(mut works: Works, inbox: &Inbox) -> Result<(), EngineError> {
    let step = works.service.came_up(env!("CARGO_PKG_VERSION"), (works.pace.clock)());
    works.write(&step.facts, &BTreeMap::new(), step.at)?;
    works.hang_out(&inbox.access);
    let mut ticked = (works.pace.clock)();
    loop {
        let mut inputs = Vec::new();
        let mut replies = Vec::new();
        let mut queries = Vec::new();
        let mut standings = Vec::new();
        let mut stop = None;
        let mut next = match inbox.from.recv_timeout(works.pace.tick) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                works.sign(Occasion::Stop);
                return works.keep();
            }
        };
        while let Some(message) = next.take() {
            match message {
                Message::Received(topic, payload) => inputs.push(Input::Message { topic, payload }),
                Message::BrokerUp => inputs.push(Input::BrokerUp),
                Message::BrokerDown => inputs.push(Input::BrokerDown),
                Message::Command(by, command, reply) => {
                    inputs.push(Input::Command { id: replies.len() as u64, by, command });
                    replies.push(Some(reply));
                }
                Message::Query(query) => queries.push(query),
                Message::Retention(before, reply) => standings.push((before, reply)),
                Message::Stop(done) => stop = Some(done),
            }
            if inputs.len() < BATCH && stop.is_none() {
                next = inbox.from.try_recv().ok();
            }
        }
        let now = (works.pace.clock)();
        if u128::from(now.saturating_sub(ticked)) >= works.pace.tick.as_millis() {
            ticked = now;
            inputs.push(Input::Time);
        }
        let verdict = works.step(inputs, &mut replies, &inbox.access)?;
        // After the outputs: a kill must not wait for a signature that no device reads.
        works.sign(if verdict { Occasion::Verdict } else { Occasion::Time });
        for (before, reply) in standings {
            let standing = works.standing(before)?;
            // Whoever asked may have gone away.
            let _gone = reply.send(standing);
        }
        for query in queries {
            query(&mut works.service, &works.ledger);
        }
        if works.checkpoint.is_due(works.ledger.synced(), works.pace.checkpoint, works.service.fleet()) {
            works.keep()?;
        }
        if let Some(done) = stop {
            works.sign(Occasion::Stop);
            works.keep()?;
            // Whoever asked may have gone away.
            let _gone = done.send(());
            return Ok(());
        }
    }
}

type Waiting = Option<oneshot::Sender<Result<Reply, Refusal>>>;

impl Works {
    /// Signs a checkpoint of the ledger if one is due. Nobody waits for it, so a disk that refuses stops nothing here.
    fn sign(&mut self, occasion: Occasion) {
        if let Err(error) = self.notary.consider(&self.ledger, occasion, clock::now()) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no checkpoint of the ledger could be signed"
            );
        }
    }

    /// Prepares for old frames to be dropped.
    fn standing(&mut self, before: Millis) -> Result<Standing, EngineError> {
        self.keep()?;
        // What is dropped must not be ahead of what is signed.
        self.sign(Occasion::Stop);
        let first = self.ledger.segment();
        // A frame that does not read is no reason to stop; whoever drops frames will say so.
        if let Ok(Some(at)) = retention::began_at(self.ledger.dir(), first)
            && at < before
        {
            self.ledger.begin_segment()?;
        }
        Ok(Standing {
            dir: self.ledger.dir().to_owned(),
            file: self.ledger.file().to_owned(),
            checkpointed: self.checkpoint.next(),
            end: self.ledger.synced(),
            active: retention::active(self.service.fleet()),
        })
    }

    /// Returns whether a verdict was among what happened.
    fn step(
        &mut self,
        inputs: Vec<Input>,
        replies: &mut [Waiting],
        access: &Board,
    ) -> Result<bool, EngineError> {
        if inputs.is_empty() {
            return Ok(false);
        }
        let step = self.service.handle(inputs, (self.pace.clock)());
        let (early, outputs) = fault::split_early(step.outputs);
        self.let_out(early, replies);
        // The time at which the service applied them: a replay must come to the same state.
        self.write(&step.facts, &step.actors, step.at)?;
        if step.facts.iter().any(is_about_access) {
            self.hang_out(access);
        }
        for note in step.notes {
            tracing::info!("{note}");
        }
        for alarm in step.alarms {
            tracing::error!("{alarm}");
        }
        self.let_out(outputs, replies);
        Ok(step.facts.iter().any(is_verdict))
    }

    fn let_out(&self, outputs: Vec<Output>, replies: &mut [Waiting]) {
        for output in outputs {
            match output {
                Output::Publish { topic, payload } => {
                    // Bounded: a broker that does not read must not fill our memory. Acks are repeated by
                    // devices, retained files are published again when the broker is back.
                    let sent =
                        fault::around(Operation::Publish, || self.outgoing.blocking_send((topic, payload)));
                    if sent.is_err() {
                        tracing::warn!("the broker's queue is gone, the message is dropped");
                    }
                }
                Output::Reply { id, result } => {
                    let place = usize::try_from(id).unwrap_or(usize::MAX);
                    let waiting = replies.get_mut(place).and_then(Option::take);
                    if let Some(reply) = waiting {
                        // The operator may have hung up; the command is done all the same.
                        drop(fault::around(Operation::Reply, || reply.send(result)));
                    }
                }
            }
        }
    }

    fn hang_out(&self, board: &Board) {
        let access = Arc::new(self.service.fleet().access.clone());
        *board.write().unwrap_or_else(PoisonError::into_inner) = Some(access);
    }

    fn write(
        &mut self,
        facts: &[Fact],
        actors: &BTreeMap<usize, TokenName>,
        at: Millis,
    ) -> Result<(), EngineError> {
        if facts.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(facts.len() * FACT_BYTES);
        let mut ends = Vec::with_capacity(facts.len());
        for (place, fact) in facts.iter().enumerate() {
            serde_json::to_writer(&mut bytes, &EntryRef { at, actor: actors.get(&place), fact })?;
            ends.push(bytes.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let frames: Vec<&[u8]> = starts.zip(&ends).map(|(start, end)| &bytes[start..*end]).collect();
        self.ledger.append(&frames)?;
        self.ledger.sync()?;
        facts.iter().for_each(|fact| self.checkpoint.note(fact, self.service.fleet()));
        Ok(())
    }

    /// Writes what changed since the last checkpoint.
    fn keep(&mut self) -> Result<(), EngineError> {
        Ok(self.checkpoint.write(self.term, self.service.fleet(), self.ledger.synced())?)
    }
}

fn is_about_access(fact: &Fact) -> bool {
    matches!(fact, Fact::TokenCreated { .. } | Fact::TokenRevoked { .. } | Fact::TokenUsed { .. })
}

fn is_verdict(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::PhaseOpened { .. }
            | Fact::WaveOpened { .. }
            | Fact::HoldBackEnded { .. }
            | Fact::Paused { .. }
            | Fact::Killed { .. }
            | Fact::Completed { .. }
    )
}
