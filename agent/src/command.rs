//! Running an integrator's program: bounded in time and output, and gone with everything it started.
//!
//! The program leads a process group of its own. When it ends, or its deadline passes, the whole group is killed,
//! so a probe cannot leave a sleeping grandchild behind that keeps the slot busy.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tern_protocol::id::DeviceId;
use tern_protocol::limits::REASON_MAX;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::slot::SlotName;

/// How long a killed program may take to be gone before we stop waiting for it.
const GONE: Duration = Duration::from_secs(2);
/// How long we listen for output that is still in the pipe when the program has ended.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How often, and after which pause, a busy executable is tried again.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// A program that the integrator names: a health probe or a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Name in logs and reports.
    pub name: String,
    /// Executable and arguments; no shell in between. `{slot}`, `{slot_path}`, `{rc}`, `{version}` and `{device}`
    /// are filled in.
    pub command: Vec<String>,
    /// How long it may take.
    pub deadline: Duration,
}

/// What programs are told: as environment `TERN_…`, and in place of `{…}` in arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The slot that the step is about.
    pub slot: SlotName,
    /// Where its bytes are.
    pub slot_path: PathBuf,
    /// Counter of the release in it.
    pub rc: u64,
    /// Version of the release in it.
    pub version: String,
    /// This device.
    pub device: DeviceId,
}

/// How a program ended.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    /// By itself.
    #[error("exit code {0}")]
    Exit(i32),
    /// By a signal that was not ours.
    #[error("killed by signal {0}")]
    Signal(i32),
    /// It did not end in time and was killed.
    #[error("no end after {0:?}")]
    TimedOut(Duration),
    /// The executable is not there.
    #[error("no such executable: {0}")]
    Missing(String),
    /// It could not be started or waited for.
    #[error("could not be run: {0}; is it executable, and its interpreter there?")]
    NotRun(io::Error),
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub ending: Ending,
    /// The end of what it wrote to standard output and error, at most [`REASON_MAX`] bytes.
    pub output_tail: String,
    /// As much of the end as was to be kept.
    pub output: Vec<u8>,
    /// Bytes before that.
    pub left_out: u64,
}

/// Says which program failed, how, and what it said.
#[derive(Debug, thiserror::Error)]
#[error("{name} failed{}", Said(output_tail))]
pub struct ProgramFailure {
    /// The program.
    pub name: String,
    /// How it ended.
    #[source]
    pub reason: Ending,
    /// The end of its output.
    pub output_tail: String,
}

impl ProgramFailure {
    /// Returns one line for a report, at most [`REASON_MAX`] bytes.
    pub fn summary(&self) -> String {
        let mut line = format!("{}: {}{}", self.name, self.reason, Said(&self.output_tail));
        while line.len() > REASON_MAX {
            line.pop();
        }
        line
    }
}

pub(crate) struct Said<'a>(pub(crate) &'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", saying {:?}", self.0) }
    }
}

impl Program {
    /// Runs the program to its end; takes at most its deadline and a few seconds. Dropping the future kills it.
    pub async fn run(&self, context: &Context, more: &[(&str, &str)]) -> Finished {
        self.run_keeping(REASON_MAX, context, more).await
    }

