//! What one report changes: the device's machine as the cloud sees it, and the counters.

use tern_protocol::id::{DeviceId, ModelId};
use tern_protocol::limits::OUTBOX_MAX;
use tern_protocol::message::{Attempt, ReportKind};
use tern_protocol::state::{Outcome, StateName};

use super::Fleet;
use super::common::Common;
use super::device::{AttemptRecord, Standing};
use super::tale;
use crate::core::fact::Millis;
use crate::core::rollout::record::{Rollout, Status};
use crate::core::rollout::silence::{Beside, Deadline, Watch};

/// Trials that a device is excused for; an agent makes three of an attempt.
const EXCUSED_MAX: usize = 8;

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
        // Numbers that nobody recorded (asks) lie in between, so only what still waits in the outbox is looked for.
        let whole = n - low.min(n) <= OUTBOX_MAX as u64 && (low..n).all(|m| device.received.contains(m));
        device.received.insert(n, low);
        device.epoch = device.epoch.max(e);
        // Whoever speaks from a later boot has come up again, whatever it says.
        for (rollout, mut attempt) in device.attempts.iter_mut() {
            // Looked at first: what is touched is packed again.
            let news = |watch: &Watch| e > watch.epoch && !watch.heard;
            if attempt.watch.as_ref().is_some_and(news)
                && let Some(watch) = &mut attempt.watch
            {
                watch.heard = true;
            }
            // Of the control every word after its beginning says that it is there.
            if attempt.beside.is_some_and(|beside| n > beside.n)
                && let Some(beside) = &mut attempt.beside
                && let Some(rollout) = self.rollouts.get(rollout)
            {
                beside.hear((self.reception.observed(at), self.reception.gaps()), &rollout.plan.policy);
            }
        }
        device.seen_at = Some(at);
        self.reports += 1;
        if let ReportKind::Hello(hello) = report {
            device.running = hello.running;
            device.floor = hello.floor;
            device.versions = hello.versions;
            device.agent.clone_from(&hello.agent);
            device.components = self.inventory.share(&hello.components);
            self.heard(id, hello);
        }
        // Only a whole window's figures tell of boots; others say that the device is there, or that files are over.
        if let ReportKind::Health { metrics, .. } = report
            && metrics.contains_key("boots")
        {
            self.fared(at, id, metrics);
        }
        if let Some(attempt) = report.attempt() {
            self.attempted(at, id, attempt, (e, n, whole, report));
        }
    }

    /// `whole`: nothing that the device said before is still on its way.
    fn attempted(
        &mut self,
        at: Millis,
        id: &DeviceId,
        attempt: &Attempt,
        (e, n, whole, report): (u64, u64, bool, &ReportKind),
    ) {
        let (Some(device), Some(rollout)) =
            (self.devices.get_mut(id), self.rollouts.get_mut(&attempt.rollout))
        else {
            if let Some(device) = self.devices.get_mut(id) {
                device.anomaly(at, format!("{} names an unknown rollout {}", report.word(), attempt.rollout));
            }
            return;
        };
        if rollout.phases.is_empty() || rollout.rc != attempt.rc {
            device.anomaly(
                at,
                format!("{} names release {} of {}", report.word(), attempt.rc, attempt.rollout),
            );
            return;
        }
        if matches!(report, ReportKind::ControlStart { .. }) {
            return self.control_began(at, id, attempt, n);
        }
        let quarantined = device.standing == Standing::Quarantined;
        let mut first = false;
        if quarantined && !device.attempts.contains_key(&attempt.rollout) {
            let what = format!("{} about {} in quarantine; not counted", report.word(), attempt.rollout);
            return device.anomaly(at, what);
        }
        let known = device.attempts.get(&attempt.rollout);
        if known.is_none_or(|record| record.beside.is_some()) {
            // A vote belongs to who was offered the release: nobody else may stop it, or speak for it.
            let position = self.shuffles.of(&rollout.id, rollout.salt).position(id);
            let Some(phase) = rollout.phase_of(id, &device.registry, position) else {
                let what = format!("{} about {}, which never included it", report.word(), attempt.rollout);
                return device.anomaly(at, what);
            };
            let fresh = AttemptRecord::fresh(attempt.attempt, phase, at);
            let common = Common::at(rollout, (attempt.attempt, phase), at, &self.reception);
            // It may have been held back, and is offered the release like all others now.
            if device.attempts.insert(self.commons.share(common), fresh).is_some() {
                rollout.leave_control(&device.registry.model);
            }
            first = true;
        }
        let model = &device.registry.model;
        let mut anomalies = Vec::new();
        let Some(mut record) = device.attempts.get_mut(&attempt.rollout) else { return };
        if attempt.attempt > record.attempt {
            // Another try of a device that was counted already: it keeps its phase and its first verdict.
            record.attempt = attempt.attempt;
            record.state = StateName::Idle;
            first = true;
            if record.started_at.is_none() {
                // It never started, so nothing of it was counted yet.
                record.outcome = None;
            }
        }
        record.changed_at = at;
        // What is waited for if it starts now; what a deadline has found stands.
        let found = |deadline| record.watch.and_then(|watch| watch.found(deadline));
        let watch = Watch {
            since: self.reception.observed(at),
            gaps: self.reception.gaps(),
            missed: self.reception.missed(),
            epoch: e,
            heard: device.epoch > e,
            early: found(Deadline::Early),
            last: found(Deadline::Last),
        };
        if std::mem::take(&mut record.lost) && !quarantined && std::mem::take(&mut record.withdrawn) {
            // It was not over after all: its start counts again, and so will its end.
            count_start(rollout, model, &mut record);
            record.watch = Some(watch);
        }
        let mut event = None;
        match report {
            ReportKind::Started { .. } => event = Some(tale::Event::Begun),
            ReportKind::Transition { from, to, .. } => {
                // One that was overtaken by a later one is history.
                if n > record.state_n {
                    // A device that gave up on something older begins from there.
                    let begins = first && (*from, *to) == (StateName::Failed, StateName::Checking);
                    if whole && record.state != *from && !begins {
                        anomalies
                            .push(format!("went from {from} to {to}, was last seen in {}", record.state));
                    }
                    (record.state, record.state_n) = (*to, n);
                }
                // What runs on trial has started, whatever became of the report that says so.
                if *to == StateName::VerifyPost {
                    event = Some(tale::Event::Begun);
                }
            }
            ReportKind::Outcome { outcome, reason, .. } => {
                // While we received nothing nobody could be reached: that speaks neither for nor against the release. The
                // clock is kept while a rollout is under way.
                let passed = at.saturating_sub(record.started_at.unwrap_or(at));
                // A device that could not say so for long is not less excused for that.
                let trial =
                    u64::try_from(rollout.plan.policy.silence_early.after.as_millis()).unwrap_or(u64::MAX);
                let ours = *outcome == Outcome::Unreachable
                    && matches!(rollout.status, Status::Running | Status::Paused)
                    && record
                        .watch
                        .is_some_and(|watch| watch.excuses(self.reception.missed(), passed.min(trial)));
                if ours && record.excused.len() < EXCUSED_MAX {
                    record.excused.push(n);
                }
                let counted = if ours { Outcome::Deferred } else { *outcome };
                // Whoever reached nobody tries again, and may say how that ended before it is heard that it began.
                if record.outcome.is_some_and(|first| first != Outcome::Unreachable) {
                    anomalies.push(format!("a second outcome, {outcome}; the first stands"));
                } else if record.outcome.is_none() {
                    record.reason.clone_from(reason);
                    if *outcome != Outcome::Deferred {
                        record.outcome = Some(*outcome);
                    }
                }
                if *outcome == Outcome::Success {
                    device.running = attempt.rc;
                }
                event = Some(tale::Event::Ended(counted));
            }
            ReportKind::Halted { state, .. } => {
                record.halted_at.get_or_insert(at);
                record.halted_in.get_or_insert(*state);
            }
            ReportKind::Hello(_)
            | ReportKind::Ask { .. }
            | ReportKind::ControlStart { .. }
            | ReportKind::Health { .. } => {}
        }
        // A vote from quarantine is shown and not counted; nor is the end of a start that was taken out.
        if let Some(event) = event.filter(|_| !quarantined && !record.withdrawn) {
            let (before, after) = record.tale.tell(n, event);
            let counts = !record.is_silent();
            // A deferral that was overtaken: the end that was counted belongs to another start, or to none.
            if let Some(outcome) = before.outcome.filter(|_| counts && after.outcome != before.outcome) {
                rollout.uncount_outcome(model, record.phase, (record.series, record.rank), outcome);
            }
            for _ in before.started..after.started {
                if counts {
                    count_start(rollout, model, &mut record);
                }
                // What runs on trial has come up.
                let heard = watch.heard || matches!(report, ReportKind::Transition { .. });
                record.watch = Some(Watch { heard, ..watch });
            }
            for _ in (before.deferred..after.deferred).filter(|_| counts) {
                let place = (record.series, record.rank);
                rollout.count_outcome(model, record.phase, place, Outcome::Deferred);
            }
            if let Some(outcome) = after.outcome.filter(|_| counts && after.outcome != before.outcome) {
                let place = (record.series, record.rank);
                rollout.count_outcome(model, record.phase, place, outcome);
            }
            // The tale knows which end belongs to which start.
            let retold = match after.outcome {
                Some(outcome) => record.outcome != Some(outcome),
                None => after.begun && record.outcome == Some(Outcome::Unreachable),
            };
            if retold {
                record.outcome = after.outcome;
                record.reason = match report {
                    ReportKind::Outcome { outcome, reason, .. } if after.outcome == Some(*outcome) => {
                        reason.clone()
                    }
                    _ => None,
                };
            }
            record.started_at = after.begun.then(|| record.started_at.unwrap_or(at));
        }
        drop(record);
        for what in anomalies {
            device.anomaly(at, what);
        }
    }

    /// A held-back device has passed the check that the others pass before they download: from here on it is exposed
    /// beside them.
    fn control_began(&mut self, at: Millis, id: &DeviceId, attempt: &Attempt, n: u64) {
        let (Some(device), Some(rollout)) =
            (self.devices.get_mut(id), self.rollouts.get_mut(&attempt.rollout))
        else {
            return;
        };
        if device.standing != Standing::Active || device.attempts.contains_key(&attempt.rollout) {
            return;
        }
        let position = self.shuffles.of(&rollout.id, rollout.salt).position(id);
        if !rollout.is_control(&device.registry, position) {
            let what = format!("control-start about {}, which does not hold it back", attempt.rollout);
            return device.anomaly(at, what);
        }
        let beside = Beside::new(n, self.reception.observed(at), self.reception.gaps());
        let record = AttemptRecord {
            beside: Some(beside),
            ..AttemptRecord::fresh(attempt.attempt, rollout.phase(), at)
        };
        let common = Common::at(rollout, (record.attempt, record.phase), at, &self.reception);
        device.attempts.insert(self.commons.share(common), record);
        rollout.control.entry(device.registry.model.clone()).or_default().held += 1;
    }
}

/// Counts a start of a device. Whoever has started before is watched since then, whatever became of that start: in the
/// same series it keeps the place that it had.
fn count_start(rollout: &mut Rollout, model: &ModelId, record: &mut AttemptRecord) {
    if record.watch.is_some() && record.series == rollout.series {
        return rollout.count_start_again(model, record.phase);
    }
    record.rank = rollout.count_start(model, record.phase);
    record.series = rollout.series;
}
