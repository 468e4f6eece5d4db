//! A program of the laboratory as a process: it can be killed as a power cut would, and a failed test shows its log.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Lines of a log that a failed test shows.
const SHOWN: usize = 25;

/// A program that runs, or will.
pub(super) struct Process {
    name: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Names what is not started yet, and where it logs.
    pub(super) fn new(name: impl Into<String>, log: PathBuf) -> Self {
        Self { name: name.into(), log, child: None }
    }

    /// Starts it; what it says on standard error goes behind what earlier runs said.
    pub(super) fn start(&mut self, command: &mut Command) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{} does not start: {error}", self.name)));
    }

    /// Kills it as a power cut would.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; either way it is gone after this.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Returns its process id; none when it was not started.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Tells whether it runs.
    pub(super) fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Returns what it has logged.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(SHOWN)..];
            let text = format!("the log of {} ends:\n{}\n", self.name, tail.join("\n"));
            let _shown = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

/// Returns a free port. Taken and given back: who listens there must be found again after every restart.
pub(super) fn free_port() -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    free.expect("a free port").port()
}
