//! The engine, the ledger and the store of the service, without network and API, in a process that dies at a point
//! which its orders name. [`tern_tests::apart`] is the other side of the pipe.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tern_controller::core::fact::Entry;
use tern_controller::core::fleet::Fleet;
use tern_controller::core::service::{Lives, Output, Service};
use tern_controller::engine::{self, Engine, Message, Pace, Works};
use tern_controller::fault::{self, Edge, Hooks, Operation};
use tern_controller::ledger::{Ledger, Options};
use tern_controller::{place, state};
use tern_protocol::topic::Topic;
use tern_tests::apart::tail::newest;
use tern_tests::apart::wire::{Ask, Broken, Orders, Tell};
use tern_tests::sim::controller::online_keys;
use tokio::sync::{mpsc, oneshot};

/// The simulation says what time it is.
static CLOCK: AtomicU64 = AtomicU64::new(0);
/// Points passed.
static POINTS: AtomicU64 = AtomicU64::new(0);
/// Messages and replies that left the engine, and those that are through the pipe.
static LEFT: AtomicU64 = AtomicU64::new(0);
static TOLD: AtomicU64 = AtomicU64::new(0);

/// So small that a story fills some of them.
const SEGMENT_BYTES: u64 = 32 * 1024;
/// As often as the simulation looks at the time.
const TICK: Duration = Duration::from_secs(15);
/// Frames between checkpoints: a story makes some.
const CHECKPOINT: u64 = 60;
const OUTGOING: usize = 4096;

fn main() -> anyhow::Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let first = lines.next().context("no orders came")??;
    let orders: Orders = serde_json::from_str(&first).context("the orders are not JSON")?;
    CLOCK.store(orders.now, Ordering::SeqCst);
    std::fs::create_dir_all(&orders.data)?;
    install(&orders)?;
    let (engine, copy) = start(&orders)?;
    wait_for(&engine)?;
    if copy {
        tell(&Tell::TakenForACopy)?;
    }
    tell(&Tell::Done)?;
    for line in lines {
        obey(&engine, &orders, serde_json::from_str(&line?)?)?;
        tell(&Tell::Done)?;
    }
    Ok(())
}

/// Dies at the point, and writes a line for every one before it.
fn install(orders: &Orders) -> anyhow::Result<()> {
    let (die_at, broken) = (orders.die_at, orders.broken);
    let ledger = orders.data.join("ledger");
    let trace = OpenOptions::new().create(true).append(true).open(orders.data.join("points"))?;
    let trace = Mutex::new(trace);
    let at = move |operation: Operation, edge: Edge| {
        if matches!(operation, Operation::Publish | Operation::Reply) && edge == Edge::After {
            let left = LEFT.fetch_add(1, Ordering::SeqCst) + 1;
            // What left is through the pipe before anybody dies: the simulation knows exactly who was told.
            while TOLD.load(Ordering::SeqCst) < left {
                std::thread::yield_now();
            }
        }
        let number = POINTS.fetch_add(1, Ordering::SeqCst);
        let line = line(&trace, operation, edge, &ledger);
        assert!(line.is_ok(), "the points cannot be written down: {line:?}");
        if die_at == Some(number) {
            let me = rustix::process::getpid();
            let _dead = rustix::process::kill_process(me, rustix::process::Signal::KILL);
            // Until the signal is delivered nothing more may happen on this thread.
            loop {
                std::thread::park();
            }
        }
    };
    let leaves_early = move |output: &Output| match (broken, output) {
        (Some(Broken::AcksEarly), Output::Publish { topic, .. }) => matches!(topic, Topic::DeviceIn(_)),
        (Some(Broken::BundlesEarly), Output::Publish { topic, .. }) => topic.is_retained(),
        _ => false,
    };
    let installed = fault::install(Hooks { at: Box::new(at), leaves_early: Box::new(leaves_early) });
    anyhow::ensure!(installed, "something is installed at the points already");
    Ok(())
}

fn line(trace: &Mutex<File>, operation: Operation, edge: Edge, ledger: &Path) -> anyhow::Result<()> {
    let (name, length) = newest(ledger).unwrap_or_default();
    let mut trace = trace.lock().map_err(|_| anyhow!("a thread that wrote a point panicked"))?;
    // One write: a killed process leaves whole lines.
    trace.write_all(format!("{operation:?} {edge:?} {name} {length}\n").as_bytes())?;
    Ok(())
}

