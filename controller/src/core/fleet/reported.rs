//! What one report changes: the device's machine as the cloud sees it, and the counters.

use tern_protocol::id::DeviceId;
use tern_protocol::message::{Attempt, ReportKind};
use tern_protocol::state::{Outcome, StateName};

use super::Fleet;
use super::device::AttemptRecord;
use crate::core::fact::Millis;

impl Fleet {
    pub(super) fn reported(
        &mut self,
        at: Millis,
        id: &DeviceId,
        (e, n, low): (u64, u64, u64),
        report: &ReportKind,
    ) {
        let Some(device) = self.devices.get_mut(id) else { return };
        // (device, n) is the report's identity: twice changes nothing.
        if device.received.contains(n) {
            return;
        }
        device.received.insert(n, low);
        device.epoch = device.epoch.max(e);
        device.seen_at = Some(at);
        self.reports += 1;
        if let ReportKind::Hello(hello) = report {
            device.running = hello.running;
            device.floor = hello.floor;
            device.versions = hello.versions;
            device.agent.clone_from(&hello.agent);
        }
        if let Some(attempt) = report.attempt() {
            self.attempted(at, id, attempt, report);
        }
    }

    fn attempted(&mut self, at: Millis, id: &DeviceId, attempt: &Attempt, report: &ReportKind) {
        let (Some(device), Some(rollout)) = (self.devices.get_mut(id), self.rollouts.get_mut(&attempt.rollout))
        else {
            if let Some(device) = self.devices.get_mut(id) {
                device.anomaly(at, format!("{} names an unknown rollout {}", report.word(), attempt.rollout));
            }
            return;
        };
        if rollout.phases.is_empty() || rollout.rc != attempt.rc {
            device.anomaly(at, format!("{} names release {} of {}", report.word(), attempt.rc, attempt.rollout));
            return;
        }
        let model = device.registry.model.clone();
        let shuffles = &mut self.shuffles;
        let mut first_phase = || {
            let position = shuffles.of(&rollout.id, rollout.salt).position(id);
            let included = |phase: &super::super::rollout::record::PhaseRecord| {
                phase.cuts.get(&model).is_some_and(|cut| cut.includes(position))
            };
            rollout.phases.iter().position(included).unwrap_or(rollout.phases.len() - 1)
        };
        let fresh = |phase| AttemptRecord {
            attempt: attempt.attempt,
            phase,
            started_at: None,
            rank: 0,
            state: StateName::Idle,
            outcome: None,
            reason: None,
            halted_at: None,
            halted_in: None,
            changed_at: at,
        };
        if !device.attempts.contains_key(&attempt.rollout) {
            device.attempts.insert(attempt.rollout.clone(), fresh(first_phase()));
        }
        let mut anomalies = Vec::new();
        let Some(record) = device.attempts.get_mut(&attempt.rollout) else { return };
        if attempt.attempt > record.attempt {
            // Another try of a device that was counted already: it keeps its phase and its first verdict.
            record.attempt = attempt.attempt;
            record.state = StateName::Idle;
        }
        record.changed_at = at;
        match report {
            ReportKind::Started { .. } => {
                if record.started_at.is_none() && record.outcome.is_none() {
                    record.started_at = Some(at);
                    record.rank = rollout.count_start(&model, record.phase);
                }
            }
            ReportKind::Transition { from, to, .. } => {
                if record.state != *from {
                    anomalies.push(format!("went from {from} to {to}, was last seen in {}", record.state));
                }
                record.state = *to;
                // What runs on trial has started, whatever became of the report that says so.
                if *to == StateName::VerifyPost && record.started_at.is_none() && record.outcome.is_none() {
                    record.started_at = Some(at);
                    record.rank = rollout.count_start(&model, record.phase);
                }
            }
            ReportKind::Outcome { outcome, reason, .. } => {
                if record.outcome.is_some() {
                    anomalies.push(format!("a second outcome, {outcome}; the first stands"));
                } else {
                    let started = record.started_at.is_some();
                    if started {
                        rollout.count_outcome(&model, record.phase, record.rank, *outcome);
                    }
                    record.reason.clone_from(reason);
                    if *outcome == Outcome::Deferred {
                        // The start is taken back; the device will start again.
                        record.started_at = None;
                    } else {
                        record.outcome = Some(*outcome);
                    }
                    if *outcome == Outcome::Success {
                        device.running = attempt.rc;
                    }
                }
            }
            ReportKind::Halted { state, .. } => {
                record.halted_at.get_or_insert(at);
                record.halted_in.get_or_insert(*state);
            }
            ReportKind::Hello(_) | ReportKind::Ask { .. } | ReportKind::ControlStart { .. } | ReportKind::Health { .. } => {}
        }
        for what in anomalies {
            device.anomaly(at, what);
        }
    }
}