    /// The same, keeping that many bytes of the output.
    pub async fn run_keeping(&self, most: usize, context: &Context, more: &[(&str, &str)]) -> Finished {
        let mut tail = Tail { most, ..Tail::default() };
        let ending = match self.start(context, more).await {
            Ok((child, output)) => supervise(child, output, self.deadline, &mut tail).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ending::Missing(self.executable().into())
            }
            Err(error) => Ending::NotRun(error),
        };
        let output_tail = tail.text();
        let (output, left_out) = tail.kept();
        Finished { ending, output_tail, output, left_out }
    }

    fn executable(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    async fn start(&self, context: &Context, more: &[(&str, &str)]) -> io::Result<(Child, pipe::Receiver)> {
        let mut tries = BUSY_TRIES;
        loop {
            match self.spawn(context, more) {
                // For a moment after another fork, a child still shares the descriptor with which we wrote the
                // very file; it passes.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries > 0 => {
                    tries -= 1;
                    sleep(BUSY_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    fn spawn(&self, context: &Context, more: &[(&str, &str)]) -> io::Result<(Child, pipe::Receiver)> {
        let filled: Vec<String> = self.command.iter().map(|part| context.fill(part)).collect();
        let Some((executable, arguments)) = filled.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
        };
        // One pipe for both streams keeps their order.
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(executable);
        command
            .args(arguments)
            .env("TERN_SLOT", context.slot.to_string())
            .env("TERN_SLOT_PATH", &context.slot_path)
            .env("TERN_RC", context.rc.to_string())
            .env("TERN_VERSION", &context.version)
            .env("TERN_DEVICE", context.device.as_str())
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn()?;
        // The command owns our copy of the pipe's write end; it must go for the pipe to end.
        drop(command);
        Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
    }
}

impl Context {
    /// Fills in `{…}` in one pass, so nothing that a value contains is filled in again.
    fn fill(&self, part: &str) -> String {
        let (slot, slot_path, rc) =
            (self.slot.to_string(), self.slot_path.to_string_lossy(), self.rc.to_string());
        let values = [
            ("{slot}", &*slot),
            ("{slot_path}", &*slot_path),
            ("{rc}", &rc),
            ("{version}", &self.version),
            ("{device}", self.device.as_str()),
        ];
        let (mut filled, mut rest) = (String::with_capacity(part.len()), part);
        while let Some(brace) = rest.find('{') {
            let (before, from) = rest.split_at(brace);
            filled.push_str(before);
            let (value, length) = values
                .iter()
                .find(|(name, _)| from.starts_with(name))
                .map_or(("{", 1), |(name, value)| (*value, name.len()));
            filled.push_str(value);
            rest = &from[length..];
        }
        filled.push_str(rest);
        filled
    }
}

/// Kills a process group when it goes out of scope, also when the future that runs it is dropped.
pub(crate) struct Group(pub(crate) Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0
            && let Err(error) = kill_process_group(leader, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, "could not kill a program's process group");
        }
    }
}

async fn supervise(
    mut child: Child,
    mut output: pipe::Receiver,
    deadline: Duration,
    tail: &mut Tail,
) -> Ending {
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let ended = timeout(deadline, async {
        tokio::select! {
            status = child.wait() => status,
            // A program may close its output and work on.
            () = listen(&mut output, tail) => child.wait().await,
        }
    })
    .await;
    drop(group);
    let ending = match ended {
        Ok(Ok(status)) => ending_of(status),
        Ok(Err(error)) => Ending::NotRun(error),
        Err(_) => {
            // A program in an uninterruptible read outlives even this; the runtime reaps it later.
            if timeout(GONE, child.wait()).await.is_err() {
                tracing::warn!("a killed program does not go away");
            }
            Ending::TimedOut(deadline)
        }
    };
    // Whoever has left the group may hold the pipe open for ever, so its end is not waited for.
    if timeout(LAST_WORDS, listen(&mut output, tail)).await.is_err() {
        tracing::debug!("somebody still holds the output of a program that has ended");
    }
    ending
}

pub(crate) fn ending_of(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::NotRun(io::Error::other(status.to_string())),
    }
}

/// Takes in output until it ends.
async fn listen(output: &mut pipe::Receiver, tail: &mut Tail) {
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) => return,
            Ok(count) => tail.push(&buffer[..count]),
            Err(error) => {
                tracing::debug!(%error, "could not read the output of a program");
                return;
            }
        }
    }
}

/// The last bytes of an output of any length.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    most: usize,
    total: u64,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        // Not with every piece: a program may say very much.
        if self.bytes.len() > 2 * self.most {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.bytes.len().saturating_sub(self.most);
        self.bytes.drain(..surplus);
    }

    fn kept(mut self) -> (Vec<u8>, u64) {
        self.cut();
        let left_out = self.total - self.bytes.len() as u64;
        (self.bytes, left_out)
    }

    fn text(&self) -> String {
        let from = self.bytes.len().saturating_sub(REASON_MAX);
        let text = String::from_utf8_lossy(&self.bytes[from..]);
        // Replacement characters may have made it longer; the end is what says why.
        let fits = |(from, _): &(usize, char)| text.len() - from <= REASON_MAX;
        let from = text.char_indices().find(fits).map_or(0, |(from, _)| from);
        text[from..].trim().to_owned()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::is_gone;
