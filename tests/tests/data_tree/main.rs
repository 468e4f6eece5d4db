//! User data through updates, migrations, rollbacks, failed migrations and cuts: every name, byte, hole, link, owner, mode, time
//! and attribute of two trees, walked before and after, with the hooks of `deploy/hooks` and real processes.
//!
//! One laboratory, and devices that take the same releases. Each has a plan for every release: where it is cut, twice. A point is
//! where a hook, or a program that a hook runs, stops and waits to be killed, so a cut is where its name says. Some
//! devices have a copy that is broken in one way each: there the walk has to see it.
//!
//! A cut takes what a device keeps in memory, not what its kernel has not written yet: that is `power_cuts`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod points;
mod terminal;

use std::time::Duration;

use tern_tests::lab::tree::Walk;
use tern_tests::lab::{Lab, made, wait_telling};

use points::{CUT, HOLD, KILL, Stop};
use terminal::{Terminal, expected};

const PATIENCE: Duration = Duration::from_secs(240);

/// Devices that copy as they should, and where each is cut: in an update without a migration, one with a migration, one with a
/// migration and a bad trial, and one whose migration fails half way.
const PLANS: [[&[Stop]; 4]; 7] = [
    [&[], &[], &[HOLD], &[HOLD]],
    [
        &[KILL("pre-update"), CUT("snapshot-half")],
        &[KILL("migrate-half"), CUT("migrate-half")],
        &[CUT("migrate-half"), HOLD, KILL("undo-half")],
        &[KILL("snapshot-half"), HOLD, CUT("undo-half")],
    ],
    [
        &[KILL("snapshot-copied"), CUT("arm")],
        &[CUT("snapshot-half"), KILL("migrate-half")],
        &[CUT("post-boot"), HOLD, KILL("undo-exchanged")],
        &[KILL("migrate-half"), HOLD, CUT("undo-exchanged")],
    ],
    [
        &[CUT("download"), KILL("post-boot")],
        &[KILL("migrate"), CUT("post-boot")],
        &[HOLD, CUT("undo-half"), CUT("undo-copied")],
        &[CUT("migrate-half"), KILL("migrate-half"), HOLD],
    ],
    [
        &[KILL("arm"), CUT("probe")],
        &[CUT("migrate-half"), KILL("arm")],
        &[HOLD, CUT("undo-exchanged"), KILL("undo-exchanged")],
        &[HOLD, KILL("undo-copied"), KILL("undo-half")],
    ],
    [
        &[KILL("probe"), KILL("confirmed")],
        &[CUT("arm"), CUT("confirmed")],
        &[KILL("probe"), HOLD, KILL("undone")],
        &[HOLD, CUT("undo"), CUT("undone")],
    ],
    [
        &[KILL("snapshot-half"), KILL("snapshot-half")],
        &[KILL("post-boot"), CUT("probe")],
        &[HOLD, KILL("undo"), CUT("rolled-back")],
        &[HOLD, KILL("undo-exchanged"), CUT("undo-copied")],
    ],
];

/// What is broken of the copy on a device, and what the walk has to see after the rollback: all of the first, and of others the
/// second alone. `undo` is not run, and `half` of a tree is put back.
const BROKEN: [Broken; 7] = [
    Broken { how: "xattr", sees: &["attributes"], may: &[] },
    Broken { how: "sparse", sees: &["holes"], may: &[] },
    Broken { how: "links", sees: &["links"], may: &[] },
    Broken { how: "timestamps", sees: &["time"], may: &[] },
    Broken { how: "ownership", sees: &["owner"], may: &["mode"] },
    Broken { how: "undo", sees: &["content", "gone", "new"], may: &["time", "mode", "size", "holes"] },
    Broken { how: "half", sees: &["gone"], may: &["time", "links"] },
];

/// One way to break a copy.
#[derive(Debug, Clone, Copy)]
struct Broken {
    how: &'static str,
    sees: &'static [&'static str],
    may: &'static [&'static str],
}

