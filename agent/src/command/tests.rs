use std::path::Path;

use super::*;

fn context() -> Context {
    Context {
        slot: SlotName::B,
        slot_path: "/slots/b.img".into(),
        rc: 7,
        version: "1.{rc}".into(),
        device: "r-1".parse().unwrap(),
    }
}

fn program(command: &[&str]) -> Program {
    let command = command.iter().map(|part| (*part).to_owned()).collect();
    Program { name: "probe".into(), command, deadline: Duration::from_secs(20) }
}

fn shell(script: &str) -> Program {
    program(&["/bin/sh", "-c", script])
}

async fn run(program: Program) -> Finished {
    program.run(&context(), &[]).await
}

#[tokio::test]
async fn a_program_is_told_what_it_is_about() {
    let script = "echo $TERN_SLOT $TERN_SLOT_PATH $TERN_RC $TERN_VERSION $TERN_DEVICE $TERN_STEP \"$@\"";
    let command = ["/bin/sh", "-c", script, "-", "{slot}={slot_path}", "{rc}{{version}}", "{device}{no}{"];

    let finished = program(&command).run(&context(), &[("TERN_STEP", "undo")]).await;

    assert!(matches!(finished.ending, Ending::Exit(0)), "{finished:?}");
    let expected = "b /slots/b.img 7 1.{rc} r-1 undo b=/slots/b.img 7{1.{rc}} r-1{no}{";
    assert_eq!(finished.output_tail, expected);
}

#[tokio::test]
async fn exit_code_signal_and_missing_executable_are_told_apart() {
    assert!(matches!(run(shell("exit 3")).await.ending, Ending::Exit(3)));
    assert!(matches!(run(shell("kill -9 $$")).await.ending, Ending::Signal(9)));
    assert!(matches!(run(program(&["/no/such/probe"])).await.ending, Ending::Missing(_)));
    assert!(matches!(run(program(&["/etc/passwd"])).await.ending, Ending::NotRun(_)));
    assert!(matches!(run(program(&[])).await.ending, Ending::NotRun(_)));
}

#[tokio::test]
async fn at_the_deadline_the_whole_family_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grandchild");
    let script = format!("sleep 1000 & echo $! > {}; echo asleep; wait", path.display());
    let program = Program { deadline: Duration::from_millis(300), ..shell(&script) };

    let finished = run(program).await;

    assert!(matches!(finished.ending, Ending::TimedOut(_)), "{finished:?}");
    assert_eq!(finished.output_tail, "asleep");
    let grandchild = std::fs::read_to_string(path).unwrap();
    assert!(is_gone(grandchild.trim()).await);
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it_and_does_not_hold_us_up() {
    let finished = run(shell("sleep 1000 & echo $!")).await;

    assert!(matches!(finished.ending, Ending::Exit(0)), "{finished:?}");
    assert!(is_gone(&finished.output_tail).await);
}

#[tokio::test]
async fn whoever_leaves_the_group_with_the_output_open_does_not_hold_us_up() {
    let finished = run(shell("setsid sleep 3 & sleep 0.2; echo done")).await;

    assert!(matches!(finished.ending, Ending::Exit(0)), "{finished:?}");
    assert_eq!(finished.output_tail, "done");
}

#[tokio::test]
async fn of_much_output_the_end_is_kept() {
    let finished = run(shell("yes line | head -n 100000; echo the end >&2")).await;

    assert!(finished.output_tail.ends_with("line\nthe end"), "{finished:?}");
    assert!(finished.output_tail.len() <= REASON_MAX);
}

#[tokio::test]
async fn output_without_end_is_cut_off_by_the_deadline() {
    let finished = run(Program { deadline: Duration::from_millis(200), ..shell("yes; true") }).await;

    assert!(matches!(finished.ending, Ending::TimedOut(_)), "{finished:?}");
}

#[tokio::test]
async fn a_program_that_nobody_waits_for_any_more_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let script = format!("echo $$ > {}.new; mv {0}.new {0}; sleep 1000", path.display());
    let task = tokio::spawn(run(shell(&script)));
    while !path.exists() {
        sleep(Duration::from_millis(5)).await;
    }

    task.abort();

    assert!(task.await.is_err());
    assert!(is_gone(std::fs::read_to_string(&path).unwrap().trim()).await);
}

#[test]
fn a_tail_of_broken_text_stays_below_its_ceiling() {
    let mut tail = Tail { most: REASON_MAX, ..Tail::default() };

    tail.push(&[0xff; 3 * REASON_MAX]);

    assert!(!tail.text().is_empty() && tail.text().len() <= REASON_MAX);
}

#[test]
fn a_summary_fits_a_report() {
    let failure = ProgramFailure {
        name: "modem".into(),
        reason: Ending::Exit(2),
        output_tail: "\u{e4}".repeat(REASON_MAX),
    };

    let summary = failure.summary();

    assert!(summary.starts_with("modem: exit code 2, saying \"\u{e4}") && summary.len() <= REASON_MAX);
}

/// Waits until `pid` no longer runs: the kill is sent, but the kernel takes a moment.
pub(crate) async fn is_gone(pid: &str) -> bool {
    assert!(!pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()), "{pid:?} is no process id");
    for _ in 0..400 {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        // A zombie has ended; who adopted it may not have reaped it yet.
        if stat.is_empty() || stat.contains(") Z ") {
            return true;
        }
        sleep(Duration::from_millis(5)).await;
    }
    false
}
