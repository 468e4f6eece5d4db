//! All lives of the process, for the simulation.

use std::path::{Path, PathBuf};

use tern_controller::core::fact::Entry;
use tern_controller::core::fleet::Fleet;
use tern_controller::core::service::{Input, Output};
use tern_protocol::id::{FleetId, ProductId};
use tern_protocol::topic::Topic;

use super::process::{Answer, Process};
use super::tail::{Left, Tail, cut, frames_between};
use super::wire::{Ask, Broken, Orders, Tell};

/// Where and how often the process dies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deaths {
    /// The points, one for each life, counted from its start; the life after the last goes on.
    pub points: Vec<u64>,
    /// What the first death leaves of what was not synced.
    pub left: Left,
    /// Something that is wrong on purpose, in every life.
    pub broken: Option<Broken>,
}

impl Deaths {
    /// Nobody dies.
    pub const NONE: Self = Self { points: Vec::new(), left: Left::All, broken: None };
}

/// The service in a process of its own.
pub struct Apart {
    program: PathBuf,
    dir: tempfile::TempDir,
    fleet: FleetId,
    product: ProductId,
    keys: u64,
    deaths: Deaths,
    lives: usize,
    process: Option<Process>,
    tail: Tail,
    /// What its ledger adds up to.
    pub known: Fleet,
    /// Everything that it has published, in order.
    pub published: Vec<(Topic, Vec<u8>)>,
    /// Points passed in all lives: operation, edge, and what of the ledger was synced then.
    pub trace: Vec<String>,
    /// It died, and the simulation has not been told yet.
    pub died: bool,
    /// What must not happen in any life.
    pub complaints: Vec<String>,
}

impl Apart {
    /// Prepares the first life. `keys`: what the keys are drawn from.
    pub fn new(program: &Path, fleet: FleetId, product: ProductId, keys: u64, deaths: Deaths) -> Self {
        // In memory where there is a place for that: thousands of syncs are made.
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        Self {
            program: program.to_owned(),
            dir: dir.expect("a temporary folder"),
            known: Fleet::new(fleet.clone()),
            fleet,
            product,
            keys,
            deaths,
            lives: 0,
            process: None,
            tail: Tail::default(),
            published: Vec::new(),
            trace: Vec::new(),
            died: false,
            complaints: Vec::new(),
        }
    }

    /// Returns the ledger's folder.
    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("data").join("ledger")
    }

    /// Tells whether it runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// How many times it has died.
    pub fn deaths(&self) -> usize {
        self.lives - usize::from(self.is_up())
    }

    /// Ends it from outside.
    pub fn stop(&mut self) {
        self.process = None;
        self.remember();
    }

    /// Starts it; returns what it has recorded.
    pub fn start(&mut self, seed: [u8; 32], now: u64) -> Vec<Entry> {
        let orders = Orders {
            data: self.dir.path().join("data"),
            fleet: self.fleet.clone(),
            product: self.product.clone(),
            keys: self.keys,
            seed,
            now,
            die_at: self.deaths.points.get(self.lives).copied(),
            broken: self.deaths.broken,
        };
        self.lives += 1;
        let (process, answer) = Process::start(&self.program, &orders);
        self.process = Some(process);
        let _nothing = self.took(answer);
        self.learn()
    }

    /// Hands in one thing; returns what it let out, and what it has recorded.
    pub fn handle(&mut self, input: Input, now: u64) -> (Vec<Output>, Vec<Entry>) {
        let Some(process) = &mut self.process else { return (Vec::new(), Vec::new()) };
        let ask = match input {
            Input::Message { topic, payload } => {
                Ask::Message { now, topic: topic.render(&self.fleet), payload: hex::encode(payload) }
            }
            Input::Command { command, .. } => Ask::Command { now, command },
            Input::BrokerUp => Ask::BrokerUp { now },
            Input::BrokerDown => Ask::BrokerDown { now },
            Input::Time => Ask::Time { now },
        };
        let answer = process.ask(&ask);
        let told = self.took(answer);
        (told, self.learn())
    }

    /// Tells whether the running service knows what its ledger adds up to.
    pub fn is_same(&mut self) -> bool {
        let Some(process) = &mut self.process else { return false };
        matches!(process.ask(&Ask::Compare), Answer::Done(told) if matches!(told[..], [Tell::Same(true)]))
    }

    fn took(&mut self, answer: Answer) -> Vec<Output> {
        let (told, died) = match answer {
            Answer::Done(told) => (told, false),
            Answer::Died(told) => (told, true),
        };
        let mut outputs = Vec::new();
        for tell in told {
            match tell {
                Tell::Publish { topic, payload } => {
                    let topic = Topic::parse(&self.fleet, &topic).expect("the service's topics parse");
                    let payload = hex::decode(payload).expect("the pipe carries hex");
                    self.published.push((topic.clone(), payload.clone()));
                    outputs.push(Output::Publish { topic, payload });
                }
                Tell::Reply(result) => outputs.push(Output::Reply { id: 0, result }),
                Tell::TakenForACopy => {
                    self.complaints.push("the service takes its own folder for a copy".to_owned());
                }
                Tell::Same(_) | Tell::Done => {}
            }
        }
        if died {
            self.process = None;
            self.died = true;
            self.remember();
            let left = if self.lives == 1 { self.deaths.left } else { Left::All };
            let synced = self.trace.iter().rev().find_map(|line| synced_of(line));
            cut(&self.ledger(), synced.as_ref().map(|(name, length)| (name.as_str(), *length)), left);
        }
        outputs
    }

    /// Reads what the ledger has now; of a dead process, after the cut.
    fn learn(&mut self) -> Vec<Entry> {
        let ledger = self.ledger();
        let entries = self.tail.read(&ledger);
        entries.iter().for_each(|entry| self.known.apply(entry.at, &entry.fact));
        entries
    }

    /// Takes over the points of the life that has ended.
    fn remember(&mut self) {
        let path = self.dir.path().join("data").join("points");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        self.trace.extend(text.lines().map(str::to_owned));
        let _next_life_begins_its_own = std::fs::remove_file(&path);
    }

    /// Returns how many frames the append before this point of the trace has written; nobody may have died.
    pub fn frames_appended(&self, point: usize) -> usize {
        let length = |at: usize| self.trace.get(at).and_then(|line| place_of(line));
        let (Some((from, before)), Some((file, after))) = (length(point.wrapping_sub(1)), length(point))
        else {
            return 0;
        };
        let before = if from == file { before } else { 0 };
        frames_between(&self.ledger().join(file), before, after)
    }
}

/// Reads from a line of the trace what of the ledger was synced when it was written, if that is what it tells.
fn synced_of(line: &str) -> Option<(String, u64)> {
    let mut words = line.split(' ');
    let (operation, edge) = (words.next()?, words.next()?);
    let tells = matches!((operation, edge), ("Sync" | "SyncOpened", "After"));
    if tells { place_of(line) } else { None }
}

/// Reads from a line of the trace the newest file and its length.
fn place_of(line: &str) -> Option<(String, u64)> {
    let mut words = line.split(' ').skip(2);
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}
