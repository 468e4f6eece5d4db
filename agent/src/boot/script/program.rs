//! Running the program for one verb: bounded in time and output, and gone with everything it started.
//!
//! Unlike hooks it runs while the caller waits: until it is known what boots, there is nothing else to do.

use std::io::{self, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Pid;

use crate::clock;
use crate::command::{Ending, Group, Said, ending_of};

/// Ceiling on what it prints; a record has a hundred bytes.
const OUTPUT_MAX: usize = 4096;
/// Bytes of its standard error that are told.
const SAID_MAX: usize = 400;
/// How often it is looked at, and how long its output is waited for once it has ended.
const PAUSE: Duration = Duration::from_millis(2);
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long a killed program may take to be gone.
const GONE: Duration = Duration::from_secs(2);
/// How often, and after which pause, a busy executable is tried again.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// How the program failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It ended otherwise than with exit code 0.
    #[error("{ending}{}", Said(said))]
    Ended {
        /// How.
        ending: Ending,
        /// The beginning of what it wrote to standard error.
        said: String,
    },
    /// It printed too much.
    #[error("it printed more than {OUTPUT_MAX} bytes")]
    Output,
}

/// Runs `command verb`; returns what it printed.
pub(super) fn run(
    command: &[String],
    verb: &str,
    input: &[u8],
    words: &[(&str, String)],
    deadline: Duration,
) -> Result<Vec<u8>, Failure> {
    let ended = |ending, said| Failure::Ended { ending, said };
    let not_run = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            ended(Ending::Missing(command.first().cloned().unwrap_or_default()), String::new())
        }
        _ => ended(Ending::NotRun(error), String::new()),
    };
    let mut child = start(command, verb, words).map_err(not_run)?;
    let group = Group(i32::try_from(child.id()).ok().and_then(Pid::from_raw));
    let output = child.stdout.take().and_then(|pipe| listen(pipe, OUTPUT_MAX + 1));
    let said = child.stderr.take().and_then(|pipe| listen(pipe, SAID_MAX));
    if let Some(mut pipe) = child.stdin.take() {
        // Less than a pipe holds: this does not wait. Who ends without reading it is judged by how it ends.
        drop(pipe.write_all(input));
    }
    let status = wait(&mut child, deadline);
    drop(group);
    if !matches!(status, Ok(Some(_))) {
        // Killed. One in an uninterruptible read outlives even that, and is not waited for.
        drop(wait(&mut child, GONE));
    }
    let (output, said) = (heard(output), heard(said));
    let said = || String::from_utf8_lossy(said.trim_ascii()).into_owned();
    match status {
        Ok(Some(status)) if status.success() && output.len() > OUTPUT_MAX => Err(Failure::Output),
        Ok(Some(status)) if status.success() => Ok(output),
        Ok(Some(status)) => Err(ended(ending_of(status), said())),
        Ok(None) => Err(ended(Ending::TimedOut(deadline), said())),
        Err(error) => Err(ended(Ending::NotRun(error), said())),
    }
}

fn start(command: &[String], verb: &str, words: &[(&str, String)]) -> io::Result<Child> {
    for _ in 0..BUSY_TRIES {
        match spawn(command, verb, words) {
            // For a moment after another fork, a child still shares the descriptor with which the very file was written.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => thread::sleep(BUSY_PAUSE),
            result => return result,
        }
    }
    spawn(command, verb, words)
}

fn spawn(command: &[String], verb: &str, words: &[(&str, String)]) -> io::Result<Child> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
    };
    Command::new(program)
        .args(arguments)
        .arg(verb)
        .envs(words.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// Reads up to `most` bytes, and throws the rest away: who writes more must not wait for us.
fn listen(mut pipe: impl Read + Send + 'static, most: usize) -> Option<JoinHandle<Vec<u8>>> {
    let listen = move || {
        let mut kept = Vec::new();
        // Each fails only by the pipe, which then has no more to tell.
        drop(pipe.by_ref().take(most as u64).read_to_end(&mut kept));
        drop(io::copy(&mut pipe, &mut io::sink()));
        kept
    };
    thread::Builder::new().spawn(listen).ok()
}

/// What was heard once the program has ended. Whoever has left its group may hold the pipe open for ever.
fn heard(listener: Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    let Some(listener) = listener else { return Vec::new() };
    let end = clock::uptime() + LAST_WORDS;
    while !listener.is_finished() {
        if clock::uptime() >= end {
            return Vec::new();
        }
        thread::sleep(PAUSE);
    }
    listener.join().unwrap_or_default()
}

fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    let end = clock::uptime() + deadline;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if clock::uptime() >= end => return Ok(None),
            None => thread::sleep(PAUSE),
        }
    }
}
