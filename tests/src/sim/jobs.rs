//! What a device does for its agent: saves, publishes, writes, and the jobs that take their time.

use std::collections::{BTreeMap, BTreeSet};

use tern_agent::core::SlotName;
use tern_agent::core::agent::{Done, Input, Job, Output, Target};
use tern_agent::core::conditions::{Consent, Surroundings};

use super::clock::SECOND;
use super::disk::{Label, Slot};
use super::{Broken, Event, Sim, Trial};

impl Sim {
    /// Carries outputs out in order; false when the power was cut in between.
    pub(super) fn carry_out(&mut self, d: usize, outputs: Vec<Output>) -> bool {
        let process = self.devices[d].process;
        for output in outputs {
            if self.cut_here(d) {
                return false;
            }
            self.carry_out_one(d, output);
            if self.devices[d].process != process {
                return false;
            }
        }
        true
    }

    fn carry_out_one(&mut self, d: usize, output: Output) {
        match output {
            Output::SaveTrust(files) => {
                self.watch_trust(d, &files);
                self.devices[d].disk.trust = files;
            }
            // Only for a person who reads the log.
            Output::Refused { .. } | Output::Failing { .. } | Output::Fetched { .. } => {}
            // No simulated device names a web server.
            Output::Web { .. } | Output::StopWeb(_) | Output::WebFailed { .. } => {}
            // Simulated devices keep their keys.
            Output::SettleKeys => {}
            Output::SaveJournal => self.save_journal(d),
            Output::Listen(topics) => {
                let keys: BTreeSet<String> = topics.iter().map(|t| t.render(&self.fleet)).collect();
                let device = &mut self.devices[d];
                let new: Vec<String> = keys.difference(&device.subscriptions).cloned().collect();
                device.subscriptions = keys;
                if self.devices[d].link {
                    self.send_retained(d, &new);
                }
            }
            Output::ListenAgain => {
                if self.devices[d].link {
                    let topics: Vec<String> = self.devices[d].subscriptions.iter().cloned().collect();
                    self.send_retained(d, &topics);
                }
            }
            Output::Collect => {
                let figures = self.figures_of(d);
                let process = self.devices[d].process;
                self.queue.plan(self.queue.now() + SECOND, Event::Collected { d, process, figures });
            }
            Output::Publish { topic, payload } => self.send_up(d, topic, payload),
            Output::Write { target, offset, bytes } => {
                let slot = slot_of(&target);
                let offset = usize::try_from(offset).expect("a slot fits into memory");
                self.check_write(d, slot);
                self.devices[d].disk.slot_mut(slot).write(offset, bytes);
            }
            Output::Start { job, work } => self.start_job(d, job, work),
        }
    }

    /// What a device counted since it was asked last: everybody crashes now and then.
    fn figures_of(&mut self, d: usize) -> BTreeMap<String, u64> {
        let runs_it = self.devices[d].running_rc() > 0;
        let trial = if runs_it { self.trial_of(d) } else { Trial::Healthy };
        // Some crash on most days and some drain much on every day, whatever they run: chance has put them into an arm.
        let chronic = d % 29 == 7;
        let crashes = self.rng.chance(match trial {
            Trial::Crashing => 0.4,
            _ if chronic => 0.7,
            _ => 0.01,
        });
        let usual = 80 + self.rng.below(20) + if d % 9 == 4 { 60 } else { 0 };
        let drain = if trial == Trial::Thirsty { usual * 2 } else { usual };
        let crashes = u64::from(crashes) + std::mem::take(&mut self.devices[d].older_crashes);
        BTreeMap::from([("crashes".to_owned(), crashes), ("drain".to_owned(), drain)])
    }

    fn save_journal(&mut self, d: usize) {
        let device = &mut self.devices[d];
        let Some(agent) = &device.agent else { return };
        let durable = agent.durable().clone();
        if self.config.broken != Some(Broken::JournalNeverSaved) {
            device.disk.journal = Some(serde_json::to_vec(&durable).expect("a journal serialises"));
        }
        self.watch_saved(d, &durable);
    }

    fn start_job(&mut self, d: usize, number: u64, work: Job) {
        if let Job::Arm { rc, .. } = &work {
            self.check_not_halted(d, *rc, "is about to arm");
        }
        // The job before it is over when the new one begins: it came to its end unheard, or never began.
        if let Some((_, old)) = self.devices[d].job.take()
            && old != Job::Reboot
            && self.rng.chance(0.5)
        {
            self.perform(d, &old);
        }
        let time = match work {
            Job::MarkBad(_) | Job::Arm { .. } | Job::Disarm | Job::Confirm(_) => 10,
            Job::Sync(..) | Job::Decode(_) | Job::Compare { .. } => 20,
            Job::Hash { .. } => 50,
            Job::RunHooks(_) | Job::UndoHooks => 500,
            Job::Install { .. } | Job::Revert(_) | Job::Keep(_) => 500,
            Job::Look(_) => 100,
            Job::Probe => 2 * SECOND,
            Job::Reboot => SECOND,
        };
        let wait = time + self.rng.below(time);
        let device = &mut self.devices[d];
        device.job = Some((number, work));
        let process = device.process;
        self.queue.plan(self.queue.now() + wait, Event::JobEnds { d, process, number });
    }

