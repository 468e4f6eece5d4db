//! What the harness takes out of the agent's code: syncs that the disk only pretends to do.

use std::path::{Path, PathBuf};

use super::medium::Medium;

/// An operation that changes something, as the campaign names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Bytes of a file or device.
    Write,
    /// Where a file ends.
    Size,
    /// A file or device made durable.
    Sync,
    /// A name given, changed or taken.
    Name,
    /// Names made durable.
    SyncFolder,
}

impl Operation {
    /// Returns what stands for it where a place in the code is told by what came before.
    pub(super) fn as_place(self) -> Self {
        if self == Self::SyncFolder { Self::Sync } else { self }
    }
}

/// An operation, and the class of its place.
pub type Step = (Operation, String);

/// What the class of a boot loader's step begins with: nothing of it is ours to take out.
pub(super) const LOADERS: &str = "the loader's ";
/// What the class of a sync ends with by which a start makes durable what it finds, before it changes anything.
pub(super) const AT_START: &str = " at start";

/// A sync that the disk only pretends to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lie {
    /// Never done, for places of this class.
    Never(Operation, String),
    /// The same, only right behind such an operation: one of several places in the agent's code. Behind the sync of a file or
    /// of a folder is one: which of them a record ends with depends on whether it was there before.
    NeverBehind(Operation, String, Operation),
    /// Done only after the next sync of the other class: the order of two writes is turned round.
    After(Operation, String, Operation, String),
}

impl Lie {
    /// Tells whether it takes out what only a start does.
    pub fn is_of_a_start(&self) -> bool {
        matches!(self, Self::Never(_, class) if class.ends_with(AT_START))
    }
}

/// The folder of a component.
const COMPONENT: &str = "component";

/// What a path is to the campaign: its file name without the number of a copy. The files of the two slots are one, and so
/// are their entries, and those of all components: what is done to them is done in the same places of the agent's code.
pub fn class(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.strip_suffix(".new").map_or(name.clone(), |name| format!("{name} first"));
    let name = name.replace(".0", "").replace(".1", "");
    let name = name.replace("tern-a", "tern").replace("tern-b", "tern");
    let name = match name.split_once('.') {
        Some(("a" | "b", what)) => format!("slot.{what}"),
        _ => name,
    };
    let is_components =
        |folder: Option<&Path>| folder.and_then(Path::file_name).is_some_and(|folder| folder == "components");
    let folder = path.parent();
    match (is_components(folder), is_components(folder.and_then(Path::parent))) {
        (true, _) => COMPONENT.to_owned(),
        (_, true) => format!("{COMPONENT}/{name}"),
        _ => name,
    }
}

/// The lie that is told, and the syncs that it has put off.
#[derive(Debug, Default)]
pub(super) struct Teller {
    pub(super) lie: Option<Lie>,
    deferred: Vec<(Operation, PathBuf, usize)>,
}

impl Teller {
    /// What was put off is forgotten with the power.
    pub(super) fn restart(&mut self) {
        self.deferred.clear();
    }

    /// Does a sync, unless it was taken out; `before` is the step that came right before it.
    pub(super) fn sync(
        &mut self,
        medium: &mut Medium,
        step: &Step,
        before: Option<&Step>,
        at: (&Path, usize),
    ) {
        let (operation, class) = step;
        let (path, node) = at;
        match &self.lie {
            Some(Lie::Never(of, what)) if (of, what) == (operation, class) => return,
            Some(Lie::NeverBehind(of, what, behind))
                if (of, what) == (operation, class)
                    && before.is_some_and(|(it, _)| it.as_place() == *behind) =>
            {
                return;
            }
            Some(Lie::After(of, what, ..)) if (of, what) == (operation, class) => {
                self.deferred.push((*operation, path.to_owned(), node));
                return;
            }
            _ => settle(medium, *operation, path, node),
        }
        if matches!(&self.lie, Some(Lie::After(_, _, of, what)) if (of, what) == (operation, class)) {
            for (operation, path, node) in std::mem::take(&mut self.deferred) {
                settle(medium, operation, &path, node);
            }
        }
    }
}

fn settle(medium: &mut Medium, operation: Operation, path: &Path, node: usize) {
    match operation {
        Operation::Sync => medium.nodes[node].settle(),
        _ => medium.settle_names(path),
    }
}
