//! A disk behind the agent's storage port.
//!
//! It keeps what a reader sees apart from what is durable. A write is durable after a sync of the same file or device,
//! a name after a sync of its folder, and nothing else makes either durable. Every operation that changes something is
//! counted, so that the power can fail before any of them; from then on nothing works: [`FakeDisk::futures`] says what comes up again.
//!
//! What real storage refuses is refused (`port`): writes past the end of a device, to a medium that may not be written,
//! beyond the room there is, into a slot that has vanished, direct reads that are not aligned. And reads fail (`wear`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lie::{AT_START, LOADERS, Teller};
pub use super::lie::{Lie, Operation, Step, class};
pub use super::medium::Medium;
use super::medium::{Node, is_memory};
use super::outcome::{Outcome, futures};
use super::wear::Wear;

/// A moment at which the power can fail.
#[derive(Debug, Clone)]
pub struct Moment {
    /// The operation that would come next.
    pub number: u64,
    /// The step that came before it.
    pub behind: Option<Step>,
    medium: Medium,
}

impl Moment {
    /// Returns what every different outcome of a power cut at this moment would leave.
    pub fn futures(&self, outcomes: &[Outcome]) -> Vec<(Outcome, Medium)> {
        futures(&self.medium, outcomes)
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) medium: Medium,
    pub(super) wear: Wear,
    done: u64,
    cut_before: Option<u64>,
    dead: bool,
    kill_before: Option<u64>,
    /// Whoever is at work is not of ours.
    spared: bool,
    /// Whoever is at work has changed nothing yet since it was started.
    starting: bool,
    killed: bool,
    teller: Teller,
    trace: Vec<Step>,
    pub(super) written: BTreeMap<String, u64>,
    recorded: Option<Vec<Moment>>,
}

/// The disk.
#[derive(Debug, Clone, Default)]
pub struct FakeDisk(Arc<Mutex<State>>);

fn dead() -> io::Error {
    io::Error::other("the power is off")
}

impl FakeDisk {
    /// Puts a picture back, with the power on.
    pub fn of(medium: Medium) -> Self {
        Self(Arc::new(Mutex::new(State { medium, ..State::default() })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a block device of `bytes`.
    pub fn device(&self, path: &Path, bytes: Vec<u8>) {
        self.state().medium.add(path, Node::of(bytes, true));
    }

    /// Puts a durable file somewhere, as a factory or a kernel does.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let state = &mut *self.state();
        let folder = path.parent().unwrap_or(path).to_owned();
        state.medium.folders.insert(folder);
        state.medium.add(path, Node::of(bytes.to_vec(), false));
    }

    /// Has a file or device refuse to be written.
    pub fn set_read_only(&self, path: &Path, read_only: bool) {
        if let Some(node) = self.state().medium.node(path) {
            node.read_only = read_only;
        }
    }

    /// Takes a device away, as a card that is pulled.
    pub fn unplug(&self, path: &Path) {
        let state = &mut *self.state();
        state.medium.names.remove(path);
        state.medium.durable_names.remove(path);
    }

    /// Says how many bytes files may still take.
    pub fn set_room(&self, room: Option<u64>) {
        self.state().medium.room = room;
    }

    /// Returns what a reader sees.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        Some(self.state().medium.node(path)?.seen.bytes().to_vec())
    }

    /// Returns every file that is kept, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let is_file = |node: &usize| !state.medium.nodes[*node].is_device;
        state.medium.names.iter().filter(|(_, node)| is_file(node)).map(|(path, _)| path.clone()).collect()
    }

    /// Has the power fail before the operation with this number, counted from now; 1 is the next one.
    pub fn cut_before(&self, number: u64) {
        let state = &mut *self.state();
        state.cut_before = Some(state.done + number);
    }

    /// Has the agent, or recovery, die before the operation with this number: the power stays, and so does what it has written.
    pub fn kill_before(&self, number: u64) {
        let state = &mut *self.state();
        state.kill_before = Some(state.done + number);
    }

