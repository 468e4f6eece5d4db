//! The demo's service: `tern serve` in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::stop::Stop;
use crate::clock;
use crate::serve::Addresses;

/// The service, in a process of its own.
pub(super) struct ServiceProcess {
    process: Child,
    pub(super) addresses: Addresses,
    log: PathBuf,
    stop: Stop,
}

impl ServiceProcess {
    pub(super) fn start(data: &Path, stop: &Stop) -> anyhow::Result<Self> {
        let log = data.join("service.log");
        let file = std::fs::File::create(&log)?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", "--listen-api", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .context("could not start the service")?;
        let began = clock::now();
        let ready = data.join("service.json");
        loop {
            if let Ok(text) = std::fs::read(&ready) {
                let addresses = serde_json::from_slice(&text)?;
                return Ok(Self { process, addresses, log, stop: stop.clone() });
            }
            let ended = process.try_wait()?;
            let late = clock::now() - began > 30_000;
            if ended.is_some() || late || stop.asked() {
                let _gone = process.kill();
                let _reaped = process.wait();
                anyhow::bail!("the service did not come up; its log: {}", tail(&log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        self.stop.check()?;
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the service ended with {status}; its log: {}", tail(&self.log)),
        }
    }

    /// Ends it as a supervisor does: SIGTERM first.
    pub(super) fn stop(&mut self) {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended already.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        for _ in 0..100 {
            if matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
