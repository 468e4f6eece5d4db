//! One life of the process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::wire::{Ask, Orders, Tell};

/// SIGKILL.
const KILLED: i32 = 9;

/// The process, as long as it lives.
pub struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// What came of asking.
#[derive(Debug)]
pub enum Answer {
    /// It did what was asked.
    Done(Vec<Tell>),
    /// It died as it was told to, after it had said this much.
    Died(Vec<Tell>),
}

impl Process {
    /// Starts it and waits until it is up.
    ///
    /// # Panics
    /// When the program does not start.
    pub fn start(program: &Path, orders: &Orders) -> (Self, Answer) {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the service's program starts");
        let to = child.stdin.take().expect("a pipe was asked for");
        let from = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let mut process = Self { child, to, from };
        let answer = process.say(&serde_json::to_string(orders).expect("orders are JSON"));
        (process, answer)
    }

    /// Hands in one thing and waits until it is done, or until the process is dead.
    pub fn ask(&mut self, ask: &Ask) -> Answer {
        self.say(&serde_json::to_string(ask).expect("what is asked is JSON"))
    }

    fn say(&mut self, line: &str) -> Answer {
        // Nobody is there to read it when it has died: the end of what it says tells.
        let _broken_pipe = writeln!(self.to, "{line}").and_then(|()| self.to.flush());
        let mut told = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.from.read_line(&mut line).unwrap_or(0);
            match serde_json::from_str(&line) {
                Ok(Tell::Done) => return Answer::Done(told),
                Ok(tell) => told.push(tell),
                Err(_) if read == 0 => break,
                // It was killed in the middle of a line: nobody heard that.
                Err(_) => {}
            }
        }
        let status = self.child.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(KILLED), "the service ended by itself: {status}");
        Answer::Died(told)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already; either way it is gone after this.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
