use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::core::state::{RollbackStep, UpdatingStep};
use crate::core::timing::Stamp;
use crate::testing::{trial, work};
use crate::watchdog::{During, WatchdogConfig};

const SINCE: Stamp = Stamp { epoch: 1, uptime: 0 };

fn durable(state: State) -> Durable {
    Durable { state, ..Durable::default() }
}

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A pulse that beats into a file and a socket, in slot b.
struct Scene {
    folder: tempfile::TempDir,
    manager: UnixDatagram,
    pulse: Pulse,
}

fn scene(during: During) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let (device, socket) = (folder.path().join("watchdog"), folder.path().join("notify"));
    fs::write(&device, "").unwrap();
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_nonblocking(true).unwrap();
    let pulse = Pulse {
        alive: folder.path().join("alive"),
        told_guard: None,
        is_ready: false,
        starts: Starts::count(folder.path(), "boot"),
        notify: Some(Notify::new(socket.as_os_str(), Some(second(60))).unwrap()),
        watchdog: Some(Watchdog::new(WatchdogConfig { device, timeout: second(30), during })),
        running: SlotName::B,
        on_trial: false,
        said: String::new(),
        next: Duration::ZERO,
    };
    Scene { folder, manager, pulse }
}

impl Scene {
    fn fed(&self) -> String {
        fs::read_to_string(self.folder.path().join("watchdog")).unwrap()
    }

    fn heard(&self) -> Vec<String> {
        let mut words = [0; 100];
        std::iter::from_fn(|| self.manager.recv(&mut words).ok().map(|n| words[..n].to_vec()))
            .map(|words| String::from_utf8(words).unwrap())
            .collect()
    }
}

#[test]
fn an_agent_that_is_up_leaves_word_for_the_guard_of_a_trial() {
    let mut scene = scene(During::Trial);
    let is_there = || scene.folder.path().join("alive").exists();
    assert!(!is_there());

    scene.pulse.ready(second(0));

    assert!(is_there());
    assert!(scene.heard().contains(&"READY=1".to_owned()));
}

#[test]
fn the_guard_hears_every_minute_of_a_trial_and_once_that_it_is_over() {
    let mut scene = scene(During::Trial);
    let word = |scene: &Scene| fs::read_to_string(scene.folder.path().join("alive")).unwrap_or_default();
    let on_trial = durable(trial(SINCE, false));

    scene.pulse.beat(&on_trial, second(3));
    assert_eq!(word(&scene), "", "nothing was saved yet");
    scene.pulse.ready(second(5));
    let mut said = vec![word(&scene)];
    for now in [64, 65, 124, 126] {
        scene.pulse.beat(&on_trial, second(now));
        said.push(word(&scene));
    }
    scene.pulse.beat(&durable(State::Idle { not_before: None }), second(130));
    said.push(word(&scene));

    assert_eq!(said, ["5\n", "5\n", "65\n", "65\n", "126\n", "over\n"]);
}

/// The condition of the guard's unit, as a shell is given it.
fn guards(alive: &str, uptime: &str) -> bool {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/tern-trial-guard.service");
    let text = fs::read_to_string(unit).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ExecCondition=/bin/sh -c '")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [word, clock] = ["alive", "uptime"].map(|name| folder.path().join(name));
    if !alive.is_empty() {
        fs::write(&word, alive).unwrap();
    }
    fs::write(&clock, uptime).unwrap();
    let script = line.strip_suffix('\'').unwrap().replace("$$", "$");
    assert!(script.contains("/run/tern/alive") && script.contains("/proc/uptime"), "{script}");
    let script = script
        .replace("/run/tern/alive", word.to_str().unwrap())
        .replace("/proc/uptime", clock.to_str().unwrap());
    Command::new("/bin/sh").arg("-c").arg(script).status().unwrap().success()
}

#[test]
fn the_guard_reboots_a_trial_whose_agent_never_came_or_fell_silent_and_no_other() {
    assert!(guards("", "601.23 99.00\n"), "nobody came up");
    assert!(!guards("", "599.99 1.00\n"), "somebody still may");
    assert!(guards("65\n", "700.00 1.00\n"), "it fell silent");
    assert!(!guards("650\n", "700.00 1.00\n"), "it turns");
    assert!(!guards("over\n", "70000.00 1.00\n"), "it is confirmed, and may be stopped");
}

