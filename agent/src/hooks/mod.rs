//! Hooks: the integrator's programs around the update itself.
//!
//! When which of them runs, and what its exit code does, is in [`crate::core::hook`]. Each exits with 0 to go on, 75
//! (`EX_TEMPFAIL` of sysexits) for "not now", anything else for "no". After a power cut hooks run again, so twice must be
//! harmless.
//!
//! | module | what |
//! |---|---|
//! | `log` | what hooks said last, in files |

pub(crate) mod log;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use crate::core::hook::HookStep;

use crate::command::{Context, Ending, Program, ProgramFailure};

/// Exit code that asks for another time.
pub const NOT_NOW: i32 = 75;
/// Hooks of one device.
pub const HOOKS_MAX: usize = 64;

/// A program that runs at one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub step: HookStep,
    /// What.
    pub program: Program,
    /// Takes back what it did.
    pub undo: Option<Program>,
}

/// What hooks are told.
#[derive(Debug, Clone)]
pub struct Told {
    /// As every program.
    pub context: Context,
    /// The version that ran before.
    pub from_version: String,
    /// Where user data is.
    pub data: Vec<PathBuf>,
    /// Why something is undone; empty otherwise.
    pub reason: String,
    /// The folder for what they say.
    pub logs: PathBuf,
}

/// Says why the update may not go on.
#[derive(Debug, thiserror::Error)]
pub enum HookRefusal {
    /// A hook asks for another time: undo, then retry.
    #[error("hook {name} says not now")]
    NotNow {
        /// The hook.
        name: String,
        /// The end of its output.
        output_tail: String,
    },
    /// A hook failed: undo, then give up.
    #[error("a hook failed")]
    Failed(#[source] ProgramFailure),
}

impl HookRefusal {
    /// Returns one line for a report or a screen.
    pub fn summary(&self) -> String {
        match self {
            Self::NotNow { name, output_tail } if output_tail.is_empty() => {
                format!("hook {name}, which says not now")
            }
            Self::NotNow { name, output_tail } => {
                let mut line = format!("hook {name}, which says not now: {output_tail}");
                line.truncate(line.floor_char_boundary(tern_protocol::limits::REASON_MAX));
                line
            }
            Self::Failed(failure) => failure.summary(),
        }
    }
}

/// Says which hooks could not be undone.
#[derive(Debug, thiserror::Error)]
#[error("{} hooks could not be undone", 1 + .more.len())]
pub struct NotUndone {
    /// The first.
    #[source]
    pub first: HookRefusal,
    /// The names of the others.
    pub more: Vec<String>,
}

impl NotUndone {
    /// Returns one line for a report or a screen.
    pub fn summary(&self) -> String {
        let first = self.first.summary();
        match self.more.is_empty() {
            true => format!("undo of {first}"),
            false => format!("undo of {}, and of {first}", self.more.join(", ")),
        }
    }
}

/// Runs the hooks of `step` in order; the first refusal ends it.
pub async fn run_hooks(hooks: &[Hook], step: HookStep, told: &Told) -> Result<(), HookRefusal> {
    for hook in hooks.iter().filter(|hook| hook.step == step) {
        run(&hook.program, step, told).await?;
        tracing::info!(hook = hook.program.name, step = step.as_str(), "hook done");
    }
    Ok(())
}

/// Takes back what hooks up to and with the step `through` may have done, in reverse order; then come the hooks of step
/// `undo`. It always runs to its end, because half of an undo is the worst of both, and then tells what was refused.
pub async fn undo_hooks(hooks: &[Hook], through: Option<HookStep>, told: &Told) -> Result<(), NotUndone> {
    let mut result = Ok(());
    for program in to_undo(hooks, through) {
        match run(program, HookStep::Undo, told).await {
            Ok(()) => tracing::info!(hook = program.name, "undone"),
            Err(refusal) => {
                tracing::warn!(error = &refusal as &dyn std::error::Error, "an undo hook failed");
                match &mut result {
                    Ok(()) => result = Err(NotUndone { first: refusal, more: Vec::new() }),
                    Err(before) => before.more.push(program.name.clone()),
                }
            }
        }
    }
    result
}

fn to_undo(hooks: &[Hook], through: Option<HookStep>) -> Vec<&Program> {
    let begun = HookStep::ORDER.iter().rev().filter(|step| through.is_some_and(|through| **step <= through));
    // Within a step in the order of the file, backwards.
    let undone = begun.flat_map(|step| {
        hooks.iter().rev().filter(move |hook| hook.step == *step).filter_map(|hook| hook.undo.as_ref())
    });
    let last = hooks.iter().filter(|hook| hook.step == HookStep::Undo).map(|hook| &hook.program);
    undone.chain(last).collect()
}

async fn run(program: &Program, step: HookStep, told: &Told) -> Result<(), HookRefusal> {
    let data: Vec<_> = told.data.iter().map(|area| area.to_string_lossy()).collect();
    let data = data.join(":");
    let mut more = vec![
        ("TERN_STEP", step.as_str()),
        ("TERN_FROM_VERSION", &told.from_version),
        ("TERN_DATA", &data),
        ("TERN_REASON", &told.reason),
    ];
    // For hooks that have it exchange folders. Not where it was replaced meanwhile: then they look for it by name.
    let agent = std::env::current_exe().ok().filter(|path| path.is_file());
    let agent = agent.as_deref().and_then(Path::to_str);
    more.extend(agent.map(|agent| ("TERN_AGENT", agent)));
    let finished = program.run_keeping(log::KEPT, &told.context, &more).await;
    if let Err(error) = log::keep(&told.logs, step.as_str(), &program.name, &finished) {
        // What it did counts, not whether somebody can read it.
        tracing::warn!(hook = program.name, error = &error as &dyn std::error::Error, "its output is lost");
    }
    let (name, output_tail) = (program.name.clone(), finished.output_tail);
    match finished.ending {
        Ending::Exit(0) => Ok(()),
        Ending::Exit(NOT_NOW) => Err(HookRefusal::NotNow { name, output_tail }),
        reason => Err(HookRefusal::Failed(ProgramFailure { name, reason, output_tail })),
    }
}
