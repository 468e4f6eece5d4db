//! Where a device is cut: a hook, or a program that it runs, writes the point's name down and waits to be killed.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process_group};
use tern_protocol::state::StateName;
use tern_tests::lab::{Records, wait, wait_telling};

use crate::PATIENCE;
use crate::terminal::Terminal;

/// What is done at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The agent and its hook are killed; the device stays up.
    Kill(&'static str),
    /// The power goes.
    Cut(&'static str),
    /// It is let go on once every other device that is to come here is here as well: what some report would end the others' attempt.
    Hold,
}

pub(crate) use Stop::{Cut as CUT, Hold as HOLD, Kill as KILL};

impl Stop {
    pub(crate) fn point(self) -> &'static str {
        match self {
            Self::Kill(point) | Self::Cut(point) => point,
            Self::Hold => "held",
        }
    }

    /// Returns the states that the journal may have there.
    fn states(self, rc: u64) -> &'static [StateName] {
        use StateName::{Checking, Failed, Idle, PreUpdating, Rollback, VerifyPost};
        let point = self.point();
        match point {
            "download" => &[Checking],
            "post-boot" | "probe" => &[VerifyPost],
            "confirmed" => &[Idle],
            "rolled-back" => &[Failed],
            _ if rc == 4 && (point.starts_with("undo") || point == "held") => &[Rollback],
            _ => &[PreUpdating],
        }
    }
}

/// Cuts every device where its plan says, until nothing is left of all plans.
pub(crate) fn play(rc: u64, terminals: &mut [Terminal]) {
    while terminals.iter().any(|terminal| !terminal.stops.is_empty()) {
        let told = || format!("points of release {rc}: {:#?}", open(terminals));
        let next = wait_telling(told, PATIENCE, || {
            let is_there = |terminal: &Terminal| {
                terminal.stops.front().filter(|stop| terminal.is_at(stop.point())).copied()
            };
            let strikes = |terminal: &Terminal| is_there(terminal).is_some_and(|stop| stop != HOLD);
            if let Some(number) = terminals.iter().position(strikes) {
                return Some(Some(number));
            }
            let mut holds = terminals.iter().filter(|terminal| terminal.stops.contains(&HOLD)).peekable();
            let is_any = holds.peek().is_some();
            (is_any && holds.all(|terminal| is_there(terminal) == Some(HOLD))).then_some(None)
        });
        match next {
            Some(number) => strike(rc, &mut terminals[number]),
            None => {
                for terminal in terminals.iter_mut().filter(|terminal| terminal.stops.front() == Some(&HOLD))
                {
                    let seen = terminal.walk().differs_from(&terminal.before);
                    assert!(seen.len() > 5, "{} is not migrated: {seen:?}", terminal.name());
                    let_go(terminal);
                }
            }
        }
    }
}

/// Returns what is still to come, for whoever waits in vain.
fn open(terminals: &[Terminal]) -> Vec<String> {
    let open = terminals.iter().filter(|terminal| !terminal.stops.is_empty());
    open.map(|it| format!("{}: {:?}, {}", it.name(), it.stops, it.device.status()["state"])).collect()
}

fn strike(rc: u64, terminal: &mut Terminal) {
    let stop = terminal.stops.pop_front().unwrap();
    let group = terminal.read("group").trim().parse().ok().and_then(Pid::from_raw).unwrap();
    match stop {
        KILL(_) | HOLD => terminal.device.kill(),
        CUT(_) => terminal.device.cut_power(),
    }
    // The agent is gone, and its hook with it.
    kill_process_group(group, Signal::KILL).unwrap();
    let state = Records::of(&terminal.device).journal().unwrap().state.name();
    assert!(stop.states(rc).contains(&state), "{}: {state} at {stop:?}", terminal.name());
    terminal.set_stop();
    terminal.start();
}

fn let_go(terminal: &mut Terminal) {
    terminal.stops.pop_front();
    terminal.set_stop();
    let path = terminal.path("fifo");
    let mut pipe = wait("somebody who waits at a point", PATIENCE, || {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new().write(true).custom_flags(nonblocking).open(&path).ok()
    });
    pipe.write_all(b"on\n").unwrap();
}