#[test]
fn user_data_is_what_it_was_after_everything_but_a_migration_that_was_confirmed() {
    let lab = Lab::start();
    let mut terminals = Vec::new();
    let root = rustix::process::geteuid().is_root();
    let broken = BROKEN.into_iter().filter(|broken| broken.how != "ownership" || root);
    for (number, plans) in PLANS.iter().enumerate() {
        let Some(terminal) = Terminal::make(&lab, &format!("cut-{number}"), *plans, None) else { return };
        terminals.push(terminal);
    }
    for broken in broken {
        let name = format!("broken-{}", broken.how);
        terminals.extend(Terminal::make(&lab, &name, PLANS[0], Some(broken)));
    }
    terminals.iter_mut().for_each(Terminal::start);
    lab.wait_for_hellos();

    // An update without a migration leaves all of it alone.
    rolls_out(&lab, 2, &mut terminals);
    lab.wait_for_status("r2", "completed", PATIENCE);
    for terminal in &terminals {
        terminal.comes_to_rest(2, true);
        assert_eq!(terminal.walk().differs_from(&terminal.before), [""; 0], "{}", terminal.name());
    }

    // A migration that is confirmed leaves what it makes of it.
    rolls_out(&lab, 3, &mut terminals);
    lab.wait_for_status("r3", "completed", PATIENCE);
    let migrated = expected(&lab, 3);
    for terminal in &mut terminals {
        terminal.comes_to_rest(3, true);
        assert_eq!(but_the_schemas_time(&terminal.walk(), &migrated), [""; 0], "{}", terminal.name());
        terminal.before = terminal.walk();
    }

    // One whose release is not well leaves nothing of itself.
    rolls_out(&lab, 4, &mut terminals);
    for terminal in &terminals {
        terminal.comes_to_rest(4, false);
        let seen = terminal.walk().differs_from(&terminal.before);
        let Some(Broken { how, sees, may }) = terminal.broken else {
            assert_eq!(seen, [""; 0], "{}", terminal.name());
            continue;
        };
        let is = |line: &str, part: &str| line.ends_with(&format!(": {part}"));
        let missed: Vec<_> = sees.iter().filter(|part| !seen.iter().any(|line| is(line, part))).collect();
        assert!(missed.is_empty(), "{how} is broken, and of {missed:?} nothing is seen: {seen:#?}");
        let others = |line: &&String| !sees.iter().chain(may).any(|part| is(line, part));
        let more: Vec<_> = seen.iter().filter(others).collect();
        assert!(more.is_empty(), "{how} is broken, and more is seen: {more:#?}");
    }
    gives_up(&lab, "r4");
    terminals.retain(|terminal| terminal.broken.is_none());

    // One that fails half way, neither.
    rolls_out(&lab, 5, &mut terminals);
    for terminal in &terminals {
        terminal.comes_to_rest(5, false);
        assert_eq!(terminal.walk().differs_from(&terminal.before), [""; 0], "{}", terminal.name());
    }
}

/// Publishes and offers a release, and cuts every device where its plan says.
fn rolls_out(lab: &Lab, rc: u64, terminals: &mut [Terminal]) {
    let image = lab.path(&format!("{rc}.img"));
    made(&image, 100_000, rc);
    lab.publish(rc, &image);
    terminals.iter_mut().for_each(|terminal| terminal.plan(rc));
    lab.roll_out(rc, &format!("r{rc}"), "all", 1);
    points::play(rc, terminals);
}

/// What is still different where a migration ran at another time.
fn but_the_schemas_time(now: &Walk, expected: &Walk) -> Vec<String> {
    let mut seen = now.differs_from(expected);
    seen.retain(|line| line != "\"user\": time" && line != "\"user/schema\": time");
    seen
}

/// Ends a rollout that nobody can pass, unless it has been ended.
fn gives_up(lab: &Lab, rollout: &str) {
    let judged = || matches!(lab.rollout(rollout)["status"].as_str(), Some("paused" | "killed"));
    wait_telling(
        || format!("{rollout} to be judged: {}", lab.rollout(rollout)),
        PATIENCE,
        || judged().then_some(()),
    );
    if lab.rollout(rollout)["status"] == "paused" {
        lab.json(&["rollout", "kill", rollout, "--reason", "bad"]);
    }
}
