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
        let script = format!("echo $TERN_STEP-{number} >> $TERN_SLOT_PATH; echo said {number}; exit {code}");
        let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
        let deadline = Duration::from_secs(20);
        let program = Program { name: format!("hook-{number}"), command, deadline };
        let undo = step.can_be_undone().then(|| program.clone());
        Hook { step: *step, program, undo }
    };
    Scene { hooks: codes.iter().enumerate().map(hook).collect(), folder }
}

impl Scene {
    fn told(&self) -> Told {
        let context = Context {
            slot: SlotName::B,
            slot_path: self.folder.path().join("log"),
            rc: 2,
            version: "2".into(),
            device: "r-1".parse().unwrap(),
        };
        let data = vec!["/data/app".into(), "/data/user".into()];
        let logs = self.folder.path().join("hooks");
        Told { context, from_version: "1".into(), data, reason: "a probe failed".into(), logs }
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("hooks").join(name)).unwrap()
    }
}

async fn run(scene: &Scene, step: HookStep) -> (Result<(), HookRefusal>, String) {
    let result = match step {
        Undo => undo_hooks(&scene.hooks, None, &scene.told()).await.map_err(|error| error.first),
        step => run_hooks(&scene.hooks, step, &scene.told()).await,
    };
    (result, read(&scene.folder.path().join("log")))
}

fn one(script: &str, deadline: Duration) -> Scene {
    let mut scene = scene(&[(PreUpdate, 0)]);
    let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    scene.hooks[0].program = Program { name: "big one/1".into(), command, deadline };
    scene
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default().replace('\n', " ")
}

use HookStep::{Arm, Migrate, PreUpdate, Snapshot, Undo};

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

#[tokio::test]
async fn what_may_have_begun_is_undone_in_reverse_and_then_come_the_hooks_of_undo() {
    let scene = scene(&[(Undo, 0), (Arm, 0), (Migrate, 0), (PreUpdate, 1), (PreUpdate, 0), (Snapshot, 0)]);

    let result = undo_hooks(&scene.hooks, Some(Migrate), &scene.told()).await;

    let Err(error) = result else { panic!("hook 3 cannot be undone") };
    assert_eq!(error.summary(), "undo of hook-3: exit code 1, saying \"said 3\"");
    let log = read(&scene.folder.path().join("log"));
    assert_eq!(log, "undo-2 undo-5 undo-4 undo-3 undo-0 ");
}

#[tokio::test]
async fn a_hook_is_told_all_that_the_page_promises() {
    let words =
        "TERN_STEP TERN_SLOT TERN_RC TERN_VERSION TERN_FROM_VERSION TERN_DATA TERN_REASON TERN_DEVICE";
    let script = format!("for word in {words}; do eval \"echo \\$$word\"; done");
    let scene = one(&script, Duration::from_secs(20));

    assert!(run(&scene, PreUpdate).await.0.is_ok());

    let said = scene.said("pre-update-big_one_1.log");
    let expected = "pre-update\nb\n2\n2\n1\n/data/app:/data/user\na probe failed\nr-1\n";
    assert_eq!(said, format!("pre-update: exit code 0\n{expected}"));
}

#[tokio::test]
async fn a_hook_that_writes_a_hundred_megabytes_keeps_its_last_words_and_no_more() {
    let scene =
        one("head -c 100000000 /dev/zero | tr '\\0' 'x'; echo the end; exit 3", Duration::from_secs(60));

    let (result, _) = run(&scene, PreUpdate).await;

    let Err(HookRefusal::Failed(failure)) = result else { panic!("{result:?}") };
    assert!(failure.output_tail.len() <= 512 && failure.output_tail.ends_with("the end"));
    let said = scene.said("pre-update-big_one_1.log");
    assert!(said.len() < log::KEPT + 100, "{} B", said.len());
    let left_out = 100_000_000 + "the end\n".len() - log::KEPT;
    assert!(said.starts_with(&format!("pre-update: exit code 3; {left_out} B before this are left out\n")));
    assert!(said.ends_with("xthe end\n"));
}

#[tokio::test]
async fn a_hook_that_never_ends_and_one_that_leaves_children_are_over_at_their_deadline() {
    for script in
        ["sleep 1000", "(sleep 1000 & sleep 1000) & wait", "trap '' TERM HUP; while :; do echo on; done"]
    {
        let begun = crate::clock::uptime();
        let (result, _) = run(&one(script, Duration::from_millis(300)), PreUpdate).await;

        let Err(HookRefusal::Failed(failure)) = result else { panic!("{script}: {result:?}") };
        assert!(matches!(failure.reason, Ending::TimedOut(_)), "{script}: {failure:?}");
        assert!(crate::clock::uptime() - begun < Duration::from_secs(10), "{script}");
    }
    // Whoever forks twice and goes is in the group all the same.
    let scene =
        one("(sh -c 'sleep 1000 & echo $! >> \"$TERN_SLOT_PATH\"' &) ; sleep 0.3", Duration::from_secs(20));
    let (result, pid) = run(&scene, PreUpdate).await;
    assert!(result.is_ok());
    assert!(crate::command::is_gone(pid.trim()).await, "{pid}");
}

#[tokio::test]
async fn only_so_many_logs_are_kept_and_each_is_replaced_whole() {
    let scene = scene(&[]);
    let folder = scene.folder.path().join("hooks");
    for number in 0..40 {
        let finished = crate::command::Finished {
            ending: Ending::Exit(0),
            output_tail: String::new(),
            output: format!("said {number}\n").into_bytes(),
            left_out: 0,
        };
        log::keep(&folder, PreUpdate.as_str(), &format!("hook-{:02}", number % 36), &finished).unwrap();
    }

    let kept = std::fs::read_dir(&folder).unwrap().count();
    assert!(kept <= 32, "{kept}");
    assert_eq!(scene.said("pre-update-hook-03.log"), "pre-update: exit code 0\nsaid 39\n");
}