#[test]
fn what_runs_is_on_trial_until_it_is_confirmed_or_left() {
    let on_trial = |state: &State| on_trial(state, SlotName::B);
    let reboot = State::Updating { work: work(), step: UpdatingStep::Reboot };
    let outcome = tern_protocol::state::Outcome::RolledBack;
    let left = State::Rollback { work: work(), outcome, reason: "unwell".into(), step: RollbackStep::Record };

    for state in [&reboot, &trial(SINCE, false), &State::Success { work: work() }, &left] {
        assert!(on_trial(state), "{}", state.name());
        assert!(!super::on_trial(state, SlotName::A), "the former release runs: {}", state.name());
    }
    assert!(!on_trial(&State::Idle { not_before: None }));
    let stays = State::Failed { work: work(), reason: "nothing to go back to".into(), again: None };
    assert!(!on_trial(&stays), "it ended, and runs on");
}

#[test]
fn the_manager_hears_the_state_when_it_changes_and_the_loop_at_half_its_patience() {
    let mut scene = scene(During::Trial);
    scene.pulse.ready(second(0));
    let idle = durable(State::Idle { not_before: None });

    scene.pulse.beat(&idle, second(0));
    assert_eq!(scene.heard(), ["READY=1", "WATCHDOG_USEC=60000000", "STATUS=idle", "WATCHDOG=1"]);
    assert_eq!(scene.pulse.wait(second(10)), second(20));
    scene.pulse.beat(&idle, second(29));
    assert_eq!(scene.heard(), [""; 0]);
    scene.pulse.beat(&durable(trial(SINCE, false)), second(30));

    assert_eq!(scene.heard(), ["STATUS=verify-post of release 2", "WATCHDOG=1"]);
}

#[test]
fn a_loop_that_does_not_turn_is_heard_by_nobody() {
    let mut scene = scene(During::Always);
    let on_trial = durable(trial(SINCE, false));
    scene.pulse.beat(&on_trial, second(0));
    scene.heard();

    // Time passes, and nobody calls.
    assert_eq!((scene.heard().len(), scene.fed().as_str()), (0, "."));
    assert_eq!(scene.pulse.wait(second(500)), Duration::ZERO, "it is overdue");
    scene.pulse.beat(&on_trial, second(500));

    assert_eq!((scene.heard(), scene.fed().as_str()), (vec!["WATCHDOG=1".to_owned()], ".."));
}

#[test]
fn a_manager_that_is_away_is_told_again_soon_and_without_a_spin() {
    let mut scene = scene(During::Trial);
    fs::remove_file(scene.folder.path().join("notify")).unwrap();

    scene.pulse.beat(&durable(State::Idle { not_before: None }), second(5));

    assert_eq!(scene.pulse.wait(second(5)), SAY_AGAIN);
}

#[test]
fn a_boot_out_of_a_trial_is_not_fed_but_the_manager_still_hears_the_loop() {
    let mut scene = scene(During::Trial);
    scene.pulse.beat(&durable(trial(SINCE, false)), second(0));
    scene.heard();

    scene.pulse.end(End::Rebooting);
    for now in [10, 30, 60] {
        scene.pulse.tell_manager(second(now));
    }

    assert_eq!(scene.fed(), ".", "neither fed nor stopped");
    assert_eq!(scene.heard(), ["WATCHDOG=1"; 2]);
}

#[test]
fn an_agent_that_is_stopped_stops_the_watchdog_only_outside_a_trial() {
    let confirmed = durable(State::Idle { not_before: None });
    for (during, state, end, expected) in [
        (During::Trial, durable(trial(SINCE, true)), End::Stopped, "."),
        (During::Always, durable(trial(SINCE, true)), End::Stopped, "."),
        (During::Always, confirmed.clone(), End::Stopped, ".V"),
        (During::Always, confirmed, End::Rebooting, "."),
        (During::Trial, durable(trial(SINCE, true)), End::Replaced, ".V"),
    ] {
        let mut scene = scene(during);
        scene.pulse.beat(&state, second(0));
        scene.heard();

        scene.pulse.end(end);

        assert_eq!(scene.fed(), expected, "{during:?} {end:?} {}", state.state.name());
        let expected: &[&str] = match end {
            End::Stopped => &["STOPPING=1"],
            End::Rebooting => &[],
            End::Replaced => &["WATCHDOG_USEC=900000000"],
        };
        assert_eq!(scene.heard(), expected, "{end:?}");
    }
}