/// Opens the folder and starts the engine as `tern serve` does; tells whether the folder looks like a copy.
fn start(orders: &Orders) -> anyhow::Result<(Engine, bool)> {
    let mut opened = state::open_with(&orders.data, &orders.fleet, Options { segment_bytes: SEGMENT_BYTES })?;
    if opened.original {
        let file: PathBuf = opened.ledger.file().to_owned();
        place::mark(&orders.data, &file)?;
    }
    if orders.broken == Some(Broken::KillNotCompleted) {
        forget_unsigned_kills(&mut opened.fleet);
    }
    let keys = BTreeMap::from([(orders.product.clone(), online_keys(orders.keys))]);
    let service = Service::new(opened.fleet, keys, Lives::default(), orders.seed);
    let (engine, inbox) = engine::channel();
    let (outgoing, mut to_broker) = mpsc::channel(OUTGOING);
    let works = Works {
        pace: Pace { tick: TICK, checkpoint: CHECKPOINT, clock: || CLOCK.load(Ordering::SeqCst) },
        service,
        ledger: opened.ledger,
        notary: opened.notary,
        checkpoint: opened.checkpoint,
        term: opened.term,
        outgoing,
    };
    std::thread::spawn(move || {
        if let Err(error) = engine::run(works, &inbox) {
            // The pipe's end tells the other side.
            let _unheard = writeln!(std::io::stderr(), "the engine ended: {:?}", anyhow!(error));
            std::process::exit(3);
        }
    });
    let fleet = orders.fleet.clone();
    std::thread::spawn(move || {
        while let Some((topic, payload)) = to_broker.blocking_recv() {
            let said = tell(&Tell::Publish { topic: topic.render(&fleet), payload: hex::encode(payload) });
            if said.is_err() {
                std::process::exit(4);
            }
            TOLD.fetch_add(1, Ordering::SeqCst);
        }
    });
    Ok((engine, !opened.original))
}

/// Deliberately wrong: what no signed file says did not happen.
fn forget_unsigned_kills(fleet: &mut Fleet) {
    for product in fleet.products.values_mut() {
        product.halted = product.halt_content().halted.into_iter().collect();
    }
}

fn obey(engine: &Engine, orders: &Orders, ask: Ask) -> anyhow::Result<()> {
    let at = |now: u64| CLOCK.store(now, Ordering::SeqCst);
    match ask {
        Ask::Message { now, topic, payload } => {
            at(now);
            let topic = Topic::parse(&orders.fleet, &topic)?;
            hand(engine, Message::Received(topic, hex::decode(payload)?))?;
        }
        Ask::Command { now, command } => {
            at(now);
            let (reply, answer) = oneshot::channel();
            hand(engine, Message::Command(None, command, reply))?;
            let result = answer.blocking_recv().context("the engine is gone")?;
            tell(&Tell::Reply(result))?;
            TOLD.fetch_add(1, Ordering::SeqCst);
        }
        Ask::BrokerUp { now } => {
            at(now);
            hand(engine, Message::BrokerUp)?;
        }
        Ask::BrokerDown { now } => {
            at(now);
            hand(engine, Message::BrokerDown)?;
        }
        Ask::Time { now } => at(now),
        Ask::Compare => {
            let same = ask_about(engine, is_same)??;
            tell(&Tell::Same(same))?;
        }
    }
    wait_for(engine)
}

/// Tells whether the service knows what its ledger adds up to, read from the files.
fn is_same(service: &Service, ledger: &Ledger) -> anyhow::Result<bool> {
    let mut fleet = Fleet::new(service.fleet().id.clone());
    for frame in ledger.frames(0)? {
        let entry: Entry = serde_json::from_slice(&frame?.payload)?;
        fleet.apply(entry.at, &entry.fact);
    }
    Ok(fleet == *service.fleet())
}

fn hand(engine: &Engine, message: Message) -> anyhow::Result<()> {
    anyhow::ensure!(engine.offer(message), "the engine takes nothing any more");
    Ok(())
}

/// Waits until everything that was handed over before is done, and looks at the time.
fn wait_for(engine: &Engine) -> anyhow::Result<()> {
    ask_about(engine, |_, _| Ok(()))?
}

fn ask_about<T: Send + 'static>(
    engine: &Engine,
    question: impl FnOnce(&Service, &Ledger) -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (reply, answer) = oneshot::channel();
    let ask = move |service: &mut Service, ledger: &Ledger| {
        // Whoever asked waits for it.
        drop(reply.send(question(service, ledger)));
    };
    hand(engine, Message::Query(Box::new(ask)))?;
    answer.blocking_recv().context("the engine is gone")
}

fn tell(tell: &Tell) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all((serde_json::to_string(tell)? + "\n").as_bytes())?;
    out.flush()?;
    Ok(())
}
