//! Names the operations whose order keeps the service's promises, so that a test can end the process at each of them.
//!
//! Without the feature `fault-points` all of this is empty, and a release build with the feature does not compile: no
//! program that anybody ships can be told to die, or to break its order. With the feature nothing happens either until
//! the process itself installs `Hooks`; no flag, file or environment variable does. `tern` never does.

#[cfg(all(feature = "fault-points", not(debug_assertions)))]
compile_error!("the feature fault-points is for tests: it must not be in a release build");

use crate::core::service::Output;

/// An operation that a process may die before or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening cuts a torn end off the ledger.
    CutTail,
    /// Opening syncs what it has read of the ledger, and its folders.
    SyncOpened,
    /// A batch is written to the ledger.
    Append,
    /// The ledger's file is synced.
    Sync,
    /// The ledger's next file is made.
    BeginSegment,
    /// The ledger's folder is synced, with the new name in it.
    SyncFolder,
    /// A batch is written to the store.
    Apply,
    /// The store is flushed and synced.
    Flush,
    /// The store is set aside and begun anew.
    Wipe,
    /// A message goes to the broker.
    Publish,
    /// A command is replied to.
    Reply,
}

/// On which side of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// Nothing of it is done yet.
    Before,
    /// It is done.
    After,
}

/// What a test does at the points.
#[cfg(feature = "fault-points")]
pub struct Hooks {
    /// Called on both sides of every operation; it need not return.
    pub at: Box<dyn Fn(Operation, Edge) + Send + Sync>,
    /// Deliberately wrong: tells which messages leave before what they tell of is recorded.
    pub leaves_early: Box<dyn Fn(&Output) -> bool + Send + Sync>,
}

#[cfg(feature = "fault-points")]
static HOOKS: std::sync::OnceLock<Hooks> = std::sync::OnceLock::new();

/// Installs what happens at the points of this process, once and for all; `false` if something is installed already.
#[cfg(feature = "fault-points")]
pub fn install(hooks: Hooks) -> bool {
    HOOKS.set(hooks).is_ok()
}

/// Runs an operation between its two points.
#[inline]
pub(crate) fn around<T>(operation: Operation, run: impl FnOnce() -> T) -> T {
    at(operation, Edge::Before);
    let result = run();
    at(operation, Edge::After);
    result
}

#[cfg(not(feature = "fault-points"))]
#[inline]
fn at(_: Operation, _: Edge) {}

#[cfg(feature = "fault-points")]
fn at(operation: Operation, edge: Edge) {
    if let Some(hooks) = HOOKS.get() {
        (hooks.at)(operation, edge);
    }
}

/// Splits off what leaves before it is recorded: nothing, but where a test wants to see that this is noticed.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub(crate) fn split_early(outputs: Vec<Output>) -> (Vec<Output>, Vec<Output>) {
    (Vec::new(), outputs)
}

#[cfg(feature = "fault-points")]
pub(crate) fn split_early(outputs: Vec<Output>) -> (Vec<Output>, Vec<Output>) {
    let Some(hooks) = HOOKS.get() else { return (Vec::new(), outputs) };
    outputs.into_iter().partition(|output| (hooks.leaves_early)(output))
}
