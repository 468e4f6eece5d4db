//! Hooks: the integrator's programs around the update itself.
//!
//! `pre-update` hooks stop services, back up and migrate user data; `undo` hooks take that back. Each exits with
//! 0 to go on, 75 (`EX_TEMPFAIL` of sysexits) for "not now", anything else for "no". After a power cut hooks run
//! again, so twice must be harmless.

use serde::{Deserialize, Serialize};

use crate::command::{Context, Ending, Program, ProgramFailure};

/// Exit code that asks for another time.
const NOT_NOW: i32 = 75;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookStep {
    /// Before the new release is armed.
    PreUpdate,
    /// After the attempt was given up, or the previous release is back.
    Undo,
}

impl HookStep {
    /// Returns the step as hooks see it in `TERN_STEP`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreUpdate => "pre-update",
            Self::Undo => "undo",
        }
    }
}

/// A program that runs at one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub step: HookStep,
    /// What.
    pub program: Program,
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

/// Runs the hooks of `step` in order. Before an update the first refusal ends it; an undo always runs to its end,
/// because half of an undo is the worst of both, and then tells the first refusal.
pub async fn run_hooks(hooks: &[Hook], step: HookStep, context: &Context) -> Result<(), HookRefusal> {
    let mut first = Ok(());
    for hook in hooks.iter().filter(|hook| hook.step == step) {
        match (run(&hook.program, step, context).await, step) {
            (Ok(()), _) => tracing::info!(hook = hook.program.name, step = step.as_str(), "hook done"),
            (Err(refusal), HookStep::PreUpdate) => return Err(refusal),
            (Err(refusal), HookStep::Undo) => {
                tracing::warn!(error = &refusal as &dyn std::error::Error, "an undo hook failed");
                first = first.and(Err(refusal));
            }
        }
    }
    first
}

async fn run(program: &Program, step: HookStep, context: &Context) -> Result<(), HookRefusal> {
    let finished = program.run(context, &[("TERN_STEP", step.as_str())]).await;
    let (name, output_tail) = (program.name.clone(), finished.output_tail);
    match finished.ending {
        Ending::Exit(0) => Ok(()),
        Ending::Exit(NOT_NOW) => Err(HookRefusal::NotNow { name, output_tail }),
        reason => Err(HookRefusal::Failed(ProgramFailure { name, reason, output_tail })),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::slot::SlotName;

    struct Scene {
        folder: tempfile::TempDir,
        hooks: Vec<Hook>,
    }

    /// Hooks that write their step and number down and then exit with the given codes.
    fn scene(codes: &[(HookStep, i32)]) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let hook = |(number, (step, code)): (usize, &(HookStep, i32))| {
            let script =
                format!("echo $TERN_STEP-{number} >> $TERN_SLOT_PATH; echo said {number}; exit {code}");
            let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
            let deadline = Duration::from_secs(20);
            Hook { step: *step, program: Program { name: format!("hook-{number}"), command, deadline } }
        };
        Scene { hooks: codes.iter().enumerate().map(hook).collect(), folder }
    }

    async fn run(scene: &Scene, step: HookStep) -> (Result<(), HookRefusal>, String) {
        let log = scene.folder.path().join("log");
        let context = Context {
            slot: SlotName::B,
            slot_path: log.clone(),
            rc: 2,
            version: "2".into(),
            device: "r-1".parse().unwrap(),
        };
        let result = run_hooks(&scene.hooks, step, &context).await;
        (result, read(&log))
    }

    fn read(log: &Path) -> String {
        std::fs::read_to_string(log).unwrap_or_default().replace('\n', " ")
    }

    use HookStep::{PreUpdate, Undo};

    #[tokio::test]
    async fn hooks_of_one_step_run_in_order_and_the_others_do_not() {
        let scene = scene(&[(PreUpdate, 0), (Undo, 0), (PreUpdate, 0)]);

        let (result, log) = run(&scene, PreUpdate).await;

        assert!(result.is_ok());
        assert_eq!(log, "pre-update-0 pre-update-2 ");
    }

    #[tokio::test]
    async fn exit_75_means_not_now_and_stops_the_rest() {
        let scene = scene(&[(PreUpdate, 75), (PreUpdate, 0)]);

        let (result, log) = run(&scene, PreUpdate).await;

        assert!(
            matches!(result, Err(HookRefusal::NotNow { name, output_tail }) if name == "hook-0" && output_tail == "said 0")
        );
        assert_eq!(log, "pre-update-0 ");
    }

    #[tokio::test]
    async fn any_other_code_fails_the_step() {
        for code in [1, 74, 76, 127] {
            let (result, _) = run(&scene(&[(PreUpdate, code)]), PreUpdate).await;

            assert!(matches!(result, Err(HookRefusal::Failed(_))), "{code}");
        }
    }

    #[tokio::test]
    async fn an_undo_runs_to_its_end_and_tells_the_first_refusal() {
        let scene = scene(&[(Undo, 0), (Undo, 1), (Undo, 2)]);

        let (result, log) = run(&scene, Undo).await;

        assert_eq!(log, "undo-0 undo-1 undo-2 ");
        assert!(matches!(result, Err(HookRefusal::Failed(failure)) if failure.name == "hook-1"));
    }

    #[tokio::test]
    async fn without_hooks_nothing_stands_in_the_way() {
        assert!(run(&scene(&[]), PreUpdate).await.0.is_ok());
    }
}