    /// Spares whoever does something now, or does not: a boot loader does not die as a program of ours does.
    pub(super) fn sparing<T>(&self, spared: bool, work: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut self.state().spared, spared);
        let done = work();
        self.state().spared = before;
        done
    }

    /// A program of ours is started.
    pub(super) fn starts(&self) {
        self.state().starting = true;
    }

    /// Tells whether the agent has died.
    pub fn is_killed(&self) -> bool {
        self.state().killed
    }

    /// Lets the agent be started again, where it had died.
    pub fn revive(&self) {
        self.state().killed = false;
    }

    /// Keeps a picture before every operation from here on.
    pub fn record(&self) {
        self.state().recorded = Some(Vec::new());
    }

    /// Returns the pictures.
    pub fn recorded(&self) -> Vec<Moment> {
        self.state().recorded.take().unwrap_or_default()
    }

    /// Takes a sync out.
    pub fn lie(&self, lie: Option<Lie>) {
        self.state().teller.lie = lie;
    }

    /// Returns what was taken out.
    pub fn lie_told(&self) -> Option<Lie> {
        self.state().teller.lie.clone()
    }

    /// Tells whether the power has failed.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Returns how many operations were done.
    pub fn done(&self) -> u64 {
        self.state().done
    }

    /// Returns every operation since the beginning, with the class of its place.
    pub fn trace(&self) -> Vec<Step> {
        self.state().trace.clone()
    }

    /// Returns the bytes that were written, by the class of their place.
    pub fn written(&self) -> BTreeMap<String, u64> {
        self.state().written.clone()
    }

    /// Returns what every different outcome of a power cut at this moment would leave.
    pub fn futures(&self, outcomes: &[Outcome]) -> Vec<(Outcome, Medium)> {
        futures(&self.state().medium, outcomes)
    }

    /// Goes down in order: everything is made durable, and memory is emptied.
    pub fn shut_down(&self) -> Medium {
        let state = self.state();
        Medium { room: state.medium.room, ..Outcome::EVERYTHING.of(&state.medium) }
    }

    /// Goes down in order and comes up again; the count of operations goes on.
    pub fn restart(&self) {
        let medium = self.shut_down();
        let state = &mut *self.state();
        state.medium = medium;
        state.teller.restart();
    }

    /// Returns what tells this disk, once it is off, from every other one.
    pub fn fingerprint(&self) -> tern_protocol::digest::Digest {
        self.state().medium.fingerprint()
    }

    pub(super) fn change(&self, operation: Operation, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.dead {
            return Err(dead());
        }
        if is_memory(path) {
            return Ok(guard);
        }
        if state.cut_before == Some(state.done + 1) {
            state.dead = true;
            return Err(dead());
        }
        if !state.spared && state.kill_before.is_some_and(|number| number <= state.done + 1) {
            (state.kill_before, state.killed) = (None, true);
        }
        if state.killed {
            return Err(io::Error::other("the agent was killed"));
        }
        if let Some(recorded) = &mut state.recorded {
            let (number, behind) = (state.done + 1, state.trace.last().cloned());
            recorded.push(Moment { number, behind, medium: state.medium.clone() });
        }
        state.done += 1;
        let step = state.step(operation, class(path));
        state.trace.push(step);
        Ok(guard)
    }

    pub(super) fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        match (state.dead, state.killed) {
            (true, _) => Err(dead()),
            (_, true) => Err(io::Error::other("the agent was killed")),
            _ => Ok(state),
        }
    }
}

impl State {
    /// Names a step: what a boot loader does, and what a start makes durable before it changes anything, are for themselves.
    fn step(&mut self, operation: Operation, class: String) -> Step {
        if self.spared {
            return (operation, format!("{LOADERS}{class}"));
        }
        match operation {
            Operation::Write | Operation::Size => self.starting = false,
            Operation::Sync | Operation::SyncFolder if self.starting => {
                return (operation, format!("{class}{AT_START}"));
            }
            Operation::Sync | Operation::SyncFolder | Operation::Name => {}
        }
        (operation, class)
    }

    /// Makes durable what the last step says, unless the harness has taken that out.
    pub(super) fn sync(&mut self, path: &Path, node: usize) {
        let Some((step, before)) = self.trace.split_last() else { return };
        self.teller.sync(&mut self.medium, step, before.last(), (path, node));
    }
}
