//! Health probes: what decides whether a release on trial is well, and whether it stays so until it is confirmed.
//!
//! | kind | well when |
//! |---|---|
//! | command | the integrator's program exits with 0 |
//! | process | a process of that name is alive, and has been for long enough ([`process`]) |
//! | http | a GET is answered with a status of 2xx ([`http`]) |
//! | metric | a number in a file or in a program's last line is within its bounds ([`metric`]) |
//!
//! A probe with an `interval` is asked again until it passes, within its deadline. One with `soak` is asked again all
//! through the soak ([`soak`]).

pub mod http;
pub mod metric;
pub mod process;
pub mod soak;

use std::time::Duration;

use tern_protocol::limits::REASON_MAX;
use tokio::time::{sleep, timeout};

use crate::command::{Context, Ending, Program, Said};
pub use http::HttpAddress;
use metric::Metric;

/// One probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Name in logs and reports.
    pub name: String,
    /// What is looked at.
    pub kind: Kind,
    /// How long it may take with all its tries.
    pub deadline: Duration,
    /// How often in a row it must pass; 1 to 1000.
    pub times: u32,
    /// Pause between tries. Without one there is one try.
    pub interval: Option<Duration>,
    /// It is asked again during the soak and at its end.
    pub soak: bool,
}

/// What a probe looks at.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Executable and arguments of a program that exits with 0 when its part of the device is well.
    Command(Vec<String>),
    /// A process must be alive.
    Process {
        /// Its name.
        name: String,
        /// It must have lived this long without a restart; in the soak since the first probes passed. Zero: it may be
        /// started again.
        lived: Duration,
    },
    /// An address must answer.
    Http(HttpAddress),
    /// A number must be within its bounds.
    Metric(Metric),
}

/// Says which probe found the device unwell, and why.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct ProbeFailure {
    /// The probe.
    pub name: String,
    /// What it found.
    pub reason: String,
}

impl Kind {
    /// Has a process that must live without a restart have lived for `lasts` at least: one that was started again a
    /// minute ago is old enough otherwise.
    fn unbroken_for(&mut self, lasts: Duration) {
        if let Self::Process { lived, .. } = self
            && !lived.is_zero()
        {
            *lived = lasts.max(*lived);
        }
    }
}

impl ProbeFailure {
    /// Returns one line for a report, at most [`REASON_MAX`] bytes.
    pub fn summary(&self) -> String {
        let mut line = self.to_string();
        line.truncate(line.floor_char_boundary(REASON_MAX));
        line
    }
}

/// Runs probes in order; the first that finds the device unwell ends it. Ends by itself, because every probe has a
/// deadline; may run twice.
pub async fn run_probes(
    probes: impl IntoIterator<Item = &Probe>,
    context: &Context,
) -> Result<(), ProbeFailure> {
    for probe in probes {
        match probe.run(context).await {
            Ok(()) => tracing::info!(probe = probe.name, "healthy"),
            Err(reason) => return Err(ProbeFailure { name: probe.name.clone(), reason }),
        }
    }
    Ok(())
}

impl Probe {
    async fn run(&self, context: &Context) -> Result<(), String> {
        let Some(interval) = self.interval else { return self.ask(context).await };
        let mut found = None;
        let tries = async {
            let mut passed = 0;
            loop {
                match self.ask(context).await {
                    Ok(()) => passed += 1,
                    Err(reason) => {
                        passed = 0;
                        found = Some(reason);
                    }
                }
                if passed >= self.times {
                    return;
                }
                sleep(interval).await;
            }
        };
        match (timeout(self.deadline, tries).await, found) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(reason)) => Err(format!("not well within {:?}; it said: {reason}", self.deadline)),
            (Err(_), None) => Err(format!("not {} times well within {:?}", self.times, self.deadline)),
        }
    }

    /// Asks once.
    async fn ask(&self, context: &Context) -> Result<(), String> {
        match &self.kind {
            Kind::Command(command) => self.output(command, context).await.map(|_| ()),
            Kind::Process { name, lived } => {
                let (name, lived) = (name.clone(), *lived);
                self.in_time(aside(move || process::alive(process::PROC.as_ref(), &name, lived))).await?
            }
            Kind::Http(address) => self.in_time(http::get(address)).await?,
            Kind::Metric(metric) => {
                let text = match &metric.from {
                    metric::From::File(path) => {
                        let path = path.clone();
                        self.in_time(aside(move || metric::read(&path))).await??
                    }
                    metric::From::Command(command) => self.output(command, context).await?,
                };
                metric.judge(&text)
            }
        }
    }

    /// Runs a program, which must exit with 0, and returns the end of its output.
    async fn output(&self, command: &[String], context: &Context) -> Result<String, String> {
        let program = Program { name: self.name.clone(), command: command.to_vec(), deadline: self.deadline };
        let finished = program.run(context, &[]).await;
        match finished.ending {
            Ending::Exit(0) => Ok(finished.output_tail),
            ending => Err(format!("{ending}{}", Said(&finished.output_tail))),
        }
    }

    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, String> {
        timeout(self.deadline, answer).await.map_err(|_| format!("no answer after {:?}", self.deadline))
    }
}

/// Does something that may hang in the kernel on a thread of its own, so that neither the loop nor the end of the
/// process waits for it: a thread that hangs is left behind. Never ends if the thread could not be made or panicked:
/// every caller has a deadline.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    // Nobody may be waiting any more.
    begin(Box::new(move || drop(done.send(work()))));
    match result.await {
        Ok(result) => result,
        Err(_) => std::future::pending().await,
    }
}

/// The same without a result. One for all kinds of work: each of its own would add a kilobyte to the executable.
pub(crate) fn begin(work: Box<dyn FnOnce() + Send>) {
    if let Err(error) = std::thread::Builder::new().name("aside".into()).spawn(work) {
        tracing::warn!(%error, "could not start a thread");
    }
}

#[cfg(test)]
mod tests;
