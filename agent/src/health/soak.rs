//! Probes that are asked again while a release soaks, so that what breaks a while after its start is noticed.
//!
//! ```text
//! probes passed ──► a run every fifteenth of the soak ──► one that begins at its end ──► … until it is confirmed
//!                        │ fails                               │ passes
//!                        ▼                                     ▼
//!                    roll back                      an answer may confirm the release
//! ```
//! The core takes no answer as the last word before a run that began at the end of the soak has passed
//! ([`Agent::expect_soak_probes`](crate::core::agent::Agent::expect_soak_probes)). Here is only when to run.

use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use super::{Probe, run_probes};
use crate::command::Context;
use crate::core::state::State;
use crate::core::timing::Stamp;

/// Runs in one soak: one a minute in the quarter of an hour that is the default.
const RUNS: u64 = 15;

/// What a run showed.
#[derive(Debug, PartialEq, Eq)]
pub struct Soaked {
    /// It began at the end of the soak or after it.
    pub last: bool,
    /// What the first probe that found the device unwell said.
    pub result: Result<(), String>,
}

/// Runs the probes of the soak.
pub struct Soak {
    probes: Vec<Probe>,
    /// Length of the soak, ms.
    length: u64,
    /// How long one run may take.
    deadline: Duration,
    /// Uptime of the next run, ms; `None` while no release soaks.
    next: Option<u64>,
    /// Uptime at which the first probes had passed, ms, and how long ago that is.
    began: u64,
    lasts: Duration,
    run: Option<(bool, JoinHandle<Result<(), String>>)>,
}

impl Soak {
    /// Takes those of `probes` that are for the soak, which lasts `length` ms.
    pub fn new(probes: &[Probe], length: u64, deadline: Duration) -> Self {
        let probes = probes.iter().filter(|probe| probe.soak).cloned().collect();
        Self { probes, length, deadline, next: None, began: 0, lasts: Duration::ZERO, run: None }
    }

    /// Tells whether there is anything to run.
    pub fn is_wanted(&self) -> bool {
        !self.probes.is_empty()
    }

    /// Returns the uptime at which to attend again, ms.
    pub fn due(&self) -> u64 {
        self.next.filter(|_| self.run.is_none()).unwrap_or(u64::MAX)
    }

    /// Looks whether a run is due, and tells whether it would be one of the end. A release that does not soak any more
    /// ends the run there is.
    pub fn attend(&mut self, state: &State, at: Stamp) -> Option<bool> {
        let end = match state {
            State::VerifyPost { since, probed: true, .. } if self.is_wanted() => end(*since, self.length, at),
            _ => {
                self.next = None;
                if let Some((_, run)) = self.run.take() {
                    run.abort();
                }
                return None;
            }
        };
        if self.next.is_none() {
            self.began = at.uptime;
        }
        let next = *self.next.get_or_insert_with(|| following(at.uptime, end, self.length));
        if self.run.is_some() || at.uptime < next {
            return None;
        }
        self.next = Some(following(at.uptime, end, self.length));
        self.lasts = Duration::from_millis(at.uptime.saturating_sub(self.began));
        Some(at.uptime >= end)
    }

    /// Begins a run.
    pub fn begin(&mut self, last: bool, context: Context) {
        let (mut probes, deadline) = (self.probes.clone(), self.deadline);
        probes.iter_mut().for_each(|probe| probe.kind.unbroken_for(self.lasts));
        let run = tokio::spawn(async move {
            match tokio::time::timeout(deadline, run_probes(&probes, &context)).await {
                Ok(result) => result.map_err(|failure| failure.summary()),
                Err(_) => Err(format!("the probes together took longer than {} s", deadline.as_secs())),
            }
        });
        self.run = Some((last, run));
    }

    /// Waits for the run to end; for ever if there is none. May be dropped and called again.
    pub async fn ended(&mut self) -> Soaked {
        let Some((last, run)) = &mut self.run else { return std::future::pending().await };
        let (last, result) = (*last, run.await);
        self.run = None;
        // A run that panicked has shown nothing good.
        let result = result.unwrap_or_else(|error: JoinError| Err(format!("a probe broke: {error}")));
        Soaked { last, result: result.map_err(|reason| format!("in the soak, {reason}")) }
    }
}

/// Returns the uptime at which the soak ends. A soak of another boot has lasted for nobody knows how long: it is over.
fn end(since: Stamp, length: u64, at: Stamp) -> u64 {
    if since.epoch == at.epoch { since.uptime.saturating_add(length) } else { at.uptime }
}

/// Returns when to run again after a run that began at `now`: regularly, and at the end.
fn following(now: u64, end: u64, length: u64) -> u64 {
    let next = now.saturating_add((length / RUNS).max(1));
    if now < end { next.min(end) } else { next }
}

#[cfg(test)]
mod tests;
