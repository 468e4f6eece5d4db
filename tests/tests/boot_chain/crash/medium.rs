//! The disk of a board as a power cut leaves it, and what the agent, the boot script's reference and the file system's
//! own tools make of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tern_agent::boot::uboot::UbootBoot;
use tern_agent::boot::uboot::medium::{Location, Medium};
use tern_agent::boot::{BootRecord, choose};
use tern_agent::core::SlotName;
use tern_tests::lab::program;

use super::cuts::Cut;
use super::write_log::Write;
use crate::device::Device;
use crate::disk::{COPY, SECOND};
use crate::kit::{run, tool};

/// How many copies of the environment there are; one alone is the control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    One,
    Two,
}

/// What holds of a disk after a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The record, and what boots next by it.
    pub(crate) record: BootRecord,
    pub(crate) boots: SlotName,
    /// The release in it.
    pub(crate) release: u64,
    /// The confirmed slot, and the release in that.
    pub(crate) confirmed: (SlotName, u64),
    /// The record after that.
    pub(crate) after: BootRecord,
}

/// A disk in memory.
pub(crate) struct Replay<'a> {
    device: &'a Device,
    bytes: Vec<u8>,
    /// The images that are signed, by release.
    signed: Vec<(u64, Vec<u8>)>,
    /// The data partition that was looked at last, and what `status` said of it.
    looked_at: Option<(Vec<u8>, Value)>,
}

impl<'a> Replay<'a> {
    pub(crate) fn of(device: &'a Device, base: Vec<u8>, releases: &[u64]) -> Self {
        let image = |rc: &u64| (*rc, fs::read(device.lab.path(&format!("{rc}.img"))).unwrap());
        Self { device, bytes: base, signed: releases.iter().map(image).collect(), looked_at: None }
    }

    /// Does something with the disk as a cut leaves it, and takes that back.
    pub(crate) fn after<T>(&mut self, epoch: &[Write], cut: &Cut, look: impl FnOnce(&mut Self) -> T) -> T {
        let mut undo = Vec::new();
        for (index, part) in cut {
            let write = &epoch[*index];
            let at = write.at + part.start;
            let there = &mut self.bytes[at..write.at + part.end];
            undo.push((at, there.to_vec()));
            there.copy_from_slice(&write.bytes[part.clone()]);
        }
        let seen = look(self);
        for (at, former) in undo.into_iter().rev() {
            self.bytes[at..at + former.len()].copy_from_slice(&former);
        }
        seen
    }

    /// Returns what is durable.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes all of an epoch durable.
    pub(crate) fn flush(&mut self, epoch: &[Write]) {
        for write in epoch {
            self.bytes[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }

    /// Writes the disk to a file.
    pub(crate) fn save(&self, path: &Path) {
        fs::write(path, &self.bytes).unwrap();
    }

    fn partition(&self, name: &str) -> &[u8] {
        &self.bytes[self.device.disk.partition(name).range()]
    }

    /// The release whose signed image a slot holds, byte for byte.
    fn holds(&self, slot: SlotName) -> Option<u64> {
        let there = self.partition(&format!("slot-{slot}"));
        self.signed.iter().find(|(_, image)| there.starts_with(image)).map(|(rc, _)| *rc)
    }

    /// What must hold of boot record and slots: there is a record, the confirmed slot is whole, and so is one on trial.
    pub(crate) fn boot(&self, copies: Copies) -> Result<Finding, String> {
        let path = self.device.lab.path("cut.environment");
        fs::write(&path, self.partition("environment")).unwrap();
        let second = if copies == Copies::Two { SECOND } else { 0 };
        let medium = Medium {
            copies: [0, second].map(|offset| Location { path: path.clone(), offset }),
            size: COPY,
            lock: self.device.lab.path("cut.lock"),
        };
        let record = UbootBoot::read(&medium).map_err(|error| error.to_string())?;
        let usable = SlotName::BOTH.map(|slot| self.holds(slot).is_some());
        let Some(confirmed) = self.holds(record.active) else {
            return Err(format!("slot {} is confirmed and not whole", record.active));
        };
        if let Some(trial) = &record.trial
            && self.holds(trial.slot) != Some(trial.rc)
        {
            return Err(format!("slot {} is on trial and not release {}", trial.slot, trial.rc));
        }
        let (boots, after) = choose(&record, usable).map_err(|error| error.to_string())?;
        let release = self.holds(boots).ok_or_else(|| format!("slot {boots} boots and is not whole"))?;
        let confirmed = (record.active, confirmed);
        Ok(Finding { record, boots, release, confirmed, after })
    }

    /// What must hold of the data partition: it mounts, and each label says of its slot what is there. Returns what
    /// `tern-agent status --json` says.
    pub(crate) fn data(&mut self) -> Result<Value, String> {
        let partition = self.partition("data");
        if let Some((known, status)) = &self.looked_at
            && known == partition
        {
            let status = status.clone();
            return self.labels(&status).map(|()| status);
        }
        let partition = partition.to_vec();
        let path = self.device.lab.path("cut.data");
        fs::write(&path, &partition).unwrap();
        // As the kernel does when it mounts; then nothing is left to mend.
        for arguments in [["-p", "-E", "journal_only"].as_slice(), &["-f", "-n"]] {
            let output = tool("e2fsck").args(arguments).arg(&path).output().unwrap();
            if output.status.code().is_none_or(|code| code > 1)
                || (arguments[0] == "-f" && !output.status.success())
            {
                return Err(format!("the data partition is damaged: {output:?}"));
            }
        }
        let folder = self.device.lab.path("cut");
        // What was there before must not stay.
        let _absent = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        run("debugfs", &[&"-R", &format!("rdump /tern {}", folder.display()), &path]);
        let status = self.status()?;
        self.labels(&status)?;
        self.looked_at = Some((partition, status.clone()));
        Ok(status)
    }

    fn status(&self) -> Result<Value, String> {
        let mut command = Command::new(program("tern-agent"));
        let config: PathBuf = self.device.host_config("cut", "cut.environment");
        let output = command.args(["status", "--json", "--config"]).arg(config).output().unwrap();
        if !output.status.success() {
            return Err(format!("status: {}", String::from_utf8_lossy(&output.stderr)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    fn labels(&self, status: &Value) -> Result<(), String> {
        for slot in SlotName::BOTH {
            let said = status["slots"][slot.to_string()]["holds"].as_u64();
            if said.is_some() && said != self.holds(slot) {
                return Err(format!("slot {slot} is labelled {said:?} and holds {:?}", self.holds(slot)));
            }
        }
        Ok(())
    }
}