    pub(super) fn job_ends(&mut self, d: usize, number: u64) {
        let device = &mut self.devices[d];
        let Some((_, work)) = device.job.take_if(|(job, _)| *job == number) else { return };
        if self.cut_here(d) {
            return;
        }
        let result = self.perform(d, &work);
        let Some(result) = result else { return };
        if !self.cut_here(d) {
            self.hand_in(d, Input::Done { job: number, result });
        }
    }

    /// Does the work; `None` when the device went down with it.
    fn perform(&mut self, d: usize, work: &Job) -> Option<Done> {
        let sick = self.trial_of(d) == Trial::Sick && self.devices[d].running_rc() > 0;
        match work {
            Job::MarkBad(target) => {
                self.check_write(d, slot_of(target));
                let slot = self.devices[d].disk.slot_mut(slot_of(target));
                slot.bad = true;
                slot.label = None;
            }
            Job::Sync(target, _) => self.devices[d].disk.slot_mut(slot_of(target)).sync(),
            Job::Decode(_) => unreachable!("these devices take images as they are"),
            Job::Compare { target, first, leaves, .. } => {
                let slot = self.devices[d].disk.slot_mut(slot_of(target));
                slot.sync();
                return Some(Done::Compared(slot.right(*first, leaves)));
            }
            Job::Hash { target, artifact, rc, version } => {
                let skipped = self.config.broken == Some(Broken::SlotNeverReadBack);
                let files = self.devices[d].agent.as_ref().map(|agent| agent.trust().files());
                let image = tern_agent::slot::Image {
                    rc: *rc,
                    version: version.clone(),
                    length: artifact.length,
                    sha256: artifact.sha256,
                    root: artifact.root,
                };
                let floor = tern_agent::slot::signed::floor_in(&files.unwrap_or_default(), &image);
                let slot = self.devices[d].disk.slot_mut(slot_of(target));
                slot.sync();
                if !skipped && !slot.matches(artifact) {
                    return Some(Done::Mismatch);
                }
                let artifact = Some(artifact.clone());
                slot.label = Some(Label { rc: *rc, version: version.clone(), floor, artifact });
                slot.bad = false;
            }
            Job::RunHooks(_) if self.hook_refusals > 0 => {
                self.hook_refusals -= 1;
                return Some(Done::NotNow("the operator of the site said not now".to_owned()));
            }
            Job::RunHooks(_) | Job::UndoHooks => {}
            Job::Install { .. } | Job::Revert(_) | Job::Keep(_) => {
                unreachable!("these devices have slots, and nothing beside them")
            }
            Job::Look(_) => {
                let asked = self.queue.now() < self.no_consent_until;
                let consent = if asked { Consent::NotYet } else { Consent::Given };
                return Some(Done::Looked(Surroundings { consent, ..Surroundings::default() }));
            }
            Job::Arm { slot, rc } => {
                self.check_arm(d, *rc);
                let disk = &mut self.devices[d].disk;
                if self.config.broken == Some(Broken::NoTrial) {
                    disk.record.active = *slot;
                } else {
                    disk.arm(*slot);
                }
            }
            Job::Disarm => self.devices[d].disk.record.trial = None,
            Job::Reboot if self.hold_reboots => {
                return Some(Done::Failed("somebody holds the system up".to_owned()));
            }
            Job::Reboot => {
                self.note(|sim| format!("{} reboots", sim.devices[d].id));
                self.power_off(d);
                self.devices[d].disk.slots.iter_mut().for_each(Slot::sync);
                self.plan_power_on(d, self.queue.now() + 5 * SECOND);
                return None;
            }
            Job::Probe if sick => return Some(Done::Failed("the modem does not register".to_owned())),
            Job::Probe => {}
            Job::Confirm(slot) => {
                let disk = &mut self.devices[d].disk;
                disk.record.active = *slot;
                disk.record.trial = None;
                self.watch_confirmed(d, *slot);
            }
        }
        self.check_device(d);
        Some(Done::Ok)
    }
}

/// These devices have slots, and nothing beside them.
fn slot_of(target: &Target) -> SlotName {
    match target {
        Target::Slot(slot) => *slot,
        Target::Component(name) => unreachable!("no device has a component {name}"),
    }
}
